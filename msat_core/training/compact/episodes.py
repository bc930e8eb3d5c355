"""Episodes: random exams, as a new candidate would meet them.

Each episode draws some candidates, an exam from items of some tasks, and other items to be asked
about. Synthetic candidates (two real ones mixed task by task, or their union or intersection) widen
the range of abilities seen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from msat_core.errors import RecordsError
from msat_core.records import Records

MIN_SHOTS = 150
UNION_SHARE = 0.15  # of the synthetic candidates: right where either parent is
INTERSECTION_SHARE = 0.10  # right where both are


@dataclass(frozen=True)
class Episode:
    """One draw.

    Attributes:
        shots: (E,), rows of the exam items.
        queries: (N,), rows of the items asked about; disjoint from the shots by text.
        shot_outcomes: float32 (M, E), NaN where unknown.
        query_outcomes: float32 (M, N), NaN where unknown.
        mean_ability: logits by which these candidates are, on average, above those of the largest
            group of benchmarks.
    """

    shots: NDArray[np.intp]
    queries: NDArray[np.intp]
    shot_outcomes: NDArray[np.float32]
    query_outcomes: NDArray[np.float32]
    mean_ability: float


class EpisodeSampler:
    """Draws episodes from records.

    Args:
        records: what may be drawn.
        seed: of all draws.
        max_shots: largest exam.
        n_queries: items asked about.
        n_synthetic: synthetic candidates per episode.
    """

    def __init__(
        self, records: Records, *, seed: int, max_shots: int = 500, n_queries: int = 512, n_synthetic: int = 8
    ) -> None:
        self._records = records
        self._rng = np.random.default_rng(seed)
        self._max_shots, self._n_queries, self._n_synthetic = max_shots, n_queries, n_synthetic
        self._tasks = np.array(records.tasks)
        self._texts = np.array(records.text_sha256)
        self._groups = _benchmark_groups(records)
        sizes = np.array([len(rows) for rows, _ in self._groups], dtype=float)
        self._mean_ability = _mean_abilities(records, self._groups)
        self._group_share = sizes / sizes.sum()

    def draw(self) -> Episode:
        """One episode."""
        rng = self._rng
        group = rng.choice(len(self._groups), p=self._group_share)
        items, candidates = self._groups[group]
        shots = self._draw_exam(items)
        others = items[~np.isin(self._texts[items], self._texts[shots])]
        queries = rng.choice(others, min(self._n_queries, len(others)), replace=False)
        rows = np.concatenate([shots, queries])
        outcomes = self._records.outcomes[candidates][:, rows]
        outcomes = np.concatenate([outcomes, *self._synthetic(outcomes, self._tasks[rows])])
        return Episode(shots, queries, outcomes[:, : len(shots)], outcomes[:, len(shots) :], self._mean_ability[group])

    def _draw_exam(self, items: NDArray[np.intp]) -> NDArray[np.intp]:
        rng = self._rng
        tasks = np.unique(self._tasks[items])
        chosen = rng.choice(tasks, rng.integers(max(1, len(tasks) // 4), len(tasks) + 1), replace=False)
        pool = items[np.isin(self._tasks[items], chosen)]
        largest = min(self._max_shots, len(items) // 2, len(pool))
        return rng.choice(pool, rng.integers(min(MIN_SHOTS, largest), largest + 1), replace=False)

    def _synthetic(self, outcomes: NDArray[np.float32], tasks: NDArray[np.str_]) -> list[NDArray[np.float32]]:
        rng, made = self._rng, []
        names, task_row = np.unique(tasks, return_inverse=True)
        for _ in range(self._n_synthetic if len(outcomes) > 1 else 0):
            first, second = outcomes[rng.choice(len(outcomes), 2, replace=False)]
            kind = rng.random()
            if kind < UNION_SHARE:
                mixed = np.maximum(first, second)
            elif kind < UNION_SHARE + INTERSECTION_SHARE:
                mixed = np.minimum(first, second)
            else:
                mixed = np.where((rng.random(len(names)) < 0.5)[task_row], first, second)
            made.append(mixed[None])
        return made


def _benchmark_groups(records: Records) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """(items, candidates) of benchmarks that mostly the same candidates sat; candidates with half of the items."""
    benchmarks = np.array(records.benchmarks)
    known = ~np.isnan(records.outcomes)
    groups: list[tuple[set[str], frozenset[int]]] = []
    for name in dict.fromkeys(records.benchmarks):
        sat = frozenset(np.flatnonzero(known[:, benchmarks == name].mean(axis=1) > 0.5).tolist())
        for members, others in groups:
            if len(sat & others) >= 0.5 * min(len(sat), len(others)):
                members.add(name)
                break
        else:
            groups.append(({name}, sat))
    kept = []
    for members, _ in groups:
        items = np.flatnonzero(np.isin(benchmarks, list(members)))
        candidates = np.flatnonzero(known[:, items].any(axis=1))
        if len(candidates) >= 2 and len(items) >= 2 * MIN_SHOTS:
            kept.append((items, candidates))
    if not kept:
        raise RecordsError(
            f"Too few records to train on: expected a benchmark with at least {2 * MIN_SHOTS} items "
            "that two candidates answered."
        )
    return kept


def _mean_abilities(records: Records, groups: list[tuple[NDArray[np.intp], NDArray[np.intp]]]) -> list[float]:
    """Mean ability of each group's candidates, in logits above the largest group's.

    Without it, questions that only strong candidates were asked would seem easy. Groups are linked by the
    candidates that sat both (common-person equating, Kolen & Brennan 2014); a group without a link counts as level.
    """
    abilities = []
    for items, candidates in groups:
        share = np.nanmean(records.outcomes[candidates][:, items], axis=1).clip(0.01, 0.99)
        logit = np.log(share / (1 - share))
        abilities.append(dict(zip(candidates.tolist(), (logit - logit.mean()).tolist(), strict=True)))
    reference = abilities[int(np.argmax([len(items) for items, _ in groups]))]
    means = []
    for ability in abilities:
        link = [reference[c] - ability[c] for c in ability if c in reference]
        means.append(float(np.mean(link)) if link else 0.0)
    return means
