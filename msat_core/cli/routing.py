"""`msat route`, `msat bench`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from msat_core.cli.shared import (
    POLICY,
    Device,
    Json,
    MaxUsd,
    ObjectiveOption,
    PolicyFile,
    ScorerFolder,
    Target,
    UsdWeight,
    ZooFile,
    errors,
    new_table,
    out,
    policy_of,
    print_json,
    result_cell,
    split_names,
    with_interval,
)
from msat_core.zoo import Zoo

if TYPE_CHECKING:
    from msat_core.routing.decision import RoutingDecision
    from msat_core.routing.router import Router

EXPLAINED_TASKS = 4  # nearest to the instruction; they fit beside each other on a screen
SHOWN = 10  # candidates of a long zoo


def route(
    instruction: Annotated[str, typer.Argument(help="The text to route; - reads standard input.")],
    zoo: ZooFile = None,
    scorer: ScorerFolder = None,
    objective: ObjectiveOption = POLICY.objective,
    usd_weight: UsdWeight = POLICY.usd_weight,
    target: Target = POLICY.target,
    max_usd: MaxUsd = POLICY.max_usd,
    policy: PolicyFile = None,
    allow: Annotated[list[str] | None, typer.Option(help="Only these candidates (repeat, or A,B).")] = None,
    deny: Annotated[list[str] | None, typer.Option(help="Not these candidates.")] = None,
    explain: Annotated[bool, typer.Option(help="Show exam results in the tasks nearest to the text.")] = False,
    show_all: Annotated[bool, typer.Option("--all", help="Show every candidate of a long zoo.")] = False,
    decisions: Annotated[Path | None, typer.Option(help="A log to add the decision to.")] = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Choose a candidate for one instruction and say why."""
    from msat_core.routing.router import Router

    text = sys.stdin.read() if instruction == "-" else instruction
    rule = policy_of(objective, usd_weight, target, max_usd, policy)
    lists = {name: frozenset(split_names(names)) for name, names in (("allow", allow), ("deny", deny)) if names}
    router = Router.from_pretrained(scorer, zoo=zoo, policy=rule.changed(**lists), decisions=decisions, device=device)
    decision = router.route(text)
    if as_json:
        nearest = {"nearest_tasks": _nearest_tasks(router, decision, text)} if explain else {}
        print_json({**decision.model_dump(mode="json"), **nearest})
        return
    shown = len(router.zoo) if show_all else SHOWN
    out().print(_decision_table(decision, router.zoo, shown))
    if len(router.zoo) > shown:
        out().print(f"… and {len(router.zoo) - shown} more (--all)")
    out().print(decision.reason)
    if decision.truncated_tokens:
        out().print(f"The last {decision.truncated_tokens} tokens of the instruction were not read.")
    if explain:
        out().print(_distance_line(decision))
        out().print(_task_table(router, decision, text))


def _decision_table(decision: RoutingDecision, zoo: Zoo, shown: int) -> Table:
    table = new_table("", "candidate", "P(correct)", "USD per 1000 calls", "exam", "note")
    order = list(dict.fromkeys([*decision.ranking, *decision.excluded, *decision.scores]))
    for name in order[:shown]:
        profile = zoo[name].profile
        note = "coarse profile" if profile.provenance.coarse else ""
        if name == decision.recommended != decision.candidate:
            note = "would be chosen"
        table.add_row(
            "→" if name == decision.candidate else "",
            name,
            f"{decision.scores[name]:.2f}",
            _cost_cell(decision, name),
            with_interval(profile),
            decision.excluded.get(name, note),
        )
    return table


def _cost_cell(decision: RoutingDecision, name: str) -> str:
    """Expected USD per 1,000 calls; where only the length of the answers is unknown, how list prices compare."""
    cost, ratio = decision.costs_usd[name], decision.list_price_ratio(name)
    if cost is not None:
        return f"{1000 * cost:.3f}"
    return "?" if ratio is None else f"? (list price × {ratio:.3g})"


def _nearest_tasks(router: Router, decision: RoutingDecision, text: str) -> dict[str, dict[str, list[float] | None]]:
    """By task, nearest first, and candidate: right answers and questions in the exam; None where it was not asked."""
    scores = router.score([text])
    row = [] if scores.task_weights is None else scores.task_weights[0].tolist()
    weights = dict(zip(scores.tasks, row, strict=True))
    counts: dict[str, dict[str, list[float] | None]] = {}
    for task in sorted(weights, key=lambda task: -weights[task])[:EXPLAINED_TASKS]:
        counts[task] = {}
        for name in decision.ranking[:SHOWN]:
            results = {r.task: [r.n_correct, r.n_shots] for r in router.zoo[name].profile.results if r.n_shots}
            counts[task][name] = results.get(task)
    return counts


def _task_table(router: Router, decision: RoutingDecision, text: str) -> Table:
    nearest = _nearest_tasks(router, decision, text)
    table = new_table(
        "candidate",
        *nearest,
        title="right answers (≈ expected from published scores) in the exam tasks nearest to the instruction",
    )
    for name in decision.ranking[:SHOWN]:
        cells = [results[name] for results in nearest.values()]
        expected = router.zoo[name].profile.provenance.is_expected
        table.add_row(name, *("–" if cell is None else result_cell(*cell, expected=expected) for cell in cells))
    return table


def _distance_line(decision: RoutingDecision) -> str:
    """How far the instruction is from what the chosen candidate was tested on."""
    from msat_core.scoring.base import FAR

    if decision.distance is None:
        return "distance from what it was tested on: unknown"
    reach = "far" if decision.distance > FAR else "within"
    return f"distance from what it was tested on: {decision.distance:.2f} ({reach}; from {FAR:g} on a text is far)"


def bench(
    repeats: Annotated[int, typer.Option(min=5, help="Rounds of single texts; batches take fewer.")] = 100,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Time routing beside a bare forward of the encoder and beside other routers that are installed, in one run."""
    from msat_core.evaluation.speed.bench import run_bench

    rows = run_bench(repeats, device=device, tell=lambda what: errors.print(f"timing {what}", highlight=False))
    if as_json:
        print_json({"device": device or "cpu", "rows": [asdict(row) for row in rows]})
        return
    table = new_table("section", "what", "size", "p50 ms", "p99 ms", "ratio", title=f"{repeats} rounds, taking turns")
    for row in rows:
        table.add_row(row.section, row.what, row.size, f"{row.p50_ms:.2f}", f"{row.p99_ms:.2f}", f"{row.ratio:.2f}")
    out().print(table)
