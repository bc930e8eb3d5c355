"""The command line: `msat`.

Every command takes ``--json``: the result goes to standard output as one JSON object, everything else to
standard error. A user's mistake is one sentence on standard error and exit code 2.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Annotated

import typer

import msat_core
from msat_core.cli import bulk, evaluate, exam, profile, profile_run, records, routing, train, trial, zoo
from msat_core.cli.shared import out
from msat_core.errors import MsatError, extras

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
    """Estimates, before asking, which LLM will get an instruction right."""


app.command("route")(routing.route)
app.command("route-file")(bulk.route_file)
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
            "run": profile_run.profile_run,
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
        with extras():
            app()
    except MsatError as error:
        _fail(str(error))
    except BrokenPipeError:  # whoever read has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        _fail(f"{error.filename or 'A file'} cannot be used ({error.strerror or error}): name another, or make room.")
    except UnicodeError as error:
        _fail(f"A text is not UTF-8 ({error.reason if isinstance(error, UnicodeDecodeError) else error}).")


def _fail(sentence: str) -> None:
    print(f"msat: {sentence}", file=sys.stderr)  # noqa: T201 - the command's one sentence
    sys.exit(2)
