"""Coarse profiles from the scale of published scores: what a candidate would get in the areas that exams cover.

A profile's numbers have to mean to the scorer what they mean to a reader. So the expected accuracies of the areas are
given as counts of as many questions as the level's uncertainty allows, and moved, benchmark by benchmark, until the
scorer, reading the profile, expects on the areas' shots the accuracy that the scale expects.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from msat_core import pretrained
from msat_core.exam import Exam
from msat_core.profiles import PUBLISHED, CapabilityProfile, Provenance, TaskResult
from msat_core.score_scale import Expectation, ScoreScale, expected_scores

if TYPE_CHECKING:
    from msat_core.scoring.compact.scorer import CompactScorer

MOST_SHOTS = 20  # an area counts for no more than one core task of the exam
PRIOR_VARIANCE = 1.0  # of a candidate's level in the scorer, in logits
STEPS = 5  # chosen: each takes the gap between read and wanted level further down
LONE_AREA = 3  # weight of an area that is a whole benchmark; chosen
MOST_SHIFT = 2.0  # logits
READABLE = ("mmlu_pro/", "gsm8k", "cruxeval", "math_l5")  # areas of the benchmarks that the shipped scorer learnt from


@dataclass(frozen=True)
class Linker:
    """Makes profiles of expectations.

    Attributes:
        scale: the fitted scale.
        exam: of the areas, with the scorer's embeddings.
        scorer: who shall read the profiles.
    """

    scale: ScoreScale
    exam: Exam
    scorer: CompactScorer

    @classmethod
    def shipped(cls) -> Linker:
        """With the shipped scale, areas and scorer."""
        from msat_core.scoring.compact.scorer import CompactScorer

        scorer = CompactScorer.load(pretrained.SCORER)
        return cls.at(pretrained.FOLDER, scorer)

    @classmethod
    def at(cls, folder: Path, scorer: CompactScorer) -> Linker:
        """With the scale and areas of a folder laid out as the shipped one."""
        exam = Exam.load(folder / pretrained.EXAM_AREAS.name)
        scorer.add_exam(exam)
        return cls(ScoreScale.load(folder / pretrained.SCALE.name), exam, scorer)

    @cached_property
    def _shots(self) -> tuple[NDArray[np.float32], NDArray[np.str_]]:
        """Embeddings of the readable areas' shots (S, D), and each one's area (S,)."""
        vectors = self.exam.embeddings[self.scorer.config.encoder_digest].astype(np.float32)
        area = np.array([shot.task for shot in self.exam.sheet.shots])
        kept = np.array([name.startswith(READABLE) for name in area])
        return vectors[kept], area[kept]

    def profile(
        self, candidate: str, expectation: Expectation, source: str, *, borrowed_from: str = "", created: str = ""
    ) -> CapabilityProfile:
        """The coarse profile that the scorer reads as this expectation."""
        expected = {k: v for k, v in expected_scores(expectation, self.scale.exam).items() if k.startswith(READABLE)}
        wanted, names = np.array(list(expected.values())), list(expected)
        rows = [k for k, task in enumerate(self.scale.exam) if task.task in expected]
        n_shots = _shots_for(float(expectation.covariance[np.ix_(rows, rows)].mean()), wanted)
        # a benchmark that is one area counts for more: MMLU-Pro has thirteen
        counts = [n_shots if "/" in name else min(MOST_SHOTS, LONE_AREA * n_shots) for name in names]
        provenance = Provenance(
            source=source, protocol=PUBLISHED, coarse=True, created=created, borrowed_from=borrowed_from
        )

        def profile_at(shift: NDArray[np.float64]) -> CapabilityProfile:
            share = _logistic(_logit(wanted) + shift)
            results = tuple(
                TaskResult(task=name, n_shots=n, n_correct=round(float(p) * n, 3))
                for name, p, n in zip(names, share, counts, strict=True)
            )
            return CapabilityProfile(
                candidate=candidate, exam_digest=self.exam.digest, results=results, provenance=provenance
            )

        vectors, area = self._shots
        benchmark = np.array([name.split("/")[0] for name in names])
        groups = benchmark[:, None] == np.unique(benchmark)  # (areas, benchmarks)
        share = groups / groups.sum(axis=0)
        membership = np.array([area == name for name in names]).astype(float)
        membership /= membership.sum(axis=1, keepdims=True)
        shift = np.zeros(groups.shape[1])
        for _ in range(STEPS):
            profile = profile_at(groups @ shift)
            read = membership @ self.scorer.score_vectors(vectors, [profile]).probabilities[:, 0]
            shift = np.clip(shift + _logit(wanted @ share) - _logit(read @ share), -MOST_SHIFT, MOST_SHIFT)
        return profile_at(groups @ shift)


def _shots_for(variance: float, expected: NDArray[np.float64]) -> int:
    """Questions an area counts for, so that all areas together know the level as well as the scale does."""
    from msat_core.scoring.compact.posterior import TASK_COUNT_WEIGHT

    per_shot = TASK_COUNT_WEIGHT * float((expected * (1 - expected)).sum())
    return int(np.clip(round((1 / variance - 1 / PRIOR_VARIANCE) / per_shot), 1, MOST_SHOTS))


def _logit(p: float | NDArray[np.float64]) -> NDArray[np.float64]:
    p = np.clip(p, 0.002, 0.998)
    return np.asarray(np.log(p / (1 - p)))


def _logistic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(1 / (1 + np.exp(-x)))
