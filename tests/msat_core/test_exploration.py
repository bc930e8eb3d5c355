"""Serving somebody else than the choice: shadow mode and exploration."""

from __future__ import annotations

from collections import Counter

import pytest
from support import profile, table_router

from msat_core import Candidate, NoCandidateError, PolicyError, Router, RoutingPolicy, RoutingRequest, Turn, Zoo
from msat_core.routing.dispatch import RoutingAsk
from msat_core.routing.exploration import draw_of
from msat_core.routing.policy import CalibratedFor


def observing(**more: object) -> Router:
    return table_router(policy=RoutingPolicy(observe="poor", **more))


def test_the_incumbent_is_served_and_the_choice_is_noted() -> None:
    decision = observing().route("q")
    assert (decision.candidate, decision.recommended) == ("poor", "good")
    assert decision.ranking == ("poor",)  # nobody steps in for it
    assert decision.score == decision.scores["poor"] == 0.2 and decision.scores["good"] == 0.8
    assert (
        "poor: P(correct) 0.20, the incumbent, observed: good would be chosen as the highest score" in decision.reason
    )
    assert decision.propensities == {}


def test_no_limit_binds_the_incumbent_and_an_alias_names_it() -> None:
    dear = Candidate(profile=profile("dear", 0.9), usd_per_mtok_in=100, usd_per_mtok_out=100, aliases=frozenset({"d"}))
    cheap = Candidate(profile=profile("cheap", 0.5), usd_per_mtok_in=1, usd_per_mtok_out=1)
    policy = RoutingPolicy(observe="d", max_usd=0.01, deny=frozenset({"dear"}))
    decision = table_router(candidates=[dear, cheap], policy=policy).route("q")
    assert (decision.candidate, decision.recommended) == ("dear", "cheap")
    assert decision.excluded == {"dear": "on the deny list"}


def test_where_nobody_is_within_the_limits_the_incumbent_is_served() -> None:
    policy = RoutingPolicy(observe="poor", allow=frozenset({"fair"}), deny=frozenset({"fair"}))
    decision = table_router(policy=policy).route("q")
    assert decision.candidate == decision.recommended == "poor"


def test_an_incumbent_that_cannot_be_dispatched_to_is_an_error() -> None:
    with pytest.raises(
        NoCandidateError, match="observes 'poor', which this call cannot be sent to: there is good, fair"
    ):
        observing().route("q", request=RoutingRequest(among=frozenset({"good", "fair"})))
    with pytest.raises(PolicyError, match="observe names 'boor'"):
        table_router(policy=RoutingPolicy(observe="boor"))


def test_without_text_too_the_incumbent_is_served() -> None:
    decision = observing(explore=1.0).decide_unscored()
    assert (decision.candidate, decision.recommended, decision.basis) == ("poor", "good", "accuracy")


def test_a_caller_may_insist_and_a_turn_goes_on_in_shadow_mode() -> None:
    router = observing(explore=0.5)
    forced = RoutingAsk.of(router, [Turn("user", "q")], forced="fair").decide()
    assert (forced.candidate, forced.basis, forced.ranking) == ("fair", "caller", ("fair",))
    turns = [Turn("user", "Add two and two."), Turn("assistant", candidate="fair"), Turn("tool", "4")]
    held = RoutingAsk.of(router, turns).decide()
    assert (held.candidate, held.recommended, held.basis, held.ranking) == ("fair", "fair", "turn", ("fair",))


def test_explored_candidates_are_within_the_limits_and_each_as_likely() -> None:
    zoo = [Candidate(profile=profile(name, 0.5)) for name in "abcde"]
    policy = RoutingPolicy(explore=0.3, deny=frozenset({"e"}))
    router = table_router(candidates=zoo, policy=policy)
    decisions = router.route_batch([f"question {i}" for i in range(4000)])
    share = {name: n / 4000 for name, n in Counter(decision.candidate for decision in decisions).items()}
    assert set(share) == set("abcd")
    assert share["a"] == pytest.approx(0.7, abs=0.03)
    assert all(share[name] == pytest.approx(0.1, abs=0.02) for name in "bcd")
    assert decisions[0].propensities == pytest.approx({"a": 0.7, "b": 0.1, "c": 0.1, "d": 0.1})
    explored = next(decision for decision in decisions if decision.candidate == "c")
    assert explored.recommended == "a" and explored.ranking[:2] == ("c", "a")  # who failed is followed by the choice
    assert "c: P(correct) 0.50, explored with probability 0.1 in place of a" in explored.reason
    assert sum(explored.propensities.values()) == pytest.approx(1)


def test_the_same_instruction_and_seed_have_the_same_fate() -> None:
    texts = [f"question {i}" for i in range(200)]
    router = table_router(policy=RoutingPolicy(explore=0.5))
    once = [decision.candidate for decision in router.route_batch(texts)]
    assert once == [router.route(text).candidate for text in texts]
    other = RoutingPolicy(explore=0.5, explore_seed=1)
    assert once != [decision.candidate for decision in router.route_batch(texts, policy=other)]
    assert 0 <= draw_of("q", 0) < 1 and draw_of("q", 0) != draw_of("q", 1)


@pytest.mark.parametrize(
    ("draw", "who"), [(0.0, "good"), (0.049, "good"), (0.051, "fair"), (0.0999, "fair"), (0.1, "poor")]
)
def test_a_request_may_bring_its_draw(draw: float, who: str) -> None:
    decision = observing(explore=0.1).route("q", request=RoutingRequest(draw=draw))
    assert decision.candidate == who
    assert decision.propensities == pytest.approx({"poor": 0.9, "good": 0.05, "fair": 0.05})


def test_with_nobody_else_there_is_no_chance() -> None:
    router = table_router(policy=RoutingPolicy(explore=1.0, allow=frozenset({"fair"})))
    assert router.route("q").candidate == "fair" and router.route("q").propensities == {}


def test_a_call_cannot_lift_the_shadow() -> None:
    own = RoutingPolicy(observe="poor", explore=0.02, explore_seed=3)
    merged = RoutingPolicy(objective="target", target=0.5).within(own)
    assert (merged.observe, merged.explore, merged.explore_seed, merged.target) == ("poor", 0.02, 3, 0.5)
    assert RoutingPolicy(observe="fair").within(RoutingPolicy()).observe is None


def test_a_guarantee_may_be_observed_but_not_explored() -> None:
    zoo = Zoo.of([profile("a", 0.9), profile("b", 0.5)])
    calibrated = CalibratedFor(
        threshold=0.8,
        accuracy=0.7,
        confidence=0.95,
        n_items=100,
        profiles={one.name: one.profile.digest for one in zoo},
        prices={one.name: (None, None) for one in zoo},
        scorer="s",
    )
    policy = RoutingPolicy(objective="target", target=0.8, calibrated_for=calibrated)
    assert policy.changed(observe="a", explore=0.1).differences(zoo.candidates, "s") == []
    assert policy.changed(explore=0.1).differences(zoo.candidates, "s") == ["others are explored"]
