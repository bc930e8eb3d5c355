"""`msat evaluate`, `msat calibrate`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from msat_core.cli.shared import (
    POLICY,
    Device,
    Json,
    MaxUsd,
    ObjectiveOption,
    PolicyFile,
    Prices,
    ProfilesFolder,
    RecordsFolder,
    ScorerFolder,
    Target,
    UsdWeight,
    ZooNames,
    check_output,
    new_table,
    out,
    policy_of,
    print_json,
    progress_bars,
    say_unpriced,
    split_names,
)
from msat_core.evaluation.guarantee import DEFAULT_CONFIDENCE
from msat_core.records import Records


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
    objective: ObjectiveOption = POLICY.objective,
    usd_weight: UsdWeight = POLICY.usd_weight,
    target: Target = POLICY.target,
    max_usd: MaxUsd = POLICY.max_usd,
    policy: PolicyFile = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the reference exams, the baselines and the bootstrap.")] = 0,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Route recorded items and hold the result against every yardstick.

    Items whose text is in the profiles' exam are left out, and items that a candidate lacks. Baselines know
    the candidates by the same exam only, and others by their outcomes on the exam's questions in RECORDS.
    """
    from msat_core.evaluation.assessment import Assessment
    from msat_core.evaluation.baselines import baselines_named

    for path in (dump, report):
        check_output(path)
    check_output(plots, folder=True)
    wanted = baselines_named(split_names([baselines])) if baselines else []
    rule = policy_of(objective, usd_weight, target, max_usd, policy)
    trial = Assessment.load(profiles, split_names([zoo or ""]), prices=prices, scorer=scorer, device=device)
    say_unpriced(trial.zoo, prices)
    with progress_bars() as advance:
        result = trial.evaluate(Records.load(records), rule, baselines=wanted, seed=seed, progress=advance)
    if dump is not None:
        result.dump(dump)
    if plots is not None or report is not None:
        from msat_core.evaluation.pages import write_figures_and_page

        write_figures_and_page(result, plots, report)
    if as_json:
        print_json(result.to_json())
    else:
        _print_report(result.to_json())


def _print_report(report: dict[str, Any]) -> None:
    overall = report["overall"]
    compared = [name for name in ("best_single", "best_by_aptitude", "reference_winner") if name in overall]
    names = ["routed", *compared, "per_task_best", "random", "oracle"]
    columns = {"overall": report["overall"], **report["benchmarks"]}
    table = new_table("", *columns)
    for name in [*names, "auc", "ece", "ece_debiased", "brier"]:
        table.add_row(name, *(_cell(c[name]) for c in columns.values()))
    table.add_row("instructions", *(str(c["n_instructions"]) for c in columns.values()))
    out().print(table)
    if baselines := report.get("baselines"):
        figures = ("routed", "auc", "ece_debiased", "brier")
        table = new_table("baseline", *figures)
        for name, baseline in baselines.items():
            table.add_row(name, *(_cell(baseline[figure]) for figure in figures))
        out().print(table)
    for name in [*compared, *report.get("baselines", {})]:
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
    confidence: Annotated[float, typer.Option(help="Of the guarantee.")] = DEFAULT_CONFIDENCE,
    device: Device = None,
    out_file: Annotated[Path | None, typer.Option("--out", help="Write the policy, for --policy.")] = None,
    as_json: Json = False,
) -> None:
    """Find the threshold under which the cheapest good-enough candidate is right often enough, guaranteed.

    With probability CONFIDENCE over the draw of the records, routed answers to new instructions of the same
    kind are right at a rate of TARGET or more. The records must be of nobody's exam or training.
    """
    from msat_core.evaluation.assessment import Assessment

    check_output(out_file)
    trial = Assessment.load(profiles, split_names([zoo or ""]), prices=prices, scorer=scorer, device=device)
    say_unpriced(trial.zoo, prices)
    with progress_bars() as advance:
        calibration = trial.calibrate(Records.load(records), target, confidence=confidence, progress=advance)
    result: dict[str, Any] = {**calibration.to_json(), "out": None, "command": None}
    if out_file is not None:
        zoo_file = out_file.with_suffix(".zoo.json")
        trial.save_zoo(zoo_file)
        calibration.policy.save(out_file)
        own_scorer = [] if scorer is None else ["--scorer", str(scorer)]
        command = ["msat", "route", "…", "--zoo", str(zoo_file), "--policy", str(out_file), *own_scorer]
        result |= {"out": str(out_file), "command": shlex.join(command)}
    if as_json:
        print_json(result)
    else:
        _say(result)


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
        out().print(f"policy written to {result['out']}; this command keeps its guarantee:", soft_wrap=True)
        out().print(result["command"], soft_wrap=True, markup=False, highlight=False)
