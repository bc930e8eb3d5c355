"""What a log of decisions amounts to: estimators by simulation with a known truth, and the report of a log."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import msat
from support import profile

from msat_core import Candidate, Router, RoutingPolicy, TableScorer, Zoo, trial_from_log, write_shadow
from msat_core.errors import RecordsError
from msat_core.evaluation.off_policy import LoggedRoutes, off_policy, off_policy_gain
from msat_core.trial.shadow_report import shadow_summary
from msat_core.trial.shadow_wording import advice_text

N_WORLDS = 200


class World:
    """N routes served by an incumbent but for chance; who would be right with which probability is known.

    Scores know the truth but for a bias and noise.
    """

    def __init__(self, seed: int, n: int = 2000, explore: float = 0.1, bias: float = 0.0) -> None:
        rng = np.random.default_rng(seed)
        m, at = 4, np.arange(n)
        self.right = 1 / (1 + np.exp(-(np.linspace(-0.5, 1.0, m) + rng.normal(0, 1, (n, m)))))
        scores = np.clip(self.right + bias + rng.normal(0, 0.1, (n, m)), 0.01, 0.99)
        self.incumbent = np.full(n, 2, dtype=np.intp)
        self.choice = scores.argmax(axis=1)
        chances = np.full((n, m), explore / (m - 1))
        chances[at, self.incumbent] = 1 - explore
        served = (chances.cumsum(axis=1) > rng.random(n)[:, None]).argmax(axis=1)
        outcomes = (rng.random(n) < self.right[at, served]).astype(float)
        self.routes = LoggedRoutes(served, outcomes, chances, scores, at)

    def truth(self, chosen: Any) -> float:
        return float(self.right[np.arange(len(chosen)), chosen].mean())


# --- estimators ---


def test_in_closed_form() -> None:
    """Four routes: two by each candidate, served with 0.8 and 0.2; the other policy takes candidate 1 throughout."""
    served = np.array([0, 0, 1, 1, 1, 1, 1])
    outcomes = np.array([1.0, 0.0, 1.0, 0.0, 1.0, 1.0, 0.0])
    chances = np.tile([0.8, 0.2], (7, 1))
    scores = np.tile([0.5, 0.4], (7, 1))
    found = off_policy(LoggedRoutes(served, outcomes, chances, scores, np.arange(7)), np.ones(7, dtype=np.intp))
    assert found is not None
    assert found.ips.value == pytest.approx(3 / 0.2 / 7)
    assert found.snips.value == pytest.approx(3 / 5)
    assert found.dr.value == pytest.approx(0.4 + (3 * 0.6 - 2 * 0.4) / 0.2 / 7)
    assert found.direct == pytest.approx(0.4)
    assert found.effective_sample_size == pytest.approx(5) and (found.n, found.n_matching) == (7, 5)


def test_of_what_was_always_served_the_estimates_are_the_mean() -> None:
    outcomes = np.array([1.0, 0.0, 1.0, 1.0, 0.0, 0.5])
    sure = np.tile([1.0, 0.0], (6, 1))
    served = np.zeros(6, dtype=np.intp)
    found = off_policy(LoggedRoutes(served, outcomes, sure, np.full((6, 2), 0.3), np.arange(6)), served)
    assert found is not None and found.effective_sample_size == 6
    assert found.ips.value == found.snips.value == pytest.approx(found.dr.value) == pytest.approx(outcomes.mean())


def test_of_what_had_no_chance_nothing_is_said() -> None:
    world = World(0, explore=0.0)
    assert off_policy(world.routes, np.zeros(2000, dtype=np.intp)) is None
    assert off_policy_gain(world.routes, np.zeros(2000, dtype=np.intp), world.incumbent) is None


@pytest.mark.parametrize("bias", [0.0, -0.3])
def test_the_truth_is_met_and_the_intervals_hold(bias: float) -> None:
    """However wrong the scores are: IPS and DR have no bias, and 95% intervals hold in about 95% of worlds."""
    errors: dict[str, list[float]] = {}
    held: dict[str, list[bool]] = {}
    for seed in range(N_WORLDS):
        world = World(seed, bias=bias)
        found = off_policy(world.routes, world.choice)
        gain = off_policy_gain(world.routes, world.choice, world.incumbent)
        assert found is not None and gain is not None
        value, least = world.truth(world.choice), world.truth(world.incumbent)
        for name, figure, truth in (
            ("ips", found.ips, value),
            ("snips", found.snips, value),
            ("dr", found.dr, value),
            ("gain", gain, value - least),
        ):
            errors.setdefault(name, []).append(figure.value - truth)
            held.setdefault(name, []).append(figure.low <= truth <= figure.high)
    for name, found_errors in errors.items():
        spread = np.std(found_errors) / N_WORLDS**0.5
        assert abs(np.mean(found_errors)) < 4 * spread + (0.005 if name == "snips" else 0), (
            name
        )  # SNIPS has a small bias
        assert np.mean(held[name]) > 0.9, name  # 0.95 less three standard errors of 200 draws
    assert np.std(errors["dr"]) < np.std(errors["ips"])


def test_the_direct_method_believes_wrong_scores_and_the_doubly_robust_one_does_not() -> None:
    world = World(1, n=20_000, bias=-0.3)
    found, truth = off_policy(world.routes, world.choice), world.truth(world.choice)
    assert found is not None
    assert abs(found.direct - truth) > 0.1 > 3 * abs(found.dr.value - truth)


def test_routes_of_one_instruction_are_one_experience() -> None:
    world = World(2)
    routes = world.routes
    alone = off_policy_gain(routes, world.choice, world.incumbent)
    twice = [np.concatenate([part, part]) for part in vars(routes).values()]
    doubled = off_policy_gain(LoggedRoutes(*twice), np.tile(world.choice, 2), np.tile(world.incumbent, 2))
    assert alone is not None and doubled is not None
    assert doubled.value == pytest.approx(alone.value)
    assert doubled.high - doubled.low == pytest.approx(alone.high - alone.low, rel=0.1)


def test_a_row_of_right_answers_is_no_certainty() -> None:
    n = 200
    served = np.array([1] * 20 + [0] * 180)
    routes = LoggedRoutes(served, np.ones(n), np.tile([0.9, 0.1], (n, 1)), np.ones((n, 2)), np.arange(n))
    found = off_policy(routes, np.ones(n, dtype=np.intp))
    assert found is not None and found.dr.high - found.dr.low > 0.1


# --- a log ---

KINDS = {"code": {"big": 0.7, "coder": 0.9, "poet": 0.2}, "poem": {"big": 0.7, "coder": 0.3, "poet": 0.9}}
PRICES = {"big": (5, 20), "coder": (0.5, 2), "poet": (0.5, 2)}


def shadowed(path: Path, explore: float = 0.0, n: int = 1200, kinds: Any = None, **policy: Any) -> dict[str, float]:
    """Route n questions in shadow mode with big as incumbent; outcomes by decision id, for the given truth."""
    texts = [f"{list(KINDS)[i % 2]} {i}" for i in range(n)]
    zoo = Zoo(
        candidates=tuple(
            Candidate(profile=profile(name, 0.5), usd_per_mtok_in=usd_in, usd_per_mtok_out=usd_out)
            for name, (usd_in, usd_out) in PRICES.items()
        )
    )
    scorer = TableScorer({text: KINDS[text[:4]] for text in texts})
    rule = RoutingPolicy(**{"observe": "big", "explore": explore, **policy})
    decisions = Router(scorer, zoo, rule, decisions=path).route_batch(texts)
    rng = random.Random(0)
    truth = kinds or KINDS
    return {
        str(decision.id): float(rng.random() < truth[text[:4]][decision.candidate])
        for text, decision in zip(texts, decisions, strict=True)
    }


def test_a_shadow_that_explores_says_to_route(tmp_path: Path) -> None:
    outcomes = shadowed(tmp_path / "log.jsonl", explore=0.2)
    result = trial_from_log(tmp_path / "log.jsonl", outcomes)
    assert result.incumbent == 0 and result.advice == "route" and result.use_alone is None
    way = result.recommended
    assert way.value is not None and way.gain is not None and way.saving is not None
    assert way.gain.low < 0.2 < way.gain.high  # 0.9 over 0.7
    assert way.value.dr.low < 0.9 < way.value.dr.high
    assert way.saving.value == pytest.approx(0.9)  # a tenth of the price
    assert way.shares == (0.0, 0.5, 0.5)
    [big, coder, _] = result.alone
    assert big.gain is None and big.value is not None and big.value.dr.value == pytest.approx(0.7, abs=0.05)
    assert coder.value is not None and coder.value.dr.low < 0.6 < coder.value.dr.high
    assert advice_text(result).startswith("Route. 1200 routes were served, ")


def test_a_shadow_whose_scores_are_wrong_says_to_stay(tmp_path: Path) -> None:
    swapped = {"code": KINDS["poem"], "poem": KINDS["code"]}
    outcomes = shadowed(tmp_path / "log.jsonl", explore=0.2, kinds=swapped)
    result = trial_from_log(tmp_path / "log.jsonl", outcomes)
    assert result.advice == "alone" and result.use_alone == "big"
    assert advice_text(result).startswith("Use big alone.")


def test_a_policy_that_never_leaves_the_incumbent_says_so(tmp_path: Path) -> None:
    outcomes = shadowed(tmp_path / "log.jsonl", n=60, objective="target", target=0.3, deny=frozenset({"coder", "poet"}))
    result = trial_from_log(tmp_path / "log.jsonl", outcomes)
    assert result.advice == "alone" and result.use_alone == "big" and result.recommended.gain is None
    assert advice_text(result).endswith("The policy never chooses anybody else.")


def test_without_exploration_nothing_is_claimed(tmp_path: Path) -> None:
    outcomes = shadowed(tmp_path / "log.jsonl")
    result = trial_from_log(tmp_path / "log.jsonl", outcomes)
    assert result.advice == "unknown" and not result.explored
    assert result.recommended.value is None and result.recommended.gain is None
    assert result.served.value is not None  # what was served is measured
    assert result.served.value.dr.value == pytest.approx(np.mean(list(outcomes.values())))
    assert result.alone[0].value is not None and result.alone[1].value is None
    assert result.recommended.saving is not None  # what calls cost is known without asking
    said = advice_text(result)
    assert "Exploration was off: whoever was not served was never asked" in said
    assert "The scorer believes in +20.0 points, which nothing here proves." in said


def test_with_few_explored_answers_it_is_not_known_yet(tmp_path: Path) -> None:
    outcomes = shadowed(tmp_path / "log.jsonl", explore=0.02, n=200)
    result = trial_from_log(tmp_path / "log.jsonl", outcomes)
    assert result.advice == "unknown" and "Fewer than 5 of the choices" in advice_text(result)


def test_without_outcomes_costs_are_compared(tmp_path: Path) -> None:
    shadowed(tmp_path / "log.jsonl", explore=0.1)
    result = trial_from_log(tmp_path / "log.jsonl")
    assert result.advice == "unknown" and "No outcome is known" in advice_text(result)
    assert result.recommended.saving is not None


def test_a_router_that_serves_and_explores_is_set_beside_the_best_alone(tmp_path: Path) -> None:
    outcomes = shadowed(tmp_path / "log.jsonl", explore=0.3, observe=None, n=3000)
    result = trial_from_log(tmp_path / "log.jsonl", outcomes)
    assert result.incumbent is None and result.reference == 0 and result.advice == "route"


def test_a_router_that_only_serves_measures_itself(tmp_path: Path) -> None:
    outcomes = shadowed(tmp_path / "log.jsonl", observe=None)
    result = trial_from_log(tmp_path / "log.jsonl", outcomes)
    assert result.reference is None and result.advice == "unknown"
    assert result.recommended.value is not None
    assert result.recommended.value.dr.value == pytest.approx(np.mean(list(outcomes.values())))


def test_what_cannot_be_used_is_counted(tmp_path: Path) -> None:
    outcomes = shadowed(tmp_path / "log.jsonl", n=20)
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines[1:]]
    rows[0]["basis"], rows[1]["status"], rows[2]["answered_by"] = "turn", "failed", "coder"
    (tmp_path / "log.jsonl").write_text("\n".join([lines[0], *map(json.dumps, rows)]) + "\n")
    result = trial_from_log(tmp_path / "log.jsonl", {**outcomes, "stranger": 1.0})
    assert len(result.decisions) == 17
    assert result.decisions.left_out == {
        "the candidate was at work on the turn already": 1,
        "nobody answered": 1,
        "another candidate stepped in for the one that failed": 1,
    }
    summary = shadow_summary(result)
    assert summary["n_decisions"] == 20 and summary["n_routed"] == 17
    assert summary["notes"] == ["1 outcomes are of decisions that are not in the log."]


def test_outcomes_of_a_feedback_file_are_found_by_their_decision(tmp_path: Path) -> None:
    from msat_core.routing.feedback import FeedbackLog

    outcomes = shadowed(tmp_path / "log.jsonl", n=40)
    log = FeedbackLog(tmp_path / "feedback.jsonl")
    vector = np.ones(4, dtype=np.float16)
    for name, outcome in outcomes.items():
        log.add("big", vector, outcome, key="k", decision=name)
    log.add("big", vector, 1.0, key="k")  # of no decision
    by_file = trial_from_log(tmp_path / "log.jsonl", tmp_path / "feedback.jsonl")
    assert by_file.served == trial_from_log(tmp_path / "log.jsonl", outcomes).served


def test_mistakes_are_told(tmp_path: Path) -> None:
    outcomes = shadowed(tmp_path / "log.jsonl", n=20)
    with pytest.raises(RecordsError, match="None of the 1 outcomes is of a decision"):
        trial_from_log(tmp_path / "log.jsonl", {"stranger": 1.0})
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"id": next(iter(outcomes)), "score": 2}) + "\n")
    with pytest.raises(RecordsError, match="row 1"):
        trial_from_log(tmp_path / "log.jsonl", rows)
    rows.write_text(json.dumps({"score": 1}) + "\n")
    with pytest.raises(RecordsError, match="row 1 has no `id`"):
        trial_from_log(tmp_path / "log.jsonl", rows)
    (tmp_path / "log.jsonl").write_text((tmp_path / "log.jsonl").read_text().splitlines()[0] + "\n")
    with pytest.raises(RecordsError, match="it is empty"):
        trial_from_log(tmp_path / "log.jsonl")


def test_the_page_and_the_summary(tmp_path: Path) -> None:
    outcomes = shadowed(tmp_path / "log.jsonl", explore=0.2)
    page = write_shadow(trial_from_log(tmp_path / "log.jsonl", outcomes), tmp_path / "out").read_text()
    for heading in ("The candidates alone", "Routing", "What would have been chosen", "Off-policy estimates"):
        assert f"<h2>{heading}</h2>" in page
    assert "effective sample" in page and "http" not in page.replace("http-equiv", "")
    summary = json.loads((tmp_path / "out" / "trial.json").read_text())
    assert summary["verdict"] == "route" and summary["router"]["advised"] is True
    assert set(summary) >= {"candidates", "router", "use_alone", "best_alone", "saving", "guarantee", "off_policy"}
    assert summary["guarantee"] is None and summary["candidates"]["big"]["n_served"] > 900


# --- the command ---


def test_the_command_reads_a_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outcomes = shadowed(tmp_path / "log.jsonl", explore=0.2)
    rows = "".join(json.dumps({"id": name, "score": score}) + "\n" for name, score in outcomes.items())
    (tmp_path / "outcomes.jsonl").write_text(rows)
    before = (tmp_path / "log.jsonl").read_bytes()
    given = ["trial", "--from-log", str(tmp_path / "log.jsonl"), "--outcomes", str(tmp_path / "outcomes.jsonl")]
    code, said, _ = msat(capsys, *given, "--out", str(tmp_path / "out"), "--json")
    assert code == 0 and json.loads(said)["verdict"] == "route"
    code, said, _ = msat(capsys, *given, "--out", str(tmp_path / "out"))
    assert code == 0 and said.startswith("Route. ") and "as the policy would choose" in said
    assert (tmp_path / "out" / "report.html").is_file()
    assert (tmp_path / "log.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["q.jsonl", "--from-log", "l.jsonl"], "--from-log takes the place of QUESTIONS"),
        (["q.jsonl"], "Expected QUESTIONS and --candidates FILE, or --from-log LOG."),
        (["q.jsonl", "--candidates", "c.json", "--outcomes", "o.jsonl"], "--outcomes are those of a log"),
        (["--from-log", "l.jsonl"], "l.jsonl does not exist"),
    ],
)
def test_mistakes_at_the_command_line(
    given: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, said = msat(capsys, "trial", *given, "--out", str(tmp_path / "out"))
    assert (code, out) == (2, "") and sentence in said
