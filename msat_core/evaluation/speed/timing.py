"""Times of several calls that take turns, so that a busy moment of the machine is everybody's."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

Call = Callable[[], object]


@dataclass(frozen=True)
class Row:
    """One line of the bench.

    Attributes:
        section: what is compared.
        what: who is timed.
        size: of the work, in words.
        p50_ms, p99_ms: median and 99th percentile, in milliseconds.
        ratio: of its medians to the reference's of the same rounds; 1 for the reference itself.
    """

    section: str
    what: str
    size: str
    p50_ms: float
    p99_ms: float
    ratio: float


def rows_of(section: str, size: str, calls: Mapping[str, Call], repeats: int) -> list[Row]:
    """A row for each call; the first is the reference of the ratios."""
    times = take_turns(calls, repeats)
    reference = next(iter(times.values()))
    return [
        Row(section, what, size, *_percentiles(sample), float(np.median(sample / reference)))
        for what, sample in times.items()
    ]


def take_turns(calls: Mapping[str, Call], repeats: int) -> dict[str, np.ndarray]:
    """Milliseconds of each call in each round, after two rounds to warm up."""
    times: dict[str, list[float]] = {what: [] for what in calls}
    for round_number in range(repeats + 2):
        for what, call in calls.items():
            start = time.perf_counter()
            call()
            if round_number >= 2:
                times[what].append(1000 * (time.perf_counter() - start))
    return {what: np.array(sample) for what, sample in times.items()}


def _percentiles(times: np.ndarray) -> tuple[float, float]:
    p50, p99 = np.percentile(times, [50, 99])
    return float(p50), float(p99)
