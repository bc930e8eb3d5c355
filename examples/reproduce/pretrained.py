"""Rebuild what ``msat_core/pretrained`` ships, step by step, and say what changed.

    python examples/reproduce/pretrained.py                  # all steps, exams to card
    python examples/reproduce/pretrained.py --skip encoder   # without the slow one: the shipped encoder is kept
    python examples/reproduce/pretrained.py --from scorer    # this step and those after it
    python examples/reproduce/pretrained.py --only zoo card
    python examples/reproduce/pretrained.py --install        # and put it in the place of what is shipped

Each run starts from a copy of what is shipped (``.cache/pretrained``), so that a step which does not run is represented
by what it made before. Files are compared byte by byte, then within the tolerance of what float noise does on another
machine; scores on 500 instructions of the records. Only a folder without a stale file is installed: one that reads
what has changed and was not made again.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from common import ROOT, records_folder, scores_folder
from pretrained_changes import Change, ScoreChange, changes, score_change
from pretrained_steps import CARD, ENCODER, INPUTS, LINKED, SCORER, SHEETS, SHOTS, STEPS, ZOO, Bench, Step

from msat_core import ConfigurationError, MsatError, pretrained
from msat_core.files import write_bytes

STAGING = ROOT / ".cache" / "pretrained"
SCORED = (*SHEETS, *SHOTS, *ENCODER, *SCORER, ZOO)  # what a score depends on


@dataclass(frozen=True)
class Report:
    """What a run found.

    Attributes:
        changes: of every file.
        stale: step and what it reads that changed, of steps that should have run too.
        scores: None where there is nothing to compare: nothing changed that is scored with, or a step is stale.
    """

    changes: tuple[Change, ...]
    stale: tuple[tuple[str, str], ...]
    scores: ScoreChange | None

    @property
    def changed(self) -> bool:
        """Is anything different beyond float noise?"""
        return any(change.state in ("changed", "new") for change in self.changes)

    def __str__(self) -> str:
        lines = [*map(str, self.changes)]
        lines += [f"stale: {step} reads {file}, which changed: run it too" for step, file in self.stale]
        return "\n".join([*lines, *([str(self.scores)] if self.scores else [])])


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the chosen steps, say what changed, install it if asked to."""
    given = _parser().parse_args(arguments)
    steps = chosen_steps(given.first, given.only, given.skip)
    if any("records" in step.reads for step in steps):
        records_folder()  # says so at once where there are none
    if Bench.linked and any("scores" in step.reads for step in steps):
        scores_folder()
    torch.set_num_threads(1)
    try:
        report = rebuild(steps, pretrained.FOLDER, Bench(STAGING))
        print(report)
        if given.install:
            print(install(report, STAGING, pretrained.FOLDER))
    except MsatError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


def chosen_steps(first: str | None = None, only: Sequence[str] = (), skip: Sequence[str] = ()) -> list[Step]:
    """All steps; or those from one on; or some; never those to skip."""
    names = [step.name for step in STEPS]
    kept = set(only) or set(names[names.index(first) :] if first else names)
    return [step for step in STEPS if step.name in kept - set(skip)]


def rebuild(steps: Sequence[Step], shipped: Path, bench: Bench) -> Report:
    """Run the steps in a copy of what is shipped, at the bench's folder, and compare the two.

    Raises:
        ConfigurationError: a step lacks a file that it reads, or did not make what it should.
    """
    shutil.rmtree(bench.folder, ignore_errors=True)
    for file in (file for step in STEPS for file in step.makes if (shipped / file).is_file()):
        write_bytes(bench.folder / file, (shipped / file).read_bytes())
    for number, step in enumerate(steps, start=1):
        started = time.monotonic()
        needed = [file for file in step.reads if file not in INPUTS and (bench.linked or file not in LINKED)]
        if missing := [file for file in needed if not (bench.folder / file).is_file()]:
            raise ConfigurationError(f"The step {step.name!r} reads {missing[0]}: run the step that makes it, too.")
        made = [file for file in step.makes if bench.linked or file not in LINKED]
        for file in made:
            (bench.folder / file).unlink(missing_ok=True)
        step.run(bench)
        if missing := [file for file in made if not (bench.folder / file).is_file()]:
            raise ConfigurationError(f"The step {step.name!r} made no {missing[0]}.")
        told = f"{step.name} ({number} of {len(steps)}): {time.monotonic() - started:.0f} s"
        print(told.ljust(60), file=sys.stderr, flush=True)  # over the line of progress
    found = tuple(changes(shipped, bench.folder))
    differing = [change.file for change in found if change.state != "unchanged"]
    others = [step for step in STEPS if step not in steps and (bench.linked or step.name != "links")]
    stale = tuple((step.name, file) for step in others for file in step.reads if file in differing)
    both = all((folder / file).is_file() for folder in (shipped, bench.folder) for file in SCORED)
    comparable = both and not stale and set(differing) - {CARD}
    return Report(found, stale, score_change(bench, shipped, bench.folder) if comparable else None)


def install(report: Report, folder: Path, shipped: Path) -> str:
    """Put every file that differs in its place, and say what was done; float noise alone is left.

    Raises:
        ConfigurationError: something is stale.
    """
    if report.stale:
        raise ConfigurationError("Not installed, because of what is stale: run those steps as well.")
    if not report.changed:
        return "Nothing to install."
    differing = [change.file for change in report.changes if change.state != "unchanged"]
    for file in differing:
        write_bytes(shipped / file, (folder / file).read_bytes())
    return f"Installed {', '.join(differing)}."


def _parser() -> argparse.ArgumentParser:
    names = [step.name for step in STEPS]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--from", dest="first", choices=names, metavar="STEP", help="this step and those after it")
    which.add_argument("--only", nargs="+", choices=names, default=(), metavar="STEP", help=", ".join(names))
    parser.add_argument("--skip", nargs="+", choices=names, default=(), metavar="STEP", help="not these")
    parser.add_argument("--install", action="store_true", help="replace what is shipped by what was built")
    return parser


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":  # by hashes of strings sympy orders what reasoning-gym asks
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "PYTHONHASHSEED": "0"})
    main()
