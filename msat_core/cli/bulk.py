"""`msat route-file`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from msat_core.cli.shared import (
    POLICY,
    Columns,
    Device,
    Json,
    MaxUsd,
    ObjectiveOption,
    PolicyFile,
    ScorerFolder,
    Target,
    UsdWeight,
    ZooFile,
    check_output,
    mapping,
    new_table,
    out,
    policy_of,
    print_json,
    progress_bars,
)
from msat_core.routing.tags import TOP_SCORES

SHOWN = 10  # candidates


def route_file(
    source: Annotated[Path, typer.Argument(help="JSONL, CSV (.gz too) or Parquet, or a folder.", metavar="IN")],
    out_folder: Annotated[Path, typer.Option("--out", help="A folder for the parts; the same one to go on.")],
    zoo: ZooFile = None,
    scorer: ScorerFolder = None,
    objective: ObjectiveOption = POLICY.objective,
    usd_weight: UsdWeight = POLICY.usd_weight,
    target: Target = POLICY.target,
    max_usd: MaxUsd = POLICY.max_usd,
    policy: PolicyFile = None,
    columns: Columns = None,
    top_scores: Annotated[int, typer.Option(min=0, help="Scores of each row, the best first; 0: all.")] = TOP_SCORES,
    reasons: Annotated[bool, typer.Option("--reasons", help="Write why, too.")] = False,
    ray: Annotated[bool, typer.Option("--ray", help="With Ray's workers (RAY_ADDRESS, or here).")] = False,
    workers: Annotated[int | None, typer.Option(min=1, help="Of Ray; default: one a CPU.")] = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Route every row of a file, in parts; called again, it goes on where it stopped."""
    from msat_core.bulk.job import route_file as run
    from msat_core.routing.router import Router

    check_output(out_folder, folder=True)
    rule = policy_of(objective, usd_weight, target, max_usd, policy)
    router = Router.from_pretrained(scorer, zoo=zoo, policy=rule, device=device)
    with progress_bars() as advance:
        result = run(
            source,
            out_folder,
            router,
            columns=mapping(columns),
            top_scores=top_scores or None,
            reasons=reasons,
            ray=ray,
            workers=workers,
            progress=advance,
        )
    if as_json:
        print_json(result.to_json())
        return
    table = new_table("candidate", "rows")
    for name, n in list(result.candidates.items())[:SHOWN]:
        table.add_row(name, str(n))
    out().print(table)
    failed = f", {result.n_failed} of them not routed (see their `error`)" if result.n_failed else ""
    out().print(f"{result.n_rows} rows{failed} in {result.n_parts} parts, written to {result.out}")
