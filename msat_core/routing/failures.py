"""Whose fault an error is, and what may help: read from a provider's codes and error classes first, from prose last."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from msat_core.errors import EmptyAnswerError
from msat_core.http_errors import retry_after_s, status_of

FailureKind = Literal[
    "control_flow",  # a framework's way to interrupt, cancel or jump: nobody failed
    "caller",  # the program around the candidate is wrong: a closed event loop, say
    "bad_request",  # the provider refuses this request, and so would every other
    "unclear_request",  # the provider refuses this request and does not say why in words that we know
    "unsupported",  # a parameter or an input that this candidate does not take
    "foreign_content",  # the history holds what only another candidate's provider can read
    "content_filter",
    "context_overflow",
    "rate_limit",
    "quota",  # the wallet is empty
    "authentication",
    "not_found",  # an unknown or retired model
    "timeout",
    "unavailable",
    "empty",  # an answer without content
    "cut",  # a stream that ended without a finish reason
    "other",
]

FINAL: frozenset[FailureKind] = frozenset({"control_flow", "caller", "bad_request"})  # nobody else is asked
STANDING: frozenset[FailureKind] = frozenset(  # true of the candidate, whatever the request
    {"rate_limit", "quota", "authentication", "not_found", "timeout", "unavailable"}
)
LONGEST_RETRY_S = 3600.0  # an hour, of what a provider asks for; chosen

_CONTROL_FLOW = {"GraphBubbleUp", "WaitingForEvent", "WorkflowCancelledByUser", "CancelledError"}
_CALLER = {"ConfigurationError", "RecursionError", "MemoryError"}
_LOOP = re.compile(
    r"event loop is closed|no running event loop|(?:attached|bound) to a different (?:event )?loop|"
    r"cannot be called from a running event loop",
    re.IGNORECASE,
)

# What providers call their errors, in codes and in class names, without separators and lower case.
_OF_CODE: tuple[tuple[str, FailureKind], ...] = (
    ("contextlength|contextoverflow|contextwindow|stringabovemaxlength|requesttoolarge", "context_overflow"),
    ("insufficientquota|insufficientbalance|billing|creditbalance|paymentrequired", "quota"),
    ("ratelimit|throttl|toomanyrequests|resourceexhausted|slowdown|servicequotaexceeded", "rate_limit"),
    ("overloaded|serviceunavailable|internalserver|apiconnection|modelconnection|modelnotready", "unavailable"),
    ("contentfilter|contentpolicy|responsibleai|invalidprompt|moderation", "content_filter"),
    (
        "apikeyinvalid|invalidapikey|authentication|unauthenticated|unauthorized|permission|accessdenied",
        "authentication",
    ),
    ("modelnotfound|modeldecommissioned|modelnotavailable|deploymentnotfound|^notfound(?:error)?$", "not_found"),
    ("unsupported|unknownparameter|unrecognizedparameter", "unsupported"),
    ("timeout|deadlineexceeded|timedout", "timeout"),
    ("invalidfunctionparameters|invalidjsonschema|invalidtype|missingrequiredparameter", "bad_request"),
)
_OF_STATUS: dict[int, FailureKind] = {
    401: "authentication",
    402: "quota",
    403: "authentication",
    404: "not_found",
    408: "timeout",
    413: "context_overflow",  # content too large: a larger window is what may help
    429: "rate_limit",
}
_REFUSED = {400, 409, 422}  # the statuses that say no more than "not this request"
_OF_TEXT: tuple[tuple[FailureKind, tuple[str, ...]], ...] = (
    (
        "quota",
        (r"credit balance", r"insufficient (?:funds|balance|quota|credits?)", r"exceeded your .{0,8}quota", "billing"),
    ),
    (
        "rate_limit",
        ("rate.?limit", "throttl", "too many requests", "please (?:wait|slow down)", "try again (?:in|later)"),
    ),
    (
        "context_overflow",
        (
            r"context.{0,12}(?:length|window|limit|overflow)",
            r"maximum context",
            r"too many (?:input )?tokens",
            r"(?:prompt|input|request) is too (?:long|large)",
            r"maximum number of tokens",
            r"reduce the length",
        ),
    ),
    (
        "content_filter",
        (
            r"content.?(?:management|filter|polic)",
            r"content was (?:flagged|blocked)",
            r"responsible ai",
            r"safety (?:system|filter|setting)",
        ),
    ),
    (
        "foreign_content",
        (
            r"invalid .{0,3}signature",
            r"signature.{0,40}thinking",
            r"thinking.{0,40}signature",
            r"thought_signature",
            r"encrypted_content",
            r"tool.?(?:call|use).{0,3}id\b",
            r"previous_response",
            r"item .{0,60} not found",
            r"server_tool_use",
        ),
    ),
    (
        "bad_request",
        (
            r"tool_use.{0,40} without",
            r"tool_calls?['\"]? must be followed",
            r"must be a response to a preced",
            r"roles must alternate",
            r"messages?.{0,40}(?:empty|at least one)",
            r"invalid (?:json )?schema",
            r"could not parse the json",
        ),
    ),
    ("authentication", (r"api.?key", r"invalid credential", r"unauthori[sz]ed", r"not authenticated", r"permission")),
    (
        "not_found",
        (
            r"decommissioned",
            r"deprecated",
            r"model.{0,80}(?:not (?:found|exist)|does not exist|retired|no longer)",
            r"(?:no such|unknown|invalid) model",
        ),
    ),
    (
        "unsupported",
        (
            r"(?:not |un)supported",
            r"does ?n[o']t support",
            r"(?:unknown|unrecogni[sz]ed|unexpected) (?:parameter|argument|field|keyword)",
            r"extra (?:inputs|fields)",
            r"not permitted",
            r"(?:range|max_tokens|temperature).{0,60}(?:at most|too large|between|less than)",
        ),
    ),
)
_PATTERNS = tuple((re.compile("|".join(of), re.IGNORECASE | re.DOTALL), kind) for kind, of in _OF_TEXT)
_CODES = tuple((re.compile(pattern), kind) for pattern, kind in _OF_CODE)


@dataclass(frozen=True)
class Failure:
    """What is known of an error.

    Attributes:
        kind: whose fault it is; see :data:`FailureKind`.
        retry_after_s: how long the provider asks to be left alone; None if it does not say.
    """

    kind: FailureKind
    retry_after_s: float | None = None


def failure_of(error: BaseException) -> Failure:
    """Tell an error apart. In doubt the candidate has failed: ``other``."""
    kind = failure_kind(error)
    wait_s = retry_after_s(error) if kind in STANDING else None
    return Failure(kind, wait_s and min(wait_s, LONGEST_RETRY_S))


def failure_kind(error: BaseException) -> FailureKind:
    """Tell an error apart, by class and code first, by HTTP status, and by its text last.

    A provider that speaks of "too many tokens" under the status of throttling throttles. Only a ``bad_request``
    would fail with every candidate; what a 400 without a known code or word means is ``unclear_request``.
    """
    if not isinstance(error, Exception):
        return "control_flow"  # cancelled, interrupted, or the end of the program
    if (inner := getattr(error, "exceptions", None)) and isinstance(inner, (list, tuple)):
        kinds = [failure_kind(part) for part in inner]
        return next((kind for kind in kinds if kind in FINAL), kinds[0])
    classes = {cls.__name__ for cls in type(error).__mro__}
    if classes & _CONTROL_FLOW:
        return "control_flow"
    if classes & _CALLER or any(isinstance(e, RuntimeError) and _LOOP.search(str(e)) for e in _chain(error)):
        return "caller"
    if isinstance(error, EmptyAnswerError):
        return error.kind
    return _of_provider(error, classes)


def _of_provider(error: Exception, classes: set[str]) -> FailureKind:
    status, text = status_of(error) or 0, str(error)
    for code in _codes(error, classes):
        kind = next((kind for pattern, kind in _CODES if pattern.search(code)), None)
        if kind is not None:
            return kind
    if status in _OF_STATUS:
        kind = next((kind for pattern, kind in _PATTERNS if pattern.search(text)), None)
        return "quota" if kind == "quota" and status in (403, 429) else _OF_STATUS[status]
    if status >= 500:
        return "unavailable"
    kind = next((kind for pattern, kind in _PATTERNS if pattern.search(text)), None)
    if status in _REFUSED or "ModelInvalidRequestError" in classes:
        return kind or "unclear_request"
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, ConnectionError) or any("connect" in name.lower() for name in classes):
        return "unavailable"
    return kind if kind in ("context_overflow", "rate_limit", "quota") else "other"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what it came from; clients wrap a closed event loop into a connection error."""
    for _ in range(10):
        yield error
        cause = error.__cause__ or error.__context__
        if cause is None:
            return
        error = cause


def _codes(error: Exception, classes: set[str]) -> Iterator[str]:
    """What the provider calls the error: codes and types, most specific first, then names of classes."""
    codes: list[Any] = [getattr(error, name, None) for name in ("code", "type", "status", "error_code")]
    bodies = [getattr(error, "body", None), getattr(error, "response", None)]
    for body in bodies:
        if isinstance(body, Mapping):
            inner = body.get("error") or body.get("Error") or body
            if isinstance(inner, Mapping):
                codes += [inner.get(name) for name in ("code", "Code", "type", "status")]
    names = [name for name in classes if name not in ("ModelError", "Exception")]
    for code in [*(code for code in codes if isinstance(code, str)), *sorted(names)]:
        yield re.sub(r"[^a-z]", "", code.lower())
