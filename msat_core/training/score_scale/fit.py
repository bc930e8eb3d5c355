"""Fit the scale of published scores by expectation and maximisation. Deterministic; numpy alone.

The table's cells are logits with a known counting variance. Given the tasks, each candidate's latent values have a
Gaussian posterior; given those, each task's slope and difficulty follow by a weighted regression with a weak prior,
and its noise by how far the cells lie from it.

Shapes: M candidates, T tasks (published and exam areas alike), L latent values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from msat_core.score_scale import ScaleTask, ScoreScale, observed_logit, source_family

Array = NDArray[np.float64]

STEPS = 150  # of expectation and maximisation; chosen
SLOPE_SD = 0.5  # how far a task's slope may lie from the mean slope before many candidates say so
NOISE_PRIOR = (4.0, 0.15)  # a task's noise before the first cell: worth 4 cells of this variance
DEVIATION_PRIOR = (10.0, 0.10)  # likewise for the variance of deviations by area and by source
LEAST_CANDIDATES = 5  # a task that fewer have seen is left out


@dataclass(frozen=True)
class Cell:
    """What share a candidate had right in a task. ``questions`` is None where nobody says how many there were."""

    candidate: str
    source: str
    task: str
    area: str
    accuracy: float
    questions: int | None = None
    chance: float = 0.0


@dataclass(frozen=True)
class _Table:
    """The table as arrays (M, T): logits, counting variances, which cells are there."""

    candidates: tuple[str, ...]
    tasks: tuple[tuple[str, str, str, float], ...]
    logits: Array
    variances: Array
    there: NDArray[np.bool_]

    @classmethod
    def of(cls, cells: Sequence[Cell]) -> _Table:
        """Cells of the tasks that at least ``LEAST_CANDIDATES`` have."""
        seen: dict[tuple[str, str, str, float], set[str]] = {}
        for s in cells:
            seen.setdefault((s.source, s.task, s.area, s.chance), set()).add(s.candidate)
        tasks = tuple(sorted(key for key, who in seen.items() if len(who) >= LEAST_CANDIDATES))
        column = {key: t for t, key in enumerate(tasks)}
        kept = [s for s in cells if (s.source, s.task, s.area, s.chance) in column]
        candidates = tuple(sorted({s.candidate for s in kept}))
        row = {name: m for m, name in enumerate(candidates)}
        logits, variances = np.zeros((len(row), len(column))), np.ones((len(row), len(column)))
        for s in kept:
            cell = row[s.candidate], column[s.source, s.task, s.area, s.chance]
            logits[cell], variances[cell] = observed_logit(s.accuracy, s.questions, s.chance)
        there = np.zeros(logits.shape, dtype=bool)
        for s in kept:
            there[row[s.candidate], column[s.source, s.task, s.area, s.chance]] = True
        return cls(candidates, tasks, logits, variances, there)


@dataclass(frozen=True)
class _Tasks:
    """What is fitted: (T,) each, the doubt (T, 2, 2), prior variances (L,), which latent counts where (T, L)."""

    difficulty: Array
    slope: Array
    noise: Array
    doubt: Array
    prior: Array
    pattern: Array


@dataclass(frozen=True)
class FittedScale:
    """The scale, and the posterior of every candidate of the table: means (M, L), covariances (M, L, L)."""

    scale: ScoreScale
    candidates: tuple[str, ...]
    means: Array
    covariances: Array
    n_scores: NDArray[np.int64]

    def row(self, candidate: str) -> int:
        """The candidate's row."""
        return self.candidates.index(candidate)


def fit_scale(
    cells: Sequence[Cell],
    exam: Sequence[tuple[str, str]],
    *,
    start: ScoreScale | None = None,
    steps: int = STEPS,
    fitted_on: Mapping[str, str | int | float] | None = None,
) -> FittedScale:
    """Fit the scale to the cells of a table.

    Args:
        cells: published ones and the exams' (a candidate with both links them).
        exam: (source, task) of the exam areas, in their order.
        start: a fitted scale to start from.
        steps: of expectation and maximisation.
        fitted_on: what to say of the table.
    """
    table = _Table.of(cells)
    areas = sorted({task[2] for task in table.tasks})
    families = sorted({source_family(task[0]) for task in table.tasks})
    fitted = _start(table, areas, families, start)
    for _ in range(steps):
        means, covariances = _expect(table, fitted)
        fitted = _maximise(table, fitted, means, covariances)
    means, covariances = _expect(table, fitted)
    tasks = [
        ScaleTask(
            source=source,
            task=task,
            area=area,
            chance=chance,
            slope=round(float(fitted.slope[t]), 4),
            difficulty=round(float(fitted.difficulty[t]), 4),
            noise=round(float(fitted.noise[t]), 4),
            doubt=tuple(
                round(float(x), 5) for x in (fitted.doubt[t, 0, 0], fitted.doubt[t, 0, 1], fitted.doubt[t, 1, 1])
            ),
        )
        for t, (source, task, area, chance) in enumerate(table.tasks)
    ]
    by_key = {task.key: task for task in tasks}
    wanted = set(exam)
    scale = ScoreScale(
        tasks=tuple(task for task in tasks if task.key not in wanted),
        exam=tuple(by_key[key] for key in exam),
        area_variance=dict(zip(areas, (round(float(v), 4) for v in fitted.prior[1:]), strict=False)),
        source_variance=dict(zip(families, (round(float(v), 4) for v in fitted.prior[1 + len(areas) :]), strict=True)),
        fitted_on=dict(fitted_on or {}),
    )
    return FittedScale(scale, table.candidates, means, covariances, table.there.sum(axis=1))


def _start(table: _Table, areas: list[str], families: list[str], start: ScoreScale | None) -> _Tasks:
    n_tasks = len(table.tasks)
    pattern = np.zeros((n_tasks, 1 + len(areas) + len(families)))
    pattern[:, 0] = 1
    for t, (source, _, area, _) in enumerate(table.tasks):
        pattern[t, 1 + areas.index(area)] = 1
        pattern[t, 1 + len(areas) + families.index(source_family(source))] = 1
    count = table.there.sum(axis=0)
    difficulty = -(table.logits * table.there).sum(axis=0) / count
    slope, noise = np.ones(n_tasks), np.full(n_tasks, 0.3)
    prior = np.array([1.0, *[DEVIATION_PRIOR[1]] * (pattern.shape[1] - 1)])
    if start is not None:
        earlier = {task.key: task for task in (*start.tasks, *start.exam)}
        for t, (source, task, _, _) in enumerate(table.tasks):
            if (source, task) in earlier:
                entry = earlier[source, task]
                difficulty[t], slope[t], noise[t] = entry.difficulty, entry.slope, entry.noise
    return _Tasks(difficulty, slope, noise, np.zeros((n_tasks, 2, 2)), prior, pattern)


def _expect(table: _Table, fitted: _Tasks) -> tuple[Array, Array]:
    """Posterior of the latent values: (M, L), (M, L, L)."""
    rows = fitted.pattern * fitted.slope[:, None]  # (T, L)
    weights = table.there / (table.variances + fitted.noise)  # (M, T)
    precision = np.einsum("mt,tl,tk->mlk", weights, rows, rows, optimize=True) + np.diag(1 / fitted.prior)
    covariances = np.linalg.inv(precision)
    pull = (weights * (table.logits + fitted.difficulty)) @ rows
    return np.einsum("mlk,mk->ml", covariances, pull), covariances


def _maximise(table: _Table, fitted: _Tasks, means: Array, covariances: Array) -> _Tasks:
    """Tasks and prior variances given the candidates."""
    there, total = table.there, table.variances + fitted.noise
    weights = there / total
    seen = (there @ fitted.pattern) > 0  # (M, L): candidates with evidence on a latent value
    means, covariances = _centred(means, covariances, seen)
    u = means @ fitted.pattern.T  # (M, T), level and deviations as each task sees them
    variance = np.einsum("mlk,tl,tk->mt", covariances, fitted.pattern, fitted.pattern, optimize=True)
    mean_slope = float(fitted.slope.mean())
    # regression of the logit on (−1, u) with a normal prior on the slope
    a11 = weights.sum(axis=0) + 1 / 9.0
    a12 = -(weights * u).sum(axis=0)
    a22 = (weights * (u**2 + variance)).sum(axis=0) + 1 / SLOPE_SD**2
    b1 = -(weights * table.logits).sum(axis=0)
    b2 = (weights * u * table.logits).sum(axis=0) + mean_slope / SLOPE_SD**2
    normal = np.stack([np.stack([a11, a12], -1), np.stack([a12, a22], -1)], -2)  # (T, 2, 2)
    doubt = np.linalg.inv(normal)
    solved = np.einsum("tij,tj->ti", doubt, np.stack([b1, b2], -1))
    difficulty, slope = solved[:, 0], np.maximum(solved[:, 1], 0.05)
    residual = (table.logits + difficulty - slope * u) ** 2 + slope**2 * variance
    share = fitted.noise / total
    extra = there * (share**2 * residual + share * table.variances)
    noise = (extra.sum(axis=0) + NOISE_PRIOR[0] * NOISE_PRIOR[1]) / (there.sum(axis=0) + NOISE_PRIOR[0])
    prior = fitted.prior.copy()
    second = means**2 + np.diagonal(covariances, axis1=1, axis2=2)
    count = seen[:, 1:].sum(axis=0)
    prior[1:] = ((second[:, 1:] * seen[:, 1:]).sum(axis=0) + DEVIATION_PRIOR[0] * DEVIATION_PRIOR[1]) / (
        count + DEVIATION_PRIOR[0]
    )
    return replace(fitted, difficulty=difficulty, slope=slope, noise=noise, doubt=doubt, prior=prior)


def _centred(means: Array, covariances: Array, seen: NDArray[np.bool_]) -> tuple[Array, Array]:
    """The posterior with deviations of mean 0 and no correlation with the level.

    What a deviation shares with the level belongs to the slopes, and its mean to the difficulties, where the
    regression that follows puts it; left to itself, the iteration moves it there only very slowly.
    """
    change = np.eye(means.shape[1])
    shift = np.zeros(means.shape[1])
    for d in range(1, means.shape[1]):
        level, deviation = means[seen[:, d], 0], means[seen[:, d], d]
        square = (level**2 + covariances[seen[:, d], 0, 0]).mean()
        cross = (level * deviation + covariances[seen[:, d], 0, d]).mean()
        level_variance = square - level.mean() ** 2
        change[d, 0] = -(cross - level.mean() * deviation.mean()) / level_variance
        shift[d] = deviation.mean() + change[d, 0] * level.mean()
    return means @ change.T - shift, change @ covariances @ change.T


def _rounded(doubt: Array) -> tuple[float, float, float]:
    """The upper triangle of a (2, 2) covariance."""
    return round(float(doubt[0, 0]), 5), round(float(doubt[0, 1]), 5), round(float(doubt[1, 1]), 5)
