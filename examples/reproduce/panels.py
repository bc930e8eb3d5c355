"""One panel: candidates that sat an exam, and questions scored for them by ours and by methods that read the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from common import rows_of
from numpy.typing import NDArray

from msat_core import AptitudeTest, CapabilityProfile, Exam, Records
from msat_core.evaluation.baselines import OutcomeTable, baselines_named
from msat_core.evaluation.studies.pooled import Panel
from msat_core.scoring.base import EmbeddingScorer

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Study:
    """What is routed: N questions, M candidates.

    Attributes:
        pool: outcomes of the M candidates, on the exam's questions and on those that are asked.
        vectors: (items of the pool, D), by the scorer's encoder.
        exam: that all sat.
        asked: rows of the pool, the N questions.
        new: candidates that no method was trained on.
    """

    pool: Records
    vectors: Vectors
    exam: Exam
    asked: NDArray[np.intp]
    new: frozenset[str] = frozenset()

    @property
    def profiles(self) -> list[CapabilityProfile]:
        """What the exam says of each candidate."""
        return [AptitudeTest(self.exam).profile_from_records(self.pool, name) for name in self.pool.candidates]

    @property
    def exam_outcomes(self) -> OutcomeTable:
        """The same as the baselines read it."""
        tasks = tuple(shot.task for shot in self.exam.sheet.shots)
        return replace(outcomes_at(self.pool, self.vectors, rows_of(self.pool, self.exam)), tasks=tasks)

    def scores(self, scorer: EmbeddingScorer) -> Vectors:
        """(N, M), P(correct) by a scorer, which is taught the exam."""
        scorer.add_exam(self.exam)
        return scorer.score_vectors(self.vectors[self.asked], self.profiles).probabilities

    def panel(
        self,
        scorer: EmbeddingScorer,
        baselines: Sequence[str],
        *,
        known: OutcomeTable | None = None,
        others: OutcomeTable | None = None,
    ) -> Panel:
        """Ours, called ``routed``, beside the named baselines.

        Args:
            scorer: ours.
            baselines: their names.
            known: what the baselines know of the candidates; None for the exam.
            others: what they know of other candidates; None for nothing.
        """
        scores, table = {"routed": self.scores(scorer)}, known or self.exam_outcomes
        for baseline in baselines_named(baselines):
            fitted = baseline.fit(table, others, 0)(self.vectors[self.asked])
            scores[baseline.name] = np.asarray(fitted, dtype=np.float32)
        asked = self.pool.select_items(self.asked)
        outcomes = asked.outcomes.T.astype(float)
        return Panel(
            names=self.pool.candidates,
            new=self.new,
            tasks=asked.tasks,
            outcomes=outcomes,
            aptitude=np.array([profile.accuracy for profile in self.profiles]),
            costs=np.full(outcomes.shape, np.nan),
            scores=scores,
            exam_size=len(self.exam.sheet.shots),
        )


def outcomes_at(records: Records, vectors: Vectors, rows: NDArray[np.intp]) -> OutcomeTable:
    """The records' outcomes at some rows, with their embeddings."""
    part = records.select_items(rows)
    return OutcomeTable(vectors[rows], part.tasks, part.outcomes.T.astype(float))


def points(fractions: Sequence[float]) -> list[float]:
    """In points: hundredths of a share of the questions."""
    return [round(100 * float(value), 2) for value in fractions]
