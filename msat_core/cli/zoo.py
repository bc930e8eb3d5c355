"""`msat zoo list`, `show`, `add`, `set`, `refresh`, `remove`."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Column, Table

from msat_core import pretrained
from msat_core.candidates import Candidate
from msat_core.cli.shared import (
    Json,
    ZooFile,
    check_output,
    errors,
    new_table,
    out,
    print_json,
    result_cell,
    with_interval,
)
from msat_core.errors import ConfigurationError
from msat_core.exam import exams_beside
from msat_core.facts import FIELDS, today
from msat_core.price_library import library_version
from msat_core.price_tables import read_price_table
from msat_core.profiles import CapabilityProfile
from msat_core.zoo import Zoo, looked_up

OwnZooFile = Annotated[Path, typer.Option("--zoo", help="A zoo file of your own.")]


Alias = Annotated[list[str] | None, typer.Option(help="Another name it is known by (repeat).")]
UsdIn = Annotated[float | None, typer.Option(help="USD per million input tokens.")]
UsdOut = Annotated[float | None, typer.Option(help="USD per million output tokens.")]
UsdCachedIn = Annotated[float | None, typer.Option(help="USD per million input tokens read from the cache.")]
UsdCacheWrite = Annotated[float | None, typer.Option(help="USD per million input tokens written to the cache.")]
Window = Annotated[int | None, typer.Option(help="Tokens it can take.")]
MaxOutput = Annotated[int | None, typer.Option(help="Most tokens of one answer.")]
Modalities = Annotated[list[str] | None, typer.Option("--modality", help="What it takes beside text (repeat).")]
Tools = Annotated[bool | None, typer.Option("--tools/--no-tools", help="Can it call tools?")]
Reasoning = Annotated[bool | None, typer.Option("--reasoning/--no-reasoning", help="Does it think unseen?")]
Released = Annotated[str | None, typer.Option(help="ISO date.")]
WithShipped = Annotated[bool, typer.Option(help="Start a new file from the shipped zoo.")]


def zoo_list(zoo: ZooFile = None, as_json: Json = False) -> None:
    """List the candidates of a zoo with their facts; ? is what nobody has stated."""
    candidates = Zoo.load(zoo or pretrained.ZOO)
    if as_json:
        print_json({"candidates": [_summary(candidate) for candidate in candidates]})
        return
    columns = ("exam", "USD/Mtok in", "out", "window", "takes", "tools", "facts", "")
    table = Table(Column("candidate", overflow="fold", min_width=16), *columns)
    for candidate in candidates:
        profile = candidate.profile
        table.add_row(
            candidate.name,
            with_interval(profile),
            *("?" if v is None else f"{v:g}" for v in (candidate.usd_per_mtok_in, candidate.usd_per_mtok_out)),
            "?" if candidate.context_window is None else f"{candidate.context_window / 1000:g}k",
            "?" if candidate.modalities is None else ", ".join(sorted(candidate.modalities)),
            {None: "?", True: "yes", False: "no"}[candidate.tools],
            ", ".join(sorted({f"{fact.source} {fact.date}" for fact in candidate.facts.values()})),
            "" if candidate.has_results and not profile.provenance.coarse else _evidence(candidate),
        )
    out().print(table)


def _evidence(candidate: Candidate) -> str:
    return "coarse" if candidate.has_results else f"no results yet: as {candidate.profile.provenance.borrowed_from}"


def zoo_show(name: str, zoo: ZooFile = None, as_json: Json = False) -> None:
    """Show one candidate with its result in every task."""
    candidate = Zoo.load(zoo or pretrained.ZOO)[name]
    if as_json:
        print_json(candidate.model_dump(mode="json"))
        return
    table = new_table("task", "keywords", "right", "95% interval", title=candidate.name)
    for result in candidate.profile.results:
        table.add_row(
            result.task,
            ", ".join(result.keywords),
            result_cell(result.n_correct, result.n_shots, expected=candidate.profile.provenance.is_expected),
            f"[{result.interval.low:.2f}, {result.interval.high:.2f}]",
        )
    out().print(table)
    provenance = candidate.profile.provenance
    out().print(
        f"expected exam accuracy {with_interval(candidate.profile)}; {provenance.source}"
        if provenance.is_expected
        else f"exam accuracy {with_interval(candidate.profile)}; {provenance.source}; asked {provenance.protocol}",
        highlight=False,
    )
    for warning in provenance.sitting.warnings if provenance.sitting else ():
        out().print(f"Note: {warning}", highlight=False)


def zoo_add(
    profile: Annotated[Path, typer.Argument(help="A profile file.")],
    zoo: OwnZooFile,
    alias: Alias = None,
    usd_per_mtok_in: UsdIn = None,
    usd_per_mtok_out: UsdOut = None,
    context_window: Window = None,
    modality: Modalities = None,
    tools: Tools = None,
    replace: Annotated[bool, typer.Option("--replace", help="Take the place of the candidate of this name.")] = False,
    with_shipped: WithShipped = False,
    as_json: Json = False,
) -> None:
    """Add a profiled candidate to a zoo file, which is made if it does not exist.

    Facts that are not given come from the installed price library, where it knows the candidate's name; `msat zoo set`
    states more.
    """
    check_output(zoo)
    candidates = _opened(zoo, with_shipped) if zoo.exists() or with_shipped else Zoo()
    stated = _stated(
        usd_per_mtok_in=usd_per_mtok_in,
        usd_per_mtok_out=usd_per_mtok_out,
        context_window=context_window,
        modalities=modality,
        tools=tools,
    )
    plain = Candidate(profile=CapabilityProfile.load(profile), aliases=tuple(alias or ()))
    added = looked_up(plain.stated(stated, source="user", on=today()), datetime.now(timezone.utc))
    candidates.add(added, replace=replace)
    for exam in exams_beside(profile.parent):
        if exam.digest == added.profile.exam_digest:
            exam.save(zoo.parent / "exams" / exam.digest[:16])
    candidates.save(zoo)
    _warn_of_mixture(candidates)
    _say_zoo(candidates, f"added {added.name} to {zoo}", as_json)


def zoo_set(
    zoo: OwnZooFile,
    name: Annotated[str | None, typer.Argument(help="Whose facts; a name or alias.")] = None,
    usd_per_mtok_in: UsdIn = None,
    usd_per_mtok_out: UsdOut = None,
    usd_per_mtok_cached_in: UsdCachedIn = None,
    usd_per_mtok_cache_write: UsdCacheWrite = None,
    context_window: Window = None,
    max_output_tokens: MaxOutput = None,
    modality: Modalities = None,
    tools: Tools = None,
    reasoning: Reasoning = None,
    released: Released = None,
    unknown: Annotated[list[str] | None, typer.Option(help="A fact to forget (repeat).", metavar="FACT")] = None,
    prices: Annotated[Path | None, typer.Option(help="Facts of many candidates: CSV or JSON.")] = None,
    with_shipped: WithShipped = False,
    as_json: Json = False,
) -> None:
    """State prices, limits and abilities of candidates yourself: they count before anybody else's."""
    stated = _stated(
        usd_per_mtok_in=usd_per_mtok_in,
        usd_per_mtok_out=usd_per_mtok_out,
        usd_per_mtok_cached_in=usd_per_mtok_cached_in,
        usd_per_mtok_cache_write=usd_per_mtok_cache_write,
        context_window=context_window,
        max_output_tokens=max_output_tokens,
        modalities=modality,
        tools=tools,
        reasoning=reasoning,
        released=released,
    )
    stated |= dict.fromkeys(fact.replace("-", "_") for fact in unknown or ())
    if (name is None) == (prices is None) or (prices is not None and stated) or (name is not None and not stated):
        raise ConfigurationError("Give either a candidate's name and its facts, or --prices FILE.")
    check_output(zoo)
    candidates = _opened(zoo, with_shipped)
    if prices is None:
        what = f"set {', '.join(stated)} of {candidates.set(str(name), **stated).name} in {zoo}"
    else:
        table = read_price_table(prices)
        strangers = candidates.set_all(table)
        what = f"set facts of {len(table) - len(strangers)} candidates in {zoo}"
        if strangers:
            errors.print(f"Note: not in the zoo: {', '.join(strangers)}.", highlight=False, soft_wrap=True)
    candidates.save(zoo)
    _say_zoo(candidates, what, as_json)


def zoo_refresh(
    zoo: ZooFile = None,
    at: Annotated[datetime | None, typer.Option(help="The instant of the prices (UTC); default: now.")] = None,
    as_json: Json = False,
) -> None:
    """Read prices and windows from the installed price library again, and say what has changed.

    Facts that you have set stay. Without --zoo, the shipped zoo is compared and nothing is written.
    """
    check_output(zoo)
    candidates = Zoo.load(zoo or pretrained.ZOO)
    changes = candidates.refresh(at=(at or datetime.now(timezone.utc)).replace(tzinfo=timezone.utc))
    if zoo is not None:
        candidates.save(zoo)
    if as_json:
        print_json({"library": library_version(), "changes": [asdict(change) for change in changes]})
        return
    for change in changes:
        old, new = ("unknown" if value is None else f"{value:g}" for value in (change.old, change.new))
        out().print(f"{change.candidate}: {change.field} {old} → {new}", highlight=False, soft_wrap=True)
    where = f"written to {zoo}" if zoo is not None else "nothing written: give --zoo FILE to keep them"
    out().print(f"{len(changes)} facts changed by {library_version()}; {where}.", highlight=False, soft_wrap=True)


def _opened(zoo: Path, with_shipped: bool) -> Zoo:
    return Zoo.load(pretrained.ZOO if with_shipped and not zoo.exists() else zoo)


def _stated(**options: Any) -> dict[str, Any]:  # noqa: ANN401 - facts by field
    """The facts that were given."""
    stated = {field: value for field, value in options.items() if value is not None}
    if "modalities" in stated:
        stated["modalities"] = {"text", *stated["modalities"]}
    return stated


def zoo_remove(name: str, zoo: OwnZooFile, as_json: Json = False) -> None:
    """Remove a candidate from a zoo file."""
    check_output(zoo)
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
        **dict.fromkeys(FIELDS),
        **data,
        "accuracy": profile.accuracy,
        "interval": [profile.interval.low, profile.interval.high],
        "n_shots": profile.n_shots,
        "coarse": profile.provenance.coarse,
        "protocol": profile.provenance.protocol,
    }
