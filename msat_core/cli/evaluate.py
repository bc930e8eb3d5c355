"""`msat evaluate`, `msat calibrate`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from rich.table import Table

from msat_core.cli.shared import (
    Json,
    MaxUsd,
    ObjectiveOption,
    PolicyFile,
    Prices,
    ProfilesFolder,
    RecordsFolder,
    ScorerFolder,
    Target,
    Trial,
    UsdWeight,
    ZooNames,
    cache_folder,
    names_of,
    out,
    policy_of,
    print_json,
    progress_bars,
    trial_of,
)
from msat_core.errors import ConfigurationError
from msat_core.records import Records
from msat_core.routing.policy import RoutingPolicy

if TYPE_CHECKING:
    from msat_core.evaluation.baselines import Baseline


def evaluate(
    records: RecordsFolder,
    profiles: ProfilesFolder,
    zoo: ZooNames = None,
    scorer: ScorerFolder = None,
    prices: Prices = None,
    baselines: Annotated[str | None, typer.Option(help="Other methods beside ours: knn,mlp,… or all.")] = None,
    dump: Annotated[Path | None, typer.Option(help="Write item_id, candidate, score, chosen (Parquet).")] = None,
    plots: Annotated[Path | None, typer.Option(help="Write the pictures into this folder.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write one self-contained HTML page.")] = None,
    objective: ObjectiveOption = "quality",
    usd_weight: UsdWeight = 0.0,
    target: Target = 0.8,
    max_usd: MaxUsd = None,
    policy: PolicyFile = None,
    seed: Annotated[int, typer.Option(help="Of the reference exams, the baselines and the bootstrap.")] = 0,
    as_json: Json = False,
) -> None:
    """Route recorded items and hold the result against every yardstick.

    Items whose text is in the profiles' exam are left out, and items that a candidate lacks. Baselines know
    the candidates by the same exam only, and others by their outcomes on the exam's questions in RECORDS.
    """
    from msat_core.evaluation.baselines import baselines_named
    from msat_core.evaluation.items import choose_all, evaluation_items, score_items
    from msat_core.evaluation.report import Evaluation, Routing

    wanted = baselines_named(names_of([baselines])) if baselines else []
    rule = policy_of(objective, usd_weight, target, max_usd, policy)
    trial = trial_of(profiles, zoo, prices, scorer)
    loaded = Records.load(records)
    items = evaluation_items(loaded, trial.zoo, trial.exam_texts)
    with progress_bars() as advance:
        scores = {"routed": score_items(trial.scorer, items, trial.profiles, cache_folder(), progress=advance)}
        scores |= _baseline_scores(wanted, trial, loaded, items, seed, advance)
    routed = {name: Routing(found, choose_all(found, items, trial.zoo, rule)) for name, found in scores.items()}
    ours = routed.pop("routed")
    result = Evaluation(items, trial.zoo, ours, max(len(e.sheet.shots) for e in trial.exams), routed, seed)
    if dump is not None:
        _write_dump(dump, items.item_ids, trial.zoo.names, ours.scores, ours.chosen)
    if plots is not None or report is not None:
        from msat_core.evaluation.pages import write_figures_and_page

        write_figures_and_page(result, plots, report)
    if as_json:
        print_json(result.to_json())
    else:
        _print_report(result.to_json())


def _baseline_scores(
    wanted: list[Baseline],
    trial: Trial,
    records: Records,
    items: Records,
    seed: int,
    advance: Callable[[str, int, int], None],
) -> dict[str, Any]:
    """Fit the baselines on the exams and score the items with each: (N, M) by name."""
    if not wanted:
        return {}
    from msat_core.encoders.minilm import MiniLMEncoder
    from msat_core.evaluation.exam_evidence import exam_evidence, others_evidence
    from msat_core.evaluation.items import embed_items
    from msat_core.scoring.base import EmbeddingScorer

    encoder = trial.scorer.encoder if isinstance(trial.scorer, EmbeddingScorer) else MiniLMEncoder.embedded()
    evidence = exam_evidence(trial.exams, trial.profiles, encoder.digest)
    others = others_evidence(records, trial.exams, trial.zoo.names, evidence)
    vectors = embed_items(encoder, items, cache_folder())
    found = {}
    for done, baseline in enumerate(wanted):
        found[baseline.name] = baseline.fit(evidence, others, seed)(vectors)
        advance("baselines", done + 1, len(wanted))
    return found


def _write_dump(path: Path, item_ids: tuple[str, ...], names: tuple[str, ...], scores: Any, chosen: Any) -> None:  # noqa: ANN401 - arrays
    import pyarrow as pa
    import pyarrow.parquet

    n, m = scores.shape
    table = pa.table(
        {
            "item_id": np.repeat(np.array(item_ids), m),
            "candidate": np.tile(np.array(names), n),
            "score": scores.ravel(),
            "chosen": (np.arange(m)[None, :] == chosen[:, None]).ravel(),
        }
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    pa.parquet.write_table(table, path)


def _print_report(report: dict[str, Any]) -> None:
    names = ["routed", "best_single", "best_by_aptitude", "reference_winner", "per_task_best", "random", "oracle"]
    columns = {"overall": report["overall"], **report["benchmarks"]}
    table = Table("", *columns)
    for name in [*names, "auc", "ece", "ece_debiased", "brier"]:
        table.add_row(name, *(_cell(c[name]) for c in columns.values()))
    table.add_row("instructions", *(str(c["n_instructions"]) for c in columns.values()))
    out().print(table)
    if baselines := report.get("baselines"):
        figures = ("routed", "auc", "ece_debiased", "brier")
        table = Table("baseline", *figures)
        for name, found in baselines.items():
            table.add_row(name, *(_cell(found[figure]) for figure in figures))
        out().print(table)
    for name in [*names[1:4], *report.get("baselines", {})]:
        low, high = report["intervals"][f"routed_minus_{name}"]
        p_value = report["p_values"][f"routed_minus_{name}"]
        out().print(f"routed − {name}: 95% interval [{100 * low:+.2f}, {100 * high:+.2f}] points, p = {p_value:.3f}")
    for name, share in report["share_chosen"].items():
        out().print(f"{name}: chosen {share:.1%}, alone {report['candidates'][name]:.4f}")
    for name, cost in report.get("cost_usd", {}).items():
        out().print(f"cost of {name}: {cost:.4f} USD")


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


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
