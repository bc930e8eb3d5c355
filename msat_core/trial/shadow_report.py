"""The report of a log of decisions: as plain data, and as one page like that of a trial."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from msat_core.errors import ConfigurationError
from msat_core.evaluation.html import Section, Table, page
from msat_core.evaluation.metrics import reliability
from msat_core.evaluation.off_policy import Estimate, OffPolicy
from msat_core.files import write_text
from msat_core.trial.report import (
    N_EXAMPLES,
    PAGE_FILE,
    SNIPPET_CHARS,
    SUMMARY_FILE,
    asked_most,
    usd_text,
)
from msat_core.trial.shadow import ShadowResult, Way
from msat_core.trial.shadow_wording import (
    DIFFER_PROSE,
    ESTIMATES_PROSE,
    advice_text,
    believed_gain,
    promise_prose,
    reference_name,
    routing_prose,
    shadow_notes,
)
from msat_core.trial.wording import points

LEAST_PAIRS = 60  # answers from which a reliability diagram says something


def write_shadow(result: ShadowResult, out: str | Path) -> Path:
    """Write the summary and the page; the page last.

    Returns:
        the page's file.
    """
    out = Path(out)
    write_text(out / SUMMARY_FILE, json.dumps(shadow_summary(result), indent=1) + "\n")
    return write_text(out / PAGE_FILE, shadow_page(result))


def shadow_summary(result: ShadowResult) -> dict[str, Any]:
    """The result as plain data, laid out as a trial's; what the log cannot say is null."""
    decisions, recommended = result.decisions, result.recommended
    saving = recommended.saving
    n_served = np.bincount(decisions.served, minlength=len(result.names))
    return {
        "candidates": {
            way.label: {
                "accuracy": None if way.value is None else way.value.dr.value,
                "interval": None if way.value is None else [way.value.dr.low, way.value.dr.high],
                "usd_per_1000": way.usd_per_1000,
                "believed": way.believed,
                "n_served": int(n),
            }
            for way, n in zip(result.alone, n_served, strict=True)
        },
        "router": {
            "advised": result.advice == "route",
            "accuracy": None if recommended.value is None else recommended.value.dr.value,
            "usd_per_1000": recommended.usd_per_1000,
            "gain": None if recommended.gain is None else vars(recommended.gain),
            "believed_gain": believed_gain(result),
            "shares": dict(zip(result.names, recommended.shares, strict=True)),
        },
        "verdict": result.advice,
        "use_alone": result.use_alone,
        "best_alone": None if result.reference is None else result.names[result.reference],
        "incumbent": None if result.incumbent is None else result.names[result.incumbent],
        "saving": {"value": None, "low": None, "high": None} if saving is None else vars(saving),
        "guarantee": None,
        "off_policy": {way.label: _plain(way.value) for way in _ways(result)},
        "n_decisions": len(decisions) + sum(decisions.left_out.values()),
        "n_routed": len(decisions),
        "n_marked": int(decisions.marked.sum()),
        "n_explored": result.n_by_chance,
        "left_out": dict(decisions.left_out),
        "notes": shadow_notes(result),
    }


def shadow_page(result: ShadowResult) -> str:
    """The report as one HTML page that needs nothing else."""
    sections = [
        Section("The candidates alone", "", [_table(result, "candidate", result.alone, _times_served(result))]),
        Section("Routing", routing_prose(result), [_table(result, "way of choosing", _rules(result), _asked(result))]),
        Section("What would have been chosen", DIFFER_PROSE, [_differences(result)], _figures(result)),
    ]
    if result.explored:
        sections.append(Section("Off-policy estimates", ESTIMATES_PROSE, [_estimates(result)]))
    texts = _examples(result)
    if texts is not None:
        sections.append(Section("Ten of the routes", "Where the policy would have chosen somebody else.", [texts]))
    left = [[why, str(n)] for why, n in result.decisions.left_out.items()]
    sections.append(Section("What is in no figure", "", [Table(["routes on which", "number"], left)] if left else []))
    sections.append(Section("What is promised", promise_prose()))
    if notes := shadow_notes(result):
        sections.append(Section("Notes", " ".join(notes)))
    return page("Would routing pay?", advice_text(result), sections)


def _ways(result: ShadowResult) -> tuple[Way, ...]:
    return (*_rules(result), *result.alone)


def _rules(result: ShadowResult) -> tuple[Way, ...]:
    return (result.served, result.recommended, *result.others)


def _times_served(result: ShadowResult) -> tuple[str, list[str]]:
    return "served", list(map(str, np.bincount(result.decisions.served, minlength=len(result.names))))


def _asked(result: ShadowResult) -> tuple[str, list[str]]:
    return "asked most", [asked_most(way.shares, result.names) for way in _rules(result)]


def _table(result: ShadowResult, first: str, ways: Sequence[Way], last: tuple[str, Sequence[str]]) -> Table:
    rows = [
        [
            way.label,
            "unknown" if way.believed is None else f"{way.believed:.1%}",
            "not measured" if way.value is None else _share(way.value.dr),
            "–" if way.gain is None else points(way.gain),
            usd_text(way.usd_per_1000),
            "–" if way.saving is None else f"{way.saving.value:.0%} [{way.saving.low:.0%}, {way.saving.high:.0%}]",
            cell,
        ]
        for way, cell in zip(ways, last[1], strict=True)
    ]
    marked = {result.recommended.label} | ({reference_name(result)} if result.reference is not None else set())
    columns = [first, "believed", "right", "gain, points", "USD per 1,000", "saved", last[0]]
    return Table(columns, rows, frozenset(marked))


def _estimates(result: ShadowResult) -> Table:
    rows = [
        [
            way.label,
            *(_share(figure) for figure in (way.value.ips, way.value.snips, way.value.dr)),
            f"{way.value.effective_sample_size:.0f}",
            f"{way.value.n_matching} of {way.value.n}",
        ]
        for way in _ways(result)
        if way.value is not None
    ]
    return Table(
        ["", "IPS", "SNIPS", "DR", "effective sample", "served so"], rows, frozenset({result.recommended.label})
    )


def _differences(result: ShadowResult) -> Table:
    """Both scores and both costs, by whom the policy would have chosen."""
    d = result.decisions
    at = np.arange(len(d))
    rows = []
    for m, name in enumerate(result.names):
        there = np.flatnonzero((d.recommended == m) & (d.served != m))
        if not len(there):
            continue
        served = Counter(result.names[d.served[n]] for n in there).most_common(2)
        costs = [d.expected_usd[there, who[there]] for who in (d.recommended, d.served)]
        scores = [d.scores[at, who][there] for who in (d.recommended, d.served)]
        rows.append(
            [
                name,
                str(len(there)),
                ", ".join(f"{who} {n}" for who, n in served),
                *(f"{np.nanmean(column):.2f}" if not np.isnan(column).all() else "unknown" for column in scores),
                *(usd_text(None if np.isnan(column).any() else 1000 * float(column.mean())) for column in costs),
            ]
        )
    columns = ["would be chosen", "routes", "served", "its score", "served one's", "its USD per 1,000", "served one's"]
    return Table(columns, rows)


def _examples(result: ShadowResult) -> Table | None:
    """Where the log keeps texts."""
    d, rows = result.decisions, list[list[str]]()
    for n, record in enumerate(d.records):
        if record.text is None or record.recommended == record.candidate or len(rows) == N_EXAMPLES:
            continue
        text = " ".join(record.text.split())
        shown = text if len(text) <= SNIPPET_CHARS else text[: SNIPPET_CHARS - 1] + "…"
        pairs = [
            f"{name} {record.scores.get(name, float('nan')):.2f}" for name in (record.candidate, record.recommended)
        ]
        rows.append([shown, *pairs, "unknown" if np.isnan(d.outcomes[n]) else f"{d.outcomes[n]:g}"])
    return Table(["question", "served, score", "would be chosen, score", "outcome"], rows) if rows else None


def _figures(result: ShadowResult) -> Sequence[tuple[Any, str]]:
    """The reliability diagram of what was served, where matplotlib is installed."""
    from msat_core.evaluation.plots import reliability_figure

    d = result.decisions
    scores = d.scores[np.arange(len(d)), d.served]
    scored = d.marked & ~np.isnan(scores)
    if scored.sum() < LEAST_PAIRS:
        return ()
    try:
        bins = reliability(scores[scored], d.outcomes[scored])
        figure = reliability_figure({"served": bins}, "are scores what they say?")
    except ConfigurationError:
        return ()
    return ((figure, "Share right over score, of the answers that were served; the diagonal is perfect."),)


def _share(figure: Estimate) -> str:
    return f"{figure.value:.1%} [{max(figure.low, 0):.1%}, {min(figure.high, 1):.1%}]"


def _plain(value: OffPolicy | None) -> dict[str, Any] | None:
    if value is None:
        return None
    figures = {name: vars(getattr(value, name)) for name in ("ips", "snips", "dr")}
    names = ("direct", "effective_sample_size", "n", "n_matching")
    return {**figures, **{name: getattr(value, name) for name in names}}
