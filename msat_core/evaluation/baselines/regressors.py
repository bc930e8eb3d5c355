"""Baselines that learn a function of the instruction: a multilayer perceptron and a random forest.

Both have one output per candidate, over the (reduced) embedding. The forest serves new candidates so, from
their exam alone. The perceptron overfits an exam, and routes better when it learns from *other* candidates
that sit exams of the same size how an instruction and an exam result go together: then its inputs are the
instruction's components and three readings of the exam (overall accuracy, accuracy in like tasks, accuracy
on like questions). Which form routes new candidates better was measured for both (examples/reproduce/LOG.md).
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from msat_core.evaluation.baselines.base import Array, OutcomeTable, Predict
from msat_core.evaluation.baselines.neighbours import by_task, knn
from msat_core.evaluation.baselines.optimise import fit_with_early_stopping, known_cross_entropy

N_COMPONENTS = 32  # of the embedding, beside the readings of an exam
N_EXAMS = 2  # random exams that the others sit
QUERIES_PER_EXAM = 1000  # instructions that an exam has to foretell; chosen: bounds the rows
NEIGHBOURS, TEMPERATURE = 40, 0.05  # of the two readings
HIDDEN, DROPOUT = 64, 0.2  # units of the one hidden layer, and the share of them left out; chosen
MLP_RATE, MLP_DECAY, MLP_STEPS = 3e-3, 1e-2, 400  # of AdamW; chosen
N_TREES, MIN_LEAF, MAX_FEATURES = 100, 20, 0.33  # of the forest; chosen


def fit_mlp(table: OutcomeTable, others: OutcomeTable | None, seed: int) -> Predict:
    """A perceptron with one hidden layer; cross-entropy, early stopping on left-out items."""
    if others is None:
        reduce = _components(table.vectors, seed)
        learned = learn_mlp(reduce(table.vectors), table.outcomes, seed)
        return lambda vectors: learned(reduce(vectors))
    return _fit_pairs(table, others, seed)


def fit_forest(table: OutcomeTable, others: OutcomeTable | None, seed: int) -> Predict:
    """scikit-learn's random forest of regression trees; an unknown outcome counts as its candidate's mean."""
    from sklearn.ensemble import RandomForestRegressor

    reduce = _components(table.vectors, seed)
    forest = RandomForestRegressor(N_TREES, min_samples_leaf=MIN_LEAF, max_features=MAX_FEATURES, random_state=seed)
    target = np.where(np.isnan(table.outcomes), table.accuracy[None], table.outcomes)
    forest.fit(reduce(table.vectors), target[:, 0] if target.shape[1] == 1 else target)
    return lambda vectors: np.asarray(forest.predict(reduce(vectors))).reshape(len(vectors), -1)


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

    def predict(rows: Array) -> Array:
        with torch.inference_mode():
            logits = network((torch.from_numpy(rows.astype(np.float32)) - mean) / scale)
            return np.asarray(torch.sigmoid(logits).numpy(), dtype=float)

    return predict


def _fit_pairs(table: OutcomeTable, others: OutcomeTable, seed: int) -> Predict:
    reduce = _components(others.vectors, seed)
    rng = np.random.default_rng(seed)
    features, outcomes = [], []
    for _ in range(N_EXAMS):
        order = rng.permutation(len(others.outcomes))
        size = min(len(table.outcomes), len(order) // 2)
        exam, queries = order[:size], order[size : size + QUERIES_PER_EXAM]
        features.append(_pairs(reduce, others.rows(exam), others.vectors[queries]))
        outcomes.append(others.outcomes[queries].ravel())
    rows, target = np.concatenate(features), np.concatenate(outcomes)
    known = ~np.isnan(target)
    learned = learn_mlp(rows[known], target[known, None], seed)
    n_candidates = table.outcomes.shape[1]
    return lambda vectors: learned(_pairs(reduce, table, vectors)).reshape(len(vectors), n_candidates)


def _pairs(reduce: Predict, exam: OutcomeTable, vectors: Array) -> NDArray[np.float64]:
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
    pca = PCA(width, svd_solver="randomized", random_state=seed).fit(vectors)
    return lambda rows: np.asarray(pca.transform(rows))
