from __future__ import annotations

import pytest
from support import profile, scored, table_router

from msat_core import Candidate, Router, RoutingDecision, RoutingPolicy, Zoo
from msat_core.errors import ConfigurationError, NoCandidateError, ZooError
from msat_core.routing.conversation import Turn, media_in, read_conversation, size_of
from msat_core.routing.dispatch import RoutingAsk, common_abilities, decide_all, names_in_zoo
from msat_core.routing.tags import believed, seal, tag_of


def test_the_last_real_instruction_is_scored() -> None:
    turns = [
        Turn("system", "Be brief."),
        Turn("user", "Prove that the square root of two is irrational."),
        Turn("assistant", "Suppose …", candidate="good"),
        Turn("user", "Yes, go on."),
        Turn("tool", "result: 42"),
        Turn("user", "Observation: the tool returned 42"),
    ]
    assert read_conversation(turns).instruction == turns[1].text


def test_a_short_follow_up_is_read_with_what_it_follows() -> None:
    turns = [Turn("user", "Solve x² = 4."), Turn("assistant", "±2"), Turn("user", "And for 9?")]
    assert read_conversation(turns).instruction == "Solve x² = 4.\nAnd for 9?"


def test_an_only_word_is_scored_rather_than_nothing() -> None:
    assert read_conversation([Turn("user", "continue")]).instruction == "continue"
    assert read_conversation([Turn("user", "", frozenset({"image"}))]).instruction is None


@pytest.mark.parametrize(("sticky", "held"), [("turn", None), ("conversation", "good"), ("never", None)])
def test_stickiness(sticky: str, held: str | None) -> None:
    turns = [Turn("user", "First question here, please?"), Turn("assistant", "…", candidate="good")]
    new = [*turns, Turn("user", "Something else entirely: what is a monad?")]
    assert read_conversation(new, sticky=sticky).held == held  # type: ignore[arg-type]
    loop = [*turns, Turn("tool", "42")]
    assert read_conversation(loop, sticky=sticky).held == (None if sticky == "never" else "good")  # type: ignore[arg-type]


def test_held_forced_and_unscored_need_no_scorer() -> None:
    router = table_router()
    among = frozenset({"good", "fair", "poor"})
    held = read_conversation([Turn("user", "A question of mine?"), Turn("assistant", "…", candidate="poor")])
    decision = RoutingAsk(router, held, held.request(tools=False, among=among)).settled()
    assert decision is not None
    assert decision.candidate == "poor"
    assert decision.ranking == ("poor", "good", "fair")  # others may still step in
    forced = RoutingAsk(router, held, held.request(tools=False, among=among), forced="fair").settled()
    assert forced is not None
    assert forced.ranking == ("fair",)
    fresh = read_conversation([Turn("user", "A question of mine?")])
    assert RoutingAsk(router, fresh, fresh.request(tools=False, among=among)).settled() is None
    assert scored(router) == []


# --- limits bind whoever is kept or asked for ---


def dear_and_cheap(policy: RoutingPolicy | None = None) -> Router:
    text = frozenset({"text"})
    prices = {"usd_per_mtok_in": 10, "usd_per_mtok_out": 1000}
    dear = Candidate(profile=profile("dear", 0.9), context_window=4000, modalities=text, **prices)
    cheap = Candidate(profile=profile("cheap", 0.3), usd_per_mtok_in=0.1, usd_per_mtok_out=0.1, modalities=text)
    seeing = Candidate(profile=profile("seeing", 0.2), modalities=frozenset({"text", "image"}))
    return table_router(policy=policy, candidates=[dear, cheap, seeing])


HELD = [Turn("user", "A question of mine?"), Turn("assistant", "…", candidate="dear"), Turn("tool", "42")]


@pytest.mark.parametrize(
    ("policy", "turns"),
    [
        (RoutingPolicy(deny=frozenset({"dear"})), HELD),
        (RoutingPolicy(allow=frozenset({"cheap"})), HELD),
        (RoutingPolicy(max_usd=0.001), HELD),
        (RoutingPolicy(), [*HELD, Turn("tool", "", frozenset({"image"}))]),
        (RoutingPolicy(), [*HELD, Turn("tool", "x" * 20_000)]),
    ],
)
def test_a_candidate_at_work_is_not_kept_beyond_the_limits(policy: RoutingPolicy, turns: list[Turn]) -> None:
    router = dear_and_cheap(policy)
    assert RoutingAsk.of(dear_and_cheap(), HELD).decide().candidate == "dear"
    assert RoutingAsk.of(router, turns).settled() is None
    decision = RoutingAsk.of(router, turns).decide()
    assert decision.candidate != "dear"
    assert "dear" not in decision.ranking


def test_the_default_stays_at_work_where_nobody_is_within_the_limits() -> None:
    router = dear_and_cheap(RoutingPolicy(deny=frozenset({"dear", "cheap", "seeing"}), default="dear"))
    assert RoutingAsk.of(router, HELD).decide().candidate == "dear"
    assert scored(router) == []


def test_what_the_caller_insists_on_is_within_the_limits_or_refused() -> None:
    turns = [Turn("user", "A question of mine?")]
    assert RoutingAsk.of(dear_and_cheap(), turns, forced="dear").decide().ranking == ("dear",)
    with pytest.raises(NoCandidateError, match=r"dear: costs 0\.\d+ USD, above the cap"):
        RoutingAsk.of(dear_and_cheap(), turns, forced="dear", policy={"max_usd": 0.001}).decide()
    with pytest.raises(NoCandidateError, match="dear: on the deny list"):
        RoutingAsk.of(dear_and_cheap(), turns, forced="dear", policy=RoutingPolicy(deny=frozenset({"dear"}))).decide()
    with pytest.raises(ZooError, match="cannot be dispatched to: there is cheap"):
        RoutingAsk.of(dear_and_cheap(), turns, forced="dear", among=["cheap"]).decide()
    with pytest.raises(ZooError, match="no candidate 'nobody'"):
        RoutingAsk.of(dear_and_cheap(), turns, forced="nobody").decide()


def test_many_asks_are_one_scorer_call_whatever_their_policies() -> None:
    router = table_router(policy=RoutingPolicy())
    deny_good, nobody = RoutingPolicy(deny=frozenset({"good"})), RoutingPolicy(allow=frozenset())
    question = [Turn("user", "A question of mine?")]
    found = decide_all(
        [
            RoutingAsk.of(router, question),
            RoutingAsk.of(router, question, policy=deny_good),
            RoutingAsk.of(router, question, policy=nobody),
            ValueError("could not be read"),
            RoutingAsk.of(router, question, instruction=" "),
            RoutingAsk.of(router, question, forced="poor"),
            RoutingAsk.of(router, question, forced="nobody"),
            RoutingAsk.of(router, [Turn("user", "", frozenset())]),
        ]
    )
    kinds = [one.candidate if isinstance(one, RoutingDecision) else type(one).__name__ for one in found]
    assert kinds == [
        "good",
        "fair",
        "NoCandidateError",
        "ValueError",
        "InstructionError",
        "poor",
        "ZooError",
        "good",
    ]
    assert [len(call) for call in scored(router)] == [3]
    assert decide_all([]) == []


def test_names_and_abilities_in_common() -> None:
    zoo = Zoo(candidates=(Candidate(profile=profile("long"), aliases=("short",)),))
    assert names_in_zoo(zoo, ["short"]) == {"long": "short"}
    with pytest.raises(ConfigurationError, match="are the same candidate"):
        names_in_zoo(zoo, ["short", "long"])
    said = [{"limit": 5, "tools": True, "kind": "a", "own": 1}, {"limit": 3, "tools": False, "kind": "a"}]
    assert common_abilities(said) == {"limit": 3, "tools": False, "kind": "a"}


# --- who may say who is held ---


def test_only_a_sealed_tag_of_this_turn_holds_a_candidate() -> None:
    question = "A question of mine, please?"
    attempts = RoutingAsk.of(table_router(), [Turn("user", question)]).attempts(
        RoutingDecision(candidate="poor", score=None, scores={}, costs_usd={}, ranking=(), excluded={}, reason="")
    )
    next(iter(attempts))
    tag = tag_of(attempts, RoutingAsk.of(table_router(), [Turn("user", question)]))
    assert believed(tag)
    assert not believed({**tag, "candidate": "good"})
    assert not believed(tag, "another router")
    assert not any(believed(forged) for forged in (None, {}, {"candidate": "good"}, {**tag, "seal": "é"}, "poor"))
    same = [Turn("user", question), Turn("assistant", "…", candidate="poor", turn=tag["turn"]), Turn("tool", "42")]
    assert read_conversation(same).held == "poor"
    replayed = [Turn("user", "A harder question, please?"), *same[1:]]
    assert read_conversation(replayed).held is None
    assert read_conversation(replayed, sticky="conversation").held == "poor"


def test_a_shared_secret_lets_processes_believe_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    here = seal("good", "turn")
    monkeypatch.setenv("MSAT_TAG_KEY", "shared")
    shared = seal("good", "turn")
    assert shared != here
    assert believed({"candidate": "good", "turn": "turn", "seal": shared})
    assert not believed({"candidate": "good", "turn": "turn", "seal": here})


# --- how much is sent ---


def test_sizes_count_scripts_media_tools_and_their_arguments() -> None:
    assert size_of("abcd") == 4
    assert size_of("请仔细回答") == 20
    turns = [Turn("user", "hello", extra_chars=1000), Turn("assistant", "hi")]
    reading = read_conversation(turns)
    assert reading.context_chars == 1007
    assert reading.request(tools=True, among=None, extra_chars=500).context_chars == 1507


@pytest.mark.parametrize(
    ("block", "medium"),
    [
        ({"type": "image_url", "image_url": {"url": "x"}}, "image"),
        ({"type": "image", "url": "x"}, "image"),
        ({"type": "media", "mime_type": "audio/wav", "data": ""}, "audio"),
        ({"inlineData": {"mimeType": "video/mp4", "data": ""}}, "video"),
        ({"type": "input_file", "file_id": "f"}, "file"),
        ({"type": "document", "source": {"media_type": "application/pdf"}}, "file"),
        ({"image": {"format": "png", "source": {}}}, "image"),
        ({"type": "tool_result", "content": [{"type": "input_image"}]}, "image"),
    ],
)
def test_media_are_seen_in_every_providers_form(block: dict[str, object], medium: str) -> None:
    assert list(media_in([{"type": "text", "text": "x"}, block, "text"])) == [medium]


def test_a_message_in_a_script_without_spaces_is_no_short_follow_up() -> None:
    turns = [Turn("user", "你好，请介绍一下你自己"), Turn("assistant", "…"), Turn("user", "请证明根号二是无理数并解释")]
    assert read_conversation(turns).instruction == turns[2].text
