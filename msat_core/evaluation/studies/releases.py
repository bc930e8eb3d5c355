"""Releases replayed in order of date: the zoo is the best so far by exam, plus the newest (Model-SAT, section 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

N_INCUMBENTS = 5  # beside the newest; chosen


@dataclass(frozen=True)
class Release:
    """One step of the replay.

    Attributes:
        date: ISO date of the newest candidate.
        newest: its position.
        zoo: positions of the incumbents, best first, then of the newest.
    """

    date: str
    newest: int
    zoo: tuple[int, ...]


def replay(
    dates: Sequence[str], aptitude: NDArray[np.floating], *, n_incumbents: int = N_INCUMBENTS, min_incumbents: int = 2
) -> list[Release]:
    """The steps, oldest first; candidates of one date enter in the given order.

    Args:
        dates: length M, ISO dates of release.
        aptitude: (M,), exam accuracies: all that is known of an incumbent when the newest comes.
        n_incumbents: how many of the best so far are kept.
        min_incumbents: the replay starts once so many are there.
    """
    order = sorted(range(len(dates)), key=lambda i: (dates[i], i))
    steps = []
    for place, newest in enumerate(order):
        best = sorted(order[:place], key=lambda i: (-aptitude[i], order.index(i)))[:n_incumbents]
        if len(best) >= min_incumbents:
            steps.append(Release(dates[newest], newest, (*best, newest)))
    return steps
