"""The compact scorer: frozen sentence encoder, Gaussian process over exam evidence, calibration.

Serving costs one encoder forward per instruction and a few small matrix products: a candidate's
posterior is solved once, when its profile is first seen, and kept.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from msat_core.documents import Document, digest_of
from msat_core.encoders.base import Encoder
from msat_core.encoders.folder import EncoderFiles
from msat_core.encoders.loading import check_device, load_encoder
from msat_core.errors import ArtefactError, MsatError
from msat_core.exam import OWN_RULES, Exam
from msat_core.forking import Lock
from msat_core.profiles import CapabilityProfile
from msat_core.scoring.base import CONFIG_FILE, EmbeddingScorer, ExamPrior, Scores
from msat_core.scoring.compact.kernel import CapabilityKernel
from msat_core.scoring.compact.learner import CompactLearner
from msat_core.scoring.compact.lineup import Lineup
from msat_core.scoring.compact.memo import Memo
from msat_core.scoring.compact.posterior import CapabilityPosterior, PosteriorCovariance, solve
from msat_core.scoring.compact.solved import Solved, load_solved
from msat_core.scoring.compact.support import Support, describe_task
from msat_core.tensor_files import read_tensors, save_tensors

WEIGHTS_FILE = "weights.safetensors"
ENCODER_FOLDER = "encoder"  # of a scorer that has an encoder of its own
MAX_POSTERIORS, MAX_SUPPORTS, MAX_LINEUPS = 512, 64, 4  # kept for profiles that come again


class CompactConfig(Document):
    """Everything about a compact scorer but its tensors.

    Attributes:
        encoder_digest: the encoder whose embeddings it was trained on.
        dim, hidden, n_skills: sizes of the :class:`CapabilityKernel`.
        slope, intercept: calibration of the logit, fitted on held-out candidates.
        weights_sha256: of the tensor file.
        trained_on: what it was trained on and how, for people.
    """

    kind: ClassVar[str] = "compact-scorer"
    current_version: ClassVar[int] = 3
    error: ClassVar[type[MsatError]] = ArtefactError

    encoder_digest: str
    dim: int
    hidden: int
    n_skills: int
    slope: float = Field(default=1.0, gt=0)
    intercept: float = 0.0
    weights_sha256: str = ""
    trained_on: dict[str, str | int | float] = Field(default_factory=dict)


class CompactScorer(EmbeddingScorer):
    """See the module. Thread-safe; new profiles and exams may come at any time.

    Args:
        config: sizes, encoder and calibration.
        kernel: the trained prior.
        encoder: called once, when the first text has to be encoded; None to read ``encoder_files``.
        encoder_files: of an encoder of its own; None for the one that msat ships.
        solved: posteriors of candidates that are known beforehand.
        device: where the encoder computes; None or ``"cpu"`` for the CPU, else as torch names it.
    """

    def __init__(
        self,
        config: CompactConfig,
        kernel: CapabilityKernel,
        *,
        encoder: Callable[[], Encoder] | None = None,
        encoder_files: EncoderFiles | None = None,
        solved: Solved | None = None,
        device: str | None = None,
    ) -> None:
        self.config = config
        self.kernel = kernel
        self.encoder_files = encoder_files
        self.device = device
        check_device(device)  # a wrong name is said now, not with the first text
        self._make_encoder = encoder
        self._solved = solved or Solved()
        self._encoder: Encoder | None = None
        self._exams: dict[str, Exam] = {}
        self._supports: Memo[Support] = Memo(MAX_SUPPORTS)
        self._posteriors: Memo[CapabilityPosterior] = Memo(MAX_POSTERIORS)
        self._lineups: deque[Lineup] = deque(maxlen=MAX_LINEUPS)
        self._version = 0  # of the exams
        self._lock = Lock()
        self._loading = Lock()

    def __repr__(self) -> str:
        return f"CompactScorer(encoder {self.encoder_digest[:12]}…, {len(self._exams)} exams)"

    def __getstate__(self) -> dict[str, Any]:
        """For another process, which solves again for the candidates it meets.

        An encoder of files is loaded there from them; any other goes along.
        """
        encoder = None if self._make_encoder is None else self.encoder
        state: dict[str, Any] = {"_encoder": encoder, "_make_encoder": None, "_lineups": deque(maxlen=MAX_LINEUPS)}
        return {**vars(self), **state}

    @property
    def encoder(self) -> Encoder:
        """The sentence encoder, loaded on first use."""
        if self._encoder is not None:
            return self._encoder
        with self._loading:
            if self._encoder is None:
                encoder = (self._make_encoder or self._read_encoder)()
                if encoder.digest != self.config.encoder_digest:
                    raise ArtefactError(
                        f"This scorer was trained on encoder {self.config.encoder_digest[:12]}…, "
                        f"this one is {encoder.digest[:12]}…: copy the scorer folder again, with its encoder."
                    )
                self._encoder = encoder
            return self._encoder

    @property
    def encoder_digest(self) -> str:
        """The encoder's digest, without loading it."""
        return self.config.encoder_digest

    def _read_encoder(self) -> Encoder:
        return load_encoder(self.encoder_files, device=self.device)

    def add_exam(self, exam: Exam) -> bool:
        """Make an exam's shots known; profiles of unknown exams are read by their tasks' keywords alone."""
        if self.config.encoder_digest not in exam.embeddings:
            return False
        with self._lock:
            if exam.digest not in self._exams:
                self._exams = {**self._exams, exam.digest: exam}
                self._version += 1
                self._lineups.clear()
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
        support = self._exam_support(exam)
        shots = slice(len(exam.sheet.shots))
        features = support.features[shots]
        return ExamPrior(support.offset[shots].copy(), features @ features.T + support.nearness[shots, shots])

    def score_vectors(
        self,
        vectors: NDArray[np.float32],
        profiles: Sequence[CapabilityProfile],
        *,
        truncated_tokens: NDArray[np.int64] | None = None,
        unread: tuple[str, ...] = (),
    ) -> Scores:
        """Like :meth:`score`, for instructions already embedded: (N, D) unit vectors of the scorer's encoder."""
        return self.lineup(profiles).score(self.kernel, vectors, truncated_tokens, unread)

    def learner(self) -> CompactLearner:
        """What one router learns, on top of this scorer's exams."""
        return CompactLearner(self)

    @property
    def digest(self) -> str:
        """Of its configuration, and through it of its tensors."""
        return self.config.digest

    @property
    def version(self) -> int:
        """Changes with the exams it knows."""
        return self._version

    def lineup(self, profiles: Sequence[CapabilityProfile]) -> Lineup:
        """The profiles ready to be scored; kept for the next call."""
        with self._lock:
            kept = next((lineup for lineup in self._lineups if lineup.is_of(profiles)), None)
            version = self._version
        if kept is not None:
            return kept
        supports, posteriors = self.posteriors(profiles)
        lineup = Lineup.of(profiles, supports, posteriors, slope=self.config.slope, intercept=self.config.intercept)
        with self._lock:
            if version == self._version:
                self._lineups.append(lineup)
        return lineup

    def posteriors(self, profiles: Sequence[CapabilityProfile]) -> tuple[list[Support], list[CapabilityPosterior]]:
        """Where each profile's evidence lies and what it says: each is solved once, while others go on."""
        self._posteriors.size = max(MAX_POSTERIORS, 2 * len(profiles))
        supports = [self._support_of(profile) for profile in profiles]
        return supports, [
            self._posteriors.get((support.name, profile.digest), partial(self._solve, support, profile))
            for support, profile in zip(supports, profiles, strict=True)
        ]

    def covariance(
        self, support: Support, profile: CapabilityProfile, posterior: CapabilityPosterior
    ) -> PosteriorCovariance:
        """How sure a candidate's posterior is; solved now for one that was solved beforehand without it."""
        covariance = posterior.covariance or solve(self.kernel, support, profile).covariance
        assert covariance is not None
        return covariance

    def _solve(self, support: Support, profile: CapabilityProfile) -> CapabilityPosterior:
        return self._solved.posterior(support, profile) or solve(self.kernel, support, profile)

    def _support_of(self, profile: CapabilityProfile) -> Support:
        exam = self._exams.get(profile.exam_digest)
        if exam is not None and {r.task for r in profile.results} <= {t.task for t in exam.sheet.tasks}:
            by_shot = any(result.shots for result in profile.results)
            return self._exam_support(exam, own=by_shot and exam.sheet.rule in OWN_RULES)
        described = {result.task: list(result.keywords) for result in profile.results}
        name = digest_of(described)

        def make() -> Support:
            texts = [describe_task(task, words) for task, words in described.items()]
            return Support.of_tasks(self.kernel, name, tuple(described), self.encoder.encode(texts).vectors)

        return self._supports.get(name, make)

    def _exam_support(self, exam: Exam, *, own: bool = False) -> Support:
        def make() -> Support:
            vectors = np.asarray(exam.embeddings[self.config.encoder_digest], dtype=np.float32)
            solved = self._solved.surroundings.get(exam.digest)
            return Support.of_exam(self.kernel, exam, vectors, solved, own=own)

        return self._supports.get((exam.digest, own), make)

    def save(self, folder: str | Path) -> Path:
        """Write the scorer; its configuration last."""
        folder = Path(folder)
        sha256 = save_tensors(folder / WEIGHTS_FILE, self.kernel.tensors)
        if self.encoder_files is not None:
            self.encoder_files.save(folder / ENCODER_FOLDER)
        self.config.changed(weights_sha256=sha256).save(folder / CONFIG_FILE)
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
        files = EncoderFiles.load(folder / ENCODER_FOLDER) if (folder / ENCODER_FOLDER).is_dir() else None
        solved = load_solved(folder, config.digest, kernel.dim)
        return cls(config, kernel, encoder_files=files, solved=solved, device=device)
