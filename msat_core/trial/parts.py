"""Two parts of the questions: the exam, by which the router knows its candidates, and the part that tests it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from msat_core.aptitude.exam_selection import task_keywords
from msat_core.errors import extras
from msat_core.exam import OWN_QUESTIONS, Exam, ExamSheet, ExamShot, ExamTask
from msat_core.trial.questions import OwnQuestion, round_robin

CALIBRATION_SHARE = 0.3  # of the questions; measured: LOG, "The trial"
MAX_CLUSTERS = 10  # where nobody says what kinds of questions there are
QUESTIONS_PER_CLUSTER = 12  # at least, on average; chosen: a task of fewer says little


@dataclass(frozen=True)
class Parts:
    """Positions of the questions of each part; no text is in both.

    Attributes:
        exam: what the profiles are made of.
        calibration: what the figures and the guarantee are got from.
    """

    exam: NDArray[np.intp]
    calibration: NDArray[np.intp]


def split(questions: Sequence[OwnQuestion], share: float = CALIBRATION_SHARE) -> Parts:
    """Take every so-manieth question, spread over the tasks, for calibration; texts of the same words stay together.

    Args:
        questions: of the trial.
        share: of the questions for calibration, in (0, 1).
    """
    position = {item.item_id: i for i, item in enumerate(questions)}
    part_of: dict[str, bool] = {}
    for i, item in enumerate(round_robin(questions)):
        part_of.setdefault(item.question.text_sha256, int((i + 1) * share) > int(i * share))
    calibration = [position[item.item_id] for item in questions if part_of[item.question.text_sha256]]
    rest = [position[item.item_id] for item in questions if not part_of[item.question.text_sha256]]
    return Parts(np.array(rest, dtype=np.intp), np.array(calibration, dtype=np.intp))


def tasks_of(questions: Sequence[OwnQuestion], vectors: NDArray[np.float32]) -> list[str]:
    """The task of each question: as labelled, or by clusters of the embeddings (N, D) where all have one label."""
    labels = [item.question.category for item in questions]
    n_clusters = min(MAX_CLUSTERS, len(labels) // QUESTIONS_PER_CLUSTER)
    if len(set(labels)) > 1 or n_clusters < 2:
        return labels
    with extras():
        from sklearn.cluster import KMeans

    clusters = KMeans(n_clusters, random_state=0, n_init=4).fit_predict(vectors)
    return [f"{label}/{cluster}" for label, cluster in zip(labels, clusters, strict=True)]


def exam_of(
    questions: Sequence[OwnQuestion],
    tasks: Sequence[str],
    rows: NDArray[np.intp],
    embeddings: Mapping[str, NDArray[np.float32]],
    name: str,
) -> Exam:
    """An exam of some of the questions.

    Args:
        questions: N, all of them.
        tasks: (N,), of each.
        rows: positions of those that the exam asks.
        embeddings: (N, D) of all, by encoder digest.
        name: the exam's.
    """
    order = sorted(rows.tolist(), key=lambda i: (tasks[i], i))
    kept = list(dict.fromkeys(tasks[i] for i in order))
    words = task_keywords([[questions[i].question.text for i in order if tasks[i] == task] for task in kept])
    shots = tuple(
        ExamShot(item_id=questions[i].item_id, text_sha256=questions[i].question.text_sha256, task=tasks[i])
        for i in order
    )
    sheet = ExamSheet(
        name=name,
        rule=OWN_QUESTIONS,
        tasks=tuple(ExamTask(task=task, keywords=keywords) for task, keywords in zip(kept, words, strict=True)),
        shots=shots,
    )
    return Exam(sheet, {digest: rows_of[order].astype(np.float16) for digest, rows_of in embeddings.items()})
