"""Which questions make an exam.

Four rules:

* ``broad``: the K largest tasks, S random questions of each. Representative in difficulty, so that
  a strong new candidate is seen to be strong.
* ``distinguishing``: like ``broad``, without the questions that all the recorded candidates, or none of
  them, got right: those tell nobody from anybody. The default.
* ``half-right``: the S questions of each task that come nearest to being answered by half of the
  candidates (Model-SAT, AAAI 2025). Separates average candidates best, and compresses strong ones.
* ``own-tasks``: S random questions of each of the records' own tasks; a benchmark that is one large
  task is split by k-means on the embeddings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from msat_core.checks import check_count
from msat_core.errors import ConfigurationError, RecordsError, extras
from msat_core.exam import OWN_TASKS, Exam, ExamSheet, ExamShot, ExamTask
from msat_core.lettered_options import without_options
from msat_core.records import Records

ExamRule = Literal["broad", "distinguishing", "half-right", "own-tasks"]
RULES: tuple[ExamRule, ...] = get_args(ExamRule)

DEFAULT_RULE: ExamRule = "distinguishing"
DEFAULT_TASKS = 50  # the paper's
DEFAULT_SHOTS = 20  # of each task

N_KEYWORDS = 5  # words that stand for a task; chosen
MAX_CLUSTERS = 10  # of a benchmark that is one large task
_WHICH = {"distinguishing": "every candidate answered and that tell two of them apart"}
_WHICH_ELSE = "every candidate answered"
ITEMS_PER_SHOT = 4  # a cluster holds at least so many items for each of its shots


def select_exam(
    records: Records,
    *,
    rule: ExamRule = DEFAULT_RULE,
    n_tasks: int = DEFAULT_TASKS,
    n_shots: int = DEFAULT_SHOTS,
    seed: int = 0,
    name: str = "exam",
    task_prefix: str = "",
    vectors: NDArray[np.float32] | None = None,
    encoder_digest: str = "",
) -> Exam:
    """Choose an exam from records; the same records, rule and seed give the same exam.

    Only items of which every candidate's outcome is known are chosen, and of textual twins one.

    Args:
        records: what to choose from; pass ``records.without_texts(…)`` to keep some items out.
        rule: see the module.
        n_tasks: K, most core tasks (``own-tasks`` takes all).
        n_shots: S, questions per task; a task gives at most half of its items.
        seed: of the random draws.
        name: the exam's name, for people.
        task_prefix: only tasks whose name begins so.
        vectors: embeddings of the records' items, (N, D); stored with the exam. ``own-tasks``
            needs them where a benchmark is one large task.
        encoder_digest: which encoder made them.

    Raises:
        RecordsError: no task has enough items.
    """
    check_rule(rule)
    check_count("n_tasks", n_tasks)
    check_count("n_shots", n_shots)
    rng = np.random.default_rng(seed)
    eligible = _eligible(records, task_prefix)
    if rule == "distinguishing":
        spread = records.outcomes[:, eligible].max(axis=0) > records.outcomes[:, eligible].min(axis=0)
        eligible = eligible[spread]
    labels = _own_tasks(records, eligible, n_shots, vectors, seed) if rule == OWN_TASKS else list(records.tasks)
    members: dict[str, list[int]] = {}
    for i in eligible:
        members.setdefault(labels[i], []).append(int(i))
    chosen = _choose_tasks(members, rule, n_tasks, n_shots)
    if not chosen:
        raise RecordsError(
            f"No task has {n_shots} or more questions that {_WHICH.get(rule, _WHICH_ELSE)}: lower the number of shots, "
            "or name fewer candidates."
        )
    rows, shots = [], []
    for task in chosen:
        for i in _choose_shots(records, members[task], rule, n_shots, rng):
            rows.append(i)
            shots.append(ExamShot(item_id=records.item_ids[i], text_sha256=records.text_sha256[i], task=task))
    words = task_keywords([[records.instructions[i] for i in members[task]] for task in chosen])
    tasks = tuple(ExamTask(task=task, keywords=k) for task, k in zip(chosen, words, strict=True))
    sheet = ExamSheet(name=name, rule=rule, seed=seed, tasks=tasks, shots=tuple(shots))
    return Exam(sheet, {} if vectors is None else {encoder_digest: vectors[rows].astype(np.float16)})


def check_rule(rule: str) -> None:
    """Raise ConfigurationError unless there is such a rule."""
    if rule not in RULES:
        raise ConfigurationError(f"There is no rule {rule!r}: choose one of {', '.join(RULES)}.")


def task_keywords(texts_by_task: Sequence[Sequence[str]], n_keywords: int = N_KEYWORDS) -> list[tuple[str, ...]]:
    """The words that set each task apart: highest TF-IDF with each task taken as one document."""
    with extras():
        from sklearn.feature_extraction.text import TfidfVectorizer

    documents = [" ".join(without_options(text) for text in texts) for texts in texts_by_task]
    vectorizer = TfidfVectorizer(stop_words="english", token_pattern=r"(?u)\b[^\W\d_]{4,}\b", sublinear_tf=True)
    try:
        weights = vectorizer.fit_transform(documents).toarray()
    except ValueError:  # not one word in any of the texts
        return [()] * len(documents)
    vocabulary = vectorizer.get_feature_names_out()
    top = np.argsort(-weights, axis=1, kind="stable")[:, :n_keywords]
    return [tuple(str(vocabulary[j]) for j in row if weights[k, j] > 0) for k, row in enumerate(top)]


def _eligible(records: Records, task_prefix: str) -> NDArray[np.intp]:
    known = ~np.isnan(records.outcomes).any(axis=0)
    first_of_text = np.zeros(len(records), dtype=bool)
    first_of_text[list({digest: i for i, digest in reversed(list(enumerate(records.text_sha256)))}.values())] = True
    named = np.array([task.startswith(task_prefix) for task in records.tasks], dtype=bool)
    return np.flatnonzero(known & first_of_text & named)


def _choose_tasks(members: dict[str, list[int]], rule: ExamRule, n_tasks: int, n_shots: int) -> list[str]:
    if rule == OWN_TASKS:
        return sorted(task for task, items in members.items() if len(items) >= 2)
    large = [task for task, items in members.items() if len(items) >= n_shots]
    return sorted(sorted(large, key=lambda task: (-len(members[task]), task))[:n_tasks])


def _choose_shots(
    records: Records, items: list[int], rule: ExamRule, n_shots: int, rng: np.random.Generator
) -> list[int]:
    if rule == "half-right":
        distance = np.abs(records.outcomes[:, items].mean(axis=0) - 0.5) + rng.random(len(items)) * 1e-6
        return [items[j] for j in np.sort(np.argsort(distance)[:n_shots])]
    count = min(n_shots, len(items) // 2) if rule == OWN_TASKS else n_shots
    return sorted(rng.choice(items, count, replace=False).tolist())


def _own_tasks(
    records: Records, eligible: NDArray[np.intp], n_shots: int, vectors: NDArray[Any] | None, seed: int
) -> list[str]:
    labels = list(records.tasks)
    for benchmark in dict.fromkeys(records.benchmarks):
        rows = [int(i) for i in eligible if records.benchmarks[i] == benchmark]
        n_clusters = min(MAX_CLUSTERS, len(rows) // (ITEMS_PER_SHOT * n_shots))
        if len({labels[i] for i in rows}) != 1 or n_clusters < 2:
            continue
        if vectors is None:
            raise ConfigurationError(f"{benchmark!r} is one large task: splitting it needs the items' embeddings.")
        with extras():
            from sklearn.cluster import KMeans

        clusters = KMeans(n_clusters, random_state=seed, n_init=4).fit_predict(vectors[rows])
        for i, cluster in zip(rows, clusters, strict=True):
            labels[i] = f"{labels[i]}/{cluster}"
    return labels
