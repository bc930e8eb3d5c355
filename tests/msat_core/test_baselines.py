"""Each baseline on cases whose answer is known, and the seam they share."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from msat_core.errors import ConfigurationError, RecordsError
from msat_core.evaluation.baselines import BASELINES, OutcomeTable, baselines_named
from msat_core.evaluation.baselines.base import choose_setting
from msat_core.evaluation.baselines.factors import bradley_terry_loss, contrastive_loss
from msat_core.evaluation.baselines.neighbours import by_cluster, by_task, knn
from msat_core.evaluation.baselines.optimise import known_cross_entropy

UNITS = np.eye(3, dtype=np.float32)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Matrices this small only lose by being shared out."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def table_of(outcomes: list[list[float]], rows: list[int], tasks: tuple[str, ...] | None = None) -> OutcomeTable:
    return OutcomeTable(UNITS[rows], tasks or ("t",) * len(rows), np.array(outcomes, dtype=float))


def specialists(n_items: int, n_pairs: int, seed: int) -> OutcomeTable:
    """Items on one of two sides of the space; half of the candidates are right on the one, half on the other."""
    rng = np.random.default_rng(seed)
    side = rng.integers(0, 2, n_items)
    vectors = rng.normal(0, 0.15, (n_items, 16))
    vectors[np.arange(n_items), side] += 1
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    share = np.where(side[:, None] == np.tile([0, 1], n_pairs)[None], 0.85, 0.25)
    outcomes = (rng.random(share.shape) < share).astype(float)
    return OutcomeTable(vectors.astype(np.float32), tuple(f"task {s}" for s in side), outcomes)


def test_knn_by_hand() -> None:
    found = knn(table_of([[1, 0], [0, 1], [np.nan, 1]], [0, 0, 1]), 2)(UNITS[:1])
    assert found.tolist() == [[0.5, 0.5]]
    one = knn(table_of([[1, 0], [0, 1], [np.nan, 1]], [0, 1, 2]), 1)(UNITS)
    assert one.tolist() == [[1, 0], [0, 1], [0.5, 1]]  # unknown: the candidate's accuracy


def test_knn_agrees_with_scikit_learn() -> None:
    from sklearn.neighbors import KNeighborsRegressor

    known, asked = specialists(200, 2, 0), specialists(50, 2, 1)
    reference = KNeighborsRegressor(15, metric="cosine").fit(known.vectors, known.outcomes).predict(asked.vectors)
    np.testing.assert_allclose(knn(known, 15)(asked.vectors), reference, atol=1e-12)


def test_per_cluster_accuracy_by_hand() -> None:
    found = by_cluster(table_of([[1, 0], [0, 0], [1, 1]], [0, 0, 1]), UNITS)(UNITS)
    np.testing.assert_allclose(found, [[0.5, 0.0], [1.0, 1.0], [2 / 3, 1 / 3]])  # nobody asked in the third: overall


def test_task_similarity_by_hand() -> None:
    found = by_task(table_of([[1, 0], [0, 1]], [0, 1], ("a", "b")), 1.0)(UNITS)
    near = np.e / (np.e + 1)
    np.testing.assert_allclose(found, [[near, 1 - near], [1 - near, near], [0.5, 0.5]], rtol=1e-6)


def test_setting_of_least_held_out_error_is_chosen() -> None:
    exam = specialists(60, 2, 0)
    constant = lambda part, value: lambda vectors: np.full((len(vectors), 4), value)  # noqa: E731
    assert choose_setting(constant, (0.0, 0.55, 1.0), exam, 0) == 0.55


def test_losses_in_closed_form() -> None:
    outcomes = torch.tensor([[1.0, 0.0, torch.nan], [1.0, 1.0, 1.0]])
    level = torch.zeros(2, 3)
    assert float(known_cross_entropy(level, outcomes)) == pytest.approx(np.log(2))
    assert float(bradley_terry_loss(level, outcomes)) == pytest.approx(np.log(2))  # one decided pair
    # −log(1/2) for the right one against one wrong; in the second row nobody is wrong, so nothing is lost
    assert float(contrastive_loss(level, outcomes)) == pytest.approx(np.log(2) / 4)
    sure = torch.tensor([[30.0, -30.0, 0.0], [0.0, 0.0, 0.0]])
    assert float(bradley_terry_loss(sure, outcomes)) == pytest.approx(0, abs=1e-6)
    assert float(contrastive_loss(sure, outcomes)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("name", BASELINES)
def test_each_baseline_learns_who_is_right_where(name: str) -> None:
    """Known candidates from history; new ones from a smaller exam and others' history; deterministic."""
    asked = specialists(300, 2, 3)
    best = np.where(np.array(asked.tasks) == "task 0", 0, 1)
    for known, others in ((specialists(300, 2, 1), None), (specialists(120, 2, 2), specialists(300, 3, 4))):
        fit = BASELINES[name].fit
        scores = fit(known, others, 0)(asked.vectors)
        assert scores.shape == (300, 4)
        assert ((scores >= 0) & (scores <= 1)).all()
        assert (scores.argmax(axis=1) % 2 == best).mean() > 0.85
        np.testing.assert_array_equal(scores, fit(known, others, 0)(asked.vectors))


@pytest.mark.parametrize("name", BASELINES)
def test_each_baseline_takes_unknown_outcomes(name: str) -> None:
    exam = specialists(150, 2, 2)
    exam.outcomes[:60, 1] = np.nan
    scores = BASELINES[name].fit(exam, None, 0)(exam.vectors[:5])
    assert np.isfinite(scores).all()


def test_names_and_counts_are_checked() -> None:
    assert [b.name for b in baselines_named(["irt", "knn", "irt"])] == ["irt", "knn"]
    assert baselines_named(["all"]) == list(BASELINES.values())
    with pytest.raises(ConfigurationError, match="no baseline 'nn'"):
        baselines_named(["nn"])
    with pytest.raises(RecordsError, match="single questions"):
        table_of([[1, np.nan], [0, np.nan]], [0, 1])
