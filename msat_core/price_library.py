"""The kept price library (``genai-prices``) as a source of facts: prices, how far they hold, and windows.

The library is imported on first use.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timezone
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from msat_core.facts import in_utc

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice, Provider

_PRICES = {  # a candidate's field: the library's names of it, first come, first served
    "usd_per_mtok_in": ("input_mtok",),
    "usd_per_mtok_out": ("output_mtok",),
    "usd_per_mtok_cached_in": ("cache_read_mtok",),
    "usd_per_mtok_cache_write": ("cache_write_mtok", "cache_write_5m_mtok"),
    "usd_per_mtok_reasoning": ("output_reasoning_mtok",),
}
_HOURLY = ("usd_per_mtok_in", "usd_per_mtok_out", "usd_per_mtok_cached_in")
_REQUEST_PRICE = "requests_kcount"  # a price per call, which no price per token says
_PROVIDERS = {"google_genai": "google", "google_vertexai": "google", "mistralai": "mistral", "xai": "x-ai"}


class Hours(BaseModel):
    """Prices from a time of day (UTC) on, until the next ones'.

    Attributes:
        since: the first moment.
        usd_per_mtok_in, usd_per_mtok_out, usd_per_mtok_cached_in: as a candidate's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    since: time
    usd_per_mtok_in: float
    usd_per_mtok_out: float
    usd_per_mtok_cached_in: float | None = None


class Tariff(BaseModel):
    """Where the price library finds a candidate's price, and how far the plain figures hold.

    Attributes:
        provider, model: as the library was asked; the provider is part of an open model's price.
        read_at: the instant for which the plain figures were read.
        until: the day (UTC) from which the library knows another price; None if it knows none.
        below_tokens: input tokens above which another price holds; None if there is no such step.
        hours: the prices of a day, in order, where they depend on the time of day.
        varies: only the library can say the price: a part of it is paid per call, say.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    provider: str
    model: str
    read_at: datetime
    until: date | None = None
    below_tokens: int | None = Field(default=None, ge=0)
    hours: tuple[Hours, ...] = ()
    varies: bool = False

    def usd(
        self, at: datetime | None, *, input_tokens: float, cached_tokens: float, output_tokens: float
    ) -> float | None:
        """What the library's calculator asks for a call; None where the installed one does not know the model."""
        from genai_prices import Usage
        from genai_prices.data_snapshot import get_snapshot

        usage = Usage(input_tokens=round(input_tokens), output_tokens=round(output_tokens))
        if cached_tokens:
            usage.cache_read_tokens = round(cached_tokens)
        try:
            price = get_snapshot().calc(usage, self.model, self.provider, None, in_utc(at or self.read_at))
        except LookupError:
            return None
        return float(price.total_price)


@dataclass(frozen=True)
class LibraryFacts:
    """What the price library knows of a model at an instant.

    Attributes:
        values: by the candidate's field; only what is known.
        note: which library, and whose price.
        notes: further words on single fields (a window borrowed from another provider).
        tariff: how far the prices hold.
    """

    values: dict[str, Any]
    note: str
    notes: dict[str, str]
    tariff: Tariff


def library_facts(name: str, *, provider: str | None = None, at: datetime) -> LibraryFacts | None:
    """Look a model up in the installed price library; None where it does not know the model.

    Args:
        name: ``gpt-5``, or with its provider: ``openai:gpt-5``, ``openrouter/qwen/qwen3-30b-a3b``. An open model is
            sold by many: without a provider it is found only where its maker sells it.
        provider: who sells it, by the library's name or LangChain's.
        at: the instant of the price.
    """
    match = _find(name, provider)
    if match is None:
        return None
    seller, model, asked = match
    prices = model.get_prices(in_utc(at))
    values: dict[str, Any] = {
        field: float(price) for field, keys in _PRICES.items() if (price := _base_price(prices, keys)) is not None
    }
    notes = {}
    if model.context_window:
        values["context_window"] = model.context_window
    elif (borrowed := _borrowed_window(model)) is not None:
        values["context_window"] = borrowed[0]
        notes["context_window"] = f"window of {borrowed[1]}, as {seller.id} states none"
    owner = _owner(seller, model)
    note = f"{library_version()}: {seller.id}/{asked}" + ("" if owner == seller.id else f", {owner}'s price")
    return LibraryFacts(values, note, notes, _tariff(seller.id, asked, model, at))


def library_version() -> str:
    """The installed price library by name and version."""
    from genai_prices import __version__

    return f"genai-prices {__version__}"


def _find(name: str, provider: str | None) -> tuple[Provider, ModelInfo, str] | None:
    """The seller, the model, and the name by which the seller knows it."""
    from genai_prices.data_snapshot import find_provider_by_id, get_snapshot

    snapshot = get_snapshot()
    if provider is not None:
        tries: list[tuple[str | None, str]] = [(provider, name)]
    else:
        head, separator, rest = _split(name)
        tries = [(head, rest)] if separator else []
        tries.append((None, name))
    for seller, model in tries:
        if seller is not None and find_provider_by_id(snapshot.providers, _PROVIDERS.get(seller, seller)) is None:
            continue
        try:
            return (*snapshot.find_provider_model(model, None, seller and _PROVIDERS.get(seller, seller), None), model)
        except LookupError:
            continue
    return None


def _split(name: str) -> tuple[str, str, str]:
    """``provider:model`` or ``provider/model``, whichever comes first."""
    match = re.match(r"([\w.-]+)([:/])(.+)", name)
    return (match[1].lower(), match[2], match[3]) if match else (name, "", "")


def _base_price(prices: ModelPrice, keys: tuple[str, ...]) -> Any:  # noqa: ANN401 - the library's decimal
    for key in keys:
        price = getattr(prices, key)
        if price is not None:
            return getattr(price, "base", price)
    return None


def _borrowed_window(model: ModelInfo) -> tuple[int, str] | None:
    """The smallest window that another provider of the same model states, and who."""
    from genai_prices.data_snapshot import get_snapshot

    windows = [
        (entry.context_window, seller.id)
        for seller in get_snapshot().providers
        for entry in seller.models
        if entry.context_window and _bare(entry.id) == _bare(model.id)
    ]
    return min(windows, default=None)


def _owner(seller: Provider, model: ModelInfo) -> str:
    """Whose price it is: a reseller's list may lack the model, and the library then takes the maker's."""
    from genai_prices.data_snapshot import get_snapshot

    sellers = (provider for provider in get_snapshot().providers if any(model is entry for entry in provider.models))
    return seller.id if any(model is entry for entry in seller.models) else next(provider.id for provider in sellers)


def _bare(model_id: str) -> str:
    return model_id.rsplit("/", 1)[-1].lower().replace(".", "-")


def _tariff(seller: str, asked: str, model: ModelInfo, at: datetime) -> Tariff:
    from genai_prices.types import StartDateConstraint, TieredPrices

    day, prices = in_utc(at).date(), model.get_prices(in_utc(at))
    conditions = [price.constraint for price in model.prices] if isinstance(model.prices, list) else []
    starts = [c.start_date for c in conditions if isinstance(c, StartDateConstraint) and c.start_date > day]
    steps = [tier.start for p in vars(prices).values() if isinstance(p, TieredPrices) for tier in p.tiers]
    hours, are_known = _hours(model, conditions, day)
    return Tariff(
        provider=seller,
        model=asked,
        read_at=in_utc(at),
        until=min(starts, default=None),
        below_tokens=min(steps, default=None),
        hours=hours,
        varies=not are_known or getattr(prices, _REQUEST_PRICE) is not None,
    )


def _hours(model: ModelInfo, conditions: Sequence[object], day: date) -> tuple[tuple[Hours, ...], bool]:
    """The prices of a day by the time, none if they are always the same; and whether they can be said so."""
    from genai_prices.types import TieredPrices, TimeOfDateConstraint

    bounds = [(c.start_time, c.end_time) for c in conditions if isinstance(c, TimeOfDateConstraint)]
    if not bounds:
        return (), True
    instants = {in_utc(datetime.combine(day, bound)).time() for pair in bounds for bound in pair}
    hours = []
    for since in sorted({time(), *instants}):
        prices = model.get_prices(datetime.combine(day, since, timezone.utc))
        if any(isinstance(price, TieredPrices) for price in vars(prices).values()) or getattr(prices, _REQUEST_PRICE):
            return (), False
        hours.append(Hours(since=since, **{field: _base_price(prices, _PRICES[field]) for field in _HOURLY}))
    return tuple(hours), True
