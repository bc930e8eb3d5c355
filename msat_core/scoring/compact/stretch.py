"""How much more an exam's tasks set a candidate apart than the kernel expects, by the exam itself.

The kernel has learnt how far apart tasks are on the benchmarks that it was trained on. Where an exam's tasks differ
more (a hundred kinds of puzzle, say), what a candidate got right in a task says more of that task: its part of the
kernel is stretched. Few shots, or tasks like those of training, leave it nearly as it is.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from msat_core.scoring.compact.kernel import MAX_NEWTON_STEPS, MIN_CURVATURE, Array

STRETCHES = (1.0, 2.0, 4.0)  # of the tasks' standard deviation
PRIOR = (0.6, 0.2, 0.2)  # how likely each is before the exam
CONVERGED = 1e-2  # change of a logit below which Newton's method stops

Wide = NDArray[np.float64]


def task_stretch(features: Array, n_tasks: int, offset: Array, outcomes: Array) -> float:
    """By what to multiply the features of a candidate's tasks: a geometric mean by marginal likelihood.

    Args:
        features: (E, R), of the shots; the last ``n_tasks`` columns are those of tasks.
        n_tasks: K.
        offset: (E,), b at the shots.
        outcomes: (E,), in [0, 1].
    """
    likelihoods = [log_marginal_likelihood(stretched(features, n_tasks, by), offset, outcomes) for by in STRETCHES]
    weights = np.array(PRIOR) * np.exp(np.array(likelihoods) - max(likelihoods))
    return float(np.exp(weights @ np.log(STRETCHES) / weights.sum()))


def stretched(features: Array, n_tasks: int, by: float) -> Array:
    """The features, (..., R), with those of tasks, the last K, multiplied."""
    broad = features.shape[-1] - n_tasks
    return np.concatenate([features[..., :broad], np.float32(by) * features[..., broad:]], axis=-1, dtype=np.float32)


def log_marginal_likelihood(features: Array, offset: Array, outcomes: Array) -> float:
    """Log probability of the outcomes, weights of the features integrated out (Laplace's approximation).

    The single-shot part of the kernel is left out, so that this costs R², not E², a shot.

    Args:
        features: (E, R); their weights are standard normal beforehand.
        offset: (E,), what the logits are without them.
        outcomes: (E,), in [0, 1].
    """
    x, truth = features.astype(np.float64), outcomes.astype(np.float64)
    prior: Wide = np.eye(x.shape[1])
    weights: Wide = np.zeros(x.shape[1])
    logits = offset.astype(np.float64)
    for _ in range(MAX_NEWTON_STEPS):
        p = 1 / (1 + np.exp(-logits))
        precision = (x * np.maximum(p * (1 - p), MIN_CURVATURE)[:, None]).T @ x + prior
        step = np.linalg.solve(precision, x.T @ (truth - p) - weights)
        weights += step
        logits = offset + x @ weights
        if np.abs(x @ step).max(initial=0) < CONVERGED:
            break
    likelihood = (truth * logits - np.logaddexp(0, logits)).sum()
    return float(likelihood - 0.5 * weights @ weights - 0.5 * np.linalg.slogdet(precision)[1])
