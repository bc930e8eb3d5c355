"""What evaluation.py makes of its panels: plain data, one function a part. Fractions, not points."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msat_core import ConfigurationError
from msat_core.evaluation.cost import area_under_curve, cost_at_share, pair_metrics, quality_cost_curve
from msat_core.evaluation.guarantee import TargetRouting, calibrate_target
from msat_core.evaluation.metrics import auc, brier, calibration_error, reliability
from msat_core.evaluation.studies.coverage import coverage
from msat_core.evaluation.studies.pooled import Panel, pooled_gains
from msat_core.evaluation.studies.releases import replay
from msat_core.evaluation.studies.zoos import CandidateFacts, Kind, paper_zoos, sample_zoos

Json = dict[str, Any]
Array = NDArray[np.floating]

N_ZOOS = 60  # a panel and kind
SIZES = (3, 6)
KINDS: tuple[Kind, ...] = ("near-equal", "mixed", "dominant")
MIN_GAP, MIN_PRICE_RATIO, N_PAIRS = 0.10, 2.0, 24  # of a strong and a weak candidate; pairs a panel
N_PAIR_RESAMPLES = 200
SHARES = (0.95, 0.98, 1.0)
GUARANTEES = ((0.90, 300), (0.90, 1000), (0.95, 300), (0.95, 1000))  # confidence, calibration items
BELOW_BEST = (0.02, 0.05, 0.10)  # targets, below the accuracy of the strictest threshold
N_CALIBRATIONS = 400


def analyse(
    panels: dict[str, list[Panel]], facts: list[Json], *, seed: int, quick: bool, open_names: Sequence[str]
) -> Json:
    """The whole report."""
    n_zoos = 10 if quick else N_ZOOS
    dates = {fact["model"]: fact["released"] for fact in facts}
    new, domain, known = panels.get("new", []), panels.get("domain", []), panels.get("known", [])
    by_benchmark = list(zip(open_names, panels.get("open", []), strict=False))
    parts: dict[str, tuple[Sequence[Any], Callable[[], Json]]] = {  # what each needs, and what it makes
        "new": (new, lambda: pooled(new, n_zoos, seed)),
        "new_scores": (new, lambda: score_quality(new)),
        "in_domain": (domain, lambda: pooled([_domain(p, True) for p in domain], n_zoos, seed)),
        "out_of_domain": (domain, lambda: pooled([_domain(p, False) for p in domain], n_zoos, seed)),
        "known": (known, lambda: pooled(known, n_zoos, seed)),
        "known_scores": (known, lambda: score_quality(known, all_candidates=True)),
        "open": (by_benchmark, lambda: {name: pooled([p], n_zoos, seed) for name, p in by_benchmark}),
        "open_scores": (by_benchmark, lambda: {name: score_quality([p]) for name, p in by_benchmark}),
        "paper_zoos": (new, lambda: paper(new, facts, seed)),
        "releases": (new, lambda: releases(new, dates)),
        "coverage": (new, lambda: covered(new[0], facts)),
        "cost": (new, lambda: costs(new, n_zoos, facts, seed)),
        "pairs": (new, lambda: pairs(new, seed)),
        "guarantee": (new, lambda: guarantee(new, facts, seed, 20 if quick else N_CALIBRATIONS)),
    }
    report = {}
    for name, (needed, part) in parts.items():
        if needed:
            report[name] = part()
            print(f"analysed: {name}", file=sys.stderr, flush=True)
    return report


def zoos_of(panel: Panel, kind: Kind, n_zoos: int, seed: int) -> list[tuple[int, ...]]:
    """Seeded zoos of a panel, each with a new candidate where the panel has any."""
    accuracy = np.nanmean(panel.outcomes, axis=0)
    return sample_zoos(panel.names, accuracy, kind, n_zoos=n_zoos, sizes=SIZES, with_one_of=panel.new, seed=seed)


def pooled(panels: list[Panel], n_zoos: int, seed: int) -> Json:
    """Gains by kind of zoo and method."""
    return {
        kind: pooled_gains(panels, [zoos_of(panel, kind, n_zoos, seed) for panel in panels], seed=seed)
        for kind in KINDS
    }


def score_quality(panels: list[Panel], *, all_candidates: bool = False) -> Json:
    """AUC, calibration and Brier of each method on new candidates (or on all), each candidate in its panel."""
    report: Json = {}
    for method in panels[0].scores:
        areas, scores, outcomes = [], [], []
        for panel in panels:
            for column, name in enumerate(panel.names):
                known = ~np.isnan(panel.outcomes[:, column])
                if all_candidates or name in panel.new:
                    scores.append(panel.scores[method][known, column])
                    outcomes.append(panel.outcomes[known, column])
                    areas.append(auc(scores[-1], outcomes[-1]))
        p, y = np.concatenate(scores), np.concatenate(outcomes)
        error = calibration_error(p, y)
        report[method] = {
            "auc": float(np.mean([a for a in areas if a is not None])),
            "ece": error.plain,
            "ece_debiased": error.debiased,
            "brier": brier(p, y),
            "reliability": [[one.score, one.outcome, one.variance, one.n] for one in reliability(p, y)],
        }
    return report


def paper(panels: list[Panel], facts: list[Json], seed: int) -> Json:
    """The paper's zoos, each over the panels in which a member of it is new."""
    report: Json = {}
    for name, members in paper_zoos(_facts(facts)).items():
        fitting = [panel for panel in panels if panel.new & set(members)]
        if not fitting:  # in a rehearsal of one fold
            continue
        found = pooled_gains(fitting, [[panel.positions(members)] for panel in fitting], seed=seed)
        report[name] = {"members": list(members), "methods": found}
    return report


def releases(panels: list[Panel], dates: dict[str, str]) -> Json:
    """Each release by the panel in which the newest candidate is new; items that a member lacks are left out."""
    panel_of = {name: panel for panel in panels for name in panel.new}
    first = panels[0]
    order = [name for name in first.names if name in dates]
    aptitude = first.aptitude[list(first.positions(order))]
    steps: list[Json] = []
    for step in replay([dates[name] for name in order], aptitude):
        members = [order[i] for i in step.zoo]
        if members[-1] not in panel_of:
            continue
        panel = panel_of[members[-1]]
        zoo = np.array(panel.positions(members))
        known = ~np.isnan(panel.outcomes[:, zoo]).any(axis=1)
        y = panel.outcomes[np.ix_(known, zoo)]
        rows = np.arange(len(y))
        curve = {m: float(y[rows, s[known][:, zoo].argmax(axis=1)].mean()) for m, s in panel.scores.items()}
        curve["best by exam"] = float(y[:, int(panel.aptitude[zoo].argmax())].mean())
        curve["best single in hindsight"] = float(y.mean(axis=0).max())
        steps.append({"date": step.date, "newest": members[-1], "zoo": members, "accuracy": curve})
    means = {name: float(np.mean([step["accuracy"][name] for step in steps])) for name in steps[0]["accuracy"]}
    return {"steps": steps, "mean_accuracy": means}


def covered(panel: Panel, facts: list[Json]) -> Json:
    """Coverage of the strongest candidate's right answers by those of up to 9B or 50B, oldest first."""
    strongest = int(np.nanmean(panel.outcomes, axis=0).argmax())
    by_date = sorted(facts, key=lambda fact: fact["released"])
    report: Json = {"reference": panel.names[strongest]}
    for limit in (9, 50):
        names = [f["model"] for f in by_date if f["params_b"] is not None and f["params_b"] <= limit]
        found = coverage(panel.outcomes[:, list(panel.positions(names))], panel.outcomes[:, strongest])
        report[f"up_to_{limit}b"] = {"candidates": names, "coverage": found.tolist()}
    return report


def costs(panels: list[Panel], n_zoos: int, facts: list[Json], seed: int) -> Json:
    """Area and cost at shares of the best single's accuracy over mixed zoos; curves of one large zoo."""
    report: Json = {"methods": {}, "curves": {}, "singles": {}}
    members = paper_zoos(_facts(facts))["larger-mixed"]
    for method in panels[0].scores:
        areas: list[float | None] = []
        at: dict[float, list[float | None]] = {share: [] for share in SHARES}
        for panel in panels:
            for zoo in map(np.array, zoos_of(panel, "mixed", n_zoos, seed)):
                known = ~np.isnan(panel.outcomes[:, zoo]).any(axis=1)
                y, price = panel.outcomes[np.ix_(known, zoo)], panel.costs[np.ix_(known, zoo)]
                curve = quality_cost_curve(panel.scores[method][np.ix_(known, zoo)], y, price)
                totals, best = price.sum(axis=0), int(y.mean(axis=0).argmax())
                areas.append(area_under_curve(curve, float(totals.min()), float(totals.max())))
                for share in SHARES:
                    at[share].append(cost_at_share(curve, float(y[:, best].mean()), float(totals[best]), share))
        report["methods"][method] = {
            "area": float(np.mean([a for a in areas if a is not None])),
            **{
                f"{share:.0%}": {
                    "share_of_zoos": float(np.mean([v is not None for v in found])),
                    "median_cost": float(np.median([v if v is not None else 1.0 for v in found])),
                }
                for share, found in at.items()
            },
        }
        report["curves"][method] = _curve(panels, method, members)
    panel = panels[0]
    for name in members:
        column = panel.positions([name])[0]
        report["singles"][name] = [float(np.nanmean(a[:, column])) for a in (panel.costs, panel.outcomes)]
    return report


def _curve(panels: list[Panel], method: str, members: Sequence[str]) -> list[list[float]]:
    """[mean cost of a call, accuracy] along the weight of cost, averaged over panels."""
    curves = []
    for panel in panels:
        zoo = np.array(panel.positions(members))
        known = ~np.isnan(panel.outcomes[:, zoo]).any(axis=1)
        y, price = panel.outcomes[np.ix_(known, zoo)], panel.costs[np.ix_(known, zoo)]
        points = quality_cost_curve(panel.scores[method][np.ix_(known, zoo)], y, price)
        curves.append([[point.cost_usd / len(y), point.accuracy] for point in points])
    mean: list[list[float]] = np.mean(curves, axis=0).tolist()
    return mean


def pairs(panels: list[Panel], seed: int) -> Json:
    """APGR and CPT over strong and weak pairs with a new member; intervals over items."""
    chosen: list[tuple[Panel, list[tuple[int, int]]]] = []
    for panel in panels:
        accuracy, price = np.nanmean(panel.outcomes, axis=0), np.nanmean(panel.costs, axis=0)
        fitting = [
            (s, w)
            for s, w in permutations(range(len(panel.names)), 2)
            if accuracy[s] - accuracy[w] >= MIN_GAP
            and price[s] >= MIN_PRICE_RATIO * price[w]
            and panel.new & {panel.names[s], panel.names[w]}
        ]
        order = np.random.default_rng(seed).permutation(len(fitting))[:N_PAIRS]
        chosen.append((panel, [fitting[i] for i in order]))
    rng, n = np.random.default_rng(seed), len(panels[0].tasks)
    resamples = [rng.integers(0, n, n) for _ in range(N_PAIR_RESAMPLES)]
    found = {method: _mean_pairs(chosen, method, np.arange(n)) for method in panels[0].scores}
    report: Json = {"n_pairs": sum(len(some) for _, some in chosen), "methods": {}}
    drawn = {method: [_mean_pairs(chosen, method, rows)["apgr"] for rows in resamples] for method in found}
    for method, values in found.items():
        low, high = np.quantile(drawn[method], [0.025, 0.975])
        report["methods"][method] = {**values, "apgr_interval": [float(low), float(high)]}
        if method != "routed":
            difference = np.array(drawn["routed"]) - np.array(drawn[method])
            report["methods"][method]["ours_minus"] = [
                found["routed"]["apgr"] - values["apgr"],
                *map(float, np.quantile(difference, [0.025, 0.975])),
            ]
    return report


def _mean_pairs(chosen: list[tuple[Panel, list[tuple[int, int]]]], method: str, rows: NDArray[np.intp]) -> Json:
    metrics = []
    for panel, some in chosen:
        scores, outcomes = panel.scores[method][rows], panel.outcomes[rows]
        for s, w in some:
            known = ~np.isnan(outcomes[:, [s, w]]).any(axis=1)
            preference = (scores[:, s] - scores[:, w])[known]
            metrics.append(pair_metrics(preference, outcomes[known, s], outcomes[known, w]))
    return {name: float(np.mean([vars(m)[name] for m in metrics])) for name in ("apgr", "cpt50", "cpt80")}


def guarantee(panels: list[Panel], facts: list[Json], seed: int, n_calibrations: int) -> Json:
    """How often a calibrated threshold misses its target, over the larger-mixed zoo.

    Calibration items are drawn from a panel with replacement, so that the panel is the population, whose accuracy
    under any threshold is known exactly.
    """
    members = paper_zoos(_facts(facts))["larger-mixed"]
    populations = []
    for panel in panels:
        zoo = np.array(panel.positions(members))
        known = np.ix_(np.flatnonzero(~np.isnan(panel.outcomes[:, zoo]).any(axis=1)), zoo)
        populations.append((panel.scores["routed"][known], panel.outcomes[known], panel.costs[known]))
    rng, rows = np.random.default_rng(seed), []
    for confidence, n_items in GUARANTEES:
        for below in BELOW_BEST:
            found = [
                _calibrated(*populations[i % len(populations)], n_items, below, confidence, rng)
                for i in range(n_calibrations)
            ]
            made = [one for one in found if one is not None]
            rows.append(
                {
                    "confidence": confidence,
                    "n_items": n_items,
                    "below_strictest": below,
                    "missed": sum(gap < 0 for gap, _ in made) / n_calibrations,
                    "refused": 1 - len(made) / n_calibrations,
                    "median_cost": float(np.median([cost for _, cost in made])) if made else None,
                }
            )
    return {"n_calibrations": n_calibrations, "rows": rows}


def _calibrated(
    scores: Array,
    outcomes: Array,
    costs: Array,
    n_items: int,
    below: float,
    confidence: float,
    rng: np.random.Generator,
) -> tuple[float, float] | None:
    """Accuracy above target and cost relative to the strictest threshold, over the population; None if refused."""
    routing, at = TargetRouting(scores, costs), np.arange(len(scores))
    strictest = routing.choose(1.0)
    target = float(outcomes[at, strictest].mean()) - below
    drawn = rng.integers(0, len(scores), n_items)
    try:
        made = calibrate_target(scores[drawn], outcomes[drawn], costs[drawn], target=target, confidence=confidence)
    except ConfigurationError:
        return None
    chosen = routing.choose(made.threshold)
    return float(outcomes[at, chosen].mean()) - target, float(costs[at, chosen].sum() / costs[at, strictest].sum())


def _domain(panel: Panel, inside: bool) -> Panel:
    return panel.rows(np.array([task.startswith("mmlu/") == inside for task in panel.tasks]))


def _facts(facts: list[Json]) -> list[CandidateFacts]:
    return [CandidateFacts(f["model"], f["params_b"], f["chat_tuned"], f["released"]) for f in facts]
