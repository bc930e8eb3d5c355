"""Coarse profiles from published scores: a leaderboard's accuracy in each category.

Accuracies of different boards cannot be compared, nor read as if they were an exam's: one board's questions are easy,
another's are hard. So a table is put on the shipped scale of published scores (:mod:`msat_core.score_scale`). Tasks
that the scale knows, by source and name, count as what they are; of others only the area is known, by their keywords,
so that they say little about the level, and the profile says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msat_core.errors import ConfigurationError, RecordsError
from msat_core.importers.linked import Linker
from msat_core.importers.rows import Unreadable, csv_rows, json_lines, text_of
from msat_core.profiles import CapabilityProfile

LEAST_CATEGORIES = 5  # of MMLU-Pro, by name: then the table is one of MMLU-Pro
MOST = 1e9  # questions of a benchmark
FIELDS = ("model", "task", "accuracy", "n_questions", "source", "keywords")


@dataclass(frozen=True)
class PublishedScore:
    """A row of the table; the accuracy is a share."""

    task: str
    accuracy: float
    n_questions: int
    keywords: tuple[str, ...] = ()
    source: str = ""


def published_profiles(
    table: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    model: str | None = None,
    percent: bool = False,
    linker: Linker | None = None,
) -> list[CapabilityProfile]:
    """One coarse profile of each model in a table of published accuracies.

    Args:
        table: CSV or JSONL with the columns task, accuracy, n_questions; optional: model, source,
            keywords (separated by ``;`` or a JSON list).
        columns: the table's name of a field, where it differs.
        model: the candidate's name, for a table of one without a model column.
        percent: accuracies are percentages.
        linker: puts scores on a scale; default: the shipped one.

    Raises:
        RecordsError: the table cannot be read, or a row is wrong; the row is named.
    """
    unknown = [name for name in columns or {} if name not in FIELDS]
    if unknown:
        raise ConfigurationError(f"There is no field {unknown[0]!r} to map: the fields are {', '.join(FIELDS)}.")
    path = Path(table)
    scores: dict[str, list[PublishedScore]] = {}
    for where, row in _rows(path):
        try:
            data = {name: row.get((columns or {}).get(name, name)) for name in FIELDS}
            name = model or text_of(data, "model")
            score = _score(data, percent)
        except Unreadable as error:
            raise RecordsError(f"{where}: {error}. A published score needs task, accuracy and n_questions.") from None
        if any((score.task, score.source) == (earlier.task, earlier.source) for earlier in scores.get(name, ())):
            raise RecordsError(f"{where}: a second accuracy of {name!r} in {score.task!r}; keep one.")
        scores.setdefault(name, []).append(score)
    if not scores:
        raise RecordsError(f"{path} has no rows: expected a table of published accuracies.")
    linker = linker or Linker.shipped()
    return [linked_profile(linker, name, rows, path.name) for name, rows in scores.items()]


def linked_profile(linker: Linker, name: str, scores: Sequence[PublishedScore], table: str) -> CapabilityProfile:
    """The coarse profile of one candidate's published scores."""
    scale = linker.scale
    categories = [scale.category(score.task) for score in scores]
    is_mmlu_pro = sum(area is not None for area in categories) >= LEAST_CATEGORIES
    tasks = [
        area if is_mmlu_pro and area is not None else scale.known(score.task, score.source)
        for area, score in zip(categories, scores, strict=True)
    ]
    mean, covariance, n_scores = scale.posterior(
        (task or scale.typical(score.task, score.keywords), score.accuracy, score.n_questions)
        for task, score in zip(tasks, scores, strict=True)
    )
    n_known = sum(task is not None for task in tasks)
    sources = ", ".join(dict.fromkeys(score.source or table for score in scores))
    how = f"{n_known} of {n_scores} tasks known to the scale"
    if n_known < n_scores:
        how += "; of the others only the area counts, and little"
    return linker.profile(name, scale.expectation(mean, covariance, n_scores), f"published scores: {sources} ({how})")


def _rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if not path.is_file():
        raise RecordsError(f"{path} is not a file: expected a CSV or JSONL table of published accuracies.")
    for where, row in csv_rows(path) if path.suffix == ".csv" else json_lines(path):
        if not isinstance(row, dict):
            got = str(row) if isinstance(row, Unreadable) else f"got {row!r:.80}"
            raise RecordsError(f"{where}: expected an object a line, {got}.")
        yield where, row


def _score(data: Mapping[str, Any], percent: bool) -> PublishedScore:
    accuracy, n_questions = _number(data, "accuracy") / (100 if percent else 1), _number(data, "n_questions")
    if not 0 <= accuracy <= 1:
        hint = "" if percent else " (for percentages give --percent)"
        raise Unreadable(f"accuracy {data['accuracy']!r} is not a share in [0, 1]{hint}")
    if n_questions < 1 or n_questions != int(n_questions):
        raise Unreadable(f"n_questions {data['n_questions']!r} is not a whole number above 0")
    return PublishedScore(
        task=text_of(data, "task"),
        accuracy=accuracy,
        n_questions=int(n_questions),
        keywords=_keywords(data["keywords"]),
        source=str(data["source"] or ""),
    )


def _number(data: Mapping[str, Any], name: str) -> float:
    try:
        value = float(data[name])
    except (TypeError, ValueError, OverflowError):
        raise Unreadable(f"{name} {data[name]!r:.40} is not a number") from None
    if not abs(value) <= MOST or isinstance(data[name], bool):
        raise Unreadable(f"{name} {data[name]!r:.40} is not a number")
    return value


def _keywords(value: Any) -> tuple[str, ...]:  # noqa: ANN401 - a cell of the table
    parts = value if isinstance(value, list) else str(value or "").split(";")
    return tuple(word for word in (str(part).strip() for part in parts) if word)
