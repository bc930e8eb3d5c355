"""Pictures, tables and the page of evaluation.py, from its JSON file alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from msat_core.evaluation.baselines import BASELINES
from msat_core.evaluation.cost import CurvePoint
from msat_core.evaluation.html import Section, Table, page
from msat_core.evaluation.metrics import ReliabilityBin
from msat_core.evaluation.plots import cost_figure, gains_figure, lines_figure, reliability_figure, save_figures
from msat_core.files import write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Json = dict[str, Any]

STICKS = ("best_single", "best_by_aptitude", "reference_winner", "per_task_best", "random", "oracle")
PARTS = {
    "new": "New candidates",
    "in_domain": "New candidates, questions of the kind trained and examined on (mmlu/*)",
    "out_of_domain": "New candidates, questions of other sources (stemez, theoremqa, scibench)",
    "known": "Known candidates",
}
PROSE = {
    "new": "Nobody was trained on the candidates that are new; every zoo holds at least one, and every method knows "
    "every member by the same exam of 1,000 questions. Gains in points; intervals over questions; a zoo is won where "
    "the method is above the best single candidate in hindsight.",
    "in_domain": "Scorers, baselines and exam saw mmlu/* alone.",
    "out_of_domain": "The same scorers, baselines and exam: they saw no question of these sources.",
    "known": "Baselines have the full history of these candidates (about 7,300 outcomes each). Ours was trained "
    "with them but still reads each from its exam of 1,000 questions alone, so the comparison favours the baselines.",
}
DRAWN = ("routed", "knn", "tasks", "forest", "best by exam", "best single in hindsight")


def draw(report: Json, folder: Path, stem: str) -> None:
    """Write ``<stem>_<picture>.png``, ``<stem>.md`` (tables) and ``<stem>.html``."""
    figures = _figures(report)
    save_figures({f"{stem}_{name}": figure for name, figure in figures.items()}, folder)
    sections = _sections(report, figures)
    lead = f"Real outcomes of real candidates; splits by candidate family and by text; seed {report['seed']}."
    write_text(folder / f"{stem}.html", page("How well msat routes", lead, sections))
    tables = [f"## {s.heading}\n\n{s.prose}\n\n" + "\n\n".join(map(_markdown, s.tables)) for s in sections if s.tables]
    write_text(folder / f"{stem}.md", "\n\n".join(["# Evaluation", lead, *tables]) + "\n")


def _figures(report: Json) -> dict[str, Figure]:
    found = {}
    for part in PARTS:
        for kind in ("near-equal", "mixed"):
            if methods := report.get(part, {}).get(kind):
                gains = {f"over {name}": methods["routed"]["over"][name] for name in STICKS[:3]}
                gains |= {f"over {m}": f["ours_minus"] for m, f in methods.items() if m != "routed"}
                found[f"{part}_{kind}"] = gains_figure(gains, f"{PARTS[part].split(',')[0]}: {kind} zoos")
    if "new" not in report:
        return found
    bins = {
        m: [ReliabilityBin(*one) for one in report["new_scores"][m]["reliability"]]
        for m in DRAWN
        if m in report["new_scores"]
    }
    found["reliability"] = reliability_figure(bins, "new candidates")
    steps = report["releases"]["steps"]
    curves = {m: [step["accuracy"][m] for step in steps] for m in DRAWN if m in steps[0]["accuracy"]}
    names = [f"{step['date'][2:7]} {step['newest'][:22]}" for step in steps]
    found["releases"] = lines_figure(names, curves, "best five so far by exam, and the newest", "accuracy, %")
    cost = report["cost"]
    points = {m: [CurvePoint(0.0, a, 1000 * c) for c, a in cost["curves"][m]] for m in DRAWN if m in cost["curves"]}
    singles = {name: (1000 * c, a) for name, (c, a) in cost["singles"].items()}
    found["cost"] = cost_figure(points, singles, "larger-mixed zoo", "USD for 1,000 calls")
    for limit in (9, 50):
        part = report["coverage"][f"up_to_{limit}b"]
        title = f"right answers of {report['coverage']['reference']} that the union has right"
        found[f"coverage_{limit}b"] = lines_figure(part["candidates"], {"union": part["coverage"]}, title, "share, %")
    return found


def _sections(report: Json, figures: dict[str, Figure]) -> list[Section]:
    about = [[b.name, b.after, b.new_candidates] for b in BASELINES.values()]
    sections = [Section("Methods", "", [Table(["baseline", "after", "new candidates"], about)])]
    for part, heading in PARTS.items():
        if part not in report:
            continue
        tables = [_gains_table(kind, methods) for kind, methods in report[part].items() if methods]
        drawn = [
            (figures[f"{part}_{kind}"], f"ours over each, {kind} zoos, 95% intervals over questions")
            for kind in ("near-equal", "mixed")
            if f"{part}_{kind}" in figures
        ]
        sections.append(Section(heading, PROSE[part], tables, drawn))
        if f"{part}_scores" in report:
            shown = [(figures["reliability"], "equal-mass bins, 95% intervals")] if part == "new" else []
            sections.append(Section(f"{heading}: the scores", "", [_score_table(report[f"{part}_scores"])], shown))
    for name, kinds in report.get("open", {}).items():
        prose = "Exam of the other two benchmarks' own tasks; trained on MMLU-Pro without any of these candidates."
        tables = [_gains_table(kind, methods) for kind, methods in kinds.items() if methods]
        tables.append(_score_table(report["open_scores"][name]))
        sections.append(Section(f"Another benchmark: {name}", prose, tables))
    return [*sections, *_new_sections(report, figures)] if "new" in report else sections


def _new_sections(report: Json, figures: dict[str, Figure]) -> list[Section]:
    means = report["releases"]["mean_accuracy"]
    table = Table(["method", "mean accuracy over releases, %"], [[m, _percent(v)] for m, v in means.items()])
    return [
        Section("The paper's zoos", "By its pattern over these candidates.", [_paper_table(report)]),
        Section("Releases", "", [table], [(figures["releases"], "one point a release, in order of date")]),
        Section(
            "Coverage",
            "",
            [],
            [(figures[f"coverage_{n}b"], f"candidates of up to {n}B join in order of date") for n in (9, 50)],
        ),
        Section(
            "Cost",
            "Mixed zoos: area is the mean accuracy at a budget between the cheapest and the dearest candidate; costs "
            "are medians over zoos, as a fraction of the best single's (1 where not reached), with the share of zoos "
            "that reach it.",
            [_cost_table(report), _pair_table(report)],
            [(figures["cost"], "Accuracy and cost as the weight of cost rises; diamonds are single candidates.")],
        ),
        Section(
            "The guarantee",
            "msat calibrate, drawn and judged many times: misses must stay below 1 − confidence. The target is set "
            "below the accuracy of the strictest threshold, which is the most that routing by highest score reaches.",
            [_guarantee_table(report)],
        ),
    ]


def _gains_table(kind: str, methods: Json) -> Table:
    rows = []
    for name, found in methods.items():
        over = [_estimate(found["over"][stick]) for stick in STICKS[:3]]
        ours = [_estimate(found["ours_minus"]), f"{found['p_value']:.3f}"] if "ours_minus" in found else ["", ""]
        rows.append([name, *over, _points(found["worst_zoo"]), f"{found['share_won']:.0%}", *ours])
    n_zoos = methods["routed"]["n_zoos"]
    columns = [f"{kind} ({n_zoos} zoos)", "over best single", "over best by exam", "over random exams' winner"]
    return Table([*columns, "worst zoo", "won", "ours minus it", "p"], rows)


def _score_table(scores: Json) -> Table:
    keys = ("auc", "ece_debiased", "brier")
    rows = [[name, *(f"{found[key]:.4f}" for key in keys)] for name, found in scores.items()]
    return Table(["scores", "AUC", "ECE, debiased", "Brier"], rows)


def _paper_table(report: Json) -> Table:
    rows = []
    for name, zoo in report["paper_zoos"].items():
        ours = zoo["methods"].get("routed")
        if ours:
            best = max((f["accuracy"], m) for m, f in zoo["methods"].items() if m != "routed")
            over = ours["over"]
            singles = [
                _percent(ours["accuracy"] - over[stick][0]) for stick in ("best_single", "per_task_best", "oracle")
            ]
            gain = [_estimate(over[stick]) for stick in ("best_single", "best_by_aptitude")]
            rows.append(
                [
                    name,
                    str(len(zoo["members"])),
                    _percent(ours["accuracy"]),
                    *singles,
                    *gain,
                    f"{_percent(best[0])} ({best[1]})",
                ]
            )
    columns = ["zoo", "candidates", "routed, %", "best single", "per-task best", "oracle", "over best single"]
    return Table([*columns, "over best by exam", "best baseline"], rows)


def _cost_table(report: Json) -> Table:
    rows = [
        [
            m,
            f"{100 * f['area']:.2f}",
            *(f"{f[s]['median_cost']:.2f} ({f[s]['share_of_zoos']:.0%})" for s in ("95%", "98%", "100%")),
        ]
        for m, f in report["cost"]["methods"].items()
    ]
    return Table(["method", "area, %", "cost at 95%", "at 98%", "at 100%"], rows)


def _pair_table(report: Json) -> Table:
    rows = []
    for name, found in report["pairs"]["methods"].items():
        low, high = found["apgr_interval"]
        ours = found.get("ours_minus")
        versus = f"{ours[0]:+.3f} [{ours[1]:+.3f}, {ours[2]:+.3f}]" if ours else ""
        rows.append(
            [
                name,
                f"{found['apgr']:.3f} [{low:.3f}, {high:.3f}]",
                f"{found['cpt50']:.1%}",
                f"{found['cpt80']:.1%}",
                versus,
            ]
        )
    return Table(
        [f"{report['pairs']['n_pairs']} strong/weak pairs", "APGR", "CPT(50%)", "CPT(80%)", "ours minus it"], rows
    )


def _guarantee_table(report: Json) -> Table:
    rows = [
        [
            f"{r['confidence']:.0%}",
            str(r["n_items"]),
            _points(-r["below_strictest"]),
            f"{r['missed']:.1%}",
            f"{r['refused']:.1%}",
            "–" if r["median_cost"] is None else f"{r['median_cost']:.2f}",
        ]
        for r in report["guarantee"]["rows"]
    ]
    return Table(["confidence", "records", "target below strictest", "missed", "refused", "cost of strictest"], rows)


def _estimate(values: list[float]) -> str:
    mean, low, high = values
    return f"{100 * mean:+.2f} [{100 * low:+.2f}, {100 * high:+.2f}]"


def _points(value: float) -> str:
    return f"{100 * value:+.1f}"


def _percent(value: float) -> str:
    return f"{100 * value:.2f}"


def _markdown(table: Table) -> str:
    lines = [table.columns, ["---"] * len(table.columns), *table.rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in lines)
