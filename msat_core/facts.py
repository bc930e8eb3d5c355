"""Facts about candidates: prices, windows, abilities, each with where it comes from and as of when.

The order of sources is stated here, once: the user's own figure, the wrapped model's word, the kept price library
(:mod:`msat_core.price_library`), a table that the zoo's maker read (:mod:`msat_core.price_tables`); else the fact is
unknown, which is None and never a guess.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, time, timezone
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from msat_core.errors import ConfigurationError

FactSource = Literal["user", "model", "library", "table"]
SOURCES: tuple[FactSource, ...] = ("user", "model", "library", "table")  # who is believed before whom

PRICES = (
    "usd_per_mtok_in",
    "usd_per_mtok_out",
    "usd_per_mtok_cached_in",
    "usd_per_mtok_cache_write",
    "usd_per_mtok_reasoning",
)
BASE_PRICE = {  # a price that is quoted beside another one, and means nothing beside somebody else's
    "usd_per_mtok_cached_in": "usd_per_mtok_in",
    "usd_per_mtok_cache_write": "usd_per_mtok_in",
    "usd_per_mtok_reasoning": "usd_per_mtok_out",
}
FIELDS = (*PRICES, "context_window", "max_output_tokens", "modalities", "tools", "reasoning", "released")


class Fact(BaseModel):
    """Where one value of a candidate comes from.

    Attributes:
        source: who says so; see :data:`SOURCES`.
        date: ISO date on which it was read or stated.
        note: where exactly.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: FactSource
    date: str
    note: str = ""


def said_by(source: FactSource, values: Mapping[str, Any], *, on: str, note: str = "") -> dict[str, Fact]:
    """The same fact's source for each of some values. Raises ConfigurationError for a field that is no fact."""
    for field in values:
        if field not in FIELDS:
            raise ConfigurationError(f"{field!r} is no fact of a candidate: expected one of {', '.join(FIELDS)}.")
    return {field: Fact(source=source, date=on, note=note) for field in values}


def today() -> str:
    """The date (UTC), for facts that are stated now."""
    return datetime.now(timezone.utc).date().isoformat()


def utc_day(at: datetime) -> date:
    """The day of an instant, in UTC."""
    return in_utc(at).date()


def utc_time(at: datetime) -> time:
    """The time of day of an instant, in UTC."""
    return in_utc(at).time()


def in_utc(at: datetime) -> datetime:
    """An instant in UTC; without a zone it is taken as UTC, as the library does."""
    return at.replace(tzinfo=timezone.utc) if at.tzinfo is None else at.astimezone(timezone.utc)
