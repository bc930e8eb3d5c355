"""What an exam of the user's own tasks teaches: which task an instruction belongs to, and how far tasks differ."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from msat_core import AptitudeTest, CompactScorer, Records
from msat_core.scoring.compact import posterior, support
from msat_core.scoring.compact.kernel import CapabilityKernel, TaskClassifier
from msat_core.scoring.compact.stretch import PRIOR, STRETCHES, log_marginal_likelihood, task_stretch
from msat_core.scoring.compact.task_classifier import learnt_classifier

Trained = tuple[CompactScorer, AptitudeTest]
NO_EVIDENCE = float(np.exp(np.array(PRIOR) @ np.log(STRETCHES)))


def unit(x: np.ndarray) -> np.ndarray:
    return np.asarray(x / np.linalg.norm(x, axis=1, keepdims=True), dtype=np.float32)


def close_tasks(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Instructions of two tasks that differ little in one direction and vary much in all others."""
    rng = np.random.default_rng(seed)
    task_of = np.arange(n) % 2
    x = rng.normal(size=(n, 12))
    x[:, 0] = 0.05 * x[:, 0] + np.where(task_of == 0, 0.4, -0.4)
    return unit(x), task_of


def means(x: np.ndarray, task_of: np.ndarray) -> TaskClassifier:
    centroids = unit(np.stack([x[task_of == k].mean(axis=0) for k in range(task_of.max() + 1)]))
    return TaskClassifier(centroids, np.float32(0.06), np.zeros(len(centroids), np.float32))


def test_shots_teach_what_nearness_does_not_tell() -> None:
    x, task_of = close_tasks(80, seed=0)
    known = means(x, task_of)
    taught = learnt_classifier(x, task_of, known)
    assert taught is not None
    further, truth = close_tasks(200, seed=1)
    by_nearness, by_shots = ((one.membership(further).argmax(axis=1) == truth).mean() for one in (known, taught))
    assert by_shots > 0.95 > by_nearness
    np.testing.assert_allclose(taught.membership(further).sum(axis=1), 1, atol=1e-5)


def test_one_task_or_one_shot_a_task_teaches_nothing() -> None:
    x, task_of = close_tasks(20, seed=0)
    assert learnt_classifier(x, np.zeros(20, np.intp), means(x, np.zeros(20, np.intp))) is None
    assert learnt_classifier(x[:2], task_of[:2], means(x[:2], task_of[:2])) is None


def test_names_of_tasks_do_not_matter() -> None:
    x, task_of = close_tasks(40, seed=0)
    one, other = (learnt_classifier(x, t, means(x, t)) for t in (task_of, 1 - task_of))
    assert one is not None and other is not None
    np.testing.assert_allclose(one.membership(x), other.membership(x)[:, ::-1], atol=1e-5)


def test_evidence_is_the_integral_over_the_weights() -> None:
    features, outcomes = np.array([[0.5], [1.0], [-0.3]], np.float32), np.array([1.0, 1.0, 0.0], np.float32)
    offset = np.array([0.2, -0.1, 0.0], np.float32)
    grid = np.linspace(-8, 8, 4001)
    logits = offset + grid[:, None] * features[:, 0]
    log_p = (outcomes * logits - np.logaddexp(0, logits)).sum(axis=1) - 0.5 * grid**2 - 0.5 * np.log(2 * np.pi)
    exact = float(np.log(np.exp(log_p).sum() * (grid[1] - grid[0])))
    assert log_marginal_likelihood(features, offset, outcomes) == pytest.approx(exact, abs=0.02)


def test_tasks_are_stretched_where_outcomes_differ_by_task_alone() -> None:
    tasks = np.repeat(np.eye(6, dtype=np.float32), 12, axis=0)  # six tasks of twelve shots
    features = np.concatenate([np.ones((72, 1), np.float32), 0.25 * tasks], axis=1)
    by_task = np.repeat([1.0, 0.0, 1.0, 0.0, 1.0, 0.0], 12).astype(np.float32)
    everywhere = np.tile([1.0, 0.0], 36).astype(np.float32)
    assert task_stretch(features, 6, np.zeros(72, np.float32), by_task) > 3.5
    assert task_stretch(features, 6, np.zeros(72, np.float32), everywhere) < NO_EVIDENCE
    assert task_stretch(features[:0], 6, np.zeros(0, np.float32), by_task[:0]) == pytest.approx(NO_EVIDENCE)


def test_a_stretched_posterior_is_that_of_a_kernel_with_larger_tasks(
    trained: Trained, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer, test = trained
    monkeypatch.setattr(posterior, "task_stretch", lambda *_: 2.0)
    monkeypatch.setattr(support, "learnt_classifier", lambda *_: None)
    tensors = {name: tensor.copy() for name, tensor in scorer.kernel.tensors.items()}
    tensors["log_scale"][2] += np.log(2)
    wider = CapabilityKernel(tensors)
    vectors = np.asarray(test.exam.embeddings[scorer.encoder_digest], np.float32)
    profile = test.profile_from_records(records, records.candidates[0])
    ours = support.Support.of_exam(scorer.kernel, test.exam, vectors, own=True)
    theirs = support.Support.of_exam(wider, test.exam, vectors)
    found, expected = posterior.solve(scorer.kernel, ours, profile), posterior.solve(wider, theirs, profile)
    np.testing.assert_allclose(
        ours.features @ found.feature_weights, theirs.features @ expected.feature_weights, atol=1e-4
    )
    assert found.variance == pytest.approx(expected.variance, abs=1e-4)
    assert found.covariance is not None and expected.covariance is not None
    ours_at, theirs_at = (
        np.einsum("er,rs,es->e", points.features, covariance.matrix, points.features)
        for points, covariance in ((ours, found.covariance), (theirs, expected.covariance))
    )
    np.testing.assert_allclose(ours_at, theirs_at, atol=1e-4)


def test_only_exams_of_own_tasks_teach_and_only_those_whose_shots_are_known(trained: Trained, records: Records) -> None:
    shared, test = trained
    own = replace(test.exam, sheet=test.exam.sheet.changed(rule="own-tasks"))
    scorer = CompactScorer(shared.config, shared.kernel, encoder=lambda: shared.encoder)
    assert scorer.add_exam(test.exam) and scorer.add_exam(own)

    profile, general = (
        AptitudeTest(exam).profile_from_records(records, records.candidates[0]) for exam in (own, test.exam)
    )
    counts = profile.changed(results=tuple(r.model_copy(update={"shots": {}}) for r in profile.results))
    assert [support.own for support in scorer.posteriors([profile, counts, general])[0]] == [True, False, False]
    alone, among = (
        scorer.score(records.instructions[:4], [AptitudeTest(own).profile_from_records(records, n) for n in names])
        for names in (records.candidates[:1], records.candidates[:3])
    )
    np.testing.assert_allclose(alone.probabilities[:, 0], among.probabilities[:, 0], atol=1e-6)
