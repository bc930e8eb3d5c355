"""The adaptive exam: what it asks next, when it stops, and that it resumes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from msat_core import AptitudeTest, CompactScorer, Records
from msat_core.aptitude.adaptive import MIN_QUESTIONS, AdaptiveOrder, LogitPosterior
from msat_core.aptitude.clients import FunctionClient
from msat_core.aptitude.exam_selection import select_exam
from msat_core.aptitude.paper import ExamPaper
from msat_core.aptitude.protocols import ZERO_SHOT
from msat_core.aptitude.questions import QuestionSet, question_of
from msat_core.encoders.hashed import HashEncoder
from msat_core.errors import ArtefactError, ConfigurationError
from msat_core.training.compact.kernel import TrainableKernel
from msat_core.training.compact.train import uncalibrated_scorer

World = tuple[AptitudeTest, CompactScorer]


@pytest.fixture(scope="module")
def world(records: Records) -> World:
    """An exam of 150 shots, and a scorer that was never trained."""
    vectors = HashEncoder().encode(records.instructions).vectors
    exam = select_exam(
        records, n_tasks=3, n_shots=50, vectors=vectors, encoder_digest=HashEncoder().digest, rule="broad"
    )
    torch.manual_seed(0)
    kernel = TrainableKernel(32, hidden=8, n_skills=2)
    untrained = uncalibrated_scorer(kernel, HashEncoder().digest)
    return AptitudeTest(exam), CompactScorer(untrained.config, untrained.kernel, encoder=HashEncoder)


def order_of(world: World, records: Records, **settings: float) -> AdaptiveOrder:
    test, scorer = world
    zoo = [test.profile_from_records(records, name) for name in records.candidates[:3]]
    ids = [shot.item_id for shot in test.exam.sheet.shots]
    return AdaptiveOrder(test, ids, records.candidates[-1], scorer, zoo, **settings)  # type: ignore[arg-type]


def sitting(order: AdaptiveOrder, truth: dict[str, float]) -> list[str]:
    scores: dict[str, float] = {}
    while chosen := order.next_round(scores):
        scores.update({item_id: truth[item_id] for item_id in chosen})
    return list(scores)


def test_rounds_ask_everything_once_if_nothing_settles(world: World, records: Records) -> None:
    truth = world[0].profile_from_records(records, records.candidates[-1]).shots
    asked = sitting(order_of(world, records, tolerance=0.0), truth)
    assert sorted(asked) == sorted(truth)
    assert asked == sitting(order_of(world, records, tolerance=0.0), truth)


def test_it_stops_once_the_scores_have_settled(world: World, records: Records) -> None:
    truth = world[0].profile_from_records(records, records.candidates[-1]).shots
    asked = sitting(order_of(world, records, tolerance=1.0, choice_tolerance=1.1), truth)
    assert len(asked) == MIN_QUESTIONS


def test_what_comes_next_depends_on_the_answers(world: World, records: Records) -> None:
    orders = [order_of(world, records, tolerance=0.0) for _ in range(2)]
    first = [order.next_round({}) for order in orders]
    assert first[0] == first[1]
    right, wrong = (
        [order.next_round(dict.fromkeys(ids, y))] for order, ids, y in zip(orders, first, (1, 0), strict=True)
    )
    assert right != wrong


async def test_an_adaptive_sitting_resumes_to_the_same_profile(world: World, records: Records, tmp_path: Path) -> None:
    test, _ = world
    truth = test.profile_from_records(records, records.candidates[-1]).shots
    by_text = dict(zip(records.instructions, records.item_ids, strict=True))
    found = QuestionSet.of("toy", [question_of(i, text, "yes") for text, i in by_text.items()])
    paper = ExamPaper.of(test.exam, found, ZERO_SHOT)
    asked: list[str] = []

    async def say(prompt: str) -> str:
        item_id = next(i for text, i in by_text.items() if f"Question: {text}\n" in prompt)
        asked.append(item_id)
        return "The answer is yes." if truth[item_id] else "The answer is no."

    client = FunctionClient(records.candidates[-1], say)
    loose = {"tolerance": 0.05, "choice_tolerance": 1.1}  # stops before everything is asked
    whole = await test.sit(paper, client, tmp_path / "j", order=order_of(world, records, **loose))
    assert whole.profile.provenance.sitting is not None
    assert whole.profile.provenance.sitting.order == "adaptive"
    assert whole.profile.n_shots == len(asked) < 150
    journal = (tmp_path / "j").read_bytes()
    (tmp_path / "cut").write_bytes(journal[: len(journal) // 2])
    asked.clear()
    again = await test.sit(paper, client, tmp_path / "cut", order=order_of(world, records, **loose))
    assert again.profile.to_json() == whole.profile.to_json()
    assert 0 < len(asked) < whole.profile.n_shots


def test_a_posterior_in_closed_form() -> None:
    """One shot with variance 1 and mean 0: slope ¼, so an answer adds precision ¼ and moves the mean by ±0.4."""
    posterior = LogitPosterior(np.zeros(2), np.array([[1.0, 0.5], [0.5, 1.0]]))
    posterior.observe(0, 1.0)
    assert posterior.mean == pytest.approx([0.4, 0.2])
    assert posterior.covariance == pytest.approx(np.array([[0.8, 0.4], [0.4, 0.95]]))
    central = LogitPosterior(np.zeros(3), np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.9], [0.0, 0.9, 1.0]]))
    assert central.most_informative(np.array([True, True, False])) == 1
    assert central.most_informative(np.array([True, False, False])) == 0


def test_what_cannot_be_adaptive_is_refused(world: World, records: Records) -> None:
    test, scorer = world
    bare = AptitudeTest(select_exam(records, n_tasks=2, n_shots=5, rule="broad"))
    with pytest.raises(ArtefactError, match="no shot embeddings"):
        AdaptiveOrder(bare, [], "x", scorer, [])
    with pytest.raises(ConfigurationError, match="round_size must be a whole number"):
        AdaptiveOrder(test, [], "x", scorer, [], round_size=0)
