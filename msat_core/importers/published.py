"""Coarse profiles from published scores: a leaderboard's accuracy in each category.

A category's accuracy says less than an exam of the same size: the category is broader than a core
task, its questions are not the exam's, and nobody says how they were asked. So a category counts for
no more than ``MOST_SHOTS`` questions, however many it had, which keeps its interval wide and leaves
the scorer room to doubt it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from msat_core.errors import ConfigurationError, RecordsError
from msat_core.importers.rows import Unreadable, csv_rows, json_lines, text_of
from msat_core.profiles import CapabilityProfile, Provenance, TaskResult

MOST_SHOTS = 20  # what one published category counts for at most: as much as one core task of the exam
PROTOCOL = "published"
FIELDS = ("model", "task", "accuracy", "n_questions", "source", "keywords")


def published_profiles(
    table: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    model: str | None = None,
    percent: bool = False,
    most_shots: int = MOST_SHOTS,
) -> list[CapabilityProfile]:
    """One coarse profile of each model in a table of published accuracies.

    Args:
        table: CSV or JSONL with the columns task, accuracy, n_questions; optional: model, source,
            keywords (separated by ``;`` or a JSON list).
        columns: the table's name of a field, where it differs.
        model: the candidate's name, for a table of one without a model column.
        percent: accuracies are percentages.
        most_shots: see the module.

    Raises:
        RecordsError: the table cannot be read, or a row is wrong; the row is named.
    """
    unknown = [name for name in columns or {} if name not in FIELDS]
    if unknown:
        raise ConfigurationError(f"There is no field {unknown[0]!r} to map: the fields are {', '.join(FIELDS)}.")
    if most_shots < 1:
        raise ConfigurationError(f"A category must count for at least 1 question, got {most_shots}.")
    path = Path(table)
    results: dict[str, list[TaskResult]] = {}
    sources: dict[str, dict[str, None]] = {}
    for where, row in _rows(path):
        try:
            data = {name: row.get((columns or {}).get(name, name)) for name in FIELDS}
            name = model or text_of(data, "model")
            result = _result(data, percent, most_shots)
        except Unreadable as error:
            raise RecordsError(f"{where}: {error}. A published score needs task, accuracy and n_questions.") from None
        if any(result.task == other.task for other in results.get(name, ())):
            raise RecordsError(f"{where}: a second accuracy of {name!r} in {result.task!r}; keep one.")
        results.setdefault(name, []).append(result)
        sources.setdefault(name, {})[str(data["source"] or path.name)] = None
    if not results:
        raise RecordsError(f"{path} has no rows: expected a table of published accuracies.")
    return [_profile(name, found, sources[name], most_shots) for name, found in results.items()]


def _profile(name: str, results: Iterable[TaskResult], sources: Iterable[str], most_shots: int) -> CapabilityProfile:
    return CapabilityProfile(
        candidate=name,
        results=tuple(results),
        provenance=Provenance(
            source=f"published scores: {', '.join(sources)} (at most {most_shots} questions counted a category)",
            protocol=PROTOCOL,
            coarse=True,
        ),
    )


def _rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if not path.is_file():
        raise RecordsError(f"{path} is not a file: expected a CSV or JSONL table of published accuracies.")
    for where, row in csv_rows(path) if path.suffix == ".csv" else json_lines(path):
        if not isinstance(row, dict):
            raise RecordsError(f"{where}: expected an object a line, got {row!r:.80}.")
        yield where, row


def _result(data: Mapping[str, Any], percent: bool, most_shots: int) -> TaskResult:
    accuracy, n_questions = _number(data, "accuracy") / (100 if percent else 1), _number(data, "n_questions")
    if not 0 <= accuracy <= 1:
        hint = "" if percent else " (for percentages give --percent)"
        raise Unreadable(f"accuracy {data['accuracy']!r} is not a share in [0, 1]{hint}")
    if n_questions < 1 or n_questions != int(n_questions):
        raise Unreadable(f"n_questions {data['n_questions']!r} is not a whole number above 0")
    n_shots = min(int(n_questions), most_shots)
    return TaskResult(
        task=text_of(data, "task"),
        keywords=_keywords(data["keywords"]),
        n_shots=n_shots,
        n_correct=round(accuracy * n_shots, 6),
    )


def _number(data: Mapping[str, Any], name: str) -> float:
    try:
        value = float(data[name])
    except (TypeError, ValueError):
        raise Unreadable(f"{name} {data[name]!r} is not a number") from None
    if math.isnan(value):
        raise Unreadable(f"{name} is not a number")
    return value


def _keywords(value: Any) -> tuple[str, ...]:  # noqa: ANN401 - a cell of the table
    parts = value if isinstance(value, list) else str(value or "").split(";")
    return tuple(word for word in (str(part).strip() for part in parts) if word)
