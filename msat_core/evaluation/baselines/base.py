"""The seam of the baselines: outcomes of candidates in, probabilities for instructions out.

Two settings, never mixed, differ only in whose outcomes are known:

* *known candidates*: the candidates' full recorded history, and nobody else's;
* *new candidates*: the candidates' exam, and the full history of others, who are not scored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from msat_core.errors import RecordsError

N_FOLDS = 5  # of the outcomes, where a baseline chooses a setting of its own

Array = NDArray[np.floating]
Predict = Callable[[Array], Array]  # (N, D) embeddings → (N, M) scores
Setting = TypeVar("Setting")


@dataclass(frozen=True)
class OutcomeTable:
    """Who got what right: E items, M candidates.

    Attributes:
        vectors: (E, D), unit embeddings of the items.
        tasks: length E.
        outcomes: (E, M), in [0, 1]; NaN where unknown.
    """

    vectors: Array
    tasks: tuple[str, ...]
    outcomes: Array

    def __post_init__(self) -> None:
        unknown = np.asarray(np.isnan(self.outcomes).all(axis=0))
        if not len(self.outcomes) or unknown.any():
            raise RecordsError(
                f"Baselines need outcomes on single questions of every candidate; {int(unknown.sum())} of "
                f"{self.outcomes.shape[1]} have none: use profiles that hold their shots, not only counts."
            )

    def rows(self, keep: NDArray[np.intp]) -> OutcomeTable:
        """The items at the given positions; a candidate without a known outcome among them gets its mean."""
        outcomes = self.outcomes[keep]
        empty = np.asarray(np.isnan(outcomes).all(axis=0))
        outcomes = np.where(empty[None, :], self.accuracy[None, :], outcomes)
        return OutcomeTable(self.vectors[keep], tuple(self.tasks[i] for i in keep), outcomes)

    @property
    def accuracy(self) -> Array:
        """(M,), mean known outcome of each candidate."""
        return np.asarray(np.nanmean(self.outcomes, axis=0))


@dataclass(frozen=True)
class Baseline:
    """One way to learn who is right where.

    Attributes:
        name: as options and reports call it.
        after: whose method it is, for people.
        new_candidates: how candidates known by an exam only are served; where the method as published
            cannot serve them, what makes it able to.
        fit: outcomes of the candidates, outcomes of others (None if there are none) and a seed → scores.
    """

    name: str
    after: str
    new_candidates: str
    fit: Callable[[OutcomeTable, OutcomeTable | None, int], Predict]


def choose_setting(
    fit: Callable[[OutcomeTable, Setting], Predict], grid: Sequence[Setting], table: OutcomeTable, seed: int
) -> Setting:
    """The setting of least squared error on left-out outcomes, by folds over items; the first among equals."""
    order = np.random.default_rng(seed).permutation(len(table.outcomes))
    losses = np.zeros(len(grid))
    for held in np.array_split(order, min(N_FOLDS, len(order))):
        kept = np.setdiff1d(order, held)
        if not len(kept) or not len(held):
            return grid[0]
        part = table.rows(kept)
        for i, setting in enumerate(grid):
            scores = fit(part, setting)(table.vectors[held])
            losses[i] += np.nansum((scores - table.outcomes[held]) ** 2)
    return grid[int(losses.argmin())]
