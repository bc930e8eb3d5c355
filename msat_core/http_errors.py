"""What an endpoint's error says: its HTTP status and how long to wait, whichever client raised it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any

_STATUS_NAMES = ("status_code", "http_status", "status", "code")


def status_of(error: BaseException) -> int | None:
    """The HTTP status that an error carries, under the names that clients use; None for none."""
    for value in _stated_statuses(error):
        if isinstance(value, str) and value.isdecimal():
            value = int(value)
        if isinstance(value, int) and 100 <= value < 600:
            return int(value)
    return None


def _stated_statuses(error: BaseException) -> Iterator[Any]:
    response = getattr(error, "response", None)
    for holder in (error, response):
        yield from (getattr(holder, name, None) for name in _STATUS_NAMES)
    if isinstance(response, Mapping):  # as Amazon's client has it
        yield (response.get("ResponseMetadata") or {}).get("HTTPStatusCode")


def retry_after_s(error: BaseException) -> float | None:
    """Seconds to wait as the endpoint says them: a field of the error, or a header in seconds or as a date.

    None where it does not say, or says nothing above 0.
    """
    response = getattr(error, "response", None)
    headers = getattr(response, "headers", None) or getattr(error, "headers", None) or {}
    if not hasattr(headers, "get"):
        headers = {}
    milliseconds = _number(headers.get("retry-after-ms"))
    stated = headers.get("retry-after") or headers.get("Retry-After")
    wait = _number(getattr(error, "retry_after", None)) or (milliseconds and milliseconds / 1000) or _number(stated)
    if wait is None and isinstance(stated, str):
        try:
            wait = (parsedate_to_datetime(stated) - datetime.now(timezone.utc)).total_seconds()
        except (ValueError, TypeError):
            return None
    return None if wait is None or not wait > 0 else wait


def _number(stated: Any) -> float | None:  # noqa: ANN401 - whatever a header or a field holds
    try:
        number = float(stated)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
