"""What a call is expected to cost, and how what nobody knows enters a choice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support import profile, table_router

from msat_core import Candidate, CapabilityProfile, ModelFacts, RoutingPolicy, RoutingRequest, TaskResult
from msat_core.errors import NoCandidateError, PolicyError
from msat_core.profiles import Provenance
from msat_core.routing.choice import Choice, choose
from msat_core.routing.conversation import Turn
from msat_core.routing.cost import expected_costs
from msat_core.routing.dispatch import RoutingAsk

IMAGE = frozenset({"text", "image"})


def priced(name: str, usd: float | None = 1.0, **facts: Any) -> Candidate:
    return Candidate(profile=profile(name), usd_per_mtok_in=usd, usd_per_mtok_out=usd, **facts)


def counted(name: str, *, tokens: dict[str, float], usd: float = 1.0, **facts: Any) -> Candidate:
    """A candidate whose answers were counted by the endpoint, by task."""
    results = tuple(
        TaskResult(task=task, n_shots=10, n_correct=5, mean_output_tokens=mean) for task, mean in tokens.items()
    )
    own = CapabilityProfile(candidate=name, results=results, provenance=Provenance(source="test"), mean_output_chars=4)
    return Candidate(profile=own, usd_per_mtok_in=usd, usd_per_mtok_out=usd, **facts)


def choice_of(policy: RoutingPolicy, candidates: list[Candidate], *scores: float, **request: Any) -> Choice:
    return choose(policy, scores, candidates, instruction_chars=400, request=RoutingRequest(**request))


TARGET = RoutingPolicy(objective="target", target=0.4)
VALUE = RoutingPolicy(objective="value", usd_weight=0.001)


# What nobody has priced is not cheap.


@pytest.mark.parametrize("policy", [TARGET, VALUE, VALUE.changed(usd_weight=1e6), RoutingPolicy(max_usd=1)])
def test_an_unpriced_candidate_is_left_out_by_name(policy: RoutingPolicy) -> None:
    found = choice_of(policy, [priced("unpriced", None), priced("other", None), priced("dear")], 0.99, 0.9, 0.5)
    assert (found.chosen, found.ranking) == (2, (2,))
    assert found.notes == ("2 left out: no price (unpriced, other)",)


@pytest.mark.parametrize("policy", [TARGET, VALUE, VALUE.changed(usd_weight=1e6), RoutingPolicy(max_usd=1)])
def test_an_unpriced_candidate_may_come_last(policy: RoutingPolicy) -> None:
    allowing = policy.changed(unpriced="allow")
    found = choice_of(allowing, [priced("unpriced", None), priced("dear")], 0.99, 0.45)
    assert found.ranking == (1, 0)
    assert found.excluded == {}
    alone = choice_of(allowing, [priced("unpriced", None)], 0.99)
    assert alone.chosen == 0
    assert "cheapest" not in alone.why
    assert alone.notes == ("it has no price",)


def test_half_a_price_is_no_price() -> None:
    half = priced("half").changed(usd_per_mtok_out=None)
    assert choice_of(TARGET, [half, priced("whole", 100)], 0.9, 0.9).ranking == (1,)


def test_quality_needs_no_price_and_an_infinite_cap_caps_nothing() -> None:
    for policy in (RoutingPolicy(), RoutingPolicy(max_usd=float("inf"))):
        found = choice_of(policy, [priced("unpriced", None), priced("dear", 1e6)], 0.99, 0.5)
        assert found.ranking == (0, 1)
        assert found.notes == ()


def test_at_equal_scores_the_unpriced_one_comes_after_the_priced_one() -> None:
    assert choice_of(RoutingPolicy(), [priced("unpriced", None), priced("dear", 1e6)], 0.5, 0.5).chosen == 1


def test_where_nobody_has_a_price_the_error_says_how_to_set_one() -> None:
    nobody = [priced(name, None) for name in "abcdef"]
    with pytest.raises(NoCandidateError, match=r"a, b, c and 3 more: no price.*`msat zoo set NAME --usd-per-mtok-in"):
        choice_of(TARGET, nobody, *[0.5] * 6)
    assert choice_of(TARGET.changed(default="c"), nobody, *[0.5] * 6).chosen == 2


def test_the_reason_says_who_was_left_out() -> None:
    router = table_router(policy=TARGET, candidates=[priced("a", None), priced("b")])
    assert router.route("Hello?").reason.endswith("0.4 or more; 1 left out: no price (a).")
    assert router.decide_unscored().reason.endswith("1 left out: no price (a).")


# Expected cost, not list price.


def test_own_output_by_task_decides_what_a_call_costs() -> None:
    """The talkative one is dearer at the same list price, and only in the task where it talks."""
    brief, long = (
        counted("brief", tokens={"maths": 100, "law": 100}),
        counted("long", tokens={"maths": 5000, "law": 50}),
    )
    for task, cheapest in (("maths", 0), ("law", 1)):
        found = choose(TARGET, [0.5, 0.5], [brief, long], instruction_chars=400, task_weights={task: 1.0})
        assert found.chosen == cheapest
    [mixed] = expected_costs([long], chars=400, task_weights={"maths": 0.25, "law": 0.75})
    assert mixed.usd == pytest.approx((100 + 0.25 * 5000 + 0.75 * 50) / 1e6)
    [anywhere] = expected_costs([long], chars=400, task_weights={"chemistry": 1.0})
    assert anywhere.usd == pytest.approx((100 + 2525) / 1e6)


def test_visible_characters_say_nothing_of_a_reasoning_model() -> None:
    chatty = profile("thinks").changed(mean_output_chars=40.0)
    thinks = Candidate(profile=chatty, usd_per_mtok_in=4, usd_per_mtok_out=4, reasoning=True)
    plain = priced("plain", 1)
    found = choice_of(RoutingPolicy(objective="target", target=0.4), [thinks, plain], 0.9, 0.1)
    assert found.costs_usd[0] is None
    assert found.costs[0].list_usd == pytest.approx(4 * found.costs[1].list_usd)  # type: ignore[operator]
    assert found.notes == ("output unknown, compared by the longest expected (thinks)",)
    seen = counted("thinks", tokens={"any": 900}, usd=4, reasoning=True)
    assert choice_of(TARGET, [seen], 0.9).costs_usd[0] == pytest.approx(4 * 1000 / 1e6)


def test_an_unknown_output_is_never_taken_for_short() -> None:
    """A reasoning model of half the list price is not called the cheapest beside one that is known to write much."""
    thinks, writes = priced("thinks", 0.5, reasoning=True), counted("writes", tokens={"any": 4000}, usd=0.4)
    assert choice_of(TARGET, [thinks, writes], 0.9, 0.9).chosen == 1


def test_a_cap_is_kept_where_the_output_is_unknown() -> None:
    thinks, plain = priced("thinks", 1, reasoning=True), priced("plain", 1)
    capped = RoutingPolicy(max_usd=0.01)
    found = choice_of(capped, [thinks, plain], 0.9, 0.1)
    assert found.ranking == (1,)
    assert found.notes == ("1 left out: output unknown (thinks)",)
    bounded = thinks.changed(max_output_tokens=8000)  # at most 0.0081 USD
    assert choice_of(capped, [bounded, plain], 0.9, 0.1).ranking == (0, 1)
    assert choice_of(capped.changed(unpriced="allow"), [thinks, plain], 0.9, 0.1).ranking == (1, 0)


def test_warm_tokens_count_at_the_cached_price() -> None:
    """Leaving a long conversation for a slightly cheaper candidate costs more than staying."""
    warm = priced("warm", 1.0, usd_per_mtok_cached_in=0.1)
    cold, other = priced("cold", 0.8), priced("warm", 1.0)
    said = {"context_chars": 40_000, "warm": {"warm": 9_000}}
    assert choice_of(TARGET, [warm, cold], 0.9, 0.9, context_chars=40_000).chosen == 1
    assert choice_of(TARGET, [warm, cold], 0.9, 0.9, **said).chosen == 0
    assert choice_of(TARGET, [other, cold], 0.9, 0.9, **said).chosen == 1  # its cached price is unknown: no discount
    [cost] = expected_costs([warm], chars=40_000, warm={"warm": 9_000})
    assert cost.usd == pytest.approx((1000 + 900 + 250) / 1e6)


def test_a_long_conversation_is_warm_where_it_was_held() -> None:
    turns = [Turn("user", "x" * 8000), Turn("assistant", "y" * 400, candidate="warm"), Turn("user", "And now this?")]
    candidates = [priced("warm", 1.0, usd_per_mtok_cached_in=0.1), priced("cold", 0.8)]
    router = table_router({"And now this?": {"warm": 0.9, "cold": 0.9}}, TARGET, candidates=candidates)
    assert RoutingAsk.of(router, turns).request.warm == {"warm": 2100}
    assert RoutingAsk.of(router, turns).decide().candidate == "warm"
    assert RoutingAsk.of(router, [turns[0], turns[2]]).decide().candidate == "cold"
    assert (
        RoutingAsk.of(router, [Turn("user", "Hi!"), Turn("assistant", "Hi.", candidate="warm"), turns[2]]).request.warm
        == {}
    )


def test_a_decision_compares_list_prices() -> None:
    router = table_router(candidates=[priced("a", 1), priced("b", 4, reasoning=True), priced("c", None)])
    decision = router.route("Hello?")
    assert decision.candidate == "a"
    assert decision.costs_usd["b"] is None
    assert decision.list_price_ratio("b") == pytest.approx(4)
    assert decision.list_price_ratio("c") is None


# Unknown modalities and windows.


def test_unknown_modalities_come_after_those_that_are_known_to_take_the_input() -> None:
    blind, unknown = priced("blind", modalities=frozenset({"text"})), priced("unknown")
    seeing, request = priced("seeing", modalities=IMAGE), {"modalities": frozenset({"image"})}
    found = choice_of(RoutingPolicy(), [blind, unknown, seeing], 0.99, 0.9, 0.1, **request)
    assert found.ranking == (2, 1)
    assert found.notes == ("unknown comes after: whether it takes image input is unknown",)
    assert choice_of(RoutingPolicy(), [blind, unknown, seeing], 0.99, 0.9, 0.1).ranking == (0, 1, 2)
    alone = choice_of(RoutingPolicy(), [blind, unknown], 0.99, 0.9, **request)
    assert (alone.ranking, alone.notes) == ((1,), ("whether it takes image input is unknown",))
    strict = RoutingPolicy(unknown_modalities="exclude")
    found = choice_of(strict, [unknown, seeing], 0.9, 0.1, **request)
    assert (found.ranking, found.notes) == ((1,), ("1 left out: whether it takes image input is unknown (unknown)",))


def test_a_target_is_sought_among_those_that_are_known_first() -> None:
    zoo = [priced("cheap", 0.1), priced("dear", 9, modalities=IMAGE)]
    found = choice_of(TARGET, zoo, 0.9, 0.2, modalities=frozenset({"image"}))
    assert found.ranking == (1, 0)
    assert found.why == "the highest score, as none reaches 0.4"


def test_a_very_long_input_goes_to_a_known_window_first() -> None:
    zoo = [priced("unknown"), priced("large", context_window=1_000_000)]
    assert choice_of(RoutingPolicy(), zoo, 0.9, 0.1, context_chars=20_000).chosen == 0
    found = choice_of(RoutingPolicy(), zoo, 0.9, 0.1, context_chars=1_600_000)
    assert (found.ranking, found.notes) == ((1, 0), ("unknown comes after: its window is unknown",))


def test_what_a_wrapped_model_says_of_itself_decides() -> None:
    router = table_router(candidates=[priced("a"), priced("b")])
    said = ModelFacts({"a": {"tools": False, "context_window": 10, "modalities": {"text"}}, "b": {"modalities": IMAGE}})
    for request in ({"tools": True}, {"context_chars": 20_000}, {"modalities": frozenset({"image"})}):
        assert router.route("Hello?", request=RoutingRequest(facts=said, **request)).ranking == ("b",)
    assert router.route("Hello?").ranking == ("a", "b")
    turns = [Turn("user", "Hello?", frozenset({"image"}))]
    assert RoutingAsk.of(router, turns, facts=said).decide().candidate == "b"


# Settings that people write.


def test_a_policy_is_written_by_hand(tmp_path: Path) -> None:
    written = {"p.json": '{"objective": "target", "target": 0.7}', "p.yaml": "objective: target\ntarget: 0.7\n"}
    for name, text in written.items():
        (tmp_path / name).write_text(text)
        assert RoutingPolicy.load(tmp_path / name) == RoutingPolicy(objective="target", target=0.7)
        assert table_router(policy=tmp_path / name).policy.target == 0.7  # type: ignore[arg-type]
    assert table_router(policy={"objective": "target", "target": 0.7}).policy.target == 0.7  # type: ignore[arg-type]
    (tmp_path / "none.yaml").write_text("deny: [a, b]\n")
    assert RoutingPolicy.of(tmp_path / "none.yaml").deny == {"a", "b"}


def test_files_of_the_first_version_are_read_and_may_be_edited() -> None:
    old = (
        '{"kind": "routing-policy", "version": 1, "digest": "0", "objective": "target", "target": 0.7, "max_usd": null}'
    )
    assert RoutingPolicy.from_json(old) == RoutingPolicy(objective="target", target=0.7)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"objective": "target", "taget": 0.7}', "no setting 'taget'; did you mean 'target'?"),
        ("usd_wieght: 3", "did you mean 'usd_weight'"),
        ("zz: 3", "there are objective, usd_weight"),
        ('{"target": 7}', "target: Input should be less than or equal to 1"),
        ('{"max_usd": NaN}', "neither JSON nor YAML"),
        ("[1, 2]", "holds list"),
        ("just words", "holds str"),
        ("", "holds NoneType"),
        ('{"kind": "zoo"}', "holds 'zoo'"),
        ('{"objective": ', "neither JSON nor YAML"),
        ("a: b: c", "neither JSON nor YAML"),
        ("[" * 100_000, "neither JSON nor YAML"),
        ('{"objective": "value"}', "needs usd_weight"),
    ],
)
def test_settings_that_cannot_be_are_one_sentence(text: str, sentence: str, tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(text)
    with pytest.raises(PolicyError, match=r"policy\.yaml") as error:
        RoutingPolicy.load(file)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_a_mapping_in_python_is_checked_in_the_same_way() -> None:
    with pytest.raises(PolicyError, match="did you mean 'objective'"):
        table_router(policy={"objectiv": "target"})  # type: ignore[arg-type]
    with pytest.raises(PolicyError, match="got int"):
        RoutingPolicy.of(3)  # type: ignore[arg-type]
    with pytest.raises(PolicyError, match="did you mean 'unpriced'"):
        RoutingPolicy(unprised="allow")  # type: ignore[call-arg]


def test_value_states_its_exchange_rate() -> None:
    found = choice_of(RoutingPolicy(objective="value", usd_weight=200), [priced("a")], 0.5)
    assert found.why == "the best value, where one point is worth 0.05 USD per 1,000 calls"
    with pytest.raises(PolicyError, match="needs usd_weight"):
        RoutingPolicy(objective="value")
