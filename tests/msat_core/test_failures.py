"""Whose fault an error is, what is kept of it, and who rests for how long."""

from __future__ import annotations

import asyncio
import builtins
import pickle
import sys
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from typing import Any

import pytest

from msat_core.errors import ConfigurationError, EmptyAnswerError
from msat_core.routing.cooldown import STRIKES, Cooldown
from msat_core.routing.failures import Failure, failure_kind, failure_of
from msat_core.scrubbing import kept_text, scrubbed


def status(number: int, text: str = "", **facts: Any) -> Exception:
    """An error as providers' clients raise it."""
    error: Exception = type("APIStatusError", (Exception,), {})(text)
    error.__dict__.update(status_code=number, **facts)
    return error


def named(name: str, *bases: type[Exception], text: str = "") -> Exception:
    error: Exception = type(name, bases or (Exception,), {})(text)
    return error


class Response:
    def __init__(self, status_code: int, **headers: str) -> None:
        self.status_code = status_code
        self.headers = {key.replace("_", "-"): value for key, value in headers.items()}


BUBBLE = type("GraphBubbleUp", (Exception,), {})
CASES: list[tuple[str, BaseException]] = [
    ("control_flow", asyncio.CancelledError()),
    ("control_flow", KeyboardInterrupt()),
    ("control_flow", type("GraphInterrupt", (BUBBLE,), {})()),
    ("caller", RuntimeError("Event loop is closed")),
    ("caller", ConfigurationError("x")),
    ("rate_limit", named("RateLimitError")),
    ("rate_limit", status(429)),
    ("rate_limit", status(429, "Too many tokens, please wait before trying again.")),
    ("rate_limit", named("ThrottlingException", text="Too many tokens")),
    ("rate_limit", named("ResourceExhausted")),
    ("quota", status(429, code="insufficient_quota")),
    ("quota", status(400, "Your credit balance is too low")),
    ("quota", status(402)),
    ("unavailable", status(503)),
    ("unavailable", ConnectionError()),
    ("unavailable", named("APIConnectionError")),
    ("unavailable", status(529, "overloaded")),
    ("unavailable", type("E", (Exception,), {"response": Response(502)})()),
    ("timeout", TimeoutError()),
    ("timeout", status(408)),
    ("timeout", named("APITimeoutError")),
    ("timeout", named("DeadlineExceeded")),
    ("authentication", status(401)),
    ("authentication", status(403)),
    ("authentication", status(400, "API key not valid. Please pass a valid API key.")),
    ("not_found", status(404)),
    ("not_found", status(400, "The model `x` has been decommissioned.")),
    ("not_found", status(400, code="model_not_found")),
    ("context_overflow", status(400, code="context_length_exceeded")),
    ("context_overflow", status(413)),
    ("context_overflow", named("ContextOverflowError")),
    ("context_overflow", status(400, "prompt is too long: 210000 tokens > 200000 maximum")),
    ("context_overflow", ValueError("This model's maximum context length is 8192 tokens")),
    ("content_filter", status(400, code="content_filter")),
    ("content_filter", status(400, "filtered by the content management policy")),
    ("unsupported", status(400, code="unsupported_parameter")),
    ("unsupported", status(400, "'top_k' is not supported with this model")),
    ("foreign_content", status(400, "messages.1: Invalid `signature` in `thinking` block")),
    ("foreign_content", status(400, "Tool call id was call_1 but must be a-z, with a length of 9.")),
    ("bad_request", status(400, code="invalid_function_parameters")),
    ("bad_request", status(400, "messages: roles must alternate")),
    ("unclear_request", status(400, "no")),
    ("unclear_request", status(422)),
    ("unclear_request", status(400, "?", code="invalid_request_error")),
    ("empty", EmptyAnswerError("nothing")),
    ("cut", EmptyAnswerError("no end", kind="cut")),
    ("other", ValueError("?")),
    ("other", status(0, code="strange")),
]


@pytest.mark.parametrize(("kind", "error"), CASES)
def test_errors_are_told_apart(kind: str, error: BaseException) -> None:
    assert failure_kind(error) == kind


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exception groups came with Python 3.11")
def test_a_group_is_what_is_final_in_it() -> None:
    assert failure_kind(builtins.ExceptionGroup("", [ValueError(), BUBBLE()])) == "control_flow"
    assert failure_kind(builtins.ExceptionGroup("", [TimeoutError(), ValueError()])) == "timeout"


def test_codes_come_before_status_and_status_before_prose() -> None:
    assert failure_kind(status(400, "rate limit", code="content_filter")) == "content_filter"
    assert failure_kind(status(429, "maximum context length")) == "rate_limit"
    assert failure_kind(status(403, body={"error": {"code": "insufficient_quota"}})) == "quota"
    amazon = type("ClientError", (Exception,), {})("Too many tokens")
    amazon.response = {"Error": {"Code": "ThrottlingException"}, "ResponseMetadata": {"HTTPStatusCode": 400}}
    assert failure_kind(amazon) == "rate_limit"


def test_a_closed_loop_is_found_behind_a_clients_own_error() -> None:
    try:
        try:
            raise RuntimeError("Event loop is closed")
        except RuntimeError as inner:
            raise named("APIConnectionError", text="Connection error.") from inner
    except Exception as error:
        assert failure_kind(error) == "caller"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [({"retry_after": "7"}, 7.0), ({"retry_after_ms": "1500"}, 1.5), ({"retry_after": "soon"}, None), ({}, None)],
)
def test_how_long_a_provider_asks_to_be_left_alone(headers: dict[str, str], expected: float | None) -> None:
    error = status(429, response=Response(429, **headers))
    assert failure_of(error) == Failure("rate_limit", expected)


def test_a_date_to_come_back_at() -> None:
    later = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=90), usegmt=True)
    wait = failure_of(status(503, response=Response(503, retry_after=later))).retry_after_s
    assert wait is not None
    assert 80 < wait <= 90


@pytest.mark.parametrize(
    "secret",
    [
        "Bearer sk-SECRET-123",
        "Incorrect API key provided: sk-proj-SECRETSECRET12",
        "api_key=SECRET123",
        "{'x-api-key': 'SECRET123'}",
        "https://user:SECRET@host/path failed",
        "GET https://host/v1?key=SECRET123&alt=sse",
        "Authorization: Basic SECRET==",
        "token eyJSECRETSECRET.eyJSECRET.SECRET1",
        "0123456789abcdefSECRET0123456789abcdef",
    ],
)
def test_what_is_kept_of_an_error_holds_no_secret(secret: str) -> None:
    kept = kept_text(RuntimeError(f"401 {secret} refused"))
    assert "SECRET" not in kept
    assert kept.startswith("RuntimeError: 401")
    assert len(kept_text(RuntimeError("x " * 5000))) == 300


def test_plain_words_are_left_as_they_are() -> None:
    plain = "The model gpt-4o-2024-08-06 does not support 250 tokens at https://host/v1/chat/completions"
    assert scrubbed(plain) == plain


# --- resting ---


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_candidate_rests_after_its_third_failure_and_longer_each_time() -> None:
    clock = Clock()
    cooldown = Cooldown(first_s=10, longest_s=25, clock=clock)
    for strike in range(1, STRIKES + 1):
        assert cooldown.claim("a")
        cooldown.failed("a", Failure("unavailable"))
        assert cooldown.resting_s("a") == (10.0 if strike == STRIKES else 0.0)
    assert not cooldown.claim("a")
    assert cooldown.claim("b")
    for rest in (10, 20, 25, 25):
        clock.now += rest
        assert cooldown.claim("a")  # one probe
        assert not cooldown.claim("a")  # and only one
        cooldown.failed("a", Failure("unavailable"))
    clock.now += 25
    assert cooldown.claim("a")
    cooldown.answered("a")
    assert cooldown.claim("a")
    assert cooldown.claim("a")


def test_a_provider_that_says_how_long_is_left_alone_at_once() -> None:
    clock = Clock()
    cooldown = Cooldown(clock=clock)
    cooldown.failed("a", Failure("rate_limit", 2.0))
    assert cooldown.resting_s("a") == 2.0
    clock.now += 2
    assert cooldown.claim("a")


def test_calls_that_fail_together_count_as_one_rest() -> None:
    cooldown = Cooldown(first_s=10, clock=Clock())
    for _ in range(60):
        cooldown.failed("a", Failure("unavailable"))
    assert cooldown.resting_s("a") == 10.0


def test_a_copy_starts_rested_and_settings_are_checked() -> None:
    cooldown = Cooldown(first_s=1, longest_s=2)
    for _ in range(STRIKES):
        cooldown.failed("a", Failure("unavailable"))
    copy = pickle.loads(pickle.dumps(cooldown))
    assert (copy.first_s, copy.longest_s, copy.resting_s("a")) == (1, 2, 0.0)
    for bad in ({"first_s": 0}, {"first_s": 9, "longest_s": 3}, {"longest_s": float("inf")}, {"first_s": float("nan")}):
        with pytest.raises(ConfigurationError):
            Cooldown(**bad)
