"""Where an exam's evidence lies: its shots, then its tasks' centroids; the same for all candidates that sat the exam.

Shapes as in :mod:`msat_core.scoring.compact.kernel`: E points, K tasks, D embedding width, R features.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from msat_core.exam import Exam
from msat_core.scoring.compact.kernel import Array, CapabilityKernel, EvidencePoints, TaskClassifier
from msat_core.scoring.compact.task_classifier import learnt_classifier

FAR_SHARE = 0.01  # of an exam's questions, those that lie farther from all others than "far"


@dataclass(frozen=True)
class Surroundings:
    """What a support looks like from far away.

    Attributes:
        centre: (R,), mean features of its points.
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
    taught: TaskClassifier | None = None
    solved: Surroundings | None = None

    @property
    def classifier(self) -> TaskClassifier:
        """Which of its tasks an instruction belongs to."""
        return self.taught or self.kernel.classifier(self.points.centroids)

    @cached_property
    def features(self) -> Array:
        """(E, R)."""
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
        return replace(
            plain, own=True, taught=learnt_classifier(vectors, np.array(task_of), plain.classifier), solved=None
        )

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
