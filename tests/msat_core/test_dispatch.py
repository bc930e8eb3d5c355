from __future__ import annotations

from collections.abc import Sequence

import pytest
from support import profile, table_router

from msat_core import Candidate, RoutingDecision, Zoo
from msat_core.errors import ConfigurationError, DispatchError
from msat_core.routing.dispatch import Ask, Attempts, Fallback, Turn, read_conversation
from msat_core.routing.failures import failure_kind


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
