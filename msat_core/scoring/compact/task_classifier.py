"""Which of an exam's tasks an instruction belongs to.

The kernel's own attention goes by nearness to each task's mean embedding. Where tasks lie close together, the
exam's shots, whose tasks are known, teach more: linear discriminant analysis, whose covariance within tasks is
shrunk towards a sphere (Friedman 1989). How far, and how sure it may be, is chosen by leaving shots out.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from msat_core.scoring.compact.kernel import Array, TaskClassifier

N_FOLDS = 5
SHRINKAGES = (0.1, 0.3, 0.6, 0.9)  # share of a sphere in the covariance within tasks
TRUSTS = (0.03, 0.06, 0.1, 0.2, 0.35, 0.5, 0.7, 1.0)  # what the discriminants are multiplied by: they are too sure
SMOOTHING = 0.5  # shots that every task has beside its own, in its share of all

Wide = NDArray[np.float64]


def learnt_classifier(shots: Array, task_of: NDArray[np.intp], known: TaskClassifier) -> TaskClassifier | None:
    """What the shots teach; None where shots left out are told apart no better than by what is known.

    Args:
        shots: (S, D), unit vectors.
        task_of: (S,), each shot's task, in 0 … K − 1.
        known: directions are the tasks' unit means.
    """
    n_tasks = len(known.directions)
    if n_tasks < 2 or len(shots) <= n_tasks or len(np.unique(task_of)) < n_tasks:
        return None
    x = shots.astype(np.float64)
    fold = _folds(task_of)
    best, chosen = _surprise(_left_out(x, task_of, known), task_of), None
    for shrinkage in SHRINKAGES:
        logits = np.zeros((len(x), n_tasks))
        for k in range(N_FOLDS):
            rest = fold != k
            directions, offset = _discriminants(x[rest], task_of[rest], n_tasks, shrinkage)
            logits[~rest] = x[~rest] @ directions.T + offset
        for trust in TRUSTS:
            surprise = _surprise(trust * logits, task_of)
            if surprise < best:
                best, chosen = surprise, (shrinkage, trust)
    if chosen is None:
        return None
    directions, offset = _discriminants(x, task_of, n_tasks, chosen[0])
    return TaskClassifier(
        directions.astype(np.float32), np.float32(1 / chosen[1]), (chosen[1] * offset).astype(np.float32)
    )


def _folds(task_of: NDArray[np.intp]) -> NDArray[np.intp]:
    """Each task's shots are dealt out in their order."""
    fold = np.zeros(len(task_of), dtype=np.intp)
    for task in np.unique(task_of):
        rows = np.flatnonzero(task_of == task)
        fold[rows] = np.arange(len(rows)) % N_FOLDS
    return fold


def _discriminants(x: Wide, task_of: NDArray[np.intp], n_tasks: int, shrinkage: float) -> tuple[Wide, Wide]:
    """Directions, (K, D), and offsets, (K,), of Gaussian tasks that share one covariance."""
    counts = np.bincount(task_of, minlength=n_tasks)
    means = np.stack([x[task_of == k].sum(axis=0) for k in range(n_tasks)]) / np.maximum(counts, 1)[:, None]
    apart = x - means[task_of]
    within = apart.T @ apart / max(len(x) - n_tasks, 1)  # (D, D)
    sphere = max(float(np.trace(within)) / len(within), 1e-6) * np.eye(len(within))
    directions = np.asarray(np.linalg.solve((1 - shrinkage) * within + shrinkage * sphere, means.T).T)
    share = (counts + SMOOTHING) / (counts + SMOOTHING).sum()
    return directions, np.asarray(np.log(share) - 0.5 * (means * directions).sum(axis=1))


def _left_out(x: Wide, task_of: NDArray[np.intp], known: TaskClassifier) -> Wide:
    """(S, K), logits by nearness to the tasks' means, of which each shot's own is without it."""
    cosines = x @ known.directions.T.astype(np.float64)
    sums = np.stack([x[task_of == k].sum(axis=0) for k in range(len(known.directions))])
    others = sums[task_of] - x
    others /= np.linalg.norm(others, axis=1, keepdims=True).clip(min=1e-12)
    cosines[np.arange(len(x)), task_of] = (others * x).sum(axis=1)
    return cosines / float(known.temperature)


def _surprise(logits: Wide, task_of: NDArray[np.intp]) -> float:
    """Mean negative log probability of the true tasks."""
    top = logits.max(axis=1, keepdims=True)
    total = np.log(np.exp(logits - top).sum(axis=1)) + top[:, 0]
    return float((total - logits[np.arange(len(logits)), task_of]).mean())
