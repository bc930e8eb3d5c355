"""What routing is held against: random, single candidates chosen well or in hindsight, and the oracle."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

N_REFERENCE_EXAMS = 100  # random exams whose winners are averaged; chosen: the mean is steady

Array = NDArray[np.floating]


@dataclass(frozen=True)
class Yardsticks:
    """Per-item outcomes, each (N,), so that any mean, difference or interval can be taken.

    Attributes:
        random: expected outcome of a uniformly random candidate.
        best_single: of the candidate that is best on these very items.
        best_by_aptitude: of the candidate with the best exam.
        reference_winner: expected outcome of the winner of a random exam of the same size; None where there is no exam.
        per_task_best: of each task's best candidate on these very items.
        oracle: of the best candidate for each item.
    """

    random: Array
    best_single: Array
    best_by_aptitude: Array
    reference_winner: Array | None
    per_task_best: Array
    oracle: Array

    def known(self) -> dict[str, Array]:
        """By name, those that there are."""
        return {name: values for name, values in vars(self).items() if values is not None}


def yardsticks(
    outcomes: Array, tasks: tuple[str, ...], aptitude: Array, exam_size: int, *, seed: int = 0
) -> Yardsticks:
    """All yardsticks of M candidates on N items.

    Args:
        outcomes: (N, M), no NaN.
        tasks: length N.
        aptitude: (M,), exam accuracies; ties go to the earlier candidate.
        exam_size: questions in the exam; 0 where nobody sat one.
        seed: of the reference exams.
    """
    return Yardsticks(
        random=outcomes.mean(axis=1),
        best_single=outcomes[:, int(outcomes.mean(axis=0).argmax())],
        best_by_aptitude=outcomes[:, int(np.argmax(aptitude))],
        reference_winner=_reference_winner(outcomes, exam_size, seed) if exam_size else None,
        per_task_best=_per_task_best(outcomes, tasks),
        oracle=outcomes.max(axis=1),
    )


def _reference_winner(outcomes: Array, exam_size: int, seed: int) -> Array:
    """Mean over random exams of the winner's outcome, each winner measured on the items left over.

    An exam never takes more than half of the items.
    """
    rng, n_items = np.random.default_rng(seed), len(outcomes)
    size = max(1, min(exam_size, n_items // 2))
    total = np.zeros(n_items)
    for _ in range(N_REFERENCE_EXAMS):
        exam = np.zeros(n_items, dtype=bool)
        exam[rng.choice(n_items, size, replace=False)] = True
        winner = int(outcomes[exam].mean(axis=0).argmax())
        left = ~exam if n_items > 1 else exam
        total[left] += outcomes[left, winner] / left.sum()
    # Scaled so that the plain mean over items is the mean over exams of the winner's accuracy.
    return np.asarray(total * n_items / N_REFERENCE_EXAMS)


def _per_task_best(outcomes: Array, tasks: tuple[str, ...]) -> Array:
    best, labels = np.empty(len(outcomes)), np.array(tasks)
    for task in dict.fromkeys(tasks):
        rows = labels == task
        best[rows] = outcomes[rows][:, int(outcomes[rows].mean(axis=0).argmax())]
    return best
