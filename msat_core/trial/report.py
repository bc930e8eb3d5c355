"""What a trial leaves behind: artefacts ready to route with, and one page for whoever has to decide."""

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
from msat_core.files import file_stem, write_text
from msat_core.trial.agreement import in_words, plain
from msat_core.trial.questions import round_robin
from msat_core.trial.trial import TrialResult
from msat_core.trial.verdict import Verdict
from msat_core.trial.wording import points, promise_text, verdict_text

ZOO_FILE, POLICY_FILE, PAGE_FILE, SUMMARY_FILE = "zoo.json", "policy.json", "report.html", "trial.json"
PROFILES, EXAM, RECORDS = "profiles", "exam", "records"
N_EXAMPLES = 10  # questions shown
SNIPPET_CHARS = 160  # of each


def write_result(result: TrialResult, out: str | Path) -> Path:
    """Write zoo, profiles, exam, policy, records and the page; the page last.

    Returns:
        the page's file.
    """
    out = Path(out)
    result.exam.save(out / EXAM)
    for candidate in result.zoo:
        candidate.profile.save(out / PROFILES / f"{file_stem(candidate.name)}.json")
    result.zoo.save(out / ZOO_FILE)
    result.policy.save(out / POLICY_FILE)
    _write_records(result, out / RECORDS)
    write_text(out / SUMMARY_FILE, json.dumps(summary(result), indent=1) + "\n")
    return write_text(out / PAGE_FILE, report_page(result))


def _write_records(result: TrialResult, folder: Path) -> None:
    """Every mark as records, so that it can be evaluated again; the user's own texts stay in the user's own folder."""
    items = [
        {
            "item_id": item.item_id,
            "task": task,
            "instruction": item.question.with_options(),
            "answer": item.question.answer,
        }
        for item, task in zip(result.questions, result.tasks, strict=True)
    ]
    outcomes = [
        {"model": name, "item_id": item.item_id, "score": float(result.table.outcomes[n, m])}
        for m, name in enumerate(result.zoo.names)
        for n, item in enumerate(result.questions)
    ]
    for name, rows in (("outcomes", outcomes), ("items", items)):
        write_text(folder / f"{name}.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def summary(result: TrialResult) -> dict[str, Any]:
    """The result as plain data; the layout is a contract (see ``msat trial --json``)."""
    verdict = result.verdict
    shown = verdict.advised or verdict.quality
    saving = verdict.saving.saving if verdict.saving is not None else None
    return {
        "candidates": {
            single.name: {
                "accuracy": single.accuracy,
                "interval": [single.interval.low, single.interval.high],
                "usd_per_1000": single.usd_per_1000,
                "missing": dict(result.marks.missing[single.name]),
            }
            for single in verdict.alone
        },
        "router": {
            "advised": verdict.use_alone is None,
            "objective": shown.objective,
            "knob": shown.knob,
            "accuracy": shown.accuracy,
            "usd_per_1000": shown.usd_per_1000,
            "gain": vars(shown.gain),
            "believed_gain": verdict.believed_gain,
            "believed_lead": verdict.believed_lead,
            "shares": dict(zip(result.zoo.names, shown.shares, strict=True)),
        },
        "use_alone": result.use_alone,
        "best_alone": result.zoo.names[verdict.best],
        "saving": {"value": None, "low": None, "high": None} if saving is None else vars(saving),
        "guarantee": vars(verdict.promise),
        "n_questions": len(result.questions),
        "n_asked": result.n_asked,
        "left_out": dict(result.left_out),
        "judge_agreement": plain(result.judge_agreement),
        "notes": list(result.notes),
        "complete": result.complete,
        "usd": round(result.usd, 6),
    }


def report_page(result: TrialResult) -> str:
    """The report as one HTML page that needs nothing else."""
    verdict = result.verdict
    sections = [
        Section("The candidates alone", _alone_prose(verdict), [_alone_table(result)]),
        Section("Routing", ROUTING_PROSE, [_routing_table(result)], _figures(result)),
        Section(
            "Where each candidate wins",
            WINS_PROSE,
            [_wins(result)],
        ),
        Section(
            "Ten of your questions",
            EXAMPLES_PROSE,
            [_examples(result)],
        ),
        Section("What was not marked", _unmarked_prose(result), _unmarked(result)),
        Section("What is promised", promise_text(verdict)),
    ]
    if result.judge_agreement is not None:
        sections.append(Section("The judge", in_words(result.judge_agreement)))
    if result.notes:
        sections.append(Section("Notes", " ".join(result.notes)))
    lead = f"{len(result.questions)} of your questions, {len(result.zoo)} candidates, {result.usd:.2f} USD spent."
    return page("Does routing pay?", lead, sections, verdict_text(result))


ROUTING_PROSE = (
    "Each question is routed by a router that knows the other four fifths of your questions. Intervals are 95%, by "
    "resampling the questions; gains are in points of accuracy over the best candidate alone, and what is saved is a "
    "share of what that costs."
)

WINS_PROSE = "Share right by kind of question, with words that set the kind apart."
EXAMPLES_PROSE = "Where the candidates differ: who would be asked, and who is right."


def _alone_prose(verdict: Verdict) -> str:
    best = verdict.alone[verdict.best]
    as_good = [single.name for single in verdict.alone if single is not best and single.interval.high >= best.accuracy]
    if not as_good:
        return f"{best.name} is ahead of all others by more than chance would explain."
    return f"{best.name} has most right; {', '.join(as_good)} may be as good: so few questions cannot tell them apart."


def _alone_table(result: TrialResult) -> Table:
    rows = [
        [
            single.name,
            f"{single.accuracy:.1%}",
            f"[{single.interval.low:.1%}, {single.interval.high:.1%}]",
            usd_text(single.usd_per_1000),
        ]
        for single in result.verdict.alone
    ]
    best = result.verdict.alone[result.verdict.best].name
    return Table(["candidate", "right", "95%", "USD per 1,000"], rows, frozenset({best}))


def _routing_table(result: TrialResult) -> Table:
    verdict = result.verdict
    ways = [way for way in (verdict.quality, verdict.saving, verdict.guaranteed, *verdict.rates) if way]
    rows = [
        [
            way.label,
            f"{way.accuracy:.1%}",
            points(way.gain),
            usd_text(way.usd_per_1000),
            "–" if way.saving is None else f"{way.saving.value:.0%} [{way.saving.low:.0%}, {way.saving.high:.0%}]",
            asked_most(way.shares, result.zoo.names),
        ]
        for way in ways
    ]
    marked = frozenset({verdict.advised.label}) if verdict.advised else frozenset()
    return Table(["way of routing", "right", "gain, points", "USD per 1,000", "saved", "asked most"], rows, marked)


def _figures(result: TrialResult) -> Sequence[tuple[Any, str]]:
    """The reliability diagram, where matplotlib is installed."""
    from msat_core.evaluation.plots import reliability_figure

    table = result.table
    if len(table.outcomes) * len(result.zoo) < 60:
        return ()
    try:
        bins = reliability(table.scores, table.outcomes)
        figure = reliability_figure({"routed": bins}, "are scores what they say?")
    except ConfigurationError:
        return ()
    return ((figure, "Share right over score, on questions that the scorer did not know; the diagonal is perfect."),)


def _wins(result: TrialResult) -> Table:
    words = {task.task: ", ".join(task.keywords) for task in result.exam.sheet.tasks}
    rows = []
    for task in sorted(set(result.tasks)):
        at = [n for n, label in enumerate(result.tasks) if label == task]
        right = result.table.outcomes[at].mean(axis=0)
        best = [name for name, share in zip(result.zoo.names, right, strict=True) if share == right.max()]
        rows.append(
            [task, words.get(task, ""), str(len(at)), *(f"{share:.0%}" for share in right), ", ".join(best[:2])]
        )
    return Table(["kind", "words", "questions", *result.zoo.names, "best"], rows)


def _examples(result: TrialResult) -> Table:
    table, names = result.table, result.zoo.names
    differ = np.ptp(table.outcomes, axis=1)
    chosen = table.scores.argmax(axis=1)
    position = {item.item_id: n for n, item in enumerate(result.questions)}
    mixed = [position[item.item_id] for item in round_robin(result.questions)]
    rows = []
    for n in sorted(mixed, key=lambda n: -differ[n])[:N_EXAMPLES]:
        right = [name for name, outcome in zip(names, table.outcomes[n], strict=True) if outcome > 0.5]
        text = " ".join(result.questions[n].question.text.split())
        shown = text if len(text) <= SNIPPET_CHARS else text[: SNIPPET_CHARS - 1] + "…"
        rows.append([shown, names[chosen[n]], f"{table.scores[n, chosen[n]]:.2f}", ", ".join(right) or "nobody"])
    return Table(["question", "asked", "score", "right"], rows)


def _unmarked_prose(result: TrialResult) -> str:
    n_dropped = result.n_asked - len(result.questions)
    left = "; ".join(f"{n}: {why}" for why, n in result.left_out.items())
    return (
        "Answers that were cut short, refused, empty or unreadable count as wrong. "
        f"{n_dropped} questions lack a mark of some candidate and are in no figure."
        + (f" Rows of your file that were not used: {left}." if left else "")
    )


def _unmarked(result: TrialResult) -> list[Table]:
    reasons = sorted({why for missing in result.marks.missing.values() for why in missing})
    if not reasons:
        return []
    rows = [[name, *(str(Counter(result.marks.missing[name])[why]) for why in reasons)] for name in result.zoo.names]
    return [Table(["candidate", *reasons], rows)]


def usd_text(usd: float | None) -> str:
    """An amount, or that nobody knows it."""
    return "unknown" if usd is None else f"{usd:.3f}"


def asked_most(shares: Sequence[float], names: Sequence[str]) -> str:
    """Whom a way of routing asks most, with their shares."""
    top = sorted(zip(shares, names, strict=True), reverse=True)[:3]
    return ", ".join(f"{name} {share:.0%}" for share, name in top if share > 0)
