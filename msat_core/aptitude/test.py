"""The aptitude test: an exam, and what can be done with it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from msat_core import pretrained
from msat_core.errors import RecordsError
from msat_core.exam import Exam
from msat_core.profiles import CapabilityProfile, Provenance, TaskResult
from msat_core.records import Records

COARSE_BELOW_SHOTS = 300  # a profile of fewer shots is marked coarse


@dataclass(frozen=True)
class AptitudeTest:
    """An exam that every candidate sits once.

    Attributes:
        exam: its questions (ids, hashes, tasks) and their embeddings.
    """

    exam: Exam

    __test__ = False  # not a pytest class

    @classmethod
    def load(cls, folder: str | Path | None = None) -> AptitudeTest:
        """The exam saved in a folder; without one, the shipped exam of 50 tasks × 20 shots."""
        return cls(Exam.load(pretrained.EXAM if folder is None else folder))

    def profile_from_records(
        self, records: Records, candidate: str, *, protocol: str = "unknown", coarse: bool | None = None
    ) -> CapabilityProfile:
        """What the candidate's recorded outcomes on the exam's questions amount to.

        Questions are found by the hash of their text. A missing outcome lowers its task's n_shots.

        Raises:
            RecordsError: the records know no outcome of the candidate on any exam question.
        """
        one = records.select_candidates([candidate])
        outcome, by_hash = one.outcomes[0], defaultdict(list)
        for i, digest in enumerate(one.text_sha256):
            by_hash[digest].append(i)
        shots: dict[str, dict[str, float]] = {task.task: {} for task in self.exam.sheet.tasks}
        for shot in self.exam.sheet.shots:
            twins = sorted(by_hash[shot.text_sha256], key=lambda i: one.item_ids[i] != shot.item_id)
            known = [float(outcome[i]) for i in twins if not np.isnan(outcome[i])]
            if known:
                shots[shot.task][shot.item_id] = round(known[0], 6)
        results = tuple(
            TaskResult(
                task=task.task,
                keywords=task.keywords,
                n_shots=len(shots[task.task]),
                n_correct=round(sum(shots[task.task].values()), 6),
                shots=shots[task.task],
            )
            for task in self.exam.sheet.tasks
        )
        n_shots = sum(result.n_shots for result in results)
        if not n_shots:
            raise RecordsError(
                f"The records hold no outcome of {candidate!r} on any question of the exam {self.exam.sheet.name!r}: "
                "give records of the same benchmark, or draw an exam from these with --tasks-from-records."
            )
        chars = one.output_chars[0]
        return CapabilityProfile(
            candidate=candidate,
            exam_digest=self.exam.digest,
            results=results,
            provenance=Provenance(
                source=f"records: {', '.join(dict.fromkeys(one.benchmarks))}",
                protocol=protocol,
                coarse=n_shots < COARSE_BELOW_SHOTS if coarse is None else coarse,
            ),
            mean_output_chars=None if np.isnan(chars).all() else round(float(np.nanmean(chars)), 1),
        )
