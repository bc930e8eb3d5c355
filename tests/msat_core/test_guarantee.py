from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from support import profile

from msat_core import Candidate, CapabilityProfile, Router, RoutingPolicy, TableScorer, TaskResult, Zoo
from msat_core.errors import ConfigurationError, NoCandidateError, PolicyError
from msat_core.evaluation.guarantee import TargetRouting, below_target_p_value, calibrate_target
from msat_core.profiles import Provenance
from msat_core.routing.choice import choose

COSTS = np.array([1.0, 3.0, 10.0])


def population(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Calibrated scores of a cheap, a fair and a dear candidate, and outcomes drawn from them."""
    rng = np.random.default_rng(seed)
    scores = 1 / (1 + np.exp(-(rng.normal(0, 1, (n, 1)) + rng.normal([0.0, 0.6, 1.4], 0.7, (n, 3)))))
    return scores, (rng.random(scores.shape) < scores).astype(float), np.tile(COSTS, (n, 1))


def test_the_guarantee_holds_at_its_confidence() -> None:
    """Calibrated again and again on fresh draws, and judged by a population a hundred times as large."""
    scores, outcomes, costs = population(40_000, 0)
    routing, rows = TargetRouting(scores, costs), np.arange(len(scores))
    accuracy = {t: outcomes[rows, routing.choose(t)].mean() for t in np.round(np.linspace(0, 1, 201), 3)}
    rng, missed, cheaper = np.random.default_rng(1), 0, []
    for _ in range(150):
        drawn = rng.integers(0, len(scores), 400)
        found = calibrate_target(scores[drawn], outcomes[drawn], costs[drawn], target=0.68, confidence=0.9)
        missed += accuracy[found.threshold] < 0.68
        cheaper.append(found.cost_usd)
    assert binomtest(missed, 150, 0.1, alternative="greater").pvalue > 0.01
    assert missed > 0  # and it is not won by never daring
    assert np.mean(cheaper) < costs[:, 2].mean()


@settings(deadline=None, max_examples=60)
@example(seed=156, threshold=0.0)  # nobody has a price
@given(seed=st.integers(0, 10_000), threshold=st.sampled_from([0.0, 0.3, 0.5, 0.7, 1.0]))
def test_choices_are_those_of_the_policy(seed: int, threshold: float) -> None:
    rng = np.random.default_rng(seed)
    prices = [None if rng.random() < 0.2 else float(rng.integers(1, 4)) for _ in range(4)]
    zoo = [Candidate(profile=profile(f"c{i}"), usd_per_mtok_in=p, usd_per_mtok_out=p) for i, p in enumerate(prices)]
    scores = rng.choice([0.2, 0.3, 0.5, 0.7, 0.9], (5, 4)).astype(np.float32)
    costs = np.array([[np.nan if (c := one.cost_usd(40)) is None else c for one in zoo]] * 5)
    policy = RoutingPolicy(objective="target", target=threshold)
    if all(price is None for price in prices):
        with pytest.raises(NoCandidateError, match="no price"):
            choose(policy, scores[0].tolist(), zoo, instruction_chars=40)
        with pytest.raises(ConfigurationError, match="without prices"):
            TargetRouting(scores, costs)
        return
    expected = [choose(policy, row, zoo, instruction_chars=40).chosen for row in scores.tolist()]
    assert TargetRouting(scores, costs).choose(threshold).tolist() == expected


def test_a_calibrated_policy_is_bound() -> None:
    def zoo_of_two(price: float = 5.0) -> list[Candidate]:
        results = tuple(
            TaskResult(task=t, n_shots=9, n_correct=5, mean_output_tokens=n) for t, n in (("a", 10), ("b", 2000))
        )
        own = CapabilityProfile(candidate="counted", results=results, provenance=Provenance(source="test"))
        counted = Candidate(profile=own, usd_per_mtok_in=1, usd_per_mtok_out=1)
        return [counted, Candidate(profile=profile("dear"), usd_per_mtok_in=price, usd_per_mtok_out=1)]

    zoo, scorer = Zoo.of(zoo_of_two()), TableScorer()
    found = calibrate_target(
        np.tile([0.9, 0.95], (100, 1)), np.ones((100, 2)), np.tile([1.0, 9.0], (100, 1)), target=0.9
    )
    policy = RoutingPolicy.from_json(found.policy(zoo.candidates, scorer.digest).to_json())
    router = Router(scorer, zoo, policy)
    assert "calibrated" not in router.route("Hello?").reason
    for weights in ({"a": 1.0}, {"b": 1.0}):  # choices are those it was calibrated with
        plain = choose(policy, [0.9, 0.9], zoo.candidates, instruction_chars=40)
        assert choose(policy, [0.9, 0.9], zoo.candidates, instruction_chars=40, task_weights=weights) == plain
    for candidates, words in (
        (zoo_of_two()[:1], "dear is missing"),
        ([*zoo_of_two(), Candidate(profile=profile("c"))], "c is new"),
        (zoo_of_two(price=6.0), "dear is of another price"),
        ([zoo_of_two()[0], Candidate(profile=profile("dear", 0.9), usd_per_mtok_in=5)], "dear is of another profile"),
    ):
        with pytest.raises(PolicyError, match=words):
            Router(scorer, Zoo.of(candidates), policy)
    with pytest.raises(PolicyError, match="the threshold is another one"):
        Router(scorer, zoo, policy.changed(target=0.123))
    with pytest.raises(PolicyError, match="there are limits"):
        Router(scorer, zoo, policy.changed(max_usd=1))
    zoo.add(profile("late"))
    assert "outside of what the policy was calibrated for (late is new)" in router.route("Hello?").reason


def test_p_values_by_hand_and_against_scipy() -> None:
    assert below_target_p_value(np.ones(10), 0.5) == pytest.approx(0.5**10)
    outcomes = np.repeat([1.0, 0.0], [85, 15])
    assert below_target_p_value(outcomes, 0.8) == pytest.approx(binomtest(15, 100, 0.2, alternative="less").pvalue)
    soft = np.full(200, 0.9)  # not 0 or 1: a bound, never below the exact tail of the same mean
    exact = binomtest(20, 200, 0.2, alternative="less").pvalue
    assert exact < below_target_p_value(soft, 0.8) < 0.05
    assert below_target_p_value(np.full(200, 0.7), 0.8) == 1


def test_perfect_and_hopeless_candidates() -> None:
    scores, costs = np.tile([0.9, 0.95], (100, 1)), np.tile([1.0, 9.0], (100, 1))
    found = calibrate_target(scores, np.ones((100, 2)), costs, target=0.9, confidence=0.95)
    assert found.threshold <= 0.9  # both always right: the cheap one is good enough
    assert found.cost_usd == 1
    dear = calibrate_target(scores, np.tile([0.0, 1.0], (100, 1)), costs, target=0.9, confidence=0.95)
    assert 0.9 < dear.threshold
    assert dear.cost_usd == 9
    with pytest.raises(ConfigurationError, match="No threshold guarantees"):
        calibrate_target(scores, np.zeros((100, 2)), costs, target=0.9)
    with pytest.raises(ConfigurationError, match="must be a number above 0 and below 1"):
        calibrate_target(scores, np.ones((100, 2)), costs, target=1.0)
