"""`msat aptitude select`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from msat_core.aptitude.exam_selection import DEFAULT_RULE, DEFAULT_SHOTS, DEFAULT_TASKS, RULES
from msat_core.cli.shared import (
    Json,
    RecordsFolder,
    ScorerFolder,
    check_output,
    load_scorer,
    out,
    print_json,
    progress_bars,
)
from msat_core.records import Records


def aptitude_select(
    records: RecordsFolder,
    out_folder: Annotated[Path, typer.Option("--out", help="Folder for the exam.")],
    tasks: Annotated[int, typer.Option(min=1, help="Most tasks.")] = DEFAULT_TASKS,
    shots: Annotated[int, typer.Option(min=1, help="Questions of each task.")] = DEFAULT_SHOTS,
    rule: Annotated[str, typer.Option(help=f"{', '.join(RULES)}.")] = DEFAULT_RULE,
    name: Annotated[str | None, typer.Option(help="The exam's name, for people.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the draw.")] = 0,
    scorer: ScorerFolder = None,
    as_json: Json = False,
) -> None:
    """Build an exam from your own questions: those that tell your candidates apart, spread over your tasks."""
    from msat_core.aptitude.own_exam import own_exam

    check_output(out_folder, folder=True, fresh=True)
    loaded = Records.load(records)
    named = name or f"{records.name}, {tasks} tasks × {shots}"
    with progress_bars() as advance:
        exam = own_exam(
            loaded,
            load_scorer(scorer),
            rule=rule,
            n_tasks=tasks,
            n_shots=shots,
            seed=seed,
            name=named,
            progress=advance,
        )
    exam.save(out_folder)
    facts: dict[str, Any] = {
        "exam": exam.digest,
        "out": str(out_folder),
        "rule": rule,
        "n_tasks": len(exam.sheet.tasks),
        "n_shots": len(exam.sheet.shots),
    }
    if as_json:
        print_json(facts)
    else:
        out().print(f"{facts['n_shots']} questions in {facts['n_tasks']} tasks, written to {out_folder}")
