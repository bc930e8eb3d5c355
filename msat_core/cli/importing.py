"""`msat records import`, `msat profile from-scores`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import Progress

from msat_core.cli.shared import Json, errors, names_of, out, print_json, profile_file
from msat_core.errors import ConfigurationError
from msat_core.importers.importing import FORMATS, Format, import_records
from msat_core.importers.published import MOST_SHOTS, published_profiles
from msat_core.importers.rows import ImportOptions

SHOWN_BAD = 5

Map = Annotated[
    list[str] | None, typer.Option("--map", help="FIELD=COLUMN: the table's name of a field (repeat).", metavar="F=C")
]


def records_import(
    source: Annotated[Path, typer.Argument(help="A file, or a folder of files.", metavar="SRC")],
    out_folder: Annotated[Path, typer.Option("--out", help="A new records folder.")],
    format: Annotated[Format, typer.Option(help=f"One of {', '.join(FORMATS)}.")],
    columns: Map = None,
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
        columns=_mapping(columns),
        wide=tuple(names_of(wide or [])),
        model=model,
        benchmark=benchmark,
        metric=metric,
        answer_filter=answer_filter,
    )
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


def profile_from_scores(
    table: Annotated[Path, typer.Argument(help="CSV or JSONL: task, accuracy, n_questions, …")],
    out_folder: Annotated[Path, typer.Option("--out", help="Folder for the profiles.")],
    model: Annotated[str | None, typer.Option(help="The candidate, for a table without a model column.")] = None,
    columns: Map = None,
    percent: Annotated[bool, typer.Option(help="Accuracies are percentages.")] = False,
    most_shots: Annotated[int, typer.Option(min=1, help="What one category counts for at most.")] = MOST_SHOTS,
    as_json: Json = False,
) -> None:
    """Make coarse profiles from published accuracies, for models whose exam nobody wants to pay for."""
    profiles = published_profiles(table, columns=_mapping(columns), model=model, percent=percent, most_shots=most_shots)
    files = [profile.save(profile_file(out_folder, profile.candidate)) for profile in profiles]
    if as_json:
        facts: dict[str, Any] = {
            p.candidate: {
                "file": str(file),
                "accuracy": p.accuracy,
                "interval": [p.interval.low, p.interval.high],
                "n_shots": p.n_shots,
                "coarse": True,
            }
            for p, file in zip(profiles, files, strict=True)
        }
        print_json({"profiles": facts})
        return
    for p, file in zip(profiles, files, strict=True):
        out().print(
            f"{p.candidate}: {p.accuracy:.3f} [{p.interval.low:.3f}, {p.interval.high:.3f}], coarse, from "
            f"{len(p.results)} published categories, written to {file}",
            highlight=False,
        )


def _mapping(pairs: list[str] | None) -> dict[str, str]:
    found = {}
    for pair in pairs or []:
        name, equals, column = pair.partition("=")
        if not equals or not name.strip() or not column.strip():
            raise ConfigurationError(f"--map {pair!r}: expected FIELD=COLUMN, for example instruction=prompt.")
        found[name.strip()] = column.strip()
    return found
