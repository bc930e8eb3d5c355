"""What went wrong with a candidate, and how long it may take."""

from __future__ import annotations

import contextvars
import re
import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, Literal, TypeVar

Out = TypeVar("Out")
FailureKind = Literal[
    "context_overflow",
    "rate_limit",
    "timeout",
    "unavailable",
    "authentication",
    "not_found",
    "bad_request",
    "other",
]

_OVERFLOW = re.compile(
    r"context.{0,12}(?:length|window|limit|overflow)|maximum context|too many (?:input )?tokens|"
    r"(?:prompt|input|request) is too (?:long|large)|maximum number of tokens|reduce the length",
    re.IGNORECASE,
)
_OF_STATUS: dict[int, FailureKind] = {
    400: "bad_request",
    401: "authentication",
    403: "authentication",
    404: "not_found",
    408: "timeout",
    413: "context_overflow",  # content too large: a larger window is what may help
    422: "bad_request",
    429: "rate_limit",
}


def failure_kind(error: BaseException) -> FailureKind:
    """Tell a candidate's error apart, from its text, its HTTP status and its class name.

    Only a ``bad_request`` would fail with every candidate. A refused key or a model that its provider does not
    know is that candidate's trouble alone.
    """
    name, status = type(error).__name__.lower(), _status(error)
    if "contextoverflow" in name or _OVERFLOW.search(str(error)):
        return "context_overflow"
    if status in _OF_STATUS:
        return _OF_STATUS[status]
    if "ratelimit" in name:
        return "rate_limit"
    if isinstance(error, TimeoutError) or "timeout" in name:
        return "timeout"
    if isinstance(error, ConnectionError) or "connection" in name or status >= 500:
        return "unavailable"
    return "other"


def _status(error: BaseException) -> int:
    """The HTTP status that a client's error carries, under the names that clients use; 0 for none."""
    response = getattr(error, "response", None)
    found = [getattr(error, name, None) for name in ("status_code", "code")]
    return next((s for s in (*found, getattr(response, "status_code", None)) if isinstance(s, int)), 0)


def within(timeout_s: float | None, call: Callable[..., Out], *args: Any) -> Out:  # noqa: ANN401 - passed on
    """The call's result within the time, or TimeoutError.

    A call that is late cannot be interrupted. It is left behind in a daemon thread, which neither holds up the
    process's exit nor ends before the client's own timeout: set that as well.
    """
    if timeout_s is None:
        return call(*args)
    outcome: Future[Out] = Future()
    context = contextvars.copy_context()

    def run() -> None:
        try:
            outcome.set_result(context.run(call, *args))
        except BaseException as error:  # whatever it is, the waiting thread must learn of it
            outcome.set_exception(error)

    threading.Thread(target=run, name="msat-call", daemon=True).start()
    try:
        return outcome.result(timeout_s)
    except FutureTimeout:
        if outcome.done():
            return outcome.result()  # the call's own error, or an answer that came at the last moment
        raise TimeoutError(f"No answer within {timeout_s:.1f} s.") from None
