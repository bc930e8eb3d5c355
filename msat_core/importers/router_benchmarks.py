"""Benchmarks of routers: RouterBench (CSV, a column a model) and LLMRouterBench or RouterEval-like JSON and JSONL."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from msat_core.errors import RecordsError
from msat_core.importers.rows import (
    BadRow,
    ImportOptions,
    OutcomeRow,
    Row,
    Skipped,
    Unreadable,
    csv_rows,
    files_of,
    id_of_text,
    json_head,
    json_items,
    json_lines,
    opened,
    outcome_of,
    text_of,
)

_RESPONSE, _COST = "|model_response", "|total_cost"
_MODEL = ("model_name", "model", "model_id")
_DATASET = ("dataset_name", "dataset_id", "dataset", "task_name", "task", "benchmark", "eval_name")
_QUERY = ("origin_query", "query", "question", "instruction", "prompt")
_INDEX = ("record_index", "index", "sample_id", "item_id", "id")
_SCORE = ("score", "performance", "correct", "acc")
_OUTPUT = ("raw_output", "response", "prediction", "output")


def routerbench_rows(source: Path, options: ImportOptions) -> Iterator[Row]:
    """RouterBench: sample_id, prompt, eval_name, and for each model its score, response and cost."""
    for path in files_of(source, ".csv"):
        models: list[str] = []
        for where, data in csv_rows(path):
            if isinstance(data, Unreadable):
                yield BadRow(where, str(data))
                continue
            if not models:
                models = [m for m in data if f"{m}{_RESPONSE}" in data or f"{m}{_COST}" in data]
            if not models:
                raise RecordsError(
                    f"{path} has no model's columns: expected NAME beside NAME{_RESPONSE} or NAME{_COST}. For "
                    "another table use --format csv with --wide NAME,NAME."
                )
            for model in models:
                if not (data.get(model) or "").strip():
                    yield Skipped(f"no outcome of {model}")
                    continue
                try:
                    yield _routerbench(data, model, options)
                except Unreadable as error:
                    yield BadRow(f"{where} ({model})", str(error))


def _routerbench(data: Mapping[str, Any], model: str, options: ImportOptions) -> OutcomeRow:
    task = text_of(data, "eval_name")
    response = data.get(f"{model}{_RESPONSE}")
    return OutcomeRow(
        model=model,
        item_id=text_of(data, "sample_id"),
        instruction=_unwrapped(text_of(data, "prompt")),
        task=task,
        benchmark=options.benchmark or "routerbench",
        score=outcome_of(data[model]),
        output_chars=len(_unwrapped(response)) if response else None,
    )


def _unwrapped(text: str) -> str:
    """The text inside a list of texts written out (``['…']``); any other text as it is."""
    if text.startswith("[") and text.endswith("]"):
        try:
            inner = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return text
        if isinstance(inner, list) and inner and all(isinstance(part, str) for part in inner):
            return "\n".join(inner)
    return text


def llmrouterbench_rows(source: Path, options: ImportOptions) -> Iterator[Row]:
    """LLMRouterBench files (dataset_name, model_name, records), or JSONL with one outcome or one question a line.

    A line with a mapping of scores by model (``scores`` or ``model_scores``) is one question.
    """
    for path in files_of(source, ".json", ".jsonl"):
        if path.suffix == ".jsonl":
            for where, data in json_lines(path):
                yield from _line(where, data, {}, options)
        else:
            yield from _result_file(path, options)


def _result_file(path: Path, options: ImportOptions) -> Iterator[Row]:
    number = 0
    try:
        with opened(path, None) as file:
            head = json_head(file)
        if head.get("demo"):
            yield Skipped("a demo run")
            return
        with opened(path, None) as file:
            for number, data in enumerate(json_items(file, "records.item"), start=1):
                yield from _line(f"{path}[{number}]", data, head, options)
    except Unreadable as error:
        yield BadRow(f"{path}[{number + 1}]", str(error))


def _line(where: str, data: Any, head: Mapping[str, Any], options: ImportOptions) -> Iterator[Row]:  # noqa: ANN401
    try:
        if isinstance(data, Unreadable):
            raise data
        if not isinstance(data, dict):
            raise Unreadable(f"expected an object, got {type(data).__name__}")
        # of the file's own values only these: its score is a mean, not a record's
        whole = {**{name: head[name] for name in (*_MODEL, *_DATASET, "split") if name in head}, **data}
        scores = next((whole[key] for key in ("scores", "model_scores") if isinstance(whole.get(key), dict)), None)
        if scores is None:
            yield _outcome(whole, options.model or text_of(whole, *_MODEL), _score(whole, options), options)
            return
    except Unreadable as error:
        yield BadRow(where, str(error))
        return
    for model, score in scores.items():
        try:
            yield Skipped(f"no outcome of {model}") if score is None else _outcome(whole, model, score, options)
        except Unreadable as error:
            yield BadRow(f"{where} ({model})", str(error))


def _score(data: Mapping[str, Any], options: ImportOptions) -> Any:  # noqa: ANN401 - a JSON value
    names = (options.metric,) if options.metric else _SCORE
    scores = [data[name] for name in names if data.get(name) is not None]
    if not scores:
        raise Unreadable(f"no {' or '.join(names)}")
    return scores[0]


def _outcome(data: Mapping[str, Any], model: str, score: Any, options: ImportOptions) -> OutcomeRow:  # noqa: ANN401
    instruction = text_of(data, *_QUERY)
    task = next((str(data[name]) for name in _DATASET if data.get(name)), options.benchmark)
    if task is None:
        raise Unreadable(f"no {' or '.join(_DATASET)}")
    index = next((str(data[name]) for name in _INDEX if data.get(name) is not None), None)
    split = str(data.get("split") or "")
    output = next((data[name] for name in _OUTPUT if isinstance(data.get(name), str)), None)
    answer = data.get("ground_truth", data.get("answer"))
    return OutcomeRow(
        model=model,
        item_id=id_of_text(instruction) if index is None else ":".join(filter(None, [task, split, index])),
        instruction=instruction,
        task=task,
        benchmark=options.benchmark or task,
        score=outcome_of(score),
        answer=str(answer) if isinstance(answer, (str, int, float)) and str(answer).strip() else None,
        output_chars=None if output is None else len(output),
    )
