"""The pictures and the HTML page of one evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from msat_core.evaluation.comparison import Evaluation
from msat_core.evaluation.cost import quality_cost_curve
from msat_core.evaluation.html import Section, Table, page
from msat_core.evaluation.metrics import reliability
from msat_core.evaluation.plots import cost_figure, gains_figure, reliability_figure, save_figures
from msat_core.files import write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

YARDSTICKS = ("best_single", "best_by_aptitude", "reference_winner", "per_task_best", "random", "oracle")
CAPTIONS = {
    "gains": "Routed minus each yardstick and baseline on the same items, with 95% bootstrap intervals over items.",
    "reliability": "Share right over score, 15 bins of equal mass over all pairs of instruction and candidate.",
    "cost": "Accuracy and cost as the weight of cost rises; diamonds are single candidates.",
}


def evaluation_figures(evaluation: Evaluation, report: dict[str, Any]) -> dict[str, Figure]:
    """Gains and reliability, and cost where prices are known; by name."""
    routed = report["overall"]["routed"]
    means = {
        **report["overall"],
        **{name: baseline["routed"] for name, baseline in report.get("baselines", {}).items()},
    }
    gains = {
        name: (routed - means[name], *report["intervals"][f"routed_minus_{name}"])
        for name in [*_sticks(report)[:-2], *report.get("baselines", {})]  # random and oracle are too far off to draw
    }
    figures = {
        "gains": gains_figure(gains, f"routed over …, {len(evaluation.zoo)} candidates"),
        "reliability": reliability_figure(
            {"routed": reliability(evaluation.ours.scores, evaluation.outcomes)}, "calibration of the scores"
        ),
    }
    if evaluation.costs is not None:
        methods = {"routed": evaluation.ours, **evaluation.baselines}
        curves = {
            name: quality_cost_curve(method.scores, evaluation.outcomes, evaluation.costs)
            for name, method in methods.items()
        }
        singles = dict(
            zip(
                evaluation.zoo.names,
                zip(evaluation.costs.sum(axis=0), evaluation.outcomes.mean(axis=0), strict=True),
                strict=True,
            )
        )
        figures["cost"] = cost_figure(curves, singles, "quality and cost")
    return figures


def write_figures_and_page(evaluation: Evaluation, plots: Path | None, page_file: Path | None) -> None:
    """Write the pictures into a folder, the page into a file, whichever is given."""
    report = evaluation.to_json()
    figures = evaluation_figures(evaluation, report)
    if plots is not None:
        save_figures(figures, plots)
    if page_file is not None:
        write_text(page_file, evaluation_page(evaluation, report, figures))


def evaluation_page(evaluation: Evaluation, report: dict[str, Any], figures: dict[str, Figure]) -> str:
    """One evaluation as a self-contained page."""
    overall = report["overall"]
    lead = f"{overall['n_instructions']} recorded instructions, {overall['n_candidates']} candidates."
    sections = [
        Section("Accuracy", "", [_accuracy_table(report)], [(figures["gains"], CAPTIONS["gains"])]),
        Section(
            "The scores",
            "AUC is the mean over candidates; the calibration error is debiased for sampling noise.",
            [_score_table(report)],
            [(figures["reliability"], CAPTIONS["reliability"])],
        ),
        Section("Candidates", "", [_candidate_table(report)]),
    ]
    if "cost" in figures:
        prose = "Costs are characters / 4 times price. The area is the mean accuracy at a budget between the cheapest "
        prose += "and the dearest candidate; costs at a share of the best single's accuracy are fractions of its cost."
        sections.append(Section("Cost", prose, [_cost_table(report)], [(figures["cost"], CAPTIONS["cost"])]))
    return page("msat evaluate", lead, sections)


def _sticks(report: dict[str, Any]) -> list[str]:
    return [name for name in YARDSTICKS if name in report["overall"]]


def _accuracy_table(report: dict[str, Any]) -> Table:
    columns = {"overall": report["overall"], **report["benchmarks"]}
    rows = [
        [name, *(f"{100 * c[name]:.2f}" for c in columns.values()), *_comparison(report, name)]
        for name in ("routed", *_sticks(report))
    ]
    blanks = [""] * len(report["benchmarks"])
    rows += [
        [name, f"{100 * baseline['routed']:.2f}", *blanks, *_comparison(report, name)]
        for name, baseline in report.get("baselines", {}).items()
    ]
    return Table(["accuracy, %", *columns, "routed minus it, 95%", "p"], rows)


def _comparison(report: dict[str, Any], name: str) -> list[str]:
    key = f"routed_minus_{name}"
    if key not in report["p_values"]:
        return ["", ""]
    low, high = report["intervals"][key]
    return [f"[{100 * low:+.2f}, {100 * high:+.2f}]", f"{report['p_values'][key]:.3f}"]


def _score_table(report: dict[str, Any]) -> Table:
    methods = {"routed": report["overall"], **report.get("baselines", {})}
    figures = ("auc", "ece_debiased", "brier")
    rows = [[n, *("–" if f[k] is None else f"{f[k]:.4f}" for k in figures)] for n, f in methods.items()]
    return Table(["method", "AUC", "calibration error", "Brier"], rows)


def _candidate_table(report: dict[str, Any]) -> Table:
    costs = report.get("cost_usd", {})
    rows = [
        [name, f"{100 * alone:.2f}", f"{report['share_chosen'][name]:.1%}", f"{costs[name]:.4f}" if costs else "–"]
        for name, alone in report["candidates"].items()
    ]
    return Table(["candidate", "alone, %", "chosen", "cost of all, USD"], rows)


def _cost_table(report: dict[str, Any]) -> Table:
    columns = list(report["cost"]["routed"])
    rows = [
        [name, *("–" if figures[c] is None else f"{figures[c]:.3f}" for c in columns)]
        for name, figures in report["cost"].items()
    ]
    return Table(["method", *(c.replace("_", " ") for c in columns)], rows)
