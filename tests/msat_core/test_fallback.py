"""Who comes next when a candidate fails, and when it is too late for that."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from support import profile

from msat_core import Candidate, Zoo
from msat_core.errors import ConfigurationError, DispatchError
from msat_core.routing.attempts import Attempt, Attempts
from msat_core.routing.calls import afirst_answer, afirst_stream, first_answer, first_stream
from msat_core.routing.cooldown import Cooldown
from msat_core.routing.decision import RoutingDecision
from msat_core.routing.fallback import Fallback


def attempts(
    fallback: Fallback | None = None,
    cooldown: Cooldown | None = None,
    *,
    windows: Sequence[int | None] = (None, None, None),
    costs: dict[str, float | None] | None = None,
    **more: Any,
) -> Attempts:
    prices = costs or dict.fromkeys(("a", "b", "c"), 1.0)
    names = tuple(prices)
    members = [Candidate(profile=profile(n), context_window=w) for n, w in zip(names, windows, strict=False)]
    decision = RoutingDecision(
        candidate=names[0], score=0.9, scores={}, costs_usd=prices, ranking=names, excluded={}, reason=""
    )
    return Attempts(decision, Zoo(candidates=tuple(members)), fallback or Fallback(), cooldown, **more)


def failing(errors: dict[str, Exception]) -> Callable[[Attempt], str]:
    def call(name: Attempt) -> str:
        if name in errors:
            raise errors[name]
        return f"{name} answers"

    return call


def everybody(error: Exception) -> dict[str, Exception]:
    return dict.fromkeys(("a", "b", "c"), error)


def tried(trying: Attempts, call: Callable[[Attempt], Any]) -> list[str]:
    with contextlib.suppress(Exception):
        first_answer(trying, call)
    return [step["candidate"] for step in trying.path]


class Status(Exception):
    def __init__(self, status_code: int, text: str = "") -> None:
        super().__init__(text)
        self.status_code = status_code


def test_the_next_best_answers_and_it_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    trying = attempts()
    with caplog.at_level(logging.WARNING):
        assert first_answer(trying, failing({"a": ConnectionError("down")})) == "b answers"
    assert trying.path == [
        {"candidate": "a", "error": "ConnectionError: down", "kind": "unavailable"},
        {"candidate": "b"},
    ]
    assert trying.current == "b"
    assert [record.getMessage() for record in caplog.records] == [
        "b answered in place of a candidate that failed (a: ConnectionError: down)."
    ]


def test_the_error_raised_is_the_first_candidates_own_with_the_path_attached() -> None:
    down = ConnectionError("down")
    trying = attempts(Fallback(max_attempts=2))
    for _ in range(2):  # an exception that is raised again and again carries one note
        trying = attempts(Fallback(max_attempts=2))
        with pytest.raises(ConnectionError) as failed:
            first_answer(trying, failing({"a": down, "b": TimeoutError("late")}))
        assert failed.value is down
    assert down.__notes__ == ["msat: no candidate answered (a: ConnectionError: down; b: TimeoutError: late)."]
    assert down.msat_path == trying.path  # type: ignore[attr-defined]
    with pytest.raises(DispatchError, match=r"none fits into the budget of 1\.0 USD"):
        first_answer(attempts(Fallback(max_usd=1.0), costs={"a": 5.0, "b": None}), failing({}))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (Status(400, "messages: roles must alternate"), ["a"]),
        (Status(400, "no"), ["a", "b"]),  # unclear: one other
        (Status(400, "credit balance too low"), ["a", "b", "c"]),
        (Status(401), ["a", "b", "c"]),
        (ValueError("?"), ["a", "b", "c"]),
        (RuntimeError("Event loop is closed"), ["a"]),
    ],
)
def test_how_far_an_error_goes(error: Exception, expected: list[str]) -> None:
    trying = attempts()
    assert tried(trying, failing(everybody(error))) == expected


def test_what_an_adapter_knows_to_be_nobodys_failure_passes_unchanged() -> None:
    guard = ValueError("over budget")
    trying = attempts(passes=lambda error: error is guard)
    with pytest.raises(ValueError, match="over budget"):
        first_answer(trying, failing(everybody(guard)))
    assert trying.path == [{"candidate": "a"}]


def test_what_is_no_error_of_a_program_is_not_caught() -> None:
    def interrupted(name: Attempt) -> str:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        first_answer(attempts(Fallback(timeout_s=5)), interrupted)


def test_overflow_goes_to_a_larger_window() -> None:
    overflow = everybody(ValueError("maximum context length is 1000 tokens"))
    assert tried(attempts(windows=(1000, 500, 4000)), failing(overflow)) == ["a", "c"]
    throttled = everybody(Status(429, "Too many tokens, please wait"))
    assert tried(attempts(windows=(1000, 500, 4000)), failing(throttled)) == ["a", "b", "c"]


def test_deadline_and_budget_are_for_all_attempts_together() -> None:
    now = [0.0]

    def slow(name: Attempt) -> str:
        now[0] += 6.0
        raise ConnectionError("down")

    trying = attempts(Fallback(deadline_s=10), clock=lambda: now[0])
    assert tried(trying, slow) == ["a", "b"]
    down = failing(everybody(ConnectionError("down")))
    assert tried(attempts(Fallback(max_usd=2.5)), down) == ["a", "b"]
    dear = failing(dict.fromkeys(("dear", "cheap", "other"), ConnectionError("down")))
    assert tried(attempts(Fallback(max_usd=1.0), costs={"dear": 5.0, "cheap": 0.4, "other": 0.5}), dear) == [
        "cheap",
        "other",
    ]


@pytest.mark.parametrize(
    "bad",
    [
        {"max_attempts": 0},
        {"timeout_s": 0.0},
        {"max_usd": -1.0},
        {"deadline_s": float("nan")},
        {"max_usd": float("nan")},
        {"timeout_s": float("inf")},
        {"empty": "maybe"},
    ],
)
def test_settings_are_checked(bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        Fallback(**bad)


# --- resting ---


def test_a_dead_candidate_is_asked_at_most_three_times_in_fifty_calls() -> None:
    cooldown, asked = Cooldown(), []

    def call(name: Attempt) -> str:
        asked.append(str(name))
        if name == "a":
            time.sleep(30)
        return "hello"

    for _ in range(50):
        trying = attempts(Fallback(timeout_s=0.05), cooldown)
        first_answer(trying, call)
    assert asked.count("a") <= 3
    assert sum(thread.name == "msat-call" for thread in threading.enumerate()) <= 3
    assert trying.path == [{"candidate": "b"}]
    assert trying.resting["a"] > 0


def test_those_who_rest_are_asked_where_nobody_else_answers() -> None:
    cooldown = Cooldown()
    down = failing(everybody(ConnectionError("down")))
    for _ in range(4):
        tried(attempts(None, cooldown), down)
    assert tried(attempts(None, cooldown), failing({})) == ["a"]  # all rest: the best is asked
    for _ in range(4):
        tried(attempts(None, cooldown, costs={"a": 1.0}), failing({"a": ConnectionError("down")}))
    assert tried(attempts(None, cooldown, costs={"a": 1.0}), failing({})) == ["a"]  # the caller insists on it


def test_a_request_that_nobody_takes_makes_nobody_rest() -> None:
    cooldown = Cooldown()
    for _ in range(5):
        tried(attempts(None, cooldown), failing(everybody(ValueError("odd"))))
    assert [cooldown.resting_s(name) for name in "abc"] == [0.0] * 3
    for _ in range(3):
        tried(attempts(None, cooldown), failing({"a": ValueError("odd")}))
    assert cooldown.resting_s("a") > 0


# --- streams ---


class Counted:
    """A stream that counts how often it was closed; an exception among its chunks is raised."""

    def __init__(self, *chunks: Any) -> None:
        self.chunks, self.closed = iter(chunks), 0

    def __iter__(self) -> Counted:
        return self

    def __next__(self) -> Any:
        chunk = next(self.chunks)
        if isinstance(chunk, Exception):
            raise chunk
        return chunk

    def close(self) -> None:
        self.closed += 1

    def __aiter__(self) -> Counted:
        return self

    async def __anext__(self) -> Any:
        try:
            return next(self)
        except StopIteration:
            raise StopAsyncIteration from None

    async def aclose(self) -> None:
        self.closed += 1


async def test_streams_are_closed_when_they_end_and_when_nobody_reads_on() -> None:
    for read in (3, 1):
        stream = Counted("a", "b", "c")
        chunks = iter(first_stream(attempts(), lambda name: stream))  # noqa: B023
        assert [next(chunks) for _ in range(read)] == ["a", "b", "c"][:read]
        chunks.close()  # type: ignore[attr-defined]
        assert stream.closed
        astream = Counted("a", "b", "c")
        opened = await afirst_stream(attempts(), lambda name: astream)  # noqa: B023
        async with contextlib.aclosing(aiter(opened)) as found:
            assert [await anext(found) for _ in range(read)] == ["a", "b", "c"][:read]
        assert astream.closed == 1


async def test_fallback_is_open_until_the_first_token() -> None:
    def start(name: Attempt) -> Counted:
        return Counted("", ConnectionError("overloaded")) if name == "a" else Counted("", "hello")

    assert list(first_stream(attempts(), start)) == ["", "hello"]
    assert [chunk async for chunk in await afirst_stream(attempts(), start)] == ["", "hello"]
    broken = attempts()
    with pytest.raises(ConnectionError):
        list(first_stream(broken, lambda name: Counted("one", ConnectionError("broke"))))
    assert broken.path == [{"candidate": "a"}]


async def test_a_stream_without_a_chunk_is_no_answer() -> None:
    trying = attempts()
    assert list(first_stream(trying, lambda name: Counted() if name == "a" else Counted("hello"))) == ["hello"]
    assert trying.path[0]["kind"] == "empty"
    nobody = attempts()
    assert list(first_stream(nobody, lambda name: Counted())) == []
    assert nobody.current == "a"
    assert [chunk async for chunk in await afirst_stream(attempts(), lambda name: Counted())] == []
    silent = attempts(Fallback(empty="next"))
    assert list(first_stream(silent, lambda name: Counted("") if name == "a" else Counted("hello"))) == ["hello"]
    assert list(first_stream(attempts(), lambda name: Counted("", ""))) == ["", ""]


def drip(n: int, gap_s: float) -> Iterator[str]:
    for i in range(n):
        time.sleep(gap_s)
        yield str(i)


async def adrip(n: int, gap_s: float) -> Any:
    for i in range(n):
        await asyncio.sleep(gap_s)
        yield str(i)


async def test_a_timeout_is_that_to_the_first_token_and_a_deadline_holds_to_the_last() -> None:
    assert len(list(first_stream(attempts(Fallback(timeout_s=0.2)), lambda name: drip(6, 0.06)))) == 6
    got: list[str] = []
    with pytest.raises(TimeoutError, match="deadline"):
        for chunk in first_stream(attempts(Fallback(deadline_s=0.3)), lambda name: drip(100, 0.05)):
            got.append(chunk)
    assert 0 < len(got) < 20
    opened = await afirst_stream(attempts(Fallback(timeout_s=0.2)), lambda name: adrip(6, 0.06))
    assert len([chunk async for chunk in opened]) == 6
    got.clear()
    with pytest.raises(TimeoutError, match="deadline"):
        async for chunk in await afirst_stream(attempts(Fallback(deadline_s=0.3)), lambda name: adrip(100, 0.05)):
            got.append(chunk)
    assert 0 < len(got) < 20


def test_a_stalled_stream_ends_at_the_deadline() -> None:
    def stalls(name: Attempt) -> Iterator[str]:
        yield "one"
        time.sleep(60)

    with pytest.raises(TimeoutError, match="deadline"):
        list(first_stream(attempts(Fallback(deadline_s=0.2)), stalls))


# --- time ---


async def test_an_attempt_that_has_begun_is_not_late() -> None:
    def speaking(attempt: Attempt) -> str:
        attempt.begin()
        time.sleep(0.3)
        return f"{attempt} answers"

    async def aspeaking(attempt: Attempt) -> str:
        attempt.begin()
        await asyncio.sleep(0.3)
        return f"{attempt} answers"

    assert first_answer(attempts(Fallback(timeout_s=0.1)), speaking) == "a answers"
    assert await afirst_answer(attempts(Fallback(timeout_s=0.1)), aspeaking) == "a answers"
    with pytest.raises(TimeoutError, match="deadline"):
        first_answer(attempts(Fallback(timeout_s=0.05, deadline_s=0.1)), speaking)
    with pytest.raises(TimeoutError, match="deadline"):
        await afirst_answer(attempts(Fallback(timeout_s=0.05, deadline_s=0.1)), aspeaking)


def test_an_attempt_that_was_given_up_is_cut_off() -> None:
    told: list[str] = []
    released = threading.Event()

    def call(attempt: Attempt) -> str:
        if attempt == "b":
            return "b answers"
        attempt.when_given_up(lambda error: told.append(str(error)))
        released.wait(10)
        told.append(f"may speak: {attempt.begin()}")
        return "too late"

    assert first_answer(attempts(Fallback(timeout_s=0.05)), call) == "b answers"
    assert told == ["No answer within 0.1 s."]
    released.set()
    while len(told) < 2:
        time.sleep(0.001)
    assert told[1] == "may speak: False"


def test_a_late_call_is_left_behind_and_holds_nothing_up() -> None:
    code = (
        "import time\n"
        "from msat_core import Attempts, Fallback, RoutingDecision, Zoo, first_answer\n"
        "d = RoutingDecision(candidate='a', score=1, scores={}, costs_usd={}, ranking=(), excluded={}, reason='')\n"
        "try: first_answer(Attempts(d, Zoo(), Fallback(timeout_s=.05)), lambda name: time.sleep(600))\n"
        "except TimeoutError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout == "No answer within 0.1 s.\n"
    seen: contextvars.ContextVar[str] = contextvars.ContextVar("seen")
    seen.set("by the caller")
    assert first_answer(attempts(Fallback(timeout_s=5)), lambda name: seen.get()) == "by the caller"


async def test_a_callers_cancellation_ends_the_call() -> None:
    ended: list[str] = []

    async def call(name: Attempt) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(str(name))

    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(afirst_answer(attempts(Fallback(timeout_s=30)), call), 0.05)
    assert ended == ["a"]
