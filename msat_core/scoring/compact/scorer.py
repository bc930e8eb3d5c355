"""The compact scorer: frozen sentence encoder, Gaussian process over exam evidence, calibration.

Serving costs one encoder forward per instruction and a few small matrix products: a candidate's
posterior is solved once, when its profile is first seen, and kept.
"""

from __future__ import annotations

import math
import operator
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from msat_core.documents import Document, digest_of
from msat_core.encoders.base import Encoder
from msat_core.encoders.low_rank import LowRankDelta
from msat_core.errors import ArtefactError, ConfigurationError, MsatError
from msat_core.exam import Exam
from msat_core.profiles import CapabilityProfile
from msat_core.scoring.base import (
    CONFIG_FILE,
    EmbeddingScorer,
    ExamPrior,
    Observations,
    Scores,
    check_instructions,
)
from msat_core.scoring.compact.kernel import Array, CapabilityKernel
from msat_core.scoring.compact.posterior import Belief, Place, SharedShift, describe_task, shared_shift, solve
from msat_core.tensor_files import read_tensors, save_tensors

WEIGHTS_FILE = "weights.safetensors"
DELTA_FILE = "encoder_delta.safetensors"


class CompactConfig(Document):
    """Everything about a compact scorer but its tensors.

    Attributes:
        encoder_digest: the encoder whose embeddings it was trained on.
        delta_sha256: of the file of the encoder's low-rank change; empty for the published encoder.
        max_length: tokens of an instruction that the encoder reads.
        dim, hidden, n_skills: sizes of the :class:`CapabilityKernel`.
        slope, intercept: calibration of the logit, fitted on held-out candidates.
        weights_sha256: of the tensor file.
        trained_on: what it was trained on and how, for people.
    """

    kind: ClassVar[str] = "compact-scorer"
    current_version: ClassVar[int] = 2
    error: ClassVar[type[MsatError]] = ArtefactError

    encoder_digest: str
    delta_sha256: str = ""
    max_length: int = 256
    dim: int
    hidden: int
    n_skills: int
    slope: float = Field(default=1.0, gt=0)
    intercept: float = 0.0
    weights_sha256: str = ""
    trained_on: dict[str, str | int | float] = Field(default_factory=dict)


@dataclass(frozen=True)
class _Stack:
    """The m candidates of one call that share one exam, and what is believed of them."""

    centroids: Array  # (K, D)
    tasks: tuple[str, ...]
    vectors: Array  # (P, D), points of evidence: the exam's, then each candidate's own
    shot_weights: Array  # (P, m), what nearness to each point counts
    feature_weights: Array  # (1 + F + K, m), what each feature of an instruction counts

    @classmethod
    def of(cls, place: Place, beliefs: Sequence[Belief]) -> _Stack:
        """The candidates' beliefs side by side."""
        own = np.zeros((sum(len(belief.own_weights) for belief in beliefs), len(beliefs)), np.float32)  # (ΣF, m)
        row = 0
        for column, belief in enumerate(beliefs):
            own[row : row + len(belief.own_weights), column] = belief.own_weights
            row += len(belief.own_weights)
        return cls(
            place.points.centroids,
            place.tasks,
            np.concatenate([place.points.vectors, *(belief.own_vectors for belief in beliefs)]),
            np.concatenate([np.stack([belief.weights for belief in beliefs], axis=1), own]),
            np.stack([belief.feature_weights for belief in beliefs], axis=1),
        )

    def capability(self, kernel: CapabilityKernel, x: Array) -> tuple[Array, Array]:
        """Posterior mean of f and the attention over tasks: (N, D) → (N, m), (N, K)."""
        attention = kernel.attention(x, self.centroids)
        broad = kernel.features(x, attention) @ self.feature_weights
        return broad + kernel.nearness(x, self.vectors) @ self.shot_weights, attention


@dataclass(frozen=True)
class _Lineup:
    """The candidates of one call, ready to be scored."""

    profiles: tuple[CapabilityProfile, ...]
    stacks: tuple[_Stack, ...]
    order: NDArray[np.intp]  # (M,), where each profile's column is among the stacks' columns
    slope: Array  # (M,), calibration × shrinkage by each posterior's variance
    shift: SharedShift | None  # what feedback says of the instructions themselves

    def is_of(self, profiles: Sequence[CapabilityProfile]) -> bool:
        """The same candidates in the same order?"""
        return len(profiles) == len(self.profiles) and all(map(operator.is_, profiles, self.profiles))


class CompactScorer(EmbeddingScorer):
    """See the module. Thread-safe; new profiles and exams may come at any time.

    Args:
        config: sizes, encoder and calibration.
        kernel: the trained prior.
        encoder: called once, when the first text has to be encoded; None for the embedded encoder with ``delta``.
        delta: what tuning added to the embedded encoder.
        device: where the embedded encoder computes; None for the GPU if there is one, else the CPU.
    """

    def __init__(
        self,
        config: CompactConfig,
        kernel: CapabilityKernel,
        *,
        encoder: Callable[[], Encoder] | None = None,
        delta: LowRankDelta | None = None,
        device: str | None = None,
    ) -> None:
        self.config = config
        self.kernel = kernel
        self.delta = delta
        self.device = device
        if device is not None:
            from msat_core.encoders.minilm import torch_device

            torch_device(device)  # a wrong name is said now, not with the first text
        self._make_encoder = encoder
        self._encoder: Encoder | None = None
        self._exams: dict[str, Exam] = {}
        self._places: dict[str, Place] = {}
        self._beliefs: dict[tuple[str, str], Belief] = {}  # from exams alone
        self._observations: Mapping[str, Observations] = {}
        self._lineup: _Lineup | None = None
        self._lock = threading.RLock()

    def __repr__(self) -> str:
        return f"CompactScorer(encoder {self.encoder_digest[:12]}…, {len(self._exams)} exams)"

    def __getstate__(self) -> dict[str, Any]:
        """For another process, which solves again for the candidates it meets.

        The embedded encoder is loaded there from its files; any other goes along.
        """
        encoder = None if self._make_encoder is None else self.encoder
        own: dict[str, Any] = {
            "_encoder": encoder,
            "_make_encoder": None,
            "_places": {},
            "_beliefs": {},
            "_lineup": None,
        }
        return {**{name: value for name, value in vars(self).items() if name != "_lock"}, **own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=threading.RLock())

    @property
    def encoder(self) -> Encoder:
        """The sentence encoder, loaded on first use."""
        with self._lock:
            if self._encoder is None:
                encoder = self._embedded() if self._make_encoder is None else self._make_encoder()
                if encoder.digest != self.config.encoder_digest:
                    raise ArtefactError(
                        f"This scorer was trained on encoder {self.config.encoder_digest[:12]}…, "
                        f"the one installed is {encoder.digest[:12]}…: use the scorer's own encoder."
                    )
                self._encoder = encoder
            return self._encoder

    @property
    def encoder_digest(self) -> str:
        """The encoder's digest, without loading it."""
        return self.config.encoder_digest

    def _embedded(self) -> Encoder:
        from msat_core.encoders.minilm import MiniLMEncoder

        return MiniLMEncoder.embedded(max_length=self.config.max_length, delta=self.delta, device=self.device)

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
        place = self._exam_place(exam)
        shots = slice(len(exam.sheet.shots))
        features = place.features[shots]
        return ExamPrior(place.offset[shots].copy(), features @ features.T + place.nearness[shots, shots])

    def score_vectors(
        self,
        vectors: NDArray[np.float32],
        profiles: Sequence[CapabilityProfile],
        *,
        truncated_tokens: NDArray[np.int64] | None = None,
    ) -> Scores:
        """Like :meth:`score`, for instructions already embedded: (N, D) unit vectors of the scorer's encoder."""
        lineup = self._lineup_of(profiles)
        found = [stack.capability(self.kernel, vectors) for stack in lineup.stacks]
        difficulty = self.kernel.base(vectors)
        if lineup.shift is not None:
            difficulty = difficulty + lineup.shift.at(self.kernel, vectors)
        logits = difficulty[:, None] + np.concatenate([f for f, _ in found], axis=1)[:, lineup.order]  # (N, M)
        probabilities = 1 / (1 + np.exp(-(lineup.slope * logits + np.float32(self.config.intercept))))
        weights = np.concatenate([attention / len(found) for _, attention in found], axis=1)
        return Scores(
            probabilities.astype(np.float32),
            np.zeros(len(vectors), dtype=np.int64) if truncated_tokens is None else truncated_tokens,
            tuple(task for stack in lineup.stacks for task in stack.tasks),
            weights.astype(np.float32),
        )

    @property
    def digest(self) -> str:
        """Of its configuration, and through it of its tensors."""
        return self.config.digest

    @property
    def evidence_key(self) -> str:
        """The encoder's digest."""
        return self.config.encoder_digest

    def evidence_vector(self, instruction: str) -> NDArray[np.float16]:
        """The instruction's embedding, (D,)."""
        check_instructions([instruction])
        return np.asarray(self.encoder.encode([instruction]).vectors[0], dtype=np.float16)

    def observe(self, observations: Mapping[str, Observations]) -> None:
        """Solve for these outcomes too; until that is done, others are scored as before."""
        with self._lock:
            profiles = self._lineup.profiles if self._lineup is not None else ()
        lineup = self._make_lineup(profiles, observations) if profiles else None
        with self._lock:
            self._observations, self._lineup = observations, lineup

    def _lineup_of(self, profiles: Sequence[CapabilityProfile]) -> _Lineup:
        with self._lock:
            if self._lineup is None or not self._lineup.is_of(profiles):
                self._lineup = self._make_lineup(tuple(profiles), self._observations)
            return self._lineup

    def _make_lineup(
        self, profiles: tuple[CapabilityProfile, ...], observations: Mapping[str, Observations]
    ) -> _Lineup:
        if not profiles:
            raise ConfigurationError("There is nobody to score: give at least one profile.")
        places = [self._place_of(profile) for profile in profiles]
        beliefs = [self._belief(place, profile) for place, profile in zip(places, profiles, strict=True)]
        observed = {i: observations[p.candidate] for i, p in enumerate(profiles) if p.candidate in observations}
        shift = self._shift(places, beliefs, observed) if observed else None
        for i, own in observed.items():
            beliefs[i] = solve(self.kernel, self._places[places[i]], profiles[i], own, shift)
        groups: dict[str, list[int]] = {}
        for column, place in enumerate(places):
            groups.setdefault(place, []).append(column)
        stacks = [_Stack.of(self._places[place], [beliefs[c] for c in columns]) for place, columns in groups.items()]
        order = np.argsort([column for columns in groups.values() for column in columns])
        # A logistic of a Gaussian is nearly a logistic of its shrunken mean (MacKay 1992).
        shrink = 1 / np.sqrt(1 + math.pi / 8 * np.array([belief.variance for belief in beliefs], np.float32))
        return _Lineup(profiles, tuple(stacks), order, np.float32(self.config.slope) * shrink, shift)

    def _shift(
        self, places: Sequence[str], beliefs: Sequence[Belief], observed: Mapping[int, Observations]
    ) -> SharedShift:
        vectors, logits = [], []
        for i, own in observed.items():
            x = own.vectors.astype(np.float32)
            capability, _ = _Stack.of(self._places[places[i]], [beliefs[i]]).capability(self.kernel, x)
            vectors.append(x)
            logits.append(self.kernel.base(x) + capability[:, 0])
        outcomes = np.concatenate([own.outcomes for own in observed.values()])
        counts = np.concatenate([own.weights for own in observed.values()])
        return shared_shift(self.kernel, np.concatenate(vectors), np.concatenate(logits), outcomes, counts)

    def _place_of(self, profile: CapabilityProfile) -> str:
        """Name of the place where the profile's evidence lies; made on first use."""
        exam = self._exams.get(profile.exam_digest)
        if exam is not None and {r.task for r in profile.results} <= {t.task for t in exam.sheet.tasks}:
            self._exam_place(exam)
            return exam.digest
        described = {result.task: list(result.keywords) for result in profile.results}
        name = digest_of(described)
        if name not in self._places:
            vectors = self.encoder.encode([describe_task(task, words) for task, words in described.items()]).vectors
            self._places[name] = Place.of_tasks(self.kernel, tuple(described), vectors)
        return name

    def _exam_place(self, exam: Exam) -> Place:
        if exam.digest not in self._places:
            vectors = exam.embeddings[self.config.encoder_digest].astype(np.float32)
            self._places[exam.digest] = Place.of_exam(self.kernel, exam, vectors)
        return self._places[exam.digest]

    def _belief(self, place: str, profile: CapabilityProfile) -> Belief:
        key = (place, profile.digest)
        if key not in self._beliefs:
            self._beliefs[key] = solve(self.kernel, self._places[place], profile)
        return self._beliefs[key]

    def save(self, folder: str | Path) -> Path:
        """Write the scorer; its configuration last."""
        folder = Path(folder)
        sha256 = save_tensors(folder / WEIGHTS_FILE, self.kernel.tensors)
        delta = "" if self.delta is None else save_tensors(folder / DELTA_FILE, self.delta.tensors)
        self.config.changed(weights_sha256=sha256, delta_sha256=delta).save(folder / CONFIG_FILE)
        return folder

    @classmethod
    def load(cls, folder: str | Path, *, device: str | None = None) -> CompactScorer:
        """Read a scorer that :meth:`save` wrote. Raises ArtefactError if a file is missing or damaged."""
        folder = Path(folder)
        config = CompactConfig.load(folder / CONFIG_FILE)
        tensors = read_tensors(folder / WEIGHTS_FILE, config.weights_sha256)
        kernel = CapabilityKernel(tensors)
        if (kernel.dim, kernel.hidden, kernel.n_skills) != (config.dim, config.hidden, config.n_skills):
            raise ArtefactError(f"{folder}: the tensors do not fit the configuration: copy the scorer folder again.")
        changed = read_tensors(folder / DELTA_FILE, config.delta_sha256) if config.delta_sha256 else None
        return cls(config, kernel, delta=None if changed is None else LowRankDelta(changed), device=device)
