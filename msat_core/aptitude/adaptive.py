"""An exam that picks its next questions by expected information and ends when routing is settled.

Before its first answer a candidate's logits f over the exam's shots are what the compact scorer
expects of anybody: Gaussian, with the mean and the covariance of its prior. Each answer updates them
(one Laplace step), and the next question is the one whose answer is expected to shrink most the
variance of P(correct) over all of the exam's shots, which stand for the instructions to come (active
learning by expected variance reduction, Cohn, Ghahramani & Jordan 1996). Questions come in rounds that
depend on the scores alone, so an adaptive sitting resumes like any other.

Measured (examples/reproduce/LOG.md): equally good scores for about two thirds of the questions, and no better
routing than a shorter plain exam.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from msat_core import pretrained
from msat_core.aptitude.aptitude_test import AptitudeTest
from msat_core.checks import check_count
from msat_core.errors import ConfigurationError
from msat_core.exam import Exam
from msat_core.profiles import CapabilityProfile, Provenance
from msat_core.scoring.base import EmbeddingScorer
from msat_core.scoring.loading import load
from msat_core.zoo import Zoo

ROUND_SIZE = 25  # questions between two looks at the scores
MIN_QUESTIONS = 100  # before it may end; chosen: fewer route badly (LOG, "How short an exam may be")
TOLERANCE = 0.01  # mean absolute change of P(correct) over a round …
CHOICE_TOLERANCE = 0.01  # … and share of instructions routed differently, below which a round moved nothing
PATIENCE = 3  # rounds in a row that must have moved nothing

Floats = NDArray[np.floating]


class AdaptiveOrder:
    """The order of questions in an adaptive sitting (a ``QuestionOrder``).

    Args:
        test: the exam.
        item_ids: the questions that may be asked.
        candidate: the name of who sits it.
        scorer: whose prior picks the questions and whose scores decide when to stop.
        zoo: profiles that the candidate's scores are held against.
        round_size: questions a round.
        tolerance, choice_tolerance, patience: when to stop, see the module's constants.
    """

    name: Literal["spread", "adaptive"] = "adaptive"
    n_planned: int | None = None

    def __init__(
        self,
        test: AptitudeTest,
        item_ids: Sequence[str],
        candidate: str,
        scorer: EmbeddingScorer,
        zoo: Sequence[CapabilityProfile],
        *,
        round_size: int = ROUND_SIZE,
        tolerance: float = TOLERANCE,
        choice_tolerance: float = CHOICE_TOLERANCE,
        patience: int = PATIENCE,
    ) -> None:
        check_count("round_size", round_size)
        check_count("patience", patience)
        self._test, self._candidate, self._scorer = test, candidate, scorer
        self._round_size, self._patience = round_size, patience
        self._tolerance, self._choice_tolerance = tolerance, choice_tolerance
        self._ids = [shot.item_id for shot in test.exam.sheet.shots]
        self._may_ask = np.isin(self._ids, list(item_ids))
        self._asked = np.zeros(len(self._ids), dtype=bool)
        self._posterior = LogitPosterior.prior(scorer, test.exam)
        self._seen: set[str] = set()
        self._vectors = test.exam.embeddings[scorer.encoder_digest].astype(np.float32)
        rivals = [profile for profile in zoo if profile.candidate != candidate]
        self._rival_best = self._score(rivals).max(axis=1) if rivals else None
        self._last: Floats | None = None
        self._quiet_rounds = 0

    @classmethod
    def pretrained(cls, test: AptitudeTest, item_ids: Sequence[str], candidate: str) -> AdaptiveOrder:
        """With the shipped scorer and zoo."""
        scorer = load(pretrained.SCORER)
        if not isinstance(scorer, EmbeddingScorer):
            raise ConfigurationError("An adaptive exam needs a scorer that reads embeddings.")
        for folder in pretrained.EXAMS:
            scorer.add_exam(Exam.load(folder))
        zoo = [member.profile for member in Zoo.load(pretrained.ZOO)]
        return cls(test, item_ids, candidate, scorer, zoo)

    def next_round(self, scores: Mapping[str, float]) -> Sequence[str]:
        """The next questions; none once the scores have settled or every question was asked."""
        rows = [row for row, item_id in enumerate(self._ids) if item_id in scores and item_id not in self._seen]
        for row in rows:
            self._posterior.observe(row, scores[self._ids[row]])
            self._seen.add(self._ids[row])
        if scores and self._settled(scores):
            return ()
        ahead = self._posterior.copy()
        chosen: list[int] = []
        while len(chosen) < self._round_size and (free := self._may_ask & ~self._asked).any():
            row = ahead.most_informative(free)
            ahead.condition(row)
            self._asked[row] = True
            chosen.append(row)
        return [self._ids[row] for row in chosen]

    def _settled(self, scores: Mapping[str, float]) -> bool:
        profile = self._test.profile_of_scores(
            scores, self._candidate, provenance=Provenance(source="an adaptive sitting under way")
        )
        now, before = self._score([profile])[:, 0], self._last
        self._last = now
        if before is None:
            return False
        moved = float(np.abs(now - before).mean())
        rerouted = (
            0.0 if self._rival_best is None else float(((now > self._rival_best) != (before > self._rival_best)).mean())
        )
        quiet = moved < self._tolerance and rerouted < self._choice_tolerance
        self._quiet_rounds = self._quiet_rounds + 1 if quiet else 0
        return self._quiet_rounds >= self._patience and len(scores) >= MIN_QUESTIONS

    def _score(self, profiles: Sequence[CapabilityProfile]) -> Floats:
        """(E, M) P(correct) at the exam's own shots."""
        return self._scorer.score_vectors(self._vectors, profiles).probabilities


class LogitPosterior:
    """Gaussian posterior about a candidate's logits at E shots.

    Args:
        mean: (E,).
        covariance: (E, E).
    """

    def __init__(self, mean: Floats, covariance: Floats) -> None:
        self.mean, self.covariance = mean, covariance

    @classmethod
    def prior(cls, scorer: EmbeddingScorer, exam: Exam) -> LogitPosterior:
        """What the scorer expects of a candidate of which it knows nothing."""
        prior = scorer.exam_prior(exam)
        return cls(prior.logits.copy(), prior.covariance.copy())

    def copy(self) -> LogitPosterior:
        """A posterior to think ahead with."""
        return LogitPosterior(self.mean.copy(), self.covariance.copy())

    def most_informative(self, free: NDArray[np.bool_]) -> int:
        """The free shot whose answer is expected to shrink the variance of P(correct) over all shots most."""
        slope = self._slope()
        reduction = (self.covariance**2) @ slope**2 / (np.diag(self.covariance) + 1 / slope)
        return int(np.argmax(np.where(free, reduction, -np.inf)))

    def condition(self, row: int) -> None:
        """Take an answer into the covariance, whatever it will be."""
        column = self.covariance[:, row].copy()
        self.covariance -= np.outer(column, column) / (column[row] + 1 / self._slope()[row])

    def explained_by(self, row: int) -> Floats:
        """(E,), how much of each logit's variance an answer at that shot would take away."""
        column = self.covariance[:, row]
        return np.asarray(column**2 / (column[row] + 1 / self._slope()[row]))

    def observe(self, row: int, score: float) -> None:
        """Take an answer in: one Laplace step at that shot."""
        slope = self._slope()[row]
        column = self.covariance[:, row].copy()
        right = 1 / (1 + np.exp(-self.mean[row]))
        shift = (score - right) / slope / (column[row] + 1 / slope)
        self.condition(row)
        self.mean += column * shift

    def _slope(self) -> Floats:
        """(E,) derivative of P(correct) in the logit, p (1 − p)."""
        right = 1 / (1 + np.exp(-self.mean))
        slope: Floats = np.maximum(right * (1 - right), 1e-3)
        return slope
