"""lm-evaluation-harness: ``samples_TASK_DATE.jsonl`` files (``--log_samples``), in a folder named after the model."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from msat_core.importers.rows import (
    BadRow,
    ImportOptions,
    OutcomeRow,
    Row,
    Skipped,
    Unreadable,
    files_of,
    json_lines,
    outcome_of,
    text_of,
)
from msat_core.lettered_options import LETTERS, with_options

_FILE = re.compile(r"samples_(?P<task>.+?)(?:_(?P<date>\d{4}-\d\d-\d\dT[\d.\-]+))?\.jsonl$")
_METRICS = ("acc", "exact_match", "pass@1", "pass_at_1", "acc_norm")  # right or wrong, in order of preference
_QUESTIONS = ("instruction", "question", "query", "problem", "goal", "ctx", "input", "prompt")
_CONTEXTS = ("passage", "context", "support")
_OPTIONS = ("choices", "options", "endings")


def rows(source: Path, options: ImportOptions) -> Iterator[Row]:
    """Every sample of every file. The newest file of a task and model counts, older ones are skipped."""
    newest: dict[tuple[Path, str], Path] = {}
    for path in files_of(source, ".jsonl"):
        if match := _FILE.match(path.name):
            newest[path.parent, match["task"]] = path  # by name, so by date
        elif path == source:
            yield BadRow(str(path), "not named samples_TASK_DATE.jsonl")
    for (folder, task), path in newest.items():
        model = options.model or folder.name.replace("__", "/")
        chosen = options.answer_filter
        for where, data in json_lines(path):
            try:
                if isinstance(data, Unreadable):
                    raise data
                name = data.get("filter", "none") if isinstance(data, dict) else "none"
                chosen = chosen if chosen is not None else name
                yield _outcome(data, task, model, options) if name == chosen else Skipped(f"answer filter {name!r}")
            except Unreadable as error:
                yield BadRow(where, str(error))


def _outcome(data: Any, task: str, model: str, options: ImportOptions) -> OutcomeRow:  # noqa: ANN401 - a JSON value
    if not isinstance(data, dict) or not isinstance(data.get("doc"), dict):
        raise Unreadable("no doc")
    instruction, choices = _instruction(data["doc"])
    return OutcomeRow(
        model=model,
        item_id=f"{task}:{text_of(data, 'doc_id')}",
        instruction=instruction,
        task=task,
        benchmark=options.benchmark or task,
        score=outcome_of(data[_metric(data, options.metric)]),
        answer=_answer(data.get("target"), choices),
        output_chars=_output_chars(data.get("resps")),
    )


def _metric(data: Mapping[str, Any], wanted: str | None) -> str:
    if wanted is not None:
        if wanted not in data:
            raise Unreadable(f"no metric {wanted!r}")
        return wanted
    stated = data.get("metrics")
    listed = [name for name in stated if isinstance(name, str) and name in data] if isinstance(stated, list) else []
    usable = [name for name in _METRICS if name in (listed or data)]
    if usable:
        return usable[0]
    if len(listed) == 1:
        return str(listed[0])
    raise Unreadable(f"which metric is the score? it has {', '.join(listed) or 'none'}: name one with --metric")


def _instruction(doc: Mapping[str, Any]) -> tuple[str, int]:
    """The question as a user would send it, and how many options it has."""
    question = text_of(doc, *_QUESTIONS)
    contexts = [doc[name] for name in _CONTEXTS if isinstance(doc.get(name), str) and doc[name].strip()]
    listed: Any = next((doc[name] for name in _OPTIONS if doc.get(name)), ())
    if isinstance(listed, dict):  # ARC and its like: {"text": […], "label": […]}
        listed = listed.get("text") or ()
    choices = list(listed) if isinstance(listed, (list, tuple)) else []
    return "\n\n".join([*contexts, with_options(question.strip(), choices)]), len(choices)


def _answer(target: Any, n_choices: int) -> str | None:  # noqa: ANN401 - a JSON value
    text = str(target).strip() if isinstance(target, (str, int)) else ""
    if text.isascii() and text.isdigit() and len(text) < 4 and int(text) < min(n_choices, len(LETTERS)):
        return LETTERS[int(text)]
    return text or None


def _output_chars(responses: Any) -> int | None:  # noqa: ANN401 - a JSON value
    """Length of the first generation; log-likelihoods have none."""
    while isinstance(responses, list) and responses:
        responses = responses[0]
    numeric = isinstance(responses, str) and re.fullmatch(r"-?[\d.]+(?:e-?\d+)?|-?inf", responses)
    return len(responses) if isinstance(responses, str) and not numeric else None
