"""The compact scorer: frozen sentence encoder, Gaussian process over exam evidence, calibration.

Serving costs one encoder forward per instruction and a few small matrix products: a candidate's
posterior is solved once, when its profile is first seen, and kept.
"""

from __future__ import annotations

import math
import operator
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from msat_core.documents import Document, digest_of
from msat_core.errors import ArtefactError, ConfigurationError, MsatError
from msat_core.exam import Exam
from msat_core.profiles import CapabilityProfile
from msat_core.scoring.base import Scorer, Scores, check_instructions
from msat_core.scoring.capability_kernel import CapabilityKernel, EvidencePoints, Posterior, posterior
from msat_core.scoring.encoders import Encoder, embedded_digest
from msat_core.scoring.persistence import CONFIG_FILE, load_weights, save_weights

TASK_COUNT_WEIGHT = 0.5  # a task's count, whose single shots are unknown, weighs half of as many shots at its centre


class CompactConfig(Document):
    """Everything about a compact scorer but its tensors.

    Attributes:
        encoder_digest: the encoder whose embeddings it was trained on.
        max_length: tokens of an instruction that the encoder reads.
        dim, hidden, n_skills: sizes of the :class:`CapabilityKernel`.
        slope, intercept: calibration of the logit, fitted on held-out candidates.
        weights_sha256: of the tensor file.
        trained_on: what it was trained on and how, for people.
    """

    kind: ClassVar[str] = "compact-scorer"
    error: ClassVar[type[MsatError]] = ArtefactError

    encoder_digest: str
    max_length: int = 256
    dim: int
    hidden: int
    n_skills: int
    slope: float = Field(default=1.0, gt=0)
    intercept: float = 0.0
    weights_sha256: str = ""
    trained_on: dict[str, str | int | float] = Field(default_factory=dict)


@dataclass(frozen=True)
class ExamPrior:
    """A Gaussian over an unknown candidate's logits at an exam's E shots.

    Attributes:
        logits: float32 (E,), the mean: how the average candidate does.
        covariance: float32 (E, E).
    """

    logits: NDArray[np.float32]
    covariance: NDArray[np.float32]


@dataclass(frozen=True)
class _Stack:
    """The candidates of one call that share one exam, and their posteriors."""

    points: EvidencePoints
    tasks: tuple[str, ...]
    shot_weights: Tensor  # (E, m), what nearness to each point counts
    feature_weights: Tensor  # (1 + F + K, m), what each feature of an instruction counts


@dataclass(frozen=True)
class _Lineup:
    """The candidates of one call, ready to be scored."""

    profiles: tuple[CapabilityProfile, ...]
    stacks: tuple[_Stack, ...]
    order: Tensor  # (M,), where each profile's column is among the stacks' columns
    slope: Tensor  # (M,), calibration × shrinkage by each posterior's variance

    def is_of(self, profiles: Sequence[CapabilityProfile]) -> bool:
        """The same candidates in the same order?"""
        return len(profiles) == len(self.profiles) and all(map(operator.is_, profiles, self.profiles))


@dataclass(frozen=True)
class _Place:
    """Where an exam's evidence lies: its shots, then its tasks' centroids."""

    points: EvidencePoints
    tasks: tuple[str, ...]
    row_of_shot: dict[str, int]
    features: Tensor  # (E, 1 + F + K)
    covariance: Tensor  # (E, E)
    broad: Tensor  # (E, E)
    offset: Tensor  # (E,)


class CompactScorer(Scorer):
    """See the module. Thread-safe; new profiles and exams may come at any time.

    Args:
        config: sizes, encoder and calibration.
        kernel: the trained prior.
        encoder: called once, when the first text has to be encoded.
    """

    def __init__(
        self,
        config: CompactConfig,
        kernel: CapabilityKernel,
        *,
        encoder: Callable[[], Encoder] | None = None,
    ) -> None:
        self.config = config
        self.kernel = kernel.eval().requires_grad_(False)
        self._make_encoder = encoder or (lambda: Encoder.embedded(max_length=config.max_length))
        self._encoder: Encoder | None = None
        self._exams: dict[str, Exam] = {}
        self._places: dict[str, _Place] = {}
        self._posteriors: dict[tuple[str, str], Posterior] = {}
        self._lineup: _Lineup | None = None
        self._lock = threading.RLock()

    @property
    def encoder(self) -> Encoder:
        """The sentence encoder, loaded on first use."""
        with self._lock:
            if self._encoder is None:
                encoder = self._make_encoder()
                if encoder.digest != self.config.encoder_digest:
                    raise ArtefactError(
                        f"This scorer was trained on encoder {self.config.encoder_digest[:12]}…, "
                        f"the one installed is {encoder.digest[:12]}…: use the scorer's own encoder."
                    )
                self._encoder = encoder
            return self._encoder

    def add_exam(self, exam: Exam) -> bool:
        """Make an exam's shots known; profiles of unknown exams are read by their tasks' keywords alone."""
        if self.config.encoder_digest not in exam.embeddings:
            return False
        with self._lock:
            if exam.digest not in self._exams:
                self._exams[exam.digest] = exam
                self._lineup = None
        return True

    def exam_prior(self, exam: Exam) -> ExamPrior:
        """What to expect at an exam's shots of a candidate of which nothing is known yet.

        Raises:
            ArtefactError: the exam has no embeddings of the scorer's encoder.
        """
        if not self.add_exam(exam):
            raise ArtefactError(
                f"The exam {exam.sheet.name!r} has no shot embeddings of this scorer's encoder: make it again with it."
            )
        with self._lock:
            if exam.digest not in self._places:
                self._places[exam.digest] = self._exam_place(exam)
            place = self._places[exam.digest]
        n_shots = len(exam.sheet.shots)
        return ExamPrior(place.offset[:n_shots].numpy(), place.covariance[:n_shots, :n_shots].numpy())

    def score(self, instructions: Sequence[str], profiles: Sequence[CapabilityProfile]) -> Scores:
        """Score N instructions for M profiles with one encoder forward per instruction."""
        check_instructions(instructions)
        embedded = self.encoder.encode(instructions)
        return self.score_vectors(embedded.vectors, profiles, truncated_tokens=embedded.truncated_tokens)

    def score_vectors(
        self,
        vectors: NDArray[np.float32],
        profiles: Sequence[CapabilityProfile],
        *,
        truncated_tokens: NDArray[np.int64] | None = None,
    ) -> Scores:
        """Like :meth:`score`, for instructions already embedded: (N, D) unit vectors of the scorer's encoder."""
        lineup = self._lineup_of(profiles)
        with torch.inference_mode():
            x = torch.from_numpy(np.ascontiguousarray(vectors))
            advantages, weights = [], []
            for stack in lineup.stacks:
                attention = self.kernel.attention(x, stack.points.centroids)  # (N, K)
                broad = self.kernel.features(x, attention) @ stack.feature_weights
                advantages.append(broad + self.kernel.nearness(x, stack.points.vectors) @ stack.shot_weights)
                weights.append(attention / len(lineup.stacks))
            logits = self.kernel.base(x)[:, None] + torch.cat(advantages, dim=1)[:, lineup.order]  # (N, M)
            probabilities = torch.sigmoid(lineup.slope * logits + self.config.intercept)
        return Scores(
            probabilities.numpy(),
            np.zeros(len(vectors), dtype=np.int64) if truncated_tokens is None else truncated_tokens,
            tuple(task for stack in lineup.stacks for task in stack.tasks),
            torch.cat(weights, dim=1).numpy(),
        )

    def _lineup_of(self, profiles: Sequence[CapabilityProfile]) -> _Lineup:
        with self._lock:
            if self._lineup is None or not self._lineup.is_of(profiles):
                self._lineup = self._make_lineup(tuple(profiles))
            return self._lineup

    def _make_lineup(self, profiles: tuple[CapabilityProfile, ...]) -> _Lineup:
        if not profiles:
            raise ConfigurationError("There is nobody to score: give at least one profile.")
        groups: dict[str, list[int]] = {}
        for column, profile in enumerate(profiles):
            groups.setdefault(self._place_of(profile), []).append(column)
        stacks: list[_Stack] = []
        variances: list[Tensor] = []
        for name, columns in groups.items():
            place = self._places[name]
            found = [self._posterior(name, profiles[column]) for column in columns]
            weights = torch.stack([one.weights for one in found], dim=1)  # (E, m)
            variances.extend(one.variance for one in found)
            stacks.append(_Stack(place.points, place.tasks, weights, place.features.T @ weights))
        order = torch.argsort(torch.tensor([column for columns in groups.values() for column in columns]))
        # A logistic of a Gaussian is nearly a logistic of its shrunken mean (MacKay 1992).
        shrink = 1 / torch.sqrt(1 + math.pi / 8 * torch.stack(variances))
        return _Lineup(profiles, tuple(stacks), order, self.config.slope * shrink[order])

    def _place_of(self, profile: CapabilityProfile) -> str:
        """Name of the place where the profile's evidence lies; made on first use."""
        exam = self._exams.get(profile.exam_digest)
        if exam is not None and {r.task for r in profile.results} <= {t.task for t in exam.sheet.tasks}:
            name = exam.digest
            if name not in self._places:
                self._places[name] = self._exam_place(exam)
            return name
        described = {result.task: list(result.keywords) for result in profile.results}
        name = digest_of(described)
        if name not in self._places:
            texts = [describe_task(task, words) for task, words in described.items()]
            self._places[name] = self._place(torch.zeros(0, self.config.dim), [], texts, tuple(described), {})
        return name

    def _exam_place(self, exam: Exam) -> _Place:
        shots = torch.from_numpy(exam.embeddings[self.config.encoder_digest].astype(np.float32))
        tasks = tuple(task.task for task in exam.sheet.tasks)
        task_of = [tasks.index(shot.task) for shot in exam.sheet.shots]
        rows = {shot.item_id: row for row, shot in enumerate(exam.sheet.shots)}
        return self._place(shots, task_of, None, tasks, rows)

    def _place(
        self, shots: Tensor, task_of: list[int], texts: list[str] | None, tasks: tuple[str, ...], rows: dict[str, int]
    ) -> _Place:
        one_hot = torch.eye(len(tasks))
        if texts is None:
            centroids = task_centroids(shots, one_hot[task_of])
        else:
            centroids = torch.from_numpy(self.encoder.encode(texts).vectors)
        points = EvidencePoints(torch.cat([shots, centroids]), torch.cat([one_hot[task_of], one_hot]), centroids)
        with torch.inference_mode():
            features = self.kernel.features(points.vectors, self.kernel.own_tasks(points))
            covariance, broad = self.kernel.prior_covariance(points)
            offset = self.kernel.base(points.vectors)
        return _Place(points, tasks, rows, features, covariance, broad, offset)

    def _posterior(self, place_name: str, profile: CapabilityProfile) -> Posterior:
        key = (place_name, profile.digest)
        if key not in self._posteriors:
            self._posteriors[key] = self._solve(self._places[place_name], profile)
        return self._posteriors[key]

    def _solve(self, place: _Place, profile: CapabilityProfile) -> Posterior:
        n_points = len(place.offset)
        outcomes, counts = torch.zeros(n_points), torch.zeros(n_points)
        for result in profile.results:
            rows = {place.row_of_shot[item]: score for item, score in result.shots.items() if item in place.row_of_shot}
            for row, score in rows.items():
                outcomes[row], counts[row] = score, 1.0
            if not rows and result.n_shots:
                row = n_points - len(place.tasks) + place.tasks.index(result.task)
                outcomes[row], counts[row] = result.accuracy, TASK_COUNT_WEIGHT * result.n_shots
        used = counts.nonzero().squeeze(1)
        with torch.inference_mode():
            solved = posterior(
                place.covariance[used][:, used],
                place.broad[used][:, used],
                place.offset[used],
                outcomes[None, used],
                counts[None, used],
                self.kernel.log_scale[3].exp() ** 2,
            )
            weights = torch.zeros(n_points)
            weights[used] = solved.weights[0]
        return Posterior(weights, solved.variance[0])

    def save(self, folder: str | Path) -> Path:
        """Write the scorer; its configuration last."""
        folder = Path(folder)
        sha256 = save_weights(folder, self.kernel.state_dict())
        self.config.changed(weights_sha256=sha256).save(folder / CONFIG_FILE)
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> CompactScorer:
        """Read a scorer that :meth:`save` wrote. Raises ArtefactError if a file is missing or damaged."""
        folder = Path(folder)
        config = CompactConfig.load(folder / CONFIG_FILE)
        tensors = load_weights(folder, config.weights_sha256)
        kernel = CapabilityKernel(config.dim, hidden=config.hidden, n_skills=config.n_skills)
        try:
            kernel.load_state_dict(tensors)
        except RuntimeError as error:
            raise ArtefactError(f"{folder}: the tensors do not fit the configuration ({error}).") from None
        return cls(config, kernel)


def task_centroids(vectors: Tensor, membership: Tensor) -> Tensor:
    """Unit mean embedding of each task's points: (E, D), (E, K) → (K, D)."""
    return torch.nn.functional.normalize(membership.T @ vectors, dim=1)


def describe_task(task: str, keywords: Sequence[str]) -> str:
    """A task in words, for an exam whose shots are unknown."""
    name = re.sub(r"[^\w]+|_", " ", task).strip()
    return f"{name}: {', '.join(keywords)}" if keywords else name


def embedded_config(kernel: CapabilityKernel, *, max_length: int = 256) -> CompactConfig:
    """A configuration for a kernel on the embedded encoder, uncalibrated."""
    return CompactConfig(
        encoder_digest=embedded_digest(max_length),
        max_length=max_length,
        dim=kernel.difficulty_linear.in_features,
        hidden=kernel.difficulty[0].out_features,
        n_skills=kernel.skills_linear.out_features,
    )
