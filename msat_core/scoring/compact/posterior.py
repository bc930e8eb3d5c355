"""What an exam and further outcomes say of a candidate: from profiles to posteriors of the capability kernel.

Feedback moves a posterior (:mod:`msat_core.scoring.compact.learner`). Shapes as in
:mod:`msat_core.scoring.compact.kernel`: E points of evidence, D embedding width, R = 1 + F + K features, of which
1 + F (the constant and the skills) do not depend on an exam; L landmarks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from msat_core.profiles import CapabilityProfile
from msat_core.scoring.compact.field import Field
from msat_core.scoring.compact.kernel import Array, CapabilityKernel, posterior
from msat_core.scoring.compact.stretch import stretched, task_stretch
from msat_core.scoring.compact.support import Support

TASK_COUNT_WEIGHT = 0.5  # a task's count, whose single shots are unknown, weighs half of as many shots at its centre


@dataclass(frozen=True)
class PosteriorCovariance:
    """How sure a posterior is, which only feedback asks for.

    Attributes:
        matrix: (R, R), posterior covariance of what the features count.
        moments: (R, R), mean outer product of the features where the exam looked.
    """

    matrix: Array
    moments: Array


@dataclass(frozen=True)
class CapabilityPosterior:
    """A candidate's posterior at a support, ready to be evaluated anywhere.

    Attributes:
        weights: (E,), what nearness to each point of the support counts.
        landmarks: (L, D), of what was learnt beside the exam.
        landmark_weights: (L,), what nearness to each of those counts.
        feature_weights: (R,), what each feature of an instruction counts.
        variance: how unsure the capability is at a typical instruction.
        mean_nearness: mean of what nearness counts at the support.
        asked: (E,), which points are questions that bear on it: the exam's in the tasks that it sat.
        covariance: None for one that was solved beforehand.
    """

    weights: Array
    landmarks: Array
    landmark_weights: Array
    feature_weights: Array
    variance: float
    mean_nearness: float
    asked: NDArray[np.bool_]
    covariance: PosteriorCovariance | None = None

    def moved(self, field: Field, moments: Array, shot_variance: float) -> CapabilityPosterior:
        """The same after outcomes that moved it by the field's mean; ``moments`` as of :class:`PosteriorCovariance`."""
        feature_weights, landmark_weights = field.weights()
        variance = float((field.covariance() * moments).sum()) + shot_variance
        weights = self.feature_weights + feature_weights
        return CapabilityPosterior(
            self.weights, field.vectors, landmark_weights, weights, variance, self.mean_nearness, self.asked
        )


@dataclass(frozen=True)
class SharedShift:
    """How much harder instructions are, for all alike, than the kernel's difficulty says: a posterior mean.

    Attributes:
        vectors: (L, D), landmarks.
        weights: (L,), what nearness to each landmark counts.
        feature_weights: (1 + F,), what each feature of an instruction counts.
    """

    vectors: Array
    weights: Array
    feature_weights: Array

    def at(self, kernel: CapabilityKernel, x: Array) -> Array:
        """The shift in logits: (N, D) → (N,)."""
        shift: Array = shared_features(kernel, x) @ self.feature_weights
        return shift + kernel.nearness(x, self.vectors) @ self.weights


def shared_features(kernel: CapabilityKernel, x: Array) -> Array:
    """The features that do not depend on an exam: (N, D) → (N, 1 + F)."""
    return kernel.features(x, np.zeros((len(x), 0), np.float32))


def solve(kernel: CapabilityKernel, support: Support, profile: CapabilityProfile) -> CapabilityPosterior:
    """A candidate's posterior from its profile."""
    outcomes, counts = _exam_evidence(support, profile)
    used = np.flatnonzero(counts)
    stretch, n_tasks = 1.0, len(support.tasks)
    if support.own:
        shots = used[used < len(support.task_of_shot)]
        stretch = task_stretch(support.features[shots], n_tasks, support.offset[shots], outcomes[shots])
    scale = stretched(np.ones_like(support.features[0]), n_tasks, stretch)
    features, nearness = scale * support.features[used], support.nearness[np.ix_(used, used)]
    solved = posterior(
        features,
        nearness,
        support.offset[used],
        outcomes[used],
        counts[used],
        shot_variance=float(kernel.shot_variance),
    )
    weights = np.zeros(len(support.offset), np.float32)
    weights[used] = solved.weights
    moments = support.features[used].T @ support.features[used] / np.float32(max(len(used), 1))
    return CapabilityPosterior(
        weights,
        np.zeros((0, kernel.dim), np.float32),
        np.zeros(0, np.float32),
        (scale * (features.T @ solved.weights)).astype(np.float32),
        solved.variance,
        float((support.nearness @ weights).mean()),
        asked_of(support, profile),
        PosteriorCovariance(scale[:, None] * solved.covariance * scale, moments),
    )


def asked_of(support: Support, profile: CapabilityProfile) -> NDArray[np.bool_]:
    """(E,), which points are questions of the tasks that a candidate sat."""
    sat = {result.task for result in profile.results if result.n_shots}
    column = np.array([task in sat for task in support.tasks])
    asked = np.zeros(len(support.points.vectors), bool)
    asked[: len(support.task_of_shot)] = column[support.task_of_shot]
    return asked


def _exam_evidence(support: Support, profile: CapabilityProfile) -> tuple[Array, Array]:
    """Outcomes and counts at the support's points, (E,) each; a count of 0 where nothing is known."""
    n_points = len(support.points.vectors)
    position = {task: k for k, task in enumerate(support.tasks)}
    outcomes, counts = np.zeros(n_points, np.float32), np.zeros(n_points, np.float32)
    for result in profile.results:
        rows = {support.row_of_shot[item]: score for item, score in result.shots.items() if item in support.row_of_shot}
        for row, score in rows.items():
            outcomes[row], counts[row] = score, 1.0
        if not rows and result.n_shots:
            row = n_points - len(support.tasks) + position[result.task]
            outcomes[row], counts[row] = result.accuracy, TASK_COUNT_WEIGHT * result.n_shots
    return outcomes, counts
