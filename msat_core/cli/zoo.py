"""`msat zoo list`, `show`, `add`, `remove`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from msat_core import pretrained
from msat_core.cli.shared import (
    Json,
    ZooFile,
    errors,
    out,
    print_json,
    with_interval,
)
from msat_core.exam import exams_beside
from msat_core.profiles import CapabilityProfile
from msat_core.zoo import Candidate, Zoo

OwnZooFile = Annotated[Path, typer.Option("--zoo", help="A zoo file of your own.")]


def zoo_list(zoo: ZooFile = None, as_json: Json = False) -> None:
    """List the candidates of a zoo."""
    candidates = Zoo.load(zoo or pretrained.ZOO)
    if as_json:
        print_json({"candidates": [_summary(candidate) for candidate in candidates]})
        return
    table = Table("candidate", "exam", "shots", "USD/Mtok in", "USD/Mtok out", "window", "")
    for candidate in candidates:
        profile = candidate.profile
        table.add_row(
            candidate.name,
            with_interval(profile),
            str(profile.n_shots),
            *("?" if v is None else f"{v:g}" for v in (candidate.usd_per_mtok_in, candidate.usd_per_mtok_out)),
            "?" if candidate.context_window is None else str(candidate.context_window),
            "coarse" if profile.provenance.coarse else "",
        )
    out().print(table)


def zoo_show(name: str, zoo: ZooFile = None, as_json: Json = False) -> None:
    """Show one candidate with its result in every task."""
    candidate = Zoo.load(zoo or pretrained.ZOO)[name]
    if as_json:
        print_json(candidate.model_dump(mode="json"))
        return
    table = Table("task", "keywords", "right", "95% interval", title=candidate.name)
    for result in candidate.profile.results:
        table.add_row(
            result.task,
            ", ".join(result.keywords),
            f"{result.n_correct:g}/{result.n_shots}",
            f"[{result.interval.low:.2f}, {result.interval.high:.2f}]",
        )
    out().print(table)
    provenance = candidate.profile.provenance
    out().print(
        f"exam accuracy {with_interval(candidate.profile)}; {provenance.source}; asked {provenance.protocol}",
        highlight=False,
    )
    for warning in provenance.sitting.warnings if provenance.sitting else ():
        out().print(f"Note: {warning}", highlight=False)


def zoo_add(
    profile: Annotated[Path, typer.Argument(help="A profile file.")],
    zoo: OwnZooFile,
    alias: Annotated[list[str] | None, typer.Option(help="Another name it is known by (repeat).")] = None,
    usd_per_mtok_in: Annotated[float | None, typer.Option(help="USD per million input tokens.")] = None,
    usd_per_mtok_out: Annotated[float | None, typer.Option(help="USD per million output tokens.")] = None,
    context_window: Annotated[int | None, typer.Option(help="Tokens.")] = None,
    tools: Annotated[bool | None, typer.Option("--tools/--no-tools", help="Can it call tools?")] = None,
    with_shipped: Annotated[bool, typer.Option(help="Start a new file from the shipped zoo.")] = False,
    as_json: Json = False,
) -> None:
    """Add a profiled candidate to a zoo file, which is made if it does not exist."""
    candidates = Zoo.load(zoo if zoo.exists() else pretrained.ZOO) if zoo.exists() or with_shipped else Zoo()
    added = Candidate(
        profile=CapabilityProfile.load(profile),
        aliases=tuple(alias or ()),
        usd_per_mtok_in=usd_per_mtok_in,
        usd_per_mtok_out=usd_per_mtok_out,
        context_window=context_window,
        tools=tools,
    )
    candidates.add(added)
    for exam in exams_beside(profile.parent):
        if exam.digest == added.profile.exam_digest:
            exam.save(zoo.parent / "exams" / exam.digest[:16])
    candidates.save(zoo)
    _warn_of_mixture(candidates)
    _say_zoo(candidates, f"added {added.name} to {zoo}", as_json)


def zoo_remove(name: str, zoo: OwnZooFile, as_json: Json = False) -> None:
    """Remove a candidate from a zoo file."""
    candidates = Zoo.load(zoo)
    removed = candidates.remove(name)
    candidates.save(zoo)
    _say_zoo(candidates, f"removed {removed.name} from {zoo}", as_json)


def _warn_of_mixture(zoo: Zoo) -> None:
    """Say where profiles of a zoo were not got in the same way: their accuracies do not compare as they stand."""
    protocols = sorted({candidate.profile.provenance.protocol for candidate in zoo})
    if len(protocols) > 1:
        errors.print(f"Note: the zoo's exams were asked in different ways ({', '.join(protocols)}).", highlight=False)
    exams = sorted({candidate.profile.exam_digest[:12] or "published scores" for candidate in zoo})
    if len(exams) > 1:
        errors.print(
            f"Note: the zoo's candidates sat different exams ({', '.join(exams)}). They are compared through what the "
            "exams' tasks mean; their plain accuracies do not compare.",
            highlight=False,
        )


def _say_zoo(zoo: Zoo, what: str, as_json: bool) -> None:
    if as_json:
        print_json({"candidates": list(zoo.names)})
    else:
        out().print(f"{what}: now {len(zoo)} candidates.")


def _summary(candidate: Candidate) -> dict[str, Any]:
    data = candidate.model_dump(mode="json", exclude={"profile"})
    profile = candidate.profile
    return {
        "name": candidate.name,
        **data,
        "accuracy": profile.accuracy,
        "interval": [profile.interval.low, profile.interval.high],
        "n_shots": profile.n_shots,
        "coarse": profile.provenance.coarse,
        "protocol": profile.provenance.protocol,
    }
