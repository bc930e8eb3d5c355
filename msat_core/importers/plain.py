"""Tables of one's own: JSONL or CSV, with a mapping from fields to columns; one row an outcome, or a column a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from msat_core.importers.rows import (
    BadRow,
    ImportOptions,
    OutcomeRow,
    Row,
    Skipped,
    Unreadable,
    csv_rows,
    files_of,
    id_of_text,
    json_lines,
    outcome_of,
    text_of,
)


def jsonl_rows(source: Path, options: ImportOptions) -> Iterator[Row]:
    """Every line of every JSONL file."""
    for path in files_of(source, ".jsonl"):
        for where, data in json_lines(path):
            yield from _row(where, data, path.stem, options)


def csv_table_rows(source: Path, options: ImportOptions) -> Iterator[Row]:
    """Every line of every CSV file."""
    for path in files_of(source, ".csv"):
        for where, data in csv_rows(path):
            yield from _row(where, data, path.stem, options)


def _row(where: str, data: Any, stem: str, options: ImportOptions) -> Iterator[Row]:  # noqa: ANN401 - a JSON value
    if isinstance(data, Unreadable) or not isinstance(data, dict):
        yield BadRow(where, str(data) if isinstance(data, Unreadable) else "expected an object")
        return
    columns = {name: options.columns.get(name, name) for name in ("model", "score")}
    try:
        if not options.wide:
            model = options.model or text_of(data, columns["model"])
            yield _outcome(data, model, data.get(columns["score"]), stem, options)
            return
    except Unreadable as error:
        yield BadRow(where, str(error))
        return
    for model in options.wide:
        try:
            if model not in data:
                raise Unreadable(f"no column {model!r}")
            empty = data[model] is None or not str(data[model]).strip()
            yield Skipped(f"no outcome of {model}") if empty else _outcome(data, model, data[model], stem, options)
        except Unreadable as error:
            yield BadRow(f"{where} ({model})", str(error))


def _outcome(data: Mapping[str, Any], model: str, score: Any, stem: str, options: ImportOptions) -> OutcomeRow:  # noqa: ANN401
    def optional(name: str) -> str | None:
        value = data.get(options.columns.get(name, name))
        return str(value) if value is not None and str(value).strip() else None

    if score is None:
        raise Unreadable(f"no {options.columns.get('score', 'score')}")
    instruction = text_of(data, options.columns.get("instruction", "instruction"))
    benchmark = options.benchmark or optional("benchmark") or stem
    output = optional("output")
    return OutcomeRow(
        model=model,
        item_id=optional("item_id") or id_of_text(instruction),
        instruction=instruction,
        task=optional("task") or benchmark,
        benchmark=benchmark,
        score=outcome_of(score),
        category=optional("category"),
        answer=optional("answer"),
        output_chars=None if output is None else len(output),
    )
