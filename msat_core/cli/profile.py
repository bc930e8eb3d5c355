"""`msat profile from-records`, `from-scores`: profiles of what is known already."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from msat_core.aptitude.exam_selection import DEFAULT_SHOTS
from msat_core.cli.shared import (
    Columns,
    Json,
    RecordsFolder,
    ScorerFolder,
    check_output,
    load_scorer,
    mapping,
    out,
    print_json,
    progress_bars,
    split_names,
)
from msat_core.errors import ConfigurationError
from msat_core.exam import OWN_TASKS
from msat_core.importers.published import published_profiles
from msat_core.profiles import UNKNOWN_PROTOCOL, CapabilityProfile, profile_file
from msat_core.records import Records

if TYPE_CHECKING:
    from msat_core.aptitude.aptitude_test import AptitudeTest


def profile_from_records(
    records: RecordsFolder,
    out_folder: Annotated[Path, typer.Option("--out", help="Folder for the profiles.")],
    model: Annotated[list[str], typer.Option(help="A candidate's name in the records (repeat, or A,B).")],
    more_models: Annotated[list[str] | None, typer.Argument(help="More names.", metavar="[NAME]...")] = None,
    tasks_from_records: Annotated[bool, typer.Option(help="Draw a new exam from the records' own tasks.")] = False,
    exam: Annotated[Path | None, typer.Option(help="An exam folder; default: the shipped exam.")] = None,
    shots: Annotated[int, typer.Option(min=1, help="Questions per task of a new exam.")] = DEFAULT_SHOTS,
    seed: Annotated[int, typer.Option(min=0, help="Of the new exam's draw.")] = 0,
    scorer: ScorerFolder = None,
    protocol: Annotated[str, typer.Option(help="How the questions were asked.")] = UNKNOWN_PROTOCOL,
    as_json: Json = False,
) -> None:
    """Build profiles from recorded outcomes on the exam's items; no candidate is called."""
    from msat_core.aptitude.aptitude_test import AptitudeTest

    if tasks_from_records and exam is not None:
        raise ConfigurationError("Give either --exam or --tasks-from-records, not both.")
    check_output(out_folder, folder=True)
    loaded = Records.load(records)
    names = split_names([*model, *(more_models or [])])
    if tasks_from_records:
        from msat_core.aptitude.own_exam import own_exam

        named, chosen = f"own tasks of {records.name}", loaded.select_candidates(names)
        with progress_bars() as advance:
            selected = own_exam(
                chosen, load_scorer(scorer), rule=OWN_TASKS, n_shots=shots, seed=seed, name=named, progress=advance
            )
        test = AptitudeTest(selected)
        test.exam.save(out_folder / "exam")
    else:
        test = AptitudeTest.load(exam)
    profiles = [test.profile_from_records(loaded, name, protocol=protocol) for name in names]
    for profile in profiles:
        profile.save(profile_file(out_folder, profile.candidate))
    _report_profiles(profiles, test, out_folder, as_json)


def _report_profiles(profiles: list[CapabilityProfile], test: AptitudeTest, out_folder: Path, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "exam": test.exam.digest,
                "n_tasks": len(test.exam.sheet.tasks),
                "n_shots": len(test.exam.sheet.shots),
                "profiles": {
                    p.candidate: {
                        "file": str(profile_file(out_folder, p.candidate)),
                        "accuracy": p.accuracy,
                        "interval": [p.interval.low, p.interval.high],
                        "n_shots": p.n_shots,
                    }
                    for p in profiles
                },
            }
        )
        return
    for p in profiles:
        out().print(
            f"{p.candidate}: {p.accuracy:.3f} [{p.interval.low:.3f}, {p.interval.high:.3f}] on {p.n_shots} shots, "
            f"written to {profile_file(out_folder, p.candidate)}"
        )


def profile_from_scores(
    table: Annotated[Path, typer.Argument(help="CSV or JSONL: task, accuracy, n_questions, …")],
    out_folder: Annotated[Path, typer.Option("--out", help="Folder for the profiles.")],
    model: Annotated[str | None, typer.Option(help="The candidate, for a table without a model column.")] = None,
    columns: Columns = None,
    percent: Annotated[bool, typer.Option(help="Accuracies are percentages.")] = False,
    as_json: Json = False,
) -> None:
    """Make coarse profiles from published accuracies, for models whose exam nobody wants to pay for."""
    check_output(out_folder, folder=True)
    profiles = published_profiles(table, columns=mapping(columns), model=model, percent=percent)
    files = [profile.save(profile_file(out_folder, profile.candidate)) for profile in profiles]
    if as_json:
        facts: dict[str, Any] = {
            p.candidate: {
                "file": str(file),
                "accuracy": p.accuracy,
                "interval": [p.interval.low, p.interval.high],
                "n_shots": p.n_shots,
                "coarse": True,
                "source": p.provenance.source,
            }
            for p, file in zip(profiles, files, strict=True)
        }
        print_json({"profiles": facts})
        return
    for p, file in zip(profiles, files, strict=True):
        out().print(
            f"{p.candidate}: {p.accuracy:.3f} [{p.interval.low:.3f}, {p.interval.high:.3f}], coarse, from "
            f"{p.provenance.source}, written to {file}",
            highlight=False,
        )
