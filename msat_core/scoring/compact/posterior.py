"""What an exam and further outcomes say of a candidate: from profiles to posteriors of the capability kernel.

A *place* is where an exam's evidence lies (its shots, then its tasks' centroids); it is the same for all
candidates that sat the exam. Feedback adds points of a candidate's own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from msat_core.exam import Exam
from msat_core.profiles import CapabilityProfile
from msat_core.scoring.base import Observations
from msat_core.scoring.compact.kernel import Array, CapabilityKernel, EvidencePoints, posterior, posterior_weights

TASK_COUNT_WEIGHT = 0.5  # a task's count, whose single shots are unknown, weighs half of as many shots at its centre
SHARED_VARIANCE = 0.5  # of the kernel: how far outcomes beside the exam may lie off the difficulty for all alike


@dataclass(frozen=True)
class Place:
    """Where an exam's evidence lies: E points, its shots, then its tasks' centroids.

    Attributes:
        points: the points.
        tasks: names of the K tasks.
        row_of_shot: row of each shot by item id.
        features: (E, 1 + F + K).
        nearness: (E, E), the single-shot part of the capability's covariance between the points.
        offset: (E,), how hard the points are.
    """

    points: EvidencePoints
    tasks: tuple[str, ...]
    row_of_shot: Mapping[str, int]
    features: Array
    nearness: Array
    offset: Array

    @classmethod
    def of_exam(cls, kernel: CapabilityKernel, exam: Exam, vectors: Array) -> Place:
        """The place of an exam whose shots' embeddings, (n_shots, D), are known."""
        tasks = tuple(task.task for task in exam.sheet.tasks)
        position = {task: k for k, task in enumerate(tasks)}
        task_of = [position[shot.task] for shot in exam.sheet.shots]
        rows = {shot.item_id: row for row, shot in enumerate(exam.sheet.shots)}
        centroids = task_centroids(vectors, _one_hot(task_of, len(tasks)))
        return cls._make(kernel, vectors, task_of, centroids, tasks, rows)

    @classmethod
    def of_tasks(cls, kernel: CapabilityKernel, tasks: tuple[str, ...], vectors: Array) -> Place:
        """The place of an exam of which only its tasks' descriptions, (K, D) embedded, are known."""
        return cls._make(kernel, np.zeros((0, vectors.shape[1]), np.float32), [], vectors, tasks, {})

    @classmethod
    def _make(
        cls,
        kernel: CapabilityKernel,
        shots: Array,
        task_of: list[int],
        centroids: Array,
        tasks: tuple[str, ...],
        rows: Mapping[str, int],
    ) -> Place:
        membership = _one_hot([*task_of, *range(len(tasks))], len(tasks))
        points = EvidencePoints(np.concatenate([shots, centroids]), membership, centroids)
        features = kernel.features(points.vectors, kernel.own_tasks(points))
        nearness = kernel.nearness(points.vectors, points.vectors)
        return cls(points, tasks, rows, features, nearness, kernel.base(points.vectors))


@dataclass(frozen=True)
class Belief:
    """A candidate's posterior at a place, ready to be evaluated anywhere.

    Attributes:
        weights: (E,), what nearness to each point of the place counts.
        own_vectors: (F, D), points of evidence beside the exam.
        own_weights: (F,), what nearness to each of those counts.
        feature_weights: (1 + F' + K,), what each feature of an instruction counts.
        variance: how unsure the capability is at a typical instruction.
    """

    weights: Array
    own_vectors: Array
    own_weights: Array
    feature_weights: Array
    variance: float


@dataclass(frozen=True)
class SharedShift:
    """How much harder instructions are, for all alike, than the kernel's difficulty says: a posterior.

    Attributes:
        vectors: (F, D).
        weights: (F,), what nearness to each vector counts.
        feature_weights: (1 + F',), what each feature of an instruction counts.
    """

    vectors: Array
    weights: Array
    feature_weights: Array

    def at(self, kernel: CapabilityKernel, x: Array) -> Array:
        """The shift in logits: (N, D) → (N,)."""
        features = kernel.features(x, _no_tasks(x))
        shift: Array = features @ self.feature_weights + kernel.nearness(x, self.vectors) @ self.weights
        return SHARED_VARIANCE * shift


def solve(
    kernel: CapabilityKernel,
    place: Place,
    profile: CapabilityProfile,
    observed: Observations | None = None,
    shift: SharedShift | None = None,
) -> Belief:
    """A candidate's posterior from its profile and what was observed beside the exam."""
    outcomes, counts = _exam_evidence(place, profile)
    used = counts.nonzero()[0]
    vectors, features = place.points.vectors[used], place.features[used]
    nearness, offset = place.nearness[np.ix_(used, used)], place.offset[used]
    outcomes, counts = outcomes[used], counts[used]
    own = np.zeros((0, vectors.shape[1]), np.float32)
    if observed is not None:
        own = observed.vectors.astype(np.float32)
        vectors = np.concatenate([vectors, own])
        features = np.concatenate([features, kernel.features(own, kernel.attention(own, place.points.centroids))])
        nearness = kernel.nearness(vectors, vectors)
        base = kernel.base(own) + (0 if shift is None else shift.at(kernel, own))
        offset = np.concatenate([offset, base])
        outcomes = np.concatenate([outcomes, observed.outcomes])
        counts = np.concatenate([counts, observed.weights])
    solved = posterior(features, nearness, offset, outcomes, counts, shot_variance=float(kernel.shot_variance))
    weights = np.zeros(len(place.offset), np.float32)
    weights[used] = solved.weights[: len(used)]
    return Belief(weights, own, solved.weights[len(used) :], features.T @ solved.weights, solved.variance)


def shared_shift(
    kernel: CapabilityKernel, vectors: Array, logits: Array, outcomes: Array, counts: Array
) -> SharedShift:
    """What outcomes of several candidates say of the instructions themselves.

    Without it, feedback on the chosen candidate alone would take hard traffic for a weak candidate.

    Args:
        kernel: its parts without exam tasks are the prior, at ``SHARED_VARIANCE`` of their variance.
        vectors: (F, D), one row an outcome.
        logits: (F,), what was expected of the candidate that gave the outcome.
        outcomes: (F,), in [0, 1].
        counts: (F,), how many shots each counts for.

    Outcomes of several candidates on one instruction count as their mean, at the mean of what was expected: the
    system to solve grows with the instructions, not with the candidates.
    """
    vectors, instruction = np.unique(vectors, axis=0, return_inverse=True)
    instruction = instruction.reshape(-1)
    total = np.bincount(instruction, counts).astype(np.float32)
    logits = (np.bincount(instruction, counts * logits) / total).astype(np.float32)
    outcomes = (np.bincount(instruction, counts * outcomes) / total).astype(np.float32)
    features = kernel.features(vectors, _no_tasks(vectors))
    covariance = SHARED_VARIANCE * (features @ features.T + kernel.nearness(vectors, vectors))
    weights = posterior_weights(covariance, logits, outcomes, total)
    return SharedShift(vectors, weights, features.T @ weights)


def _exam_evidence(place: Place, profile: CapabilityProfile) -> tuple[Array, Array]:
    """Outcomes and counts at the place's points, (E,) each; a count of 0 where nothing is known."""
    n_points = len(place.offset)
    position = {task: k for k, task in enumerate(place.tasks)}
    outcomes, counts = np.zeros(n_points, np.float32), np.zeros(n_points, np.float32)
    for result in profile.results:
        rows = {place.row_of_shot[item]: score for item, score in result.shots.items() if item in place.row_of_shot}
        for row, score in rows.items():
            outcomes[row], counts[row] = score, 1.0
        if not rows and result.n_shots:
            row = n_points - len(place.tasks) + position[result.task]
            outcomes[row], counts[row] = result.accuracy, TASK_COUNT_WEIGHT * result.n_shots
    return outcomes, counts


def task_centroids(vectors: Array, membership: Array) -> Array:
    """Unit mean embedding of each task's points: (E, D), (E, K) → (K, D)."""
    sums = membership.T @ vectors
    return np.asarray(sums / np.linalg.norm(sums, axis=1, keepdims=True).clip(min=1e-12), dtype=np.float32)


def _one_hot(columns: Sequence[int], width: int) -> Array:
    return np.eye(width, dtype=np.float32)[list(columns)]


def _no_tasks(x: Array) -> Array:
    return np.zeros((len(x), 0), np.float32)


def describe_task(task: str, keywords: Sequence[str]) -> str:
    """A task in words, for an exam whose shots are unknown."""
    name = re.sub(r"[^\w]+|_", " ", task).strip()
    return f"{name}: {', '.join(keywords)}" if keywords else name
