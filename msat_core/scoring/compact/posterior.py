"""What an exam and further outcomes say of a candidate: from profiles to posteriors of the capability kernel.

A *support* is where an exam's evidence lies (its shots, then its tasks' centroids); it is the same for all
candidates that sat the exam. Feedback moves a posterior (:mod:`msat_core.scoring.compact.learner`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from msat_core.exam import Exam
from msat_core.profiles import CapabilityProfile
from msat_core.scoring.compact.field import Field
from msat_core.scoring.compact.kernel import Array, CapabilityKernel, EvidencePoints, Kinds, posterior
from msat_core.scoring.compact.kinds import learnt_kinds
from msat_core.scoring.compact.stretch import stretched, task_stretch

FAR_SHARE = 0.01  # of an exam's questions, those that lie farther from all others than "far"
TASK_COUNT_WEIGHT = 0.5  # a task's count, whose single shots are unknown, weighs half of as many shots at its centre


@dataclass(frozen=True)
class Surroundings:
    """What a support looks like from far away.

    Attributes:
        centre: (1 + F + K,), mean features of its points.
        difficulty_variance: of its points.
        reach: 1 − cosine to the nearest shot at which an instruction begins to be far from the exam; NaN where the
            shots are unknown, or are one alone.
    """

    centre: Array
    difficulty_variance: float
    reach: float


@dataclass(frozen=True)
class Support:
    """Where an exam's evidence lies: E points, its shots, then its tasks' centroids.

    Attributes:
        name: the exam's digest, or that of its tasks' descriptions.
        points: the points.
        tasks: names of the K tasks.
        row_of_shot: row of each shot by item id.
        kernel: what the points are read with.
        own: whether the exam itself says how far its tasks set candidates apart.
        taught: what its shots teach of its tasks; None where the kernel's attention tells them apart.
        solved: its surroundings, where they were solved beforehand.
    """

    name: str
    points: EvidencePoints
    tasks: tuple[str, ...]
    row_of_shot: Mapping[str, int]
    kernel: CapabilityKernel
    own: bool = False
    taught: Kinds | None = None
    solved: Surroundings | None = None

    @property
    def kinds(self) -> Kinds:
        """Which of its tasks an instruction belongs to."""
        return self.taught or self.kernel.kinds(self.points.centroids)

    @cached_property
    def features(self) -> Array:
        """(E, 1 + F + K)."""
        tasks = self.kernel.own_tasks(self.points) if self.taught is None else self.points.membership
        return self.kernel.features(self.points.vectors, tasks)

    @cached_property
    def nearness(self) -> Array:
        """(E, E), the single-shot part of the capability's covariance between the points."""
        return self.kernel.nearness(self.points.vectors, self.points.vectors)

    @cached_property
    def offset(self) -> Array:
        """(E,), how hard the points are."""
        return self.kernel.base(self.points.vectors)

    @cached_property
    def task_of_shot(self) -> NDArray[np.intp]:
        """(S,), each shot's task."""
        shots = len(self.points.vectors) - len(self.tasks)
        return np.asarray(self.points.membership[:shots].argmax(axis=1))

    @cached_property
    def surroundings(self) -> Surroundings:
        """What it looks like from far away."""
        if self.solved is not None:
            return self.solved
        reach = _reach(self.points.vectors[: len(self.task_of_shot)])
        return Surroundings(self.features.mean(axis=0), float(self.offset.var()), reach)

    @classmethod
    def of_exam(
        cls,
        kernel: CapabilityKernel,
        exam: Exam,
        vectors: Array,
        solved: Surroundings | None = None,
        *,
        own: bool = False,
    ) -> Support:
        """The support of an exam whose shots' embeddings, (n_shots, D), are known.

        Where its tasks are the user's own, of which the kernel knows nothing, its shots teach them.
        """
        tasks = tuple(task.task for task in exam.sheet.tasks)
        position = {task: k for k, task in enumerate(tasks)}
        task_of = [position[shot.task] for shot in exam.sheet.shots]
        rows = {shot.item_id: row for row, shot in enumerate(exam.sheet.shots)}
        centroids = task_centroids(vectors, _one_hot(task_of, len(tasks)))
        plain = cls._make(kernel, exam.digest, vectors, task_of, centroids, tasks, rows, solved)
        if not own:
            return plain
        return replace(plain, own=True, taught=learnt_kinds(vectors, np.array(task_of), plain.kinds), solved=None)

    @classmethod
    def of_tasks(cls, kernel: CapabilityKernel, name: str, tasks: tuple[str, ...], vectors: Array) -> Support:
        """The support of an exam of which only its tasks' descriptions, (K, D) embedded, are known."""
        return cls._make(kernel, name, np.zeros((0, vectors.shape[1]), np.float32), [], vectors, tasks, {})

    @classmethod
    def _make(
        cls,
        kernel: CapabilityKernel,
        name: str,
        shots: Array,
        task_of: list[int],
        centroids: Array,
        tasks: tuple[str, ...],
        rows: Mapping[str, int],
        solved: Surroundings | None = None,
    ) -> Support:
        membership = _one_hot([*task_of, *range(len(tasks))], len(tasks))
        points = EvidencePoints(np.concatenate([shots, centroids]), membership, centroids)
        return cls(name, points, tasks, rows, kernel, solved=solved)


@dataclass(frozen=True)
class Spread:
    """How sure a posterior is, which only feedback asks for.

    Attributes:
        covariance: (1 + F' + K, 1 + F' + K), of what the features count.
        moments: the same shape, mean outer product of the features where the exam looked.
    """

    covariance: Array
    moments: Array


@dataclass(frozen=True)
class CapabilityPosterior:
    """A candidate's posterior at a support, ready to be evaluated anywhere.

    Attributes:
        weights: (E,), what nearness to each point of the support counts.
        own_vectors: (L, D), landmarks of what was learnt beside the exam.
        own_weights: (L,), what nearness to each of those counts.
        feature_weights: (1 + F' + K,), what each feature of an instruction counts.
        variance: how unsure the capability is at a typical instruction.
        near: mean of what nearness counts at the support.
        asked: (E,), which points are questions that bear on it: the exam's in the tasks that it sat.
        spread: None for one that was solved beforehand.
    """

    weights: Array
    own_vectors: Array
    own_weights: Array
    feature_weights: Array
    variance: float
    near: float
    asked: NDArray[np.bool_]
    spread: Spread | None = None

    def moved(self, field: Field, moments: Array, shot_variance: float) -> CapabilityPosterior:
        """The same after outcomes that moved it by the field's mean; ``moments`` as of :class:`Spread`."""
        feature_weights, own_weights = field.weights()
        variance = float((field.covariance() * moments).sum()) + shot_variance
        weights = self.feature_weights + feature_weights
        return CapabilityPosterior(self.weights, field.vectors, own_weights, weights, variance, self.near, self.asked)


@dataclass(frozen=True)
class SharedShift:
    """How much harder instructions are, for all alike, than the kernel's difficulty says: a posterior mean.

    Attributes:
        vectors: (L, D), landmarks.
        weights: (L,), what nearness to each landmark counts.
        feature_weights: (1 + F',), what each feature of an instruction counts.
    """

    vectors: Array
    weights: Array
    feature_weights: Array

    def at(self, kernel: CapabilityKernel, x: Array) -> Array:
        """The shift in logits: (N, D) → (N,)."""
        shift: Array = shared_features(kernel, x) @ self.feature_weights
        return shift + kernel.nearness(x, self.vectors) @ self.weights


def shared_features(kernel: CapabilityKernel, x: Array) -> Array:
    """The features that do not depend on an exam: (N, D) → (N, 1 + F')."""
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
        Spread(scale[:, None] * solved.covariance * scale, moments),
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


def _reach(shots: Array) -> float:
    """How far the last of an exam's questions are from the nearest other one, in 1 − cosine."""
    if len(shots) < 2:
        return float("nan")
    cosines = shots @ shots.T
    np.fill_diagonal(cosines, -1.0)
    return float(1 - np.quantile(cosines.max(axis=1), FAR_SHARE))


def task_centroids(vectors: Array, membership: Array) -> Array:
    """Unit mean embedding of each task's points: (E, D), (E, K) → (K, D)."""
    sums = membership.T @ vectors
    return np.asarray(sums / np.linalg.norm(sums, axis=1, keepdims=True).clip(min=1e-12), dtype=np.float32)


def _one_hot(columns: Sequence[int], width: int) -> Array:
    return np.eye(width, dtype=np.float32)[list(columns)]


def describe_task(task: str, keywords: Sequence[str]) -> str:
    """A task in words, for an exam whose shots are unknown."""
    name = re.sub(r"[^\w]+|_", " ", task).strip()
    return f"{name}: {', '.join(keywords)}" if keywords else name
