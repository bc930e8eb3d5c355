"""Own questions: from tables, records and traces to one form, and a sample of them over all tasks."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from msat_core.aptitude.graders.base import Grader
from msat_core.aptitude.graders.judge import Judge
from msat_core.aptitude.graders.naming import Graders
from msat_core.aptitude.questions import Question, question_of
from msat_core.checks import check_count
from msat_core.errors import RecordsError
from msat_core.importers.rows import Unreadable, outcome_of
from msat_core.importers.traces import LEFT_OUT, TraceFormat
from msat_core.reading import parse_json
from msat_core.trial.sources import rows_of

FIELDS = ("instruction", "answer", "task", "grader", "tests", "rubric", "tools", "scores")
DEFAULT_N = 300  # questions asked of each candidate; chosen
ID_PREFIX = "own:"
DEFAULT_TASK = "questions"


@dataclass(frozen=True)
class OwnQuestion:
    """One question of the user's, with whatever is known of it.

    Attributes:
        question: as it is asked and marked; its category is its task.
        grader: who marks it; None where only earlier outcomes are known.
        outcomes: earlier ones by candidate, in [0, 1].
    """

    question: Question
    grader: Grader | Judge | None
    outcomes: Mapping[str, float] = field(default_factory=dict)

    @property
    def item_id(self) -> str:
        """Made of the exact text, so that the same question is never asked twice."""
        return self.question.item_id


@dataclass(frozen=True)
class OwnQuestions:
    """The questions of a source.

    Attributes:
        questions: in the source's order, no text twice.
        source: where they come from.
        left_out: how many rows could not be used, by reason.
    """

    questions: tuple[OwnQuestion, ...]
    source: str
    left_out: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.questions)

    def sample(self, n: int) -> OwnQuestions:
        """At most n of them, spread evenly over the tasks; a larger sample holds every smaller one."""
        check_count("A sample", n)
        chosen = {item.item_id for item in round_robin(self.questions)[:n]}
        return replace(self, questions=tuple(item for item in self.questions if item.item_id in chosen))


def round_robin(questions: Sequence[OwnQuestion]) -> list[OwnQuestion]:
    """One of every task, then the next of every task; within a task by a hash, so that no order gets in."""
    ranks: Counter[str] = Counter()
    ranked = []
    for item in sorted(questions, key=lambda item: _draw(item.item_id)):
        task = item.question.category
        ranked.append((ranks[task], _draw(item.item_id), item))
        ranks[task] += 1
    return [item for _, _, item in sorted(ranked, key=lambda row: row[:2])]


def read_questions(
    source: str | Path | Iterable[Mapping[str, Any]],
    graders: Graders | None = None,
    *,
    grader: str | None = None,
    format: TraceFormat | None = None,
    feedback: str | None = None,
    columns: Mapping[str, str] | None = None,
) -> OwnQuestions:
    """Read own questions.

    Args:
        source: JSONL, JSON, CSV or Parquet; a folder of records; an export of traces; or rows as mappings.
        graders: makes graders from their names.
        grader: of every question that names none; None: the one that fits what is known of it.
        format: of an export of traces; None where the source is no such export.
        feedback: the key of the feedback that counts, where traces have several.
        columns: the source's names of fields that are called otherwise there.

    Raises:
        RecordsError: the source cannot be read, or holds no question that can be marked.
        ConfigurationError: there is no such grader or format.
    """
    graders = graders or Graders()
    where = "the given rows"
    if isinstance(source, (str, Path)):
        path = Path(source)
        where = path.name
        rows: Iterable[Mapping[str, Any]] = rows_of(path, format, feedback)
    else:
        rows = source
    left_out: Counter[str] = Counter()
    items: dict[str, OwnQuestion] = {}
    for number, row in enumerate(rows, start=1):
        if LEFT_OUT in row:
            left_out[str(row[LEFT_OUT])] += 1
            continue
        named = {name: row.get((columns or {}).get(name, name)) for name in FIELDS}
        item = _own_question(named, f"{where}, row {number}", graders, grader, left_out)
        if item is None:
            continue
        if item.item_id in items:
            left_out["the same question once more"] += 1
            item = replace(items[item.item_id], outcomes={**item.outcomes, **items[item.item_id].outcomes})
        items[item.item_id] = item
    if not items:
        reasons = "; ".join(f"{n}: {why}" for why, n in left_out.most_common(3)) or "it is empty"
        raise RecordsError(
            f"{where} holds no question that can be used ({reasons}): expected rows with `instruction` and one of "
            "`answer`, `tests`, `rubric`, `scores`, or a --grader that needs none."
        )
    return OwnQuestions(tuple(items.values()), where, dict(left_out))


def item_id_of(instruction: str) -> str:
    """A question's id."""
    return ID_PREFIX + hashlib.sha256(instruction.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _draw(item_id: str) -> str:
    return hashlib.sha256(f"order of asking\n{item_id}".encode()).hexdigest()


def _own_question(
    row: Mapping[str, Any], where: str, graders: Graders, default: str | None, left_out: Counter[str]
) -> OwnQuestion | None:
    instruction = row["instruction"]
    if not isinstance(instruction, str) or not instruction.strip():
        left_out["no instruction"] += 1
        return None
    instruction = instruction.strip()
    answer = _text(row["answer"])
    question = replace(
        question_of(item_id_of(instruction), instruction, answer, str(row["task"] or DEFAULT_TASK)),
        tests=str(row["tests"] or ""),
        rubric=str(row["rubric"] or ""),
        tools=_tools(row["tools"], where),
    )
    outcomes = _outcomes(row["scores"], where)
    named = row["grader"] or default
    marker: Grader | Judge | None = None
    if named:
        marker = graders.named(str(named), trusted=not row["grader"])
    elif question.answer or question.tests or question.rubric:
        marker = graders.fitting(question)
    if marker is None and not outcomes:
        left_out["nothing to mark it by"] += 1
        return None
    if marker is not None and not isinstance(marker, Judge):
        question = replace(question, grader=marker)
    return OwnQuestion(question, marker, outcomes)


def _text(value: Any) -> str:  # noqa: ANN401 - any JSON value
    """An answer as text; objects and lists as JSON."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, (dict, list)):
        return json.dumps(value, ensure_ascii=False)
    return str(value).lower() if isinstance(value, bool) else str(value).strip()


def _tools(value: Any, where: str) -> tuple[Mapping[str, Any], ...]:  # noqa: ANN401 - any JSON value
    tools = _parsed(value, where, "tools") or ()
    if not isinstance(tools, (list, tuple)) or not all(isinstance(tool, dict) for tool in tools):
        raise RecordsError(f"{where}: `tools` must be a list of tools as OpenAI's API describes them.")
    return tuple(tool if "function" in tool else {"type": "function", "function": tool} for tool in tools)


def _outcomes(value: Any, where: str) -> dict[str, float]:  # noqa: ANN401 - any JSON value
    outcomes = _parsed(value, where, "scores") or {}
    if not isinstance(outcomes, dict):
        raise RecordsError(f"{where}: `scores` must be an object of numbers by candidate.")
    try:
        return {str(name): outcome_of(value) for name, value in outcomes.items() if value is not None}
    except Unreadable as error:
        raise RecordsError(f"{where}: {error}.") from None


def _parsed(value: Any, where: str, name: str) -> Any:  # noqa: ANN401 - any JSON value
    """A nested value, which tables of text hold as JSON."""
    if not isinstance(value, str):
        return value
    try:
        return parse_json(value) if value.strip() else None
    except ValueError as error:
        raise RecordsError(f"{where}: `{name}` is not JSON ({error}).") from None
