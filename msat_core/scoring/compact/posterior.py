"""What an exam and further outcomes say of a candidate: from profiles to posteriors of the capability kernel.

A *place* is where an exam's evidence lies (its shots, then its tasks' centroids); it is the same for all
candidates that sat the exam. Feedback adds points of a candidate's own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from msat_core.exam import Exam
from msat_core.profiles import CapabilityProfile
from msat_core.scoring.base import Observations
from msat_core.scoring.compact.kernel import CapabilityKernel, EvidencePoints, posterior, posterior_weights

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
        covariance: (E, E) of the capability between the points.
        broad: (E, E), without the single-shot part.
        offset: (E,), how hard the points are.
    """

    points: EvidencePoints
    tasks: tuple[str, ...]
    row_of_shot: Mapping[str, int]
    features: Tensor
    covariance: Tensor
    broad: Tensor
    offset: Tensor

    @classmethod
    def of_exam(cls, kernel: CapabilityKernel, exam: Exam, vectors: Tensor) -> Place:
        """The place of an exam whose shots' embeddings, (n_shots, D), are known."""
        tasks = tuple(task.task for task in exam.sheet.tasks)
        position = {task: k for k, task in enumerate(tasks)}
        task_of = [position[shot.task] for shot in exam.sheet.shots]
        rows = {shot.item_id: row for row, shot in enumerate(exam.sheet.shots)}
        centroids = task_centroids(vectors, torch.eye(len(tasks))[task_of])
        return cls._make(kernel, vectors, task_of, centroids, tasks, rows)

    @classmethod
    def of_tasks(cls, kernel: CapabilityKernel, tasks: tuple[str, ...], vectors: Tensor) -> Place:
        """The place of an exam of which only its tasks' descriptions, (K, D) embedded, are known."""
        return cls._make(kernel, torch.zeros(0, vectors.shape[1]), [], vectors, tasks, {})

    @classmethod
    def _make(
        cls,
        kernel: CapabilityKernel,
        shots: Tensor,
        task_of: list[int],
        centroids: Tensor,
        tasks: tuple[str, ...],
        rows: Mapping[str, int],
    ) -> Place:
        one_hot = torch.eye(len(tasks))
        points = EvidencePoints(torch.cat([shots, centroids]), torch.cat([one_hot[task_of], one_hot]), centroids)
        with torch.inference_mode():
            features = kernel.features(points.vectors, kernel.own_tasks(points))
            covariance, broad = kernel.prior_covariance(points)
            offset = kernel.base(points.vectors)
        return cls(points, tasks, rows, features, covariance, broad, offset)


@dataclass(frozen=True)
class Belief:
    """A candidate's posterior at a place, ready to be evaluated anywhere.

    Attributes:
        weights: (E,), what nearness to each point of the place counts.
        own_vectors: (F, D), points of evidence beside the exam.
        own_weights: (F,), what nearness to each of those counts.
        feature_weights: (1 + F' + K,), what each feature of an instruction counts.
        variance: (), how unsure the capability is at a typical instruction.
    """

    weights: Tensor
    own_vectors: Tensor
    own_weights: Tensor
    feature_weights: Tensor
    variance: Tensor


@dataclass(frozen=True)
class SharedShift:
    """How much harder instructions are, for all alike, than the kernel's difficulty says: a posterior.

    Attributes:
        vectors: (F, D).
        weights: (F,), what nearness to each vector counts.
        feature_weights: (1 + F',), what each feature of an instruction counts.
    """

    vectors: Tensor
    weights: Tensor
    feature_weights: Tensor

    def at(self, kernel: CapabilityKernel, x: Tensor) -> Tensor:
        """The shift in logits: (N, D) → (N,)."""
        features = kernel.features(x, torch.zeros(len(x), 0))
        shift: Tensor = features @ self.feature_weights + kernel.nearness(x, self.vectors) @ self.weights
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
    used = counts.nonzero().squeeze(1)
    with torch.inference_mode():
        vectors, features = place.points.vectors[used], place.features[used]
        covariance, broad = place.covariance[used][:, used], place.broad[used][:, used]
        offset, outcomes, counts = place.offset[used], outcomes[used], counts[used]
        own = torch.zeros(0, vectors.shape[1])
        if observed is not None:
            own = torch.from_numpy(observed.vectors.astype(np.float32))
            vectors = torch.cat([vectors, own])
            features = torch.cat([features, kernel.features(own, kernel.attention(own, place.points.centroids))])
            broad = features @ features.T
            covariance = broad + kernel.nearness(vectors, vectors)
            base = kernel.base(own) + (0 if shift is None else shift.at(kernel, own))
            offset = torch.cat([offset, base])
            outcomes = torch.cat([outcomes, torch.from_numpy(observed.outcomes)])
            counts = torch.cat([counts, torch.from_numpy(observed.weights)])
        shot_variance = kernel.log_scale[3].exp() ** 2
        solved = posterior(covariance, broad, offset, outcomes[None], counts[None], shot_variance)
        weights = torch.zeros(len(place.offset))
        weights[used] = solved.weights[0, : len(used)]
        feature_weights = features.T @ solved.weights[0]
    return Belief(weights, own, solved.weights[0, len(used) :], feature_weights, solved.variance[0])


def shared_shift(
    kernel: CapabilityKernel, vectors: Tensor, logits: Tensor, outcomes: Tensor, counts: Tensor
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
    with torch.inference_mode():
        vectors, instruction = torch.unique(vectors, dim=0, return_inverse=True)
        total = torch.zeros(len(vectors)).index_add_(0, instruction, counts)
        logits = torch.zeros(len(vectors)).index_add_(0, instruction, counts * logits) / total
        outcomes = torch.zeros(len(vectors)).index_add_(0, instruction, counts * outcomes) / total
        features = kernel.features(vectors, torch.zeros(len(vectors), 0))
        covariance = SHARED_VARIANCE * (features @ features.T + kernel.nearness(vectors, vectors))
        weights = posterior_weights(covariance, logits, outcomes[None], total[None])[0]
        return SharedShift(vectors, weights, features.T @ weights)


def _exam_evidence(place: Place, profile: CapabilityProfile) -> tuple[Tensor, Tensor]:
    """Outcomes and counts at the place's points, (E,) each; a count of 0 where nothing is known."""
    n_points = len(place.offset)
    position = {task: k for k, task in enumerate(place.tasks)}
    outcomes, counts = torch.zeros(n_points), torch.zeros(n_points)
    for result in profile.results:
        rows = {place.row_of_shot[item]: score for item, score in result.shots.items() if item in place.row_of_shot}
        for row, score in rows.items():
            outcomes[row], counts[row] = score, 1.0
        if not rows and result.n_shots:
            row = n_points - len(place.tasks) + position[result.task]
            outcomes[row], counts[row] = result.accuracy, TASK_COUNT_WEIGHT * result.n_shots
    return outcomes, counts


def task_centroids(vectors: Tensor, membership: Tensor) -> Tensor:
    """Unit mean embedding of each task's points: (E, D), (E, K) → (K, D)."""
    return torch.nn.functional.normalize(membership.T @ vectors, dim=1)


def describe_task(task: str, keywords: Sequence[str]) -> str:
    """A task in words, for an exam whose shots are unknown."""
    name = re.sub(r"[^\w]+|_", " ", task).strip()
    return f"{name}: {', '.join(keywords)}" if keywords else name
