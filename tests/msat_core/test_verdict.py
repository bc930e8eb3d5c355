"""When a trial advises to route, and when to use one candidate alone."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from trial_world import question

from msat_core import Router, RoutingPolicy, Zoo, load_scorer, pretrained
from msat_core.aptitude.journal import Answer
from msat_core.aptitude.questions import Question
from msat_core.routing.ranking import by_value
from msat_core.trial.candidates import Contender
from msat_core.trial.questions import OwnQuestion
from msat_core.trial.scoring import TrialScoring
from msat_core.trial.table import TrialTable
from msat_core.trial.verdict import MIN_LEAD, verdict_of

N = 200


def table(
    outcomes: NDArray[np.float64], scores: NDArray[np.float64], usd: tuple[float, ...] = (1.0, 1.0)
) -> TrialTable:
    """Everybody who scores knows the same."""
    costs = np.tile(np.array(usd) / 1000, (len(outcomes), 1))
    names = [f"m{m}" for m in range(outcomes.shape[1])]
    return TrialTable(names, outcomes, costs, costs, costs, scores, scores, scores, np.arange(0, len(outcomes), 3))


def halves(lead: float, share: float = 0.5) -> NDArray[np.float64]:
    """(N, 2) scores: the second is ahead by the lead on a share of the questions, far behind on the others."""
    ahead = np.arange(N) < share * N
    return np.stack([np.full(N, 0.6), np.where(ahead, 0.6 + lead, 0.3)], axis=1)


def near_equal(seed: int = 0) -> NDArray[np.float64]:
    """(N, 2) outcomes of two that are right by chance, the first more often."""
    return (np.random.default_rng(seed).random((N, 2)) < (0.65, 0.6)).astype(float)


def test_a_lead_that_chance_gives_is_no_reason_to_leave_the_best() -> None:
    found = verdict_of(table(near_equal(), halves(MIN_LEAD - 0.005)))
    assert found.believed_gain > 0 and 0 < found.believed_lead < MIN_LEAD
    assert found.advised is None and found.use_alone == found.best == 0


def test_a_believed_lead_is_followed_unless_the_questions_contradict_it() -> None:
    outcomes, scores = near_equal(), halves(MIN_LEAD + 0.01)
    outcomes[: N // 2, 1] = outcomes[: N // 2, 0]  # where it leaves, both are as good
    outcomes[:3, :] = (0.0, 1.0)
    found = verdict_of(table(outcomes, scores))
    assert found.advised is found.quality and found.use_alone is None
    outcomes[: N // 2, 1] = 0.0
    outcomes[: N // 4, 0] = 1.0
    contradicted = verdict_of(table(outcomes, scores))
    assert contradicted.quality.gain.high < 0 and contradicted.use_alone == 0


def test_a_gain_that_was_shown_is_followed_whatever_is_believed() -> None:
    outcomes = np.stack([np.ones(N), np.ones(N)], axis=1)
    outcomes[: N // 4, 0], outcomes[N // 2 :, 1] = 0.0, 0.0
    found = verdict_of(table(outcomes, halves(MIN_LEAD / 2)))
    assert found.quality.gain.low > 0 and found.advised is found.quality


def test_equal_quality_for_less_weighs_score_against_cost() -> None:
    """Both are right where the scorer says so; the cheap one is as good on half of the questions."""
    outcomes = np.ones((N, 2))
    outcomes[N // 2 :, 1] = 0.0
    scores = np.where(outcomes > 0, 0.9, 0.1)
    found = verdict_of(table(outcomes, scores, (10.0, 1.0)))
    assert found.saving is not None and found.saving.saving is not None
    assert found.saving.saving.value == pytest.approx(0.45)
    assert found.saving.gain.value == 0
    assert found.advised is found.saving and found.advised.objective == "value"


def test_nobody_is_cheaper_than_the_best_that_is_cheapest() -> None:
    found = verdict_of(table(near_equal(), halves(0.0, 0.0), (1.0, 10.0)))
    assert found.use_alone == 0
    assert found.saving is not None and found.saving.saving is not None and found.saving.saving.value == 0


def test_without_a_price_nothing_is_said_of_money() -> None:
    found = verdict_of(table(near_equal(), halves(0.0, 0.0), (1.0, float("nan"))))
    assert found.saving is None and found.rates == ()


def test_the_guaranteed_threshold_is_shown_with_its_cost() -> None:
    outcomes = np.ones((N, 2))
    found = verdict_of(table(outcomes, halves(0.1), (10.0, 1.0)), target=0.7)
    assert found.guarantee is not None and found.guaranteed is not None
    assert found.guaranteed.knob == found.guarantee.threshold
    assert found.guaranteed.accuracy == 1 and found.guaranteed.usd_per_1000 is not None


def test_a_guarantee_never_rests_on_a_candidate_of_unknown_price() -> None:
    """The policy that keeps it leaves such a candidate out."""
    outcomes = np.stack([np.ones(N), np.arange(N) % 10 < 4], axis=1).astype(float)
    seen = table(outcomes, np.tile((0.95, 0.9), (N, 1)), usd=(np.nan, 1.0))
    found = verdict_of(seen, target=0.7)
    assert found.guarantee is None
    priced = verdict_of(table(outcomes, np.tile((0.95, 0.2), (N, 1)), usd=(2.0, 1.0)), target=0.7)
    assert priced.guarantee is not None and priced.guaranteed is not None and priced.guaranteed.accuracy > 0.9


def test_a_trial_reckons_with_the_costs_that_its_router_chooses_by() -> None:
    """Answers are as long as those to the nearest tasks, as the router that is handed over expects them."""
    lines = [question(kind, i) for kind in ("sums", "letters") for i in range(20)]
    questions = [
        OwnQuestion(Question(f"q{i}", line["instruction"], (), "", line["task"]), None) for i, line in enumerate(lines)
    ]
    contenders = [
        Contender(None, "brief", {"usd_per_mtok_in": 1.0, "usd_per_mtok_out": 10.0}),
        Contender(None, "wordy", {"usd_per_mtok_in": 1.0, "usd_per_mtok_out": 8.0}),
    ]
    lengths = {"brief": {"sums": 10, "letters": 500}, "wordy": {"sums": 400, "letters": 600}}
    answers = {
        name: {q.item_id: Answer(q.item_id, 0, "x", output_tokens=tokens[q.question.category]) for q in questions}
        for name, tokens in lengths.items()
    }
    outcomes = np.array([[i % 3 > 0 for i in range(40)], [i % 4 > 0 for i in range(40)]], dtype=float)
    scoring = TrialScoring(contenders, questions, outcomes, answers, "here")
    table = scoring.table()
    sums, letters = table.near_usd[:20, 0], table.near_usd[20:, 0]
    assert sums.max() < table.expected_usd[:, 0].min() and letters.min() > table.expected_usd[:, 0].max()
    exam, candidates = scoring.handed_over
    scorer = load_scorer(pretrained.SCORER)
    scorer.add_exam(exam)
    for weight in (1.0, 30.0, 300.0):
        router = Router(scorer, Zoo.of(candidates), RoutingPolicy(objective="value", usd_weight=weight))
        chosen = [router.route(line["instruction"]).candidate for line in lines]
        assert chosen == [table.names[m] for m in table.by_value(table.informed, weight)]
    assert (by_value(table.informed, table.expected_usd, 300.0)[:, 0] != table.by_value(table.informed, 300.0)).any()
