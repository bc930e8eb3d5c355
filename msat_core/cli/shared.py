"""What the commands share: options, output, progress, and where things are found."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from msat_core.documents import cache_root, file_stem
from msat_core.errors import ArtefactError, RecordsError
from msat_core.profiles import CapabilityProfile
from msat_core.routing.policy import Objective, RoutingPolicy

if TYPE_CHECKING:
    from collections.abc import Iterator

Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
RecordsFolder = Annotated[Path, typer.Argument(help="A records folder, or a folder of them.", metavar="RECORDS")]
ScorerFolder = Annotated[Path | None, typer.Option("--scorer", help="A scorer folder; default: the shipped one.")]
ObjectiveOption = Annotated[Objective, typer.Option("--objective", help="How scores become a choice.")]
UsdWeight = Annotated[float, typer.Option(help="value: score given up to save one USD a call.")]
Target = Annotated[float, typer.Option(help="target: the score that is good enough.")]
MaxUsd = Annotated[float | None, typer.Option(help="Price cap of one call in USD.")]

errors = Console(stderr=True)


def out() -> Console:
    """Standard output for people."""
    return Console()


def print_json(result: Any) -> None:  # noqa: ANN401 - any JSON value
    """Standard output for programs."""
    sys.stdout.write(json.dumps(result, ensure_ascii=False, allow_nan=False) + "\n")


def policy_of(objective: Objective, usd_weight: float, target: float, max_usd: float | None) -> RoutingPolicy:
    """The policy that the options state."""
    return RoutingPolicy(objective=objective, usd_weight=usd_weight, target=target, max_usd=max_usd)


def cache_folder() -> Path:
    """Where embeddings are kept."""
    return cache_root() / "embeddings"


@contextmanager
def progress_bars() -> Iterator[Callable[[str, int, int], None]]:
    """Progress on standard error: call the yielded function with (what, done, total)."""
    with Progress(console=errors, transient=True) as progress:
        tasks: dict[str, Any] = {}

        def advance(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=total)
            progress.update(tasks[what], completed=done, total=total)

        yield advance


def names_of(values: list[str]) -> list[str]:
    """Names given one by one or separated by commas, in order, once each."""
    return list(dict.fromkeys(name.strip() for value in values for name in value.split(",") if name.strip()))


def profile_file(folder: Path, candidate: str) -> Path:
    """Where a candidate's profile is kept in a folder of profiles."""
    return folder / f"{file_stem(candidate)}.json"


def load_profiles(folder: Path, names: list[str]) -> list[CapabilityProfile]:
    """The named profiles of a folder, or all of them, by file name, if none is named."""
    if not folder.is_dir():
        raise ArtefactError(f"{folder} is not a folder: expected one with profiles, as `msat profile` writes.")
    found = {profile.candidate: profile for profile in map(CapabilityProfile.load, sorted(folder.glob("*.json")))}
    missing = [name for name in names if name not in found]
    if missing or not found:
        raise ArtefactError(
            f"{folder} holds {'no profile of ' + repr(missing[0]) if missing else 'no profile'}; "
            f"it has {', '.join(found) or 'none'}: make it with `msat profile from-records`."
        )
    return [found[name] for name in names] if names else list(found.values())


def items_listed_in(path: Path) -> set[str]:
    """The ``item_id`` column of a Parquet or JSONL table."""
    import pyarrow as pa
    import pyarrow.json
    import pyarrow.parquet

    try:
        table = pa.parquet.read_table(path) if path.suffix == ".parquet" else pa.json.read_json(path)
        return set(table["item_id"].to_pylist())
    except (pa.ArrowInvalid, OSError, KeyError) as error:
        raise RecordsError(f"{path} cannot be read as a table with an item_id column ({error}).") from None
