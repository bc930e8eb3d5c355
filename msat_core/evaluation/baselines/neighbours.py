"""Baselines that average the candidates' outcomes on like questions; an exam is enough for all three."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

from msat_core.evaluation.baselines.base import Array, OutcomeTable, Predict, choose_setting

NEIGHBOURS = (10, 20, 40, 80, 160, 320)  # tried by cross-validation
CLUSTERS = (4, 8, 16, 32, 64)  # likewise
TEMPERATURES = (0.02, 0.05, 0.1, 0.2)  # in units of cosine
ROWS_AT_ONCE = 256  # instructions; bounds memory


def fit_knn(table: OutcomeTable, others: OutcomeTable | None, seed: int) -> Predict:
    """Mean outcome on the k nearest questions; k is chosen by cross-validation on the outcomes."""
    return knn(table, choose_setting(knn, NEIGHBOURS, table, seed))


def knn(table: OutcomeTable, k: int) -> Predict:
    """Mean known outcome on the k nearest questions by cosine; a candidate's accuracy where none is known."""
    k = min(k, len(table.outcomes))

    def predict(vectors: Array) -> Array:
        scores = np.empty((len(vectors), table.outcomes.shape[1]))
        for start in range(0, len(vectors), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            similarity = vectors[rows] @ table.vectors.T
            near = np.argpartition(-similarity, k - 1, axis=1)[:, :k]  # (n, k)
            scores[rows] = _known_mean(table.outcomes[near], 1, table.accuracy)
        return scores

    return predict


def fit_kmeans(table: OutcomeTable, others: OutcomeTable | None, seed: int) -> Predict:
    """Accuracy within the instruction's cluster: Avengers' rule (per-cluster best).

    The number of clusters is chosen by cross-validation. Clusters of the outcomes alone serve new candidates
    better than clusters of others' items too.
    """
    from sklearn.cluster import KMeans

    grid = [n for n in CLUSTERS if n <= len(table.vectors)] or [1]
    centres = [KMeans(n, n_init=1, random_state=seed).fit(table.vectors).cluster_centers_ for n in grid]
    return by_cluster(table, choose_setting(by_cluster, centres, table, seed))


def by_cluster(table: OutcomeTable, centres: Array) -> Predict:
    """Accuracy on the outcomes that is nearest to the same centre; overall accuracy where there is none."""
    labels, n = nearest_centre(table.vectors, centres), len(centres)
    means = np.stack([_known_mean(table.outcomes[labels == c], 0, table.accuracy) for c in range(n)])
    return lambda vectors: means[nearest_centre(vectors, centres)]


def nearest_centre(vectors: Array, centres: Array) -> NDArray[np.intp]:
    """Position of the nearest centre: (N, D), (C, D) → (N,)."""
    return np.asarray((vectors @ centres.T - 0.5 * (centres**2).sum(axis=1)).argmax(axis=1))


def fit_tasks(table: OutcomeTable, others: OutcomeTable | None, seed: int) -> Predict:
    """Accuracies by task, weighted by how near the task is; the temperature is chosen by cross-validation."""
    return by_task(table, choose_setting(by_task, TEMPERATURES, table, seed))


def by_task(table: OutcomeTable, temperature: float) -> Predict:
    """Softmax over the cosine to each task's mean embedding, times the accuracies in the tasks."""
    labels = np.array(table.tasks)
    names = list(dict.fromkeys(table.tasks))
    centroids = np.stack([table.vectors[labels == name].mean(axis=0) for name in names])
    centroids /= np.linalg.norm(centroids, axis=1, keepdims=True).clip(1e-12)
    means = np.stack([_known_mean(table.outcomes[labels == name], 0, table.accuracy) for name in names])

    def predict(vectors: Array) -> Array:
        logits = vectors @ centroids.T / temperature
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(weights @ means / weights.sum(axis=1, keepdims=True))

    return predict


def _known_mean(outcomes: Array, axis: int, otherwise: Array) -> Array:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the mean of nothing, replaced in the next line
        mean = np.nanmean(outcomes, axis=axis)
    return np.asarray(np.where(np.isnan(mean), otherwise, mean))
