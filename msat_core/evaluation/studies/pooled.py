"""Many zoos over one panel of scored items: gains averaged over zoos, intervals over items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msat_core.evaluation.metrics import bootstrap_interval, paired_p_value
from msat_core.evaluation.yardsticks import yardsticks

Array = NDArray[np.floating]


@dataclass(frozen=True)
class Panel:
    """N items scored for M candidates by several methods.

    Attributes:
        names: the candidates.
        new: those that no method was trained on.
        tasks: length N.
        outcomes: (N, M), NaN where unknown.
        aptitude: (M,), exam accuracies.
        costs: (N, M), USD of each call; NaN where unknown.
        scores: (N, M) by method, ours first.
        exam_size: questions in the exam.
    """

    names: tuple[str, ...]
    new: frozenset[str]
    tasks: tuple[str, ...]
    outcomes: Array
    aptitude: Array
    costs: Array
    scores: Mapping[str, Array]
    exam_size: int

    def rows(self, keep: NDArray[Any]) -> Panel:
        """The items at the given positions, or of a mask."""
        at = np.arange(len(self.tasks))[keep]
        return Panel(
            self.names,
            self.new,
            tuple(self.tasks[i] for i in at),
            self.outcomes[at],
            self.aptitude,
            self.costs[at],
            {name: scores[at] for name, scores in self.scores.items()},
            self.exam_size,
        )

    def positions(self, names: Sequence[str]) -> tuple[int, ...]:
        """Columns of the named candidates."""
        return tuple(self.names.index(name) for name in names)


def pooled_gains(
    panels: Sequence[Panel], zoos: Sequence[Sequence[Sequence[int]]], *, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """How each method routes over many zoos.

    Per item the gain is averaged over the zoos whose members all have an outcome, then over panels, which share
    their items; intervals and p-values resample items. Fractions, not points.

    Args:
        panels: with the same items and methods.
        zoos: of each panel, as columns.
        seed: of reference exams and the bootstrap.

    Returns:
        By method: ``accuracy``; ``over``, by yardstick, [mean, low, high]; ``worst_zoo``, ``fifth_zoo`` (the 5th
        percentile) and ``share_won`` over the best single; for all but the first method ``ours_minus``,
        [mean, low, high], with its ``p_value``.
    """
    methods = list(panels[0].scores)
    parts = [_per_item(panel, members, seed) for panel, members in zip(panels, zoos, strict=True) if members]
    if not parts:
        return {}
    routed = {m: _mean_over_panels([part.routed[m] for part in parts]) for m in methods}
    sticks = {name: _mean_over_panels([part.sticks[name] for part in parts]) for name in parts[0].sticks}
    report: dict[str, dict[str, Any]] = {}
    for method in methods:
        by_zoo = np.concatenate([part.over_best[method] for part in parts])
        report[method] = {
            "accuracy": float(np.nanmean(routed[method])),
            "over": {name: _estimate(routed[method] - values, seed) for name, values in sticks.items()},
            "worst_zoo": float(by_zoo.min()),
            "fifth_zoo": float(np.quantile(by_zoo, 0.05)),
            "share_won": float((by_zoo > 0).mean()),
            "n_zoos": len(by_zoo),
        }
        if method != methods[0]:
            difference = routed[methods[0]] - routed[method]
            report[method]["ours_minus"] = _estimate(difference, seed)
            report[method]["p_value"] = paired_p_value(difference[~np.isnan(difference)], seed=seed)
    return report


@dataclass(frozen=True)
class _PerItem:
    routed: dict[str, Array]  # (N,) by method, mean over zoos
    sticks: dict[str, Array]  # (N,) by yardstick, mean over zoos
    over_best: dict[str, Array]  # (zoos,) by method, gain over the best single


def _per_item(panel: Panel, zoos: Sequence[Sequence[int]], seed: int) -> _PerItem:
    n = len(panel.tasks)
    routed = {method: np.zeros(n) for method in panel.scores}
    sticks: dict[str, Array] = {}
    over_best: dict[str, list[float]] = {method: [] for method in panel.scores}
    count = np.zeros(n)
    for zoo in (np.array(members, dtype=np.intp) for members in zoos):
        rows = np.flatnonzero(~np.isnan(panel.outcomes[:, zoo]).any(axis=1))
        outcomes = panel.outcomes[np.ix_(rows, zoo)]
        tasks = tuple(panel.tasks[i] for i in rows)
        count[rows] += 1
        held = yardsticks(outcomes, tasks, panel.aptitude[zoo], panel.exam_size, seed=seed).known()
        for name, values in held.items():
            sticks.setdefault(name, np.zeros(n))[rows] += values
        for method, scores in panel.scores.items():
            values = outcomes[np.arange(len(rows)), scores[np.ix_(rows, zoo)].argmax(axis=1)]
            routed[method][rows] += values
            over_best[method].append(float(values.mean() - held["best_single"].mean()))
    share = np.where(count > 0, count, np.nan)
    return _PerItem(
        {method: values / share for method, values in routed.items()},
        {name: values / share for name, values in sticks.items()},
        {method: np.array(values) for method, values in over_best.items()},
    )


def _mean_over_panels(values: list[Array]) -> Array:
    stacked = np.stack(values)
    known = ~np.isnan(stacked)
    return np.asarray(np.where(known, stacked, 0).sum(axis=0) / np.where(known.any(axis=0), known.sum(axis=0), np.nan))


def _estimate(values: Array, seed: int) -> list[float]:
    known = values[~np.isnan(values)]
    return [float(known.mean()), *bootstrap_interval(known, seed=seed)]
