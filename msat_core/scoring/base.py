"""The seam between what scores and what routes: instructions and profiles in, probabilities out.

Shape letters used throughout: N instructions, M candidates, K core tasks, S shots, T tokens,
D encoder width, H LLM width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from msat_core.encoders.base import Encoder
from msat_core.errors import ConfigurationError, InstructionError
from msat_core.exam import Exam
from msat_core.profiles import CapabilityProfile

CONFIG_FILE = "scorer.json"  # of a scorer folder: what kind of scorer it holds
FAR = 1.0  # the distance above which an instruction is far from what the candidates were tested on


@dataclass(frozen=True)
class Scores:
    """What a scorer says of N instructions and M candidates.

    Attributes:
        probabilities: float32 (N, M), calibrated P(candidate answers the instruction correctly).
        truncated_tokens: int64 (N,), tokens of each instruction that the scorer could not read.
        tasks: names of the K exam tasks whose results the scorer weighed; empty if it has none.
        task_weights: float32 (N, K), how much each task counted for each instruction, rows sum to 1.
        distance: float32 (N, M), how far each instruction lies from everything that each candidate was tested on,
            where 1 is as far as hardly any of the exam's own questions is from the others; NaN where unknown, None
            where the scorer knows no distances. Above :data:`FAR` a score says no more than the candidate's level.
        deviations: float32 (N, M), standard deviation of each score's logit, of what a longer exam would tell; None
            where the scorer states none.
        levels: float32 (M,), each candidate's overall level by its exam, in logits; None where the scorer states none.
        unread: length N, the script of each instruction that the scorer has not learnt to read, and scores by the
            candidates' levels; empty for other instructions, and in all where the scorer does not say.
    """

    probabilities: NDArray[np.float32]
    truncated_tokens: NDArray[np.int64]
    tasks: tuple[str, ...] = ()
    task_weights: NDArray[np.float32] | None = None
    distance: NDArray[np.float32] | None = None
    deviations: NDArray[np.float32] | None = None
    levels: NDArray[np.float32] | None = None
    unread: tuple[str, ...] = ()


@dataclass(frozen=True)
class WeightedOutcome:
    """How right one answer was, as a :class:`Learner` takes it in.

    Attributes:
        candidate: who answered.
        vector: (D,), what :meth:`Learner.vector` gave for the instruction.
        outcome: in [0, 1].
        weight: how many exam shots it counts for, in [0, 1].
    """

    candidate: str
    vector: NDArray[np.floating]
    outcome: float
    weight: float


@dataclass(frozen=True)
class ExamPrior:
    """A Gaussian over an unknown candidate's logits at an exam's E shots.

    Attributes:
        logits: float32 (E,), the mean: how the average candidate does.
        covariance: float32 (E, E).
    """

    logits: NDArray[np.float32]
    covariance: NDArray[np.float32]


class Scorer(ABC):
    """Predicts, for each instruction and each profiled candidate, P(correct).

    ``score`` must not depend on the order or the number of the other instructions and candidates,
    and must be safe to call from several threads.
    """

    @abstractmethod
    def score(self, instructions: Sequence[str], profiles: Sequence[CapabilityProfile]) -> Scores:
        """Score N instructions for M profiles.

        Raises:
            InstructionError: an instruction is not a string, or is blank.
        """

    def add_exam(self, exam: Exam) -> bool:
        """Make an exam's shots known to the scorer; False if it cannot read them.

        A scorer that reads only task results has no use for them.
        """
        return True

    @property
    def digest(self) -> str:
        """Tells this scorer from one that scores otherwise; by default, from another kind of scorer."""
        return type(self).__name__

    @property
    def version(self) -> int:
        """Changes when the same instruction and profiles may be scored otherwise: with the exams it knows, say."""
        return 0

    def learner(self) -> Learner:
        """A new learner on top of this scorer: what one router's feedback adds, and nobody else's."""
        raise ConfigurationError(f"{type(self).__name__} learns nothing from feedback: use the compact scorer.")


class Learner(ABC):
    """A scorer that also weighs outcomes of answers; thread-safe.

    Many outcomes of one candidate on the same or nearly the same instruction are one experience, whose weight
    is bounded by that of one exam shot.
    """

    @property
    @abstractmethod
    def key(self) -> str:
        """Names the kind of :meth:`vector`."""

    @abstractmethod
    def vector(self, instruction: str) -> NDArray[np.float16]:
        """What has to be kept of an instruction, (D,), so that its outcome can be learnt from later."""

    @abstractmethod
    def learn(self, outcomes: Sequence[WeightedOutcome], profiles: Sequence[CapabilityProfile]) -> None:
        """Take in further outcomes; those of candidates without a profile wait until one is scored.

        Raises:
            ConfigurationError: a vector or a number that cannot be; nothing is taken in then.
        """

    @abstractmethod
    def forget(self, n: int) -> None:
        """Take back the n outcomes that came first."""

    @abstractmethod
    def score(self, instructions: Sequence[str], profiles: Sequence[CapabilityProfile]) -> Scores:
        """As :meth:`Scorer.score`, with what was learnt."""


class EmbeddingScorer(Scorer):
    """A scorer that reads an instruction's embedding and nothing else: embeddings made before serve as well."""

    @property
    @abstractmethod
    def encoder(self) -> Encoder:
        """The encoder whose embeddings it reads, loaded on first use."""

    @property
    @abstractmethod
    def encoder_digest(self) -> str:
        """The encoder's digest, without loading it."""

    @abstractmethod
    def score_vectors(
        self,
        vectors: NDArray[np.float32],
        profiles: Sequence[CapabilityProfile],
        *,
        truncated_tokens: NDArray[np.int64] | None = None,
        unread: tuple[str, ...] = (),
    ) -> Scores:
        """Like :meth:`score`, for instructions already embedded: (N, D) unit vectors of the scorer's encoder.

        ``truncated_tokens`` and ``unread`` are what the encoder said of them.
        """

    @abstractmethod
    def exam_prior(self, exam: Exam) -> ExamPrior:
        """What to expect at an exam's shots of a candidate of which nothing is known yet.

        Raises:
            ArtefactError: the exam has no embeddings of the scorer's encoder.
        """

    def score(self, instructions: Sequence[str], profiles: Sequence[CapabilityProfile]) -> Scores:
        """Score N instructions for M profiles with one encoder forward per instruction."""
        check_instructions(instructions)
        embedded = self.encoder.encode(instructions)
        return self.score_vectors(
            embedded.vectors, profiles, truncated_tokens=embedded.truncated_tokens, unread=embedded.unread
        )


def check_instructions(instructions: Sequence[str]) -> None:
    """Raise InstructionError unless every instruction is a text that is not blank."""
    if isinstance(instructions, str):
        raise InstructionError("Expected a sequence of instructions, got one string: put it in a list.")
    if not isinstance(instructions, Iterable):
        raise InstructionError(f"Expected a sequence of instructions, got {instructions!r:.60}.")
    for position, text in enumerate(instructions):
        if not isinstance(text, str):
            raise InstructionError(f"Instruction {position} is a {type(text).__name__}, expected a string.")
        if not text or text.isspace():
            raise InstructionError(f"Instruction {position} is empty: expected the text that a candidate shall answer.")
