"""The command line: `msat`.

Every command takes ``--json``: the result goes to standard output as one JSON object, everything else to
standard error. A user's mistake is one sentence on standard error and exit code 2.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated

import typer

import msat_core
from msat_core.cli import evaluate, exam, profile, records, routing, train, trial, zoo
from msat_core.cli.shared import out
from msat_core.errors import MsatError

app = typer.Typer(name="msat", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


def _say_version(wanted: bool) -> None:
    if wanted:
        out().print(f"msat {msat_core.__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Say which version this is.", callback=_say_version, is_eager=True)
    ] = False,
) -> None:
    """Knows, before asking, which LLM will get an instruction right."""


app.command("route")(routing.route)
app.command("bench")(routing.bench)
app.command("train")(train.train)
app.command("evaluate")(evaluate.evaluate)
app.command("calibrate")(evaluate.calibrate)
app.command("trial")(trial.trial)

_GROUPS: dict[str, tuple[str, dict[str, Callable[..., None]]]] = {
    "zoo": (
        "The candidates that may be routed to.",
        {
            "list": zoo.zoo_list,
            "show": zoo.zoo_show,
            "add": zoo.zoo_add,
            "set": zoo.zoo_set,
            "refresh": zoo.zoo_refresh,
            "remove": zoo.zoo_remove,
        },
    ),
    "records": ("Who got what right.", {"import": records.records_import, "check": records.check}),
    "profile": (
        "Exam results of one candidate.",
        {
            "run": profile.profile_run,
            "from-records": profile.profile_from_records,
            "from-scores": profile.profile_from_scores,
        },
    ),
    "aptitude": ("The exam itself.", {"select": exam.aptitude_select}),
}
for _name, (_help, _commands) in _GROUPS.items():
    _group = typer.Typer(help=_help, no_args_is_help=True)
    for _command, _function in _commands.items():
        _group.command(_command)(_function)
    app.add_typer(_group, name=_name)


def main() -> None:
    """Run `msat`."""
    try:
        app()
    except MsatError as error:
        print(f"msat: {error}", file=sys.stderr)  # noqa: T201 - the command's one sentence
        sys.exit(2)
