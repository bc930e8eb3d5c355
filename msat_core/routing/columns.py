"""Candidates side by side: what is known of each whatever the call, and what a call costs with each, in one pass.

The plain prices hold from the day on which they were read (UTC) until the day from which the library knows another
one, for no more input than the step above which another one holds, and where nothing varies by the time of day.
Elsewhere the library's calculator is asked, for no more than a minute's prices at once: they change at whole minutes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from msat_core.candidates import CHARS_PER_TOKEN, DEFAULT_OUTPUT_TOKENS, Candidate
from msat_core.facts import Tariff, utc_day
from msat_core.forking import Lock

Column = NDArray[np.float64]
MTOK = 1_000_000
ASKED_TOKENS = 1000  # of which the library is asked the price, where it is the same for each


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
        self._of_minute: tuple[datetime | None, dict[int, Column | None]] = (None, {})

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
        usd: Column = ((sent - cached) * self._in + cached * self._cached + output * self._out) / MTOK
        plain = ~self._varies & (sent <= self._below)
        if at is not None:
            day = utc_day(at).toordinal()
            plain &= (self._first <= day) & (day < self._until)
        for i in np.flatnonzero(self.has_price & ~plain & ~np.isnan(output)).tolist():
            usd[i] = self._library_usd(i, at, sent, float(cached[i]), float(output[i]))
        return usd

    def _library_usd(self, i: int, at: datetime | None, sent: float, cached: float, output: float) -> float:
        """USD as the library's calculator has it; NaN where the installed one does not know the model."""
        tariff = self.candidates[i].tariff
        assert tariff is not None  # without one, prices are plain
        if sent > self._below[i]:
            usd = tariff.usd(at, input_tokens=sent, cached_tokens=cached, output_tokens=output)
            return np.nan if usd is None else usd
        minute = None if at is None else at.replace(second=0, microsecond=0)
        known_minute, known = self._of_minute
        if known_minute != minute:
            known = {}
            self._of_minute = minute, known
        if i not in known:
            known[i] = _rates(tariff, minute)
        rates = known[i]
        return np.nan if rates is None else float(rates @ (1.0, sent - cached, cached, output))


def _rates(tariff: Tariff, at: datetime | None) -> Column | None:
    """USD per call, and per token of input, of cached input and of output; None where the model is unknown."""

    def usd(sent: int = 0, cached: int = 0, output: int = 0) -> float:
        price = tariff.usd(at, input_tokens=sent, cached_tokens=cached, output_tokens=output)
        return np.nan if price is None else price

    n = ASKED_TOKENS
    asked = np.array([usd(), usd(sent=n), usd(sent=n, cached=n), usd(output=n)])
    rates = np.append(asked[0], (asked[1:] - asked[0]) / n)
    return None if np.isnan(rates).any() else rates


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
        columns = next((one for one in _kept if one.candidates is candidates), None)
    if columns is None:
        columns = Columns(candidates)
        with _lock:
            _kept.append(columns)
    return columns
