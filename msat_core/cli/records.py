"""`msat records import`, `msat records check`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.progress import Progress

from msat_core.cli.shared import (
    Columns,
    Json,
    RecordsFolder,
    check_output,
    errors,
    mapping,
    new_table,
    out,
    print_json,
    split_names,
)
from msat_core.importers.importing import FORMATS, Format, import_records
from msat_core.importers.rows import ImportOptions
from msat_core.records import Records

SHOWN_BAD = 5  # rows that could not be read
SHOWN_TWINS = 5  # groups of questions of one text


def records_import(
    source: Annotated[Path, typer.Argument(help="A file, or a folder of files.", metavar="SRC")],
    out_folder: Annotated[Path, typer.Option("--out", help="A new records folder.")],
    format: Annotated[Format, typer.Option(help=f"One of {', '.join(FORMATS)}.")],
    columns: Columns = None,
    wide: Annotated[
        list[str] | None, typer.Option(help="jsonl, csv: columns that are models, each cell a score (repeat, or A,B).")
    ] = None,
    model: Annotated[str | None, typer.Option(help="The candidate, where the source does not say.")] = None,
    benchmark: Annotated[str | None, typer.Option(help="The benchmark's name, instead of the source's.")] = None,
    metric: Annotated[str | None, typer.Option(help="Which metric is the score.")] = None,
    answer_filter: Annotated[str | None, typer.Option("--filter", help="lm-eval: which answer filter counts.")] = None,
    as_json: Json = False,
) -> None:
    """Import evaluations that you already have. Bad rows are counted, listed and left out, never guessed."""
    options = ImportOptions(
        columns=mapping(columns),
        wide=tuple(split_names(wide or [])),
        model=model,
        benchmark=benchmark,
        metric=metric,
        answer_filter=answer_filter,
    )
    check_output(out_folder, folder=True)
    with Progress(console=errors, transient=True) as bar:
        task = bar.add_task("rows", total=None)
        report = import_records(
            source,
            out_folder,
            format,
            options,
            progress=lambda n, bad: bar.update(task, description=f"{n:,} rows, {bad:,} bad"),
        )
    if as_json:
        print_json({"out": str(out_folder), **report.as_json()})
        return
    out().print(
        f"{report.n_items} items, {report.n_outcomes} outcomes of {len(report.candidates)} candidates, "
        f"written to {out_folder}",
        highlight=False,
    )
    for why, count in report.skipped.most_common():
        out().print(f"{count} left out: {why}", highlight=False, markup=False, soft_wrap=True)
    if report.n_bad:
        out().print(
            f"{report.n_bad} bad rows left out (listed in {out_folder / 'import.json'}):",
            highlight=False,
            soft_wrap=True,
        )
        for row in report.bad[:SHOWN_BAD]:
            out().print(f"  {row.where}: {row.why}", highlight=False, markup=False, soft_wrap=True)


def check(records: RecordsFolder, as_json: Json = False) -> None:
    """Validate a records folder and say what it holds."""
    loaded = Records.load(records)
    twins = loaded.twins()
    known = ~np.isnan(loaded.outcomes)
    result: dict[str, Any] = {
        "n_items": len(loaded),
        "n_candidates": len(loaded.candidates),
        "n_outcomes": int(known.sum()),
        "benchmarks": {b: loaded.benchmarks.count(b) for b in dict.fromkeys(loaded.benchmarks)},
        "n_tasks": len(set(loaded.tasks)),
        "candidates": {
            name: {"n_items": int(row.sum()), "accuracy": float(scores[row].mean()) if row.any() else None}
            for name, row, scores in zip(loaded.candidates, known, loaded.outcomes, strict=True)
        },
        "twins": [list(group) for group in twins],
    }
    if as_json:
        print_json(result)
        return
    table = new_table("candidate", "items", "mean score")
    for name, facts in result["candidates"].items():
        table.add_row(name, str(facts["n_items"]), "–" if facts["accuracy"] is None else f"{facts['accuracy']:.3f}")
    out().print(table)
    out().print(
        f"{len(loaded)} items of {result['n_tasks']} tasks, {result['n_outcomes']} outcomes of "
        f"{len(loaded.candidates)} candidates: no errors."
    )
    if twins:
        shown = "; ".join(" = ".join(group) for group in twins[:SHOWN_TWINS])
        out().print(f"{len(twins)} groups of items share one text (counted once where it matters): {shown} …")
