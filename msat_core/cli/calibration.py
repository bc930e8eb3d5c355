"""`msat calibrate`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from msat_core.cli.shared import (
    Json,
    Prices,
    ProfilesFolder,
    RecordsFolder,
    ScorerFolder,
    ZooNames,
    cache_folder,
    out,
    print_json,
    progress_bars,
    trial_of,
)
from msat_core.errors import ConfigurationError
from msat_core.records import Records
from msat_core.routing.policy import RoutingPolicy


def calibrate(
    records: RecordsFolder,
    profiles: ProfilesFolder,
    target: Annotated[float, typer.Option(help="Accuracy that the routed answers shall have.")],
    prices: Prices = None,
    zoo: ZooNames = None,
    scorer: ScorerFolder = None,
    confidence: Annotated[float, typer.Option(help="Of the guarantee.")] = 0.95,
    out_file: Annotated[Path | None, typer.Option("--out", help="Write the policy, for --policy.")] = None,
    as_json: Json = False,
) -> None:
    """Find the threshold under which the cheapest good-enough candidate is right often enough, guaranteed.

    With probability CONFIDENCE over the draw of the records, routed answers to new instructions of the same
    kind are right at a rate of TARGET or more. The records must be of nobody's exam or training.
    """
    from msat_core.evaluation.guarantee import calibrate_target
    from msat_core.evaluation.items import evaluation_items, item_costs, score_items

    trial = trial_of(profiles, zoo, prices, scorer)
    unknown = np.array([c.usd_per_mtok_in is None or c.usd_per_mtok_out is None for c in trial.zoo])
    if unknown.all():
        raise ConfigurationError("The cheapest candidate cannot be found without prices: give --prices.")
    items = evaluation_items(Records.load(records), trial.zoo, trial.exam_texts)
    items = items.select_items(_first_of_each_text(items))
    with progress_bars() as advance:
        scores = score_items(trial.scorer, items, trial.profiles, cache_folder(), progress=advance)
    costs = np.where(unknown[None, :], np.nan, item_costs(items, trial.zoo))
    outcomes = items.outcomes.T.astype(float)
    guarantee = calibrate_target(scores, outcomes, costs, target=target, confidence=confidence)
    policy = RoutingPolicy(objective="target", target=guarantee.threshold)
    if out_file is not None:
        policy.save(out_file)
    result: dict[str, Any] = {
        **asdict(guarantee),
        "best_single": _best_single(outcomes, costs, trial.zoo.names),
        "policy": policy.model_dump(mode="json"),
        "out": None if out_file is None else str(out_file),
    }
    if as_json:
        print_json(result)
    else:
        _say(result)


def _best_single(outcomes: Any, costs: Any, names: tuple[str, ...]) -> dict[str, Any]:  # noqa: ANN401 - arrays
    best = int(outcomes.mean(axis=0).argmax())
    cost = float(costs[:, best].mean())
    return {
        "candidate": names[best],
        "accuracy": float(outcomes[:, best].mean()),
        "cost_usd": None if np.isnan(cost) else cost,
    }


def _first_of_each_text(records: Records) -> list[int]:
    """Textual twins are not independent draws: one of each is kept."""
    return sorted({digest: row for row, digest in reversed(list(enumerate(records.text_sha256)))}.values())


def _say(result: dict[str, Any]) -> None:
    single = result["best_single"]
    cost = "unknown" if single["cost_usd"] is None else f"{1000 * single['cost_usd']:.4f}"
    out().print(
        f"threshold {result['threshold']:g}: routed accuracy is at least {result['target']:g} on instructions like "
        f"these, with confidence {result['confidence']:g} ({result['accuracy']:.4f} on {result['n_items']} items, "
        f"p = {result['p_value']:.2g})"
    )
    out().print(
        f"USD per 1000 calls: routed {1000 * result['cost_usd']:.4f}; {single['candidate']}, the best single with "
        f"{single['accuracy']:.4f}: {cost}"
    )
    if result["out"]:
        out().print(f"policy written to {result['out']}: msat route … --policy {result['out']}")
