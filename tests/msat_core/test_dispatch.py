from __future__ import annotations

import contextlib
import contextvars
import subprocess
import sys
from collections.abc import Sequence

import pytest
from support import profile, table_router

from msat_core import Candidate, Router, RoutingDecision, RoutingPolicy, Zoo
from msat_core.errors import ConfigurationError, DispatchError, NoCandidateError, ZooError
from msat_core.routing.conversation import Turn, read_conversation
from msat_core.routing.dispatch import Ask, common_abilities, decide_all, names_of
from msat_core.routing.failures import failure_kind, within
from msat_core.routing.fallback import Attempts, Fallback, afirst_stream, first_stream


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
    decision = Ask(router, held, held.request(tools=False, among=among)).settled()
    assert decision is not None
    assert decision.candidate == "poor"
    assert decision.ranking == ("poor", "good", "fair")  # others may still step in
    forced = Ask(router, held, held.request(tools=False, among=among), forced="fair").settled()
    assert forced is not None
    assert forced.ranking == ("fair",)
    fresh = read_conversation([Turn("user", "A question of mine?")])
    assert Ask(router, fresh, fresh.request(tools=False, among=among)).settled() is None
    assert router.scorer.calls == []  # type: ignore[attr-defined]


def attempts(fallback: Fallback, *, windows: Sequence[int | None] = (None, None, None), **clock: object) -> Attempts:
    names = ("a", "b", "c")
    members = [Candidate(profile=profile(n), context_window=w) for n, w in zip(names, windows, strict=True)]
    zoo = Zoo(candidates=tuple(members))
    decision = RoutingDecision(
        candidate="a", score=0.9, scores={}, costs_usd=dict.fromkeys(names, 1.0), ranking=names, excluded={}, reason=""
    )
    return Attempts(decision, zoo, fallback, **clock)  # type: ignore[arg-type]


def walk(trying: Attempts, error: Exception) -> list[str]:
    tried = []
    for name in trying:
        tried.append(name)
        trying.failed(error)
    return tried


def test_the_next_best_is_tried_up_to_the_limit() -> None:
    trying = attempts(Fallback(max_attempts=2))
    assert walk(trying, ConnectionError("down")) == ["a", "b"]
    error = trying.exhausted()
    assert isinstance(error, DispatchError)
    assert "a: ConnectionError: down; b: ConnectionError: down" in str(error)
    assert [step["kind"] for step in trying.path] == ["unavailable", "unavailable"]


def test_a_bad_request_is_not_tried_again() -> None:
    class BadRequestError(Exception):
        status_code = 400

    trying = attempts(Fallback())
    with pytest.raises(BadRequestError):
        walk(trying, BadRequestError("no such parameter"))
    assert len(trying.path) == 1


def test_overflow_goes_to_a_larger_window() -> None:
    trying = attempts(Fallback(), windows=(1000, 500, 4000))
    assert walk(trying, ValueError("maximum context length is 1000 tokens")) == ["a", "c"]


def test_deadline_and_budget_are_for_all_attempts_together() -> None:
    now = iter([0.0, 0.0, 5.0, 11.0])  # at the start, then before each attempt
    assert walk(attempts(Fallback(deadline_s=10), clock=lambda: next(now)), TimeoutError()) == ["a", "b"]
    assert walk(attempts(Fallback(max_usd=2.5)), TimeoutError()) == ["a", "b"]


def test_one_failure_alone_is_raised_as_it_came() -> None:
    error = KeyError("x")
    trying = attempts(Fallback(max_attempts=1))
    walk(trying, error)
    assert trying.exhausted() is error


@pytest.mark.parametrize("bad", [{"max_attempts": 0}, {"timeout_s": 0.0}, {"max_usd": -1.0}])
def test_settings_are_checked(bad: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError):
        Fallback(**bad)  # type: ignore[arg-type]


def test_errors_are_told_apart() -> None:
    class RateLimitError(Exception): ...

    class Status(Exception):
        def __init__(self, code: int) -> None:
            self.status_code = code

    assert failure_kind(RateLimitError()) == failure_kind(Status(429)) == "rate_limit"
    assert failure_kind(Status(503)) == failure_kind(ConnectionError()) == "unavailable"
    assert failure_kind(TimeoutError()) == failure_kind(Status(408)) == "timeout"
    assert failure_kind(Status(422)) == "bad_request"
    assert failure_kind(Exception("This model's maximum context length is 8192")) == "context_overflow"
    assert failure_kind(ValueError("?")) == "other"


# --- limits bind whoever is kept or asked for ---


def dear_and_cheap(policy: RoutingPolicy | None = None) -> Router:
    dear = Candidate(profile=profile("dear", 0.9), usd_per_mtok_in=10, usd_per_mtok_out=1000, context_window=4000)
    cheap = Candidate(profile=profile("cheap", 0.3), usd_per_mtok_in=0.1, usd_per_mtok_out=0.1)
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
    assert Ask.of(dear_and_cheap(), HELD).decide().candidate == "dear"
    assert Ask.of(router, turns).settled() is None
    decision = Ask.of(router, turns).decide()
    assert decision.candidate != "dear"
    assert "dear" not in decision.ranking


def test_the_default_stays_at_work_where_nobody_is_within_the_limits() -> None:
    router = dear_and_cheap(RoutingPolicy(deny=frozenset({"dear", "cheap", "seeing"}), default="dear"))
    assert Ask.of(router, HELD).decide().candidate == "dear"
    assert router.scorer.calls == []  # type: ignore[attr-defined]


def test_what_the_caller_insists_on_is_within_the_limits_or_refused() -> None:
    turns = [Turn("user", "A question of mine?")]
    assert Ask.of(dear_and_cheap(), turns, forced="dear").decide().ranking == ("dear",)
    with pytest.raises(NoCandidateError, match=r"dear: costs 0\.\d+ USD, above the cap"):
        Ask.of(dear_and_cheap(), turns, forced="dear", policy={"max_usd": 0.001}).decide()
    with pytest.raises(NoCandidateError, match="dear: on the deny list"):
        Ask.of(dear_and_cheap(), turns, forced="dear", policy=RoutingPolicy(deny=frozenset({"dear"}))).decide()
    with pytest.raises(ZooError, match="cannot be dispatched to: there is cheap"):
        Ask.of(dear_and_cheap(), turns, forced="dear", among=["cheap"]).decide()
    with pytest.raises(ZooError, match="no candidate 'nobody'"):
        Ask.of(dear_and_cheap(), turns, forced="nobody").decide()


def test_many_asks_are_one_scorer_call_whatever_their_policies() -> None:
    router = table_router(policy=RoutingPolicy())
    deny_good, nobody = RoutingPolicy(deny=frozenset({"good"})), RoutingPolicy(allow=frozenset({"zz"}))
    question = [Turn("user", "A question of mine?")]
    found = decide_all(
        [
            Ask.of(router, question),
            Ask.of(router, question, policy=deny_good),
            Ask.of(router, question, policy=nobody),
            ValueError("could not be read"),
            Ask.of(router, question, instruction=" "),
            Ask.of(router, question, forced="poor"),
            Ask.of(router, question, forced="nobody"),
            Ask.of(router, [Turn("user", "", frozenset())]),
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
    assert [len(call) for call in router.scorer.calls] == [3]  # type: ignore[attr-defined]
    assert decide_all([]) == []


def test_names_and_abilities_in_common() -> None:
    zoo = Zoo(candidates=(Candidate(profile=profile("long"), aliases=("short",)),))
    assert names_of(zoo, ["short"]) == {"long": "short"}
    with pytest.raises(ConfigurationError, match="are the same candidate"):
        names_of(zoo, ["short", "long"])
    said = [{"limit": 5, "tools": True, "kind": "a", "own": 1}, {"limit": 3, "tools": False, "kind": "a"}]
    assert common_abilities(said) == {"limit": 3, "tools": False, "kind": "a"}


# --- budget ---


def budget(max_usd: float, **costs: float | None) -> Attempts:
    zoo = Zoo.of(profile(n) for n in costs)
    names = tuple(costs)
    decision = RoutingDecision(
        candidate=names[0], score=0.9, scores={}, costs_usd=costs, ranking=names, excluded={}, reason=""
    )
    return Attempts(decision, zoo, Fallback(max_usd=max_usd))


def test_the_budget_binds_the_first_attempt_too() -> None:
    assert walk(budget(1.0, dear=5.0, cheap=0.4, other=0.5), TimeoutError()) == ["cheap", "other"]
    assert walk(budget(1.0, unknown=None, cheap=0.4), TimeoutError()) == ["cheap"]
    nobody = budget(1.0, dear=5.0)
    assert walk(nobody, TimeoutError()) == []
    assert "none fits into the budget of 1.0 USD" in str(nobody.exhausted())


# --- streams ---


class Counted:
    """A stream that counts how often it was closed."""

    def __init__(self, *chunks: str) -> None:
        self.chunks, self.closed = iter(chunks), 0

    def __iter__(self) -> Counted:
        return self

    def __next__(self) -> str:
        return next(self.chunks)

    def close(self) -> None:
        self.closed += 1

    def __aiter__(self) -> Counted:
        return self

    async def __anext__(self) -> str:
        for chunk in self.chunks:
            return chunk
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self.closed += 1


async def test_streams_are_closed_when_they_end_and_when_nobody_reads_on() -> None:
    for read in (3, 1):
        stream = Counted("a", "b", "c")
        chunks = iter(first_stream(attempts(Fallback()), lambda name: stream))  # noqa: B023
        assert [next(chunks) for _ in range(read)] == ["a", "b", "c"][:read]
        chunks.close()  # type: ignore[attr-defined]
        assert stream.closed
        astream = Counted("a", "b", "c")
        opened = await afirst_stream(attempts(Fallback()), lambda name: astream)  # noqa: B023
        async with contextlib.aclosing(aiter(opened)) as found:  # type: ignore[type-var]
            assert [await anext(found) for _ in range(read)] == ["a", "b", "c"][:read]
        assert astream.closed == 1
    assert list(first_stream(attempts(Fallback()), lambda name: iter(["plain"]))) == ["plain"]
    assert list(first_stream(attempts(Fallback()), lambda name: iter([]))) == []


# --- time ---


def test_a_late_call_is_left_behind_and_holds_nothing_up() -> None:
    code = (
        "import time, msat_core.routing.failures as f\n"
        "try: f.within(0.05, time.sleep, 600)\n"
        "except TimeoutError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout == "No answer within 0.1 s.\n"
    assert within(5, lambda: "in time") == "in time"
    assert within(None, lambda: "no limit") == "no limit"

    def own() -> None:
        raise TimeoutError("the call's own")

    with pytest.raises(TimeoutError, match="the call's own"):
        within(5, own)
    seen: contextvars.ContextVar[str] = contextvars.ContextVar("seen")
    seen.set("by the caller")
    assert within(5, seen.get) == "by the caller"


def test_more_errors_told_apart() -> None:
    class Status(Exception):
        def __init__(self, text: str, **facts: object) -> None:
            super().__init__(text)
            self.__dict__.update(facts)

    response = type("Response", (), {"status_code": 503})()
    expected = {
        "authentication": [Status("no such key", status_code=401), Status("not for you", code=403)],
        "not_found": [Status("The model `x` does not exist", status_code=404)],
        "context_overflow": [
            Status("Request Entity Too Large", status_code=413),
            Status("prompt is too long: 210000 tokens > 200000 maximum", status_code=400),
            Status("The input token count exceeds the maximum number of tokens allowed", code=400),
            Status("Input is too long for requested model."),
        ],
        "unavailable": [Status("", response=response), type("APIConnectionError", (Exception,), {})()],
        "timeout": [type("APITimeoutError", (Exception,), {})()],
        "bad_request": [Status("unknown parameter", code="invalid_request", status_code=400)],
        "other": [Status("?", code="strange")],
    }
    for kind, errors in expected.items():
        assert [failure_kind(error) for error in errors] == [kind] * len(errors)


@pytest.mark.parametrize("kind", [401, 404])
def test_a_refused_key_or_an_unknown_model_is_that_candidates_alone(kind: int) -> None:
    error = type("APIError", (Exception,), {"status_code": kind})()
    assert walk(attempts(Fallback()), error) == ["a", "b", "c"]
