"""The command line: `msat`.

Every command takes ``--json``: the result goes to standard output as one JSON object, everything else to
standard error. A user's mistake is one sentence on standard error and exit code 2.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import typer

from msat_core.cli import calibration, evaluation, exam, importing, records, routing
from msat_core.errors import MsatError

app = typer.Typer(name="msat", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.command("route")(routing.route)
app.command("bench")(routing.bench)
app.command("train")(records.train)
app.command("evaluate")(evaluation.evaluate)
app.command("calibrate")(calibration.calibrate)

_GROUPS: dict[str, tuple[str, dict[str, Callable[..., None]]]] = {
    "zoo": (
        "The candidates that may be routed to.",
        {"list": routing.zoo_list, "show": routing.zoo_show, "add": routing.zoo_add, "remove": routing.zoo_remove},
    ),
    "records": ("Who got what right.", {"import": importing.records_import, "check": records.check}),
    "profile": (
        "Exam results of one candidate.",
        {
            "run": exam.profile_run,
            "from-records": records.profile_from_records,
            "from-scores": importing.profile_from_scores,
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
