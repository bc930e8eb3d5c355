"""Prices of many candidates side by side: what a call costs with each of them, in one pass.

The plain figures hold from the day on which they were read (UTC) until the day from which the library knows another
price, for no more input than the step above which another one holds, and where nothing varies by the time of day;
everywhere else the library's calculator is asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from msat_core.candidates import Candidate
from msat_core.facts import utc_day

Column = NDArray[np.float64]


class PriceColumns:
    """Made once for a set of candidates.

    Args:
        candidates: M of them.

    Attributes:
        known: (M,), whether the price is known.
        most_output: (M,), tokens of the longest answer; NaN where unknown.
    """

    def __init__(self, candidates: Sequence[Candidate]) -> None:
        self._candidates = candidates
        self._in = column(one.usd_per_mtok_in for one in candidates)
        self._out = column(one.usd_per_mtok_out for one in candidates)
        cached = column(one.usd_per_mtok_cached_in for one in candidates)
        self._cached = np.where(np.isnan(cached), self._in, cached)
        self.known = ~np.isnan(self._in) & ~np.isnan(self._out)
        self.most_output = column(one.max_output_tokens for one in candidates)
        tariffs = [one.tariff for one in candidates]
        self._varies = np.array([tariff is not None and tariff.varies for tariff in tariffs], bool)
        self._below = np.array([np.inf if t is None or t.below_tokens is None else t.below_tokens for t in tariffs])
        self._first = np.array([0 if t is None else utc_day(t.read_at).toordinal() for t in tariffs])
        self._until = np.array([np.inf if t is None or t.until is None else t.until.toordinal() for t in tariffs])

    def usd(self, at: datetime | None, sent: float, cached: Column, output: Column) -> Column:
        """(M,), USD for so many tokens sent, cached ones among them, and given back; NaN where unknown.

        Args:
            at: the instant; None for that of reading.
            sent: tokens.
            cached, output: tokens of each, (M,).
        """
        usd: Column = ((sent - cached) * self._in + cached * self._cached + output * self._out) / 1e6
        day = None if at is None else utc_day(at).toordinal()
        plain = ~self._varies & (sent <= self._below)
        if day is not None:
            plain &= (self._first <= day) & (day < self._until)
        for i in np.flatnonzero(self.known & ~plain & ~np.isnan(output)):  # as the library's calculator has it
            tariff = self._candidates[int(i)].tariff
            assert tariff is not None
            found = tariff.usd(at, input_tokens=sent, cached_tokens=float(cached[i]), output_tokens=float(output[i]))
            usd[i] = np.nan if found is None else found
        return usd


def column(values: Iterable[float | None]) -> Column:
    """(M,), NaN for None."""
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
