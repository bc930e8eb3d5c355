"""Candidates side by side: what is known of each whatever the call, and what a call costs with each, in one pass.

The prices hold from the day on which they were read (UTC) until the day from which the library knows another one, and
for no more input than the step above which another one holds; elsewhere the library's calculator is asked.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from msat_core.candidates import CHARS_PER_TOKEN, DEFAULT_OUTPUT_TOKENS, Candidate
from msat_core.facts import utc_day, utc_time
from msat_core.forking import Lock

Column = NDArray[np.float64]
MTOK = 1_000_000  # prices are for a million tokens


class Columns:
    """Made once for a set of candidates.

    Args:
        candidates: M of them.

    Attributes:
        names, profiles: (M,), theirs.
        position: of each name.
        window: (M,), tokens; NaN where unknown, as everywhere below.
        has_price: (M,), whether the price is known.
        output: (M,), expected tokens of an answer, whatever the instruction.
        most_output: (M,), tokens of the longest answer.
        counted: positions of those whose exam counted tokens by task.
    """

    def __init__(self, candidates: Sequence[Candidate]) -> None:
        self.candidates = candidates
        self.names = tuple(candidate.name for candidate in candidates)
        self.profiles = tuple(candidate.profile for candidate in candidates)
        self.position = {name: i for i, name in enumerate(self.names)}
        self.window = column(candidate.context_window for candidate in candidates)
        self._in = column(candidate.usd_per_mtok_in for candidate in candidates)
        self._out = column(candidate.usd_per_mtok_out for candidate in candidates)
        cached = column(candidate.usd_per_mtok_cached_in for candidate in candidates)
        self._cached = np.where(np.isnan(cached), self._in, cached)
        self.has_price = ~np.isnan(self._in) & ~np.isnan(self._out)
        self.output = column(usual_output_tokens(candidate) for candidate in candidates)
        self.most_output = column(candidate.max_output_tokens for candidate in candidates)
        self.counted = [i for i, candidate in enumerate(candidates) if candidate.profile.output_tokens]
        tariffs = [candidate.tariff for candidate in candidates]
        self._varies = np.array([tariff is not None and tariff.varies for tariff in tariffs], bool)
        self._below = np.array([np.inf if t is None or t.below_tokens is None else t.below_tokens for t in tariffs])
        self._first = np.array([0 if t is None else utc_day(t.read_at).toordinal() for t in tariffs])
        self._until = np.array([np.inf if t is None or t.until is None else t.until.toordinal() for t in tariffs])
        self._hours = [(i, t.hours) for i, t in enumerate(tariffs) if t is not None and t.hours]

    @cached_property
    def nothing(self) -> Column:
        """(M,), zeros."""
        return np.zeros(len(self.names))

    @cached_property
    def usual_output(self) -> Column:
        """(M,), tokens of an answer of usual length."""
        return np.full(len(self.names), float(DEFAULT_OUTPUT_TOKENS))

    def usd(self, at: datetime | None, sent: float, cached: Column, output: Column) -> Column:
        """(M,), USD for so many tokens sent, cached ones among them, and given back.

        Args:
            at: the instant; None for that of reading.
            sent: tokens.
            cached, output: tokens of each, (M,).
        """
        per_in, per_cached, per_out = self._prices(at)
        usd: Column = ((sent - cached) * per_in + cached * per_cached + output * per_out) / MTOK
        holds = ~self._varies & (sent <= self._below)
        if at is not None:
            day = utc_day(at).toordinal()
            holds &= (self._first <= day) & (day < self._until)
        for i in np.flatnonzero(self.has_price & ~holds & ~np.isnan(output)).tolist():
            tariff = self.candidates[i].tariff
            assert tariff is not None  # without one, the prices hold always
            tokens = {"input_tokens": sent, "cached_tokens": float(cached[i]), "output_tokens": float(output[i])}
            library_usd = tariff.usd(at, **tokens)
            usd[i] = np.nan if library_usd is None else library_usd
        return usd

    def _prices(self, at: datetime | None) -> tuple[Column, Column, Column]:
        """USD per million tokens of input, of cached input and of output, (M,), at an instant; None: as read."""
        prices = self._in, self._cached, self._out
        if at is None or not self._hours:
            return prices
        per_in, per_cached, per_out = (column.copy() for column in prices)
        now = utc_time(at)
        for i, hours in self._hours:
            price = next(price for price in reversed(hours) if price.since <= now)
            per_in[i], per_out[i] = price.usd_per_mtok_in, price.usd_per_mtok_out
            cached = price.usd_per_mtok_cached_in
            per_cached[i] = price.usd_per_mtok_in if cached is None else cached
        return per_in, per_cached, per_out


def usual_output_tokens(candidate: Candidate) -> float | None:
    """Mean tokens of an answer; None where nobody knows.

    Counted tokens come first; then, but not for a reasoning model, visible characters / 4, or a rule of thumb.
    """
    profile = candidate.profile
    if profile.output_tokens:
        return profile.mean_output_tokens
    if candidate.reasoning:
        return None
    chars = profile.mean_output_chars
    return DEFAULT_OUTPUT_TOKENS if chars is None else chars / CHARS_PER_TOKEN


def column(values: Iterable[float | None]) -> Column:
    """(M,), NaN for None."""
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def plain(values: Column) -> list[float | None]:
    """Numbers, and None for NaN."""
    numbers: list[float | None] = values.tolist()
    for i in np.flatnonzero(np.isnan(values)).tolist():
        numbers[i] = None
    return numbers


_kept: deque[Columns] = deque(maxlen=4)  # a process routes among few sets of candidates at a time
_lock = Lock()


def columns_of(candidates: Sequence[Candidate]) -> Columns:
    """Those of a set of candidates; kept for tuples, which do not change."""
    if not isinstance(candidates, tuple):
        return Columns(candidates)
    with _lock:
        columns = next((kept for kept in _kept if kept.candidates is candidates), None)
    if columns is None:
        columns = Columns(candidates)
        with _lock:
            _kept.append(columns)
    return columns
