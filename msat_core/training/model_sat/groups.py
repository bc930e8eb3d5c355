"""Homogeneous groups: one capability representation, one instruction it was right on, the others wrong.

Every group depends on (seed, stage, pass, its number) alone, counted over all processes: a resumed run draws what it
would have drawn, and two processes draw between them what one would draw that has twice their groups.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from msat_core.aptitude.exam_selection import task_keywords
from msat_core.errors import RecordsError
from msat_core.profiles import CapabilityProfile, Provenance, TaskResult
from msat_core.records import Records
from msat_core.training.model_sat.refinement import candidate_shares, outcome_weights
from msat_core.training.model_sat.settings import TrainingSettings

MANY = 64  # tries to find a candidate with a right answer and wrong ones outside its exam


@dataclass(frozen=True)
class GroupBatch:
    """B groups of k instructions and m candidates; N = B · k.

    Attributes:
        profiles: B · m, each with a fresh exam.
        items: (N,), rows of the records, group by group; with m = 1 a group's first is the right one.
        columns: (N, m), which profiles each instruction is scored for.
        outcomes: float32 (B, k, m), NaN where unknown or where the item is in the candidate's exam.
        weights: float32 (B, k, m).
    """

    profiles: tuple[CapabilityProfile, ...]
    items: NDArray[np.intp]
    columns: NDArray[np.intp]
    outcomes: NDArray[np.float32]
    weights: NDArray[np.float32]


@dataclass(frozen=True)
class ExamDraw:
    """A random exam: the rows of each task's shots, and the hashes of their texts."""

    shots: dict[str, NDArray[np.intp]]
    texts: NDArray[np.str_]


class ExamSampler:
    """Random exams from records, as a new candidate would meet them."""

    def __init__(self, records: Records, n_tasks: int, n_shots: int) -> None:
        self._records, self._n_tasks, self._n_shots = records, n_tasks, n_shots
        self._texts = np.array(records.text_sha256)
        tasks, self._task_of = np.unique(np.array(records.tasks), return_inverse=True)
        self._tasks: list[str] = tasks.tolist()
        members = [np.flatnonzero(self._task_of == k) for k in range(len(tasks))]
        words = task_keywords([[records.instructions[i] for i in rows] for rows in members])
        self._keywords = dict(zip(self._tasks, words, strict=True))

    def draw(self, candidate: int, rng: np.random.Generator) -> ExamDraw:
        """An exam from what is known of the candidate; a task gives at most half of its items."""
        answered = np.flatnonzero(~np.isnan(self._records.outcomes[candidate]))
        counts = np.bincount(self._task_of[answered], minlength=len(self._tasks))
        possible = np.flatnonzero(counts >= 2)
        large = possible[counts[possible] >= 2 * self._n_shots]
        pool = large if len(large) >= self._n_tasks else possible
        if not len(pool):
            raise RecordsError(
                f"No exam can be drawn for {self._records.candidates[candidate]!r}: expected a task with two known "
                "outcomes or more."
            )
        shots = {}
        for k in np.sort(rng.choice(pool, min(self._n_tasks, len(pool)), replace=False)):
            rows = answered[self._task_of[answered] == k]
            shots[self._tasks[k]] = rng.choice(rows, min(self._n_shots, len(rows) // 2), replace=False)
        return ExamDraw(shots, self._texts[np.concatenate(list(shots.values()))])

    def profile(self, candidate: int, exam: ExamDraw) -> CapabilityProfile:
        """The candidate's results; a missing outcome lowers its task's n_shots."""
        outcome, results = self._records.outcomes[candidate], []
        for task, rows in exam.shots.items():
            known = outcome[rows][~np.isnan(outcome[rows])]
            counts = {"n_shots": len(known), "n_correct": round(float(known.sum()), 6)}
            results.append(TaskResult(task=task, keywords=self._keywords[task], **counts))
        return CapabilityProfile(
            candidate=self._records.candidates[candidate],
            results=tuple(results),
            provenance=Provenance(source="a random exam of training"),
        )

    def outside(self, exam: ExamDraw) -> NDArray[np.bool_]:
        """Which items are not in the exam, by text: (N,)."""
        return np.asarray(~np.isin(self._texts, exam.texts))


class GroupSampler:
    """Draws groups from records.

    Args:
        records: what may be drawn, exams and instructions alike.
        settings: group sizes, weights and seed.
        task_prefix: instructions come only from tasks whose name begins so.
    """

    def __init__(self, records: Records, settings: TrainingSettings, task_prefix: str = "") -> None:
        self._records, self._settings = records, settings
        self.exams = ExamSampler(records, settings.exam_tasks, settings.exam_shots)
        self._weights = outcome_weights(records, correct_for_guessing=settings.correct_for_guessing)
        self._shares = candidate_shares(records, settings.strong_candidate_weight)
        self._allowed = np.array([task.startswith(task_prefix) for task in records.tasks], dtype=bool)
        if not self._allowed.any():
            raise RecordsError(
                f"No item's task begins with {task_prefix!r}: set the stage's task_prefix to one that is."
            )

    def draw(self, stage: int, number: int, process: int = 0) -> GroupBatch:
        """The groups of one pass: the same for the same arguments."""
        draw = self._shared if self._settings.candidates_per_group > 1 else self._homogeneous
        n_groups = self._settings.groups_per_step
        groups = [
            draw(np.random.default_rng([self._settings.seed, stage, number, process * n_groups + b]))
            for b in range(n_groups)
        ]
        m = self._settings.candidates_per_group
        columns = [b * m + np.tile(np.arange(m), (self._settings.group_size, 1)) for b in range(len(groups))]
        return GroupBatch(
            tuple(profile for group in groups for profile in group.profiles),
            np.concatenate([group.items for group in groups]),
            np.concatenate(columns),
            np.concatenate([group.outcomes for group in groups]),
            np.concatenate([group.weights for group in groups]),
        )

    def _homogeneous(self, rng: np.random.Generator) -> GroupBatch:
        """The paper's group; right answers are drawn by weight."""
        k = self._settings.group_size
        for _ in range(MANY):
            candidate = int(rng.choice(len(self._shares), p=self._shares))
            exam = self.exams.draw(candidate, rng)
            outcome, weight = self._records.outcomes[candidate], self._weights[candidate]
            free = self._allowed & self.exams.outside(exam)
            right = np.flatnonzero(free & (outcome > 0.5) & (weight > 0))
            wrong = np.flatnonzero(free & (outcome <= 0.5))
            if len(right) and len(wrong) >= k - 1:
                first = rng.choice(right, p=weight[right] / weight[right].sum())
                items = np.array([first, *rng.choice(wrong, k - 1, replace=False)])
                profile = self.exams.profile(candidate, exam)
                outcomes = outcome[items][None, :, None]
                return GroupBatch((profile,), items, np.zeros((k, 1), dtype=np.intp), outcomes, np.ones_like(outcomes))
        raise self._too_few()

    def _shared(self, rng: np.random.Generator) -> GroupBatch:
        """Some k random instructions for m candidates that mostly answered them, after one exam for all."""
        k, m = self._settings.group_size, self._settings.candidates_per_group
        for _ in range(MANY):
            anchor = int(rng.choice(len(self._shares), p=self._shares))
            exam = self.exams.draw(anchor, rng)
            known = ~np.isnan(self._records.outcomes)
            free = np.flatnonzero(self._allowed & self.exams.outside(exam) & known[anchor])
            shots = np.concatenate(list(exam.shots.values()))
            sat = (known[:, shots].mean(axis=1) > 0.5) & (np.arange(len(known)) != anchor)
            sitters = np.flatnonzero(sat & (self._shares > 0))
            if len(free) < k or len(sitters) < m - 1:
                continue
            shares = self._shares[sitters] / self._shares[sitters].sum()
            candidates = [anchor, *rng.choice(sitters, m - 1, replace=False, p=shares).tolist()]
            items = rng.choice(free, k, replace=False)
            profiles = tuple(self.exams.profile(candidate, exam) for candidate in candidates)
            outcomes = self._records.outcomes[candidates][:, items].T[None]
            weights = self._weights[candidates][:, items].T[None]
            return GroupBatch(profiles, items, np.zeros((k, m), dtype=np.intp), outcomes, weights)
        raise self._too_few()

    def _too_few(self) -> RecordsError:
        settings = self._settings
        return RecordsError(
            f"Too few records for groups of {settings.group_size} instructions and {settings.candidates_per_group} "
            "candidates outside an exam: lower group_size, candidates_per_group, exam_tasks or exam_shots."
        )
