from __future__ import annotations

import numpy as np
import pytest

from msat_core import Zoo, pretrained
from msat_core.errors import ZooError
from msat_core.score_scale import ScoreScale, area_of
from msat_core.training.score_scale.fit import Cell, fit_scale
from msat_core.training.score_scale.table import candidate_of


def world(n_candidates: int = 40, seed: int = 0) -> tuple[list[Cell], np.ndarray]:
    """Two boards of different difficulty, each seen by a half, and an exam that every fourth candidate sat."""
    rng = np.random.default_rng(seed)
    level = rng.normal(size=n_candidates)
    cells = []
    for m in range(n_candidates):
        board, hard = ("easy", -1.5) if m % 2 else ("hard", 1.0)
        tasks = [(board, f"t{t}", hard + 0.2 * t) for t in range(8)]
        tasks += [("exam", "area", 0.3)] if m % 4 < 2 else []
        for source, task, difficulty in tasks:
            right = rng.binomial(200, 1 / (1 + np.exp(difficulty - level[m])))
            cells.append(Cell(f"c{m}", source, task, "code", right / 200, 200))
    return cells, level


def test_levels_of_different_boards_come_on_one_scale() -> None:
    cells, level = world()
    fitted = fit_scale(cells, [("exam", "area")])
    found = np.array([fitted.means[fitted.row(f"c{m}"), 0] for m in range(len(level))])
    assert np.corrcoef(found, level)[0, 1] > 0.95
    raw = [np.mean([s.accuracy for s in cells if s.candidate == f"c{m}" and s.source != "exam"]) for m in range(40)]
    assert np.corrcoef(found, level)[0, 1] > np.corrcoef(raw, level)[0, 1] + 0.1


def test_fewer_scores_are_less_sure() -> None:
    scale = ScoreScale.load(pretrained.SCALE)
    some = [(task, 0.6, 100) for task in scale.tasks[:20]]
    wide = scale.expectation(*scale.posterior(some[:2]))
    sure = scale.expectation(*scale.posterior(some))
    assert wide.level_sd > sure.level_sd


def test_effort_is_part_of_a_name_and_calling_mode_is_not() -> None:
    assert candidate_of("gpt-5.2", "high")[0] == "gpt-5.2:high"
    assert candidate_of("gpt-5.2", "fc")[0] == candidate_of("gpt-5.2", "nothink")[0] == "gpt-5.2"
    assert candidate_of("claude-sonnet-4.5", "think16k")[0] == candidate_of("claude-sonnet-4.5", "think64k")[0]
    assert area_of(["graduate science", "reasoning"]) == "academic"


@pytest.fixture(scope="module")
def zoo() -> Zoo:
    return Zoo.load(pretrained.ZOO)


def test_the_shipped_zoo_is_of_this_year(zoo: Zoo) -> None:
    assert len(zoo) >= 120
    assert sum(c.released is not None and c.released.year >= 2025 for c in zoo) >= 80


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("openai/gpt-5-mini", "gpt-5-mini"),
        ("openai:gpt-5-mini", "gpt-5-mini"),
        ("gpt-5-2025-08-07", "gpt-5"),
        ("anthropic/claude-sonnet-4-5", "claude-sonnet-4.5"),
        ("qwen3:30b-a3b", "qwen3-30b-a3b"),
        ("openrouter/qwen/qwen3-30b-a3b", "qwen3-30b-a3b"),
        ("gpt-5.1:nothink", "gpt-5.1"),
    ],
)
def test_names_that_people_type(zoo: Zoo, typed: str, name: str) -> None:
    assert zoo[typed].name == name


def test_an_unknown_name_is_met_with_near_ones_and_two_ways(zoo: Zoo) -> None:
    with pytest.raises(ZooError, match=r"did you mean gpt-5-mini.*profile run.*profile from-scores"):
        zoo["gpt-5-minii"]


def test_no_results_yet_is_said(zoo: Zoo) -> None:
    candidate = zoo["gpt-6-sol"]
    assert not candidate.has_results
    assert candidate.is_priced
    assert candidate.profile.provenance.source == "no results yet: level of gpt-5.5"
