"""Baselines that learn a function of the instruction: a multilayer perceptron and a random forest.

Known candidates: one output per candidate, over the embedding. New candidates: a learner with an output
per candidate has seen only the exam of theirs, so here it learns instead, from *other* candidates that sat
exams of the same size, how an instruction and an exam result go together: its inputs are the instruction's
embedding (reduced) and three readings of the exam (overall accuracy, accuracy in like tasks, accuracy on
like questions). That form serves anybody who has sat an exam, and beats outputs fitted to the exam alone.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from msat_core.evaluation.baselines.evidence import Array, Evidence, Predict
from msat_core.evaluation.baselines.neighbours import by_task, knn
from msat_core.evaluation.baselines.optimise import fit_with_early_stopping, known_cross_entropy

Learn = Callable[[Array, Array, int], Predict]  # (rows, F), (rows, outputs) with NaN → prediction of the outputs

N_COMPONENTS = 32  # of the embedding, beside the readings of an exam
N_EXAMS = 4  # random exams that the others sit
QUERIES_PER_EXAM = 1000
NEIGHBOURS, TEMPERATURE = 40, 0.05  # of the two readings
HIDDEN, DROPOUT = 64, 0.2
MLP_RATE, MLP_DECAY, MLP_STEPS = 3e-3, 1e-2, 400
N_TREES, MIN_LEAF, MAX_FEATURES = 100, 20, 0.33
MAX_ROWS = 20_000  # of each tree's sample


def fit_mlp(evidence: Evidence, others: Evidence | None, seed: int) -> Predict:
    """A perceptron with one hidden layer; cross-entropy, early stopping on left-out items."""
    return _fit(learn_mlp, evidence, others, seed)


def fit_forest(evidence: Evidence, others: Evidence | None, seed: int) -> Predict:
    """scikit-learn's random forest of regression trees."""
    return _fit(learn_forest, evidence, others, seed)


def learn_mlp(features: Array, outcomes: Array, seed: int) -> Predict:
    """See :func:`fit_mlp`."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        x = torch.from_numpy(features.astype(np.float32))
        mean, scale = x.mean(dim=0), x.std(dim=0).clamp_min(1e-6)
        width = features.shape[1]
        network = nn.Sequential(
            nn.Linear(width, HIDDEN), nn.GELU(), nn.Dropout(DROPOUT), nn.Linear(HIDDEN, outcomes.shape[1])
        )
        target = torch.from_numpy(outcomes.astype(np.float32))
        rows = (x - mean) / scale

        def loss(keep: Tensor) -> Tensor:
            return known_cross_entropy(network(rows[keep]), target[keep])

        fit_with_early_stopping(network, loss, len(rows), rate=MLP_RATE, decay=MLP_DECAY, steps=MLP_STEPS)

    def predict(found: Array) -> Array:
        with torch.inference_mode():
            logits = network((torch.from_numpy(found.astype(np.float32)) - mean) / scale)
            return np.asarray(torch.sigmoid(logits).numpy(), dtype=float)

    return predict


def learn_forest(features: Array, outcomes: Array, seed: int) -> Predict:
    """See :func:`fit_forest`; an unknown outcome counts as its candidate's mean."""
    from sklearn.ensemble import RandomForestRegressor

    forest = RandomForestRegressor(
        N_TREES,
        min_samples_leaf=MIN_LEAF,
        max_features=MAX_FEATURES,
        max_samples=min(1.0, MAX_ROWS / len(features)),
        random_state=seed,
    )
    target = np.where(np.isnan(outcomes), np.nanmean(outcomes, axis=0)[None], outcomes)
    forest.fit(features, target[:, 0] if target.shape[1] == 1 else target)
    return lambda found: np.asarray(forest.predict(found)).reshape(len(found), -1)


def _fit(learn: Learn, evidence: Evidence, others: Evidence | None, seed: int) -> Predict:
    if others is None:
        reduce = _components(evidence.vectors, seed)
        learned = learn(reduce(evidence.vectors), evidence.outcomes, seed)
        return lambda vectors: learned(reduce(vectors))
    reduce = _components(others.vectors, seed)
    rng = np.random.default_rng(seed)
    features, outcomes = [], []
    for _ in range(N_EXAMS):
        order = rng.permutation(len(others.outcomes))
        size = min(len(evidence.outcomes), len(order) // 2)
        exam, queries = order[:size], order[size : size + QUERIES_PER_EXAM]
        features.append(_pairs(reduce, others.rows(exam), others.vectors[queries]))
        outcomes.append(others.outcomes[queries].ravel())
    rows, target = np.concatenate(features), np.concatenate(outcomes)
    known = ~np.isnan(target)
    learned = learn(rows[known], target[known, None], seed)
    n_candidates = evidence.outcomes.shape[1]
    return lambda vectors: learned(_pairs(reduce, evidence, vectors)).reshape(len(vectors), n_candidates)


def _pairs(reduce: Predict, exam: Evidence, vectors: Array) -> NDArray[np.float64]:
    """(N·M, F + 3), instruction by instruction: its components and the three readings of each candidate's exam."""
    n, m = len(vectors), exam.outcomes.shape[1]
    readings = [
        np.broadcast_to(exam.accuracy[None], (n, m)),
        by_task(exam, TEMPERATURE)(vectors),
        knn(exam, NEIGHBOURS)(vectors),
    ]
    exam_part = np.stack(readings, axis=-1).reshape(n * m, len(readings))
    return np.concatenate([np.repeat(reduce(vectors), m, axis=0), exam_part], axis=1)


def _components(vectors: Array, seed: int) -> Predict:
    """Principal components, as a function of embeddings."""
    from sklearn.decomposition import PCA

    width = min(N_COMPONENTS, *vectors.shape)
    found = PCA(width, svd_solver="randomized", random_state=seed).fit(vectors)
    return lambda rows: np.asarray(found.transform(rows))
