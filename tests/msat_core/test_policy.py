from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import profile

from msat_core import Candidate, RoutingPolicy, RoutingRequest, Zoo
from msat_core.errors import NoCandidateError, PolicyError
from msat_core.routing.choice import Uncertainty, choose


def candidates(*prices: float | None, **more: object) -> list[Candidate]:
    return [
        Candidate(profile=profile(f"c{i}"), usd_per_mtok_in=price, usd_per_mtok_out=price, **more)
        for i, price in enumerate(prices)
    ]


def chosen(policy: RoutingPolicy, scores: list[float], zoo: list[Candidate], **request: object) -> int:
    return choose(policy, scores, zoo, instruction_chars=400, request=RoutingRequest(**request)).chosen  # type: ignore[arg-type]


def test_quality_takes_the_highest_and_breaks_ties_by_price_then_order() -> None:
    zoo = candidates(2.0, 1.0, 1.0)
    assert chosen(RoutingPolicy(), [0.5, 0.4, 0.3], zoo) == 0
    assert chosen(RoutingPolicy(), [0.5, 0.5, 0.5], zoo) == 1


def test_value_gives_up_score_for_price() -> None:
    zoo = candidates(100.0, 0.0)  # 350 tokens at 100 USD/Mtok: 0.035 USD
    assert chosen(RoutingPolicy(objective="value", usd_weight=1), [0.6, 0.5], zoo) == 0
    assert chosen(RoutingPolicy(objective="value", usd_weight=3), [0.6, 0.5], zoo) == 1


def test_target_takes_the_cheapest_that_is_good_enough() -> None:
    zoo = candidates(3.0, 2.0, 1.0)
    policy = RoutingPolicy(objective="target", target=0.7)
    assert chosen(policy, [0.9, 0.75, 0.6], zoo) == 1
    assert chosen(policy, [0.6, 0.65, 0.5], zoo) == 1  # nobody reaches it: the best
    assert choose(policy, [0.9, 0.75, 0.6], zoo, instruction_chars=400).ranking == (1, 0, 2)


def test_price_cap_holds_and_unknown_prices_do_not_pass_it() -> None:
    zoo = candidates(None, 100.0, 1.0)
    found = choose(RoutingPolicy(max_usd=0.001), [0.9, 0.8, 0.1], zoo, instruction_chars=400)
    assert found.chosen == 2
    assert found.excluded[0] == "no price"
    assert "above the cap" in found.excluded[1]


def test_limits_of_the_request() -> None:
    small = candidates(1.0, context_window=1000, tools=False, modalities=frozenset({"text"}))
    large = Candidate(profile=profile("large"), tools=True, modalities=frozenset({"text", "image"}))
    zoo = [*small, large]
    assert chosen(RoutingPolicy(), [0.9, 0.1], zoo) == 0
    assert chosen(RoutingPolicy(), [0.9, 0.1], zoo, tools=True) == 1
    assert chosen(RoutingPolicy(), [0.9, 0.1], zoo, modalities=frozenset({"image"})) == 1
    assert chosen(RoutingPolicy(), [0.9, 0.1], zoo, context_chars=8000) == 1


def test_nobody_left_is_an_error_or_the_default() -> None:
    zoo = candidates(1.0, 1.0)
    deny = frozenset({"c0", "c1"})
    with pytest.raises(NoCandidateError, match="c0, c1: on the deny list"):
        chosen(RoutingPolicy(deny=deny), [0.5, 0.5], zoo)
    assert chosen(RoutingPolicy(deny=deny, default="c1"), [0.5, 0.5], zoo) == 1
    with pytest.raises(NoCandidateError, match="default 'zz' is not among them"):
        chosen(RoutingPolicy(deny=deny, default="zz"), [0.5, 0.5], zoo)
    assert chosen(RoutingPolicy(allow=frozenset({"c1"})), [0.9, 0.1], zoo) == 1


def test_a_weight_without_effect_is_refused() -> None:
    with pytest.raises(PolicyError, match=r"usd_weight 1\.0 has no effect"):
        RoutingPolicy(usd_weight=1)


def test_policy_round_trip() -> None:
    policy = RoutingPolicy(objective="target", target=0.6, deny=frozenset({"x", "y"}), max_usd=0.01)
    assert RoutingPolicy.from_json(policy.to_json()) == policy


def test_sets_are_written_in_order() -> None:
    names = [f"candidate {i}" for i in range(10, 40)]
    written = json.loads(RoutingPolicy(allow=frozenset(names), deny=frozenset(names)).to_json())
    assert written["allow"] == written["deny"] == names
    kinds = ("audio", "file", "image", "text", "video")
    candidate = candidates(1.0)[0].model_copy(update={"modalities": frozenset(kinds)})
    assert json.loads(Zoo.of([candidate]).to_json())["candidates"][0]["modalities"] == list(kinds)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 50)), min_size=1, max_size=6, unique=True), st.randoms())
def test_permuting_candidates_permutes_the_ranking(rows: list[tuple[float, float]], random: object) -> None:
    zoo, scores = candidates(*(price for _, price in rows)), [score for score, _ in rows]
    order = list(range(len(rows)))
    random.shuffle(order)  # type: ignore[attr-defined]
    for policy in (RoutingPolicy(), RoutingPolicy(objective="value", usd_weight=9), RoutingPolicy(objective="target")):
        plain = choose(policy, scores, zoo, instruction_chars=400)
        moved = choose(policy, [scores[i] for i in order], [zoo[i] for i in order], instruction_chars=400)
        keys = [(round(scores[i], 6), plain.costs_usd[i]) for i in plain.ranking]
        assert keys == [(round(scores[order[i]], 6), moved.costs_usd[i]) for i in moved.ranking]


def test_the_best_by_exam_is_left_only_for_a_lead_that_is_sure() -> None:
    zoo = candidates(None, None, None)
    scores = [0.60, 0.64, 0.50]  # logits .405, .575, 0

    def choice(deviation: float, margin: float, levels: list[float]) -> tuple[int, str]:
        unsure = Uncertainty(np.full(3, deviation), np.array(levels))
        policy = RoutingPolicy(margin=margin)
        found = choose(policy, scores, zoo, instruction_chars=400, uncertainty=unsure)
        assert sorted(found.ranking) == [0, 1, 2]
        return found.chosen, found.why

    assert choice(0.5, 0.2, [1, 0, 0])[0] == 1  # .170 is above .2 × √2 × .5
    chosen, why = choice(0.5, 0.3, [1, 0, 0])
    assert chosen == 0 and why == "the best by exam, as c1's lead of 0.04 is too unsure to leave it for"
    assert choice(0.5, 0.0, [1, 0, 0]) == (1, "the highest score")
    assert choice(0.5, 0.3, [0, 1, 0]) == (1, "the highest score")  # it is the best by exam itself
    assert choice(9.0, 0.3, [0, 0, 1])[0] == 2  # of which nothing is sure


def test_only_candidates_within_the_limits_are_the_best_by_exam() -> None:
    zoo, unsure = candidates(None, None, None), Uncertainty(np.full(3, 9.0), np.array([2.0, 1.0, 0.0]))
    policy = RoutingPolicy(margin=0.3, deny=frozenset({"c0"}))
    assert choose(policy, [0.9, 0.6, 0.61], zoo, instruction_chars=400, uncertainty=unsure).ranking == (1, 2)


def test_chances_are_numbers_and_an_infinite_cap_is_none() -> None:
    for setting in ("explore", "explore_seed", "margin"):
        with pytest.raises(PolicyError, match="expected a number, got True"):
            RoutingPolicy.of({setting: True})
    uncapped = RoutingPolicy(max_usd=float("inf"))
    assert uncapped.max_usd is None and RoutingPolicy.from_json(uncapped.to_json()) == uncapped
