"""Rows of own questions from files: tables, records, exports of traces."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from msat_core.errors import ConfigurationError, RecordsError
from msat_core.importers.rows import Unreadable, csv_rows, json_lines
from msat_core.importers.traces import LEFT_OUT, TRACE_FORMATS, TraceFormat, trace_rows
from msat_core.reading import read_json, read_rows
from msat_core.records import read_table, record_folders


def rows_of(path: Path, format: TraceFormat | None = None, feedback: str | None = None) -> Iterator[Mapping[str, Any]]:
    """The rows of a file or folder, as mappings; one that cannot be read holds why under ``LEFT_OUT``.

    Args:
        path: JSONL, JSON, CSV or Parquet, a folder of records, or an export of traces.
        format: of an export of traces; None where it is none.
        feedback: the key of the feedback that counts.

    Raises:
        RecordsError: there is no such file, or it is none of these.
    """
    if format is not None and format not in TRACE_FORMATS:
        raise ConfigurationError(f"There is no format {format!r}: choose one of {', '.join(TRACE_FORMATS)}.")
    if not path.exists():
        raise RecordsError(f"{path} does not exist: expected a file of questions, or a folder of records.")
    if format is not None:
        yield from trace_rows(path, format, feedback)
    elif path.is_dir():
        for folder in record_folders(path):
            yield from _record_rows(folder)
    else:
        yield from _TABLES.get(path.suffix, _jsonl_rows)(path)


def _jsonl_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    for _, value in json_lines(path):
        yield value if isinstance(value, dict) else {LEFT_OUT: _why_not(value)}


def _csv_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    for _, row in csv_rows(path):
        yield row if isinstance(row, dict) else {LEFT_OUT: str(row)}


def _why_not(value: Any) -> str:  # noqa: ANN401 - any JSON value
    return "not JSON" if isinstance(value, Unreadable) else "not an object"


def _json_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        values = read_json(path)
    except (OSError, ValueError) as error:
        raise RecordsError(f"{path} is not JSON ({error}): expected a list of questions.") from None
    if not isinstance(values, list):
        raise RecordsError(f"{path} holds a {type(values).__name__}: expected a list of questions.")
    for value in values:
        yield value if isinstance(value, dict) else {LEFT_OUT: "not an object"}


def _parquet_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        yield from read_rows(path)
    except (OSError, ValueError) as error:
        raise RecordsError(f"{path} cannot be read as a Parquet table ({error}).") from None


def _record_rows(folder: Path) -> Iterator[Mapping[str, Any]]:
    """A folder of records: its items with their outcomes as earlier ones."""
    _, items = read_table(folder, "items", ("item_id", "instruction"))
    earlier: dict[str, dict[str, float]] = {}
    if any((folder / f"outcomes.{suffix}").is_file() for suffix in ("parquet", "jsonl")):
        _, outcomes = read_table(folder, "outcomes", ("model", "item_id", "score"))
        for model, item_id, outcome in zip(outcomes["model"], outcomes["item_id"], outcomes["score"], strict=True):
            earlier.setdefault(item_id, {})[model] = outcome
    for i, item_id in enumerate(items["item_id"]):
        fields = {name: values[i] for name, values in items.items() if name in ("instruction", "answer", "task")}
        yield {**fields, "scores": earlier.get(item_id)}


_TABLES: Mapping[str, Callable[[Path], Iterator[Mapping[str, Any]]]] = {
    ".parquet": _parquet_rows,
    ".csv": _csv_rows,
    ".json": _json_rows,
}
