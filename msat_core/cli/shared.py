"""What the commands share: options, output, progress, and where things are found."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Column, Table

from msat_core import pretrained
from msat_core.errors import ConfigurationError, FileError
from msat_core.files import scratch_folder, writing
from msat_core.profiles import CapabilityProfile
from msat_core.routing.policy import Objective, RoutingPolicy
from msat_core.zoo import Zoo

if TYPE_CHECKING:
    from collections.abc import Iterator

    from msat_core.scoring.base import Scorer

Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
RecordsFolder = Annotated[Path, typer.Argument(help="A records folder, or a folder of them.", metavar="RECORDS")]
ScorerFolder = Annotated[Path | None, typer.Option("--scorer", help="A scorer folder; default: the shipped one.")]
ObjectiveOption = Annotated[Objective, typer.Option("--objective", help="How scores become a choice.")]
UsdWeight = Annotated[float, typer.Option(help="value: score given up to save one USD a call.")]
Target = Annotated[float, typer.Option(help="target: the score that is good enough.")]
PolicyFile = Annotated[Path | None, typer.Option("--policy", help="A routing policy, as `msat calibrate` writes it.")]
ProfilesFolder = Annotated[Path, typer.Option(help="A folder of profiles, with exam/ if the exam is one's own.")]
ZooNames = Annotated[str | None, typer.Option(help="Candidates, A,B,C; default: every profile.")]
Prices = Annotated[Path | None, typer.Option(help="JSON list or CSV of model, usd_per_mtok_in, usd_per_mtok_out.")]
MaxUsd = Annotated[float | None, typer.Option(help="Price cap of one call in USD.")]

Device = Annotated[str | None, typer.Option(help="Where it computes: cpu (the default), cuda.")]
ZooFile = Annotated[Path | None, typer.Option("--zoo", help="A zoo file; default: the shipped zoo.")]
Columns = Annotated[
    list[str] | None, typer.Option("--map", help="FIELD=COLUMN: the table's name of a field (repeat).", metavar="F=C")
]

POLICY = RoutingPolicy()  # whose defaults are the options'

errors = Console(stderr=True, markup=False, emoji=False)
SPOKEN_EVERY = 10  # seconds


WIDE = 100_000  # columns of what no terminal shows: a pipe, a log


def out() -> Console:
    """Standard output for people; nothing is cut where it is not a terminal that reads."""
    console = Console(markup=False, emoji=False)
    return console if console.is_terminal else Console(width=WIDE, markup=False, emoji=False)


def new_table(*columns: str, title: str | None = None) -> Table:
    """A table whose cells go on in the next line where they are longer than a terminal is wide."""
    return Table(*(Column(name, overflow="fold") for name in columns), title=title)


def check_output(path: Path | None, *, folder: bool = False, fresh: bool = False) -> None:
    """Raise FileError, before the work, where its result could not be written.

    Args:
        path: of the result; None for none.
        folder: whether the result is a folder, else a file.
        fresh: whether a folder must not hold anything yet.
    """
    if path is None:
        return
    if folder and path.exists() and not path.is_dir():
        raise FileError(f"{path} is a file, expected a folder for the result: name another place.")
    if not folder and path.exists() and not path.is_file():
        raise FileError(f"{path} is not a regular file: name another place.")
    if fresh and path.is_dir() and any(path.iterdir()):
        raise FileError(f"{path} already holds something: name a new folder, or remove that one first.")
    place = path if folder else path.parent
    with scratch_folder(place) as scratch, writing(place):
        (scratch / "probe").write_bytes(bytes(1 << 16))


def print_json(result: Any) -> None:  # noqa: ANN401 - any JSON value
    """Standard output for programs."""
    sys.stdout.write(json.dumps(result, ensure_ascii=False, allow_nan=False) + "\n")


def policy_of(
    objective: Objective, usd_weight: float, target: float, max_usd: float | None, file: Path | None = None
) -> RoutingPolicy:
    """The policy that the options state, or the one in the file; not both."""
    options = {"objective": objective, "usd_weight": usd_weight, "target": target, "max_usd": max_usd}
    stated = {name: value for name, value in options.items() if value != RoutingPolicy.model_fields[name].default}
    if file is None:
        return RoutingPolicy.of(stated)
    if stated:
        raise ConfigurationError(
            f"{file} already says how to choose: give either --policy or --objective, --target and the like."
        )
    return RoutingPolicy.load(file)


def load_scorer(folder: Path | None, device: str | None = None) -> Scorer:
    """The scorer in a folder, or the shipped one."""
    from msat_core.scoring import loading

    return loading.load(folder or pretrained.SCORER, device=device)


@contextmanager
def progress_bars() -> Iterator[Callable[[str, int, int], None]]:
    """Progress on standard error: call the yielded function with (what, done, total).

    Off a terminal that is a line every ``SPOKEN_EVERY`` seconds.
    """
    if not errors.is_terminal:
        yield _spoken()
        return
    with Progress(console=errors, transient=True) as progress:
        tasks: dict[str, Any] = {}

        def advance(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=total)
            progress.update(tasks[what], completed=done, total=total)

        yield advance


def _spoken() -> Callable[[str, int, int], None]:
    last = time.monotonic()

    def advance(what: str, done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= SPOKEN_EVERY:
            last = time.monotonic()
            errors.print(f"{what}: {done} of {total}", highlight=False, soft_wrap=True)

    return advance


def split_names(values: list[str]) -> list[str]:
    """Names given one by one or separated by commas, in order, once each."""
    return list(dict.fromkeys(name.strip() for value in values for name in value.split(",") if name.strip()))


def say_unpriced(zoo: Zoo, prices: Path | None) -> None:
    """Note which candidates a list of prices lacks."""
    without = [c.name for c in zoo if c.usd_per_mtok_in is None and c.usd_per_mtok_out is None]
    if prices is not None and without:
        errors.print(f"Note: {prices} has no price of {', '.join(without)}.")


def mapping(pairs: list[str] | None) -> dict[str, str]:
    """The FIELD=COLUMN pairs of ``--map``."""
    columns = {}
    for pair in pairs or []:
        name, equals, column = pair.partition("=")
        if not equals or not name.strip() or not column.strip():
            raise ConfigurationError(f"--map {pair!r}: expected FIELD=COLUMN, for example instruction=prompt.")
        columns[name.strip()] = column.strip()
    return columns


def result_cell(n_correct: float, n_shots: float, *, expected: bool) -> str:
    """Right answers and questions; where nobody sat for them, the share that is expected."""
    if not n_shots:
        return "–"
    return f"≈ {n_correct / n_shots:.0%}" if expected else f"{n_correct:.3g}/{n_shots:g}"


def with_interval(profile: CapabilityProfile) -> str:
    """An exam accuracy with its interval, for people."""
    return f"{profile.accuracy:.2f} [{profile.interval.low:.2f}, {profile.interval.high:.2f}]"
