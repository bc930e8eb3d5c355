"""`msat route`, `msat zoo`, `msat bench`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from msat_core import pretrained
from msat_core.cli.shared import (
    Json,
    MaxUsd,
    ObjectiveOption,
    PolicyFile,
    ScorerFolder,
    Target,
    UsdWeight,
    errors,
    names_of,
    out,
    policy_of,
    print_json,
)
from msat_core.exam import exams_beside
from msat_core.profiles import CapabilityProfile
from msat_core.zoo import Candidate, Zoo

if TYPE_CHECKING:
    from msat_core.routing.policy import RoutingDecision
    from msat_core.routing.router import Router

ZooFile = Annotated[Path | None, typer.Option("--zoo", help="A zoo file; default: the shipped zoo.")]
OwnZooFile = Annotated[Path, typer.Option("--zoo", help="A zoo file of your own.")]

EXPLAINED_TASKS = 4
SHOWN = 10  # candidates of a long zoo


def route(
    instruction: Annotated[str, typer.Argument(help="The text to route; - reads standard input.")],
    zoo: ZooFile = None,
    scorer: ScorerFolder = None,
    objective: ObjectiveOption = "quality",
    usd_weight: UsdWeight = 0.0,
    target: Target = 0.8,
    max_usd: MaxUsd = None,
    policy: PolicyFile = None,
    allow: Annotated[list[str] | None, typer.Option(help="Only these candidates (repeat, or A,B).")] = None,
    deny: Annotated[list[str] | None, typer.Option(help="Not these candidates.")] = None,
    explain: Annotated[bool, typer.Option(help="Show exam results in the tasks nearest to the text.")] = False,
    show_all: Annotated[bool, typer.Option("--all", help="Show every candidate of a long zoo.")] = False,
    as_json: Json = False,
) -> None:
    """Choose a candidate for one instruction and say why."""
    from msat_core.routing.router import Router

    text = sys.stdin.read() if instruction == "-" else instruction
    rule = policy_of(objective, usd_weight, target, max_usd, policy)
    lists = {name: frozenset(names_of(found)) for name, found in (("allow", allow), ("deny", deny)) if found}
    router = Router.from_pretrained(scorer, zoo=zoo, policy=rule.changed(**lists))
    decision = router.route(text)
    if as_json:
        print_json(decision.model_dump(mode="json"))
        return
    shown = len(router.zoo) if show_all else SHOWN
    out().print(_decision_table(decision, router.zoo, shown))
    if len(router.zoo) > shown:
        out().print(f"… and {len(router.zoo) - shown} more (--all)")
    out().print(decision.reason)
    if decision.truncated_tokens:
        out().print(f"The last {decision.truncated_tokens} tokens of the instruction were not read.")
    if explain:
        out().print(_task_table(router, decision, text))


def _decision_table(decision: RoutingDecision, zoo: Zoo, shown: int) -> Table:
    table = Table("", "candidate", "P(correct)", "USD per 1000 calls", "exam", "note")
    order = [*decision.ranking, *decision.excluded]
    for name in order[:shown]:
        cost, profile = decision.costs_usd[name], zoo[name].profile
        table.add_row(
            "→" if name == decision.candidate else "",
            name,
            f"{decision.scores[name]:.2f}",
            "?" if cost is None else f"{1000 * cost:.3f}",
            _with_interval(profile),
            decision.excluded.get(name, "coarse profile" if profile.provenance.coarse else ""),
        )
    return table


def _with_interval(profile: CapabilityProfile) -> str:
    return f"{profile.accuracy:.2f} [{profile.interval.low:.2f}, {profile.interval.high:.2f}]"


def _task_table(router: Router, decision: RoutingDecision, text: str) -> Table:
    scores = router.score([text])
    row = [] if scores.task_weights is None else scores.task_weights[0].tolist()
    weights = dict(zip(scores.tasks, row, strict=True))
    nearest = sorted(weights, key=lambda task: -weights[task])[:EXPLAINED_TASKS]
    table = Table("candidate", *nearest, title="right answers in the exam tasks nearest to the instruction")
    for name in decision.ranking[:SHOWN]:
        results = {result.task: result for result in router.zoo[name].profile.results}
        cells = [results[t] if t in results else None for t in nearest]
        table.add_row(name, *(f"{c.n_correct:g}/{c.n_shots}" if c and c.n_shots else "–" for c in cells))
    return table


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
            _with_interval(profile),
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
        f"exam accuracy {_with_interval(candidate.profile)}; {provenance.source}; asked {provenance.protocol}",
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


def bench(
    repeats: Annotated[int, typer.Option(min=1, help="Calls of each kind.")] = 200, as_json: Json = False
) -> None:
    """Time routing beside a bare encoder forward of the same text, in one run."""
    from msat_core.evaluation.bench import run_bench

    result = run_bench(repeats)
    if as_json:
        print_json(result)
        return
    table = Table("what", "median", title=f"median of {repeats}, interleaved")
    for name, value in result.items():
        table.add_row(name, f"{value:.3f}")
    out().print(table)
