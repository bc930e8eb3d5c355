"""Exports of traces: what was asked in production, who answered, and what people thought of it.

Three documented formats are read as one: runs of LangSmith, traces and observations of Langfuse, and spans by
OpenTelemetry's conventions for generative AI. Of each call only its input, its output, its feedback, its model and its
tokens are read; of the input, only what the user said. A call amid a longer conversation is left out and counted: it
cannot be asked again by itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from msat_core.errors import RecordsError
from msat_core.importers import otel
from msat_core.importers.rows import Unreadable, csv_rows, files_of, json_lines, outcome_of
from msat_core.reading import parse_json, read_json

TraceFormat = Literal["langsmith", "langfuse", "otel"]
TRACE_FORMATS: tuple[TraceFormat, ...] = get_args(TraceFormat)
LEFT_OUT = "__left_out__"  # key of a row that cannot be used; its value says why

_INPUT_KEYS = ("messages", "input", "question", "query", "prompt", "instruction", "text", "human_input")
_OUTPUT_KEYS = ("output", "answer", "text", "content", "response", "result", "generations", "choices", "message")
_USER = ("user", "human")
_MODEL_KEYS = ("ls_model_name", "model_name", "model", "model_id", "deployment_name")

Row = Mapping[str, Any]


def trace_rows(source: Path, format: TraceFormat, feedback: str | None = None) -> Iterator[Row]:
    """One row a call: ``instruction``, ``answer`` where a data set states it, ``scores`` by model.

    Args:
        source: a file, or a folder of files: JSON, JSONL, and CSV where the tool exports it.
        format: whose export it is.
        feedback: the key of the feedback that counts; None where there is only one.

    Raises:
        RecordsError: a file cannot be read.
    """
    read = {"langsmith": _langsmith, "langfuse": _langfuse, "otel": _otel}[format]
    for path in files_of(source, ".jsonl", ".json", ".csv"):
        for value in _values(path):
            try:
                yield from list(read(value, feedback)) if isinstance(value, dict) else [{LEFT_OUT: "not an object"}]
            except (AttributeError, LookupError, TypeError, ValueError):  # something else where a format has an object
                yield {LEFT_OUT: f"not as {format} writes it"}


def _values(path: Path) -> Iterator[Any]:
    if path.suffix == ".csv":
        for _, row in csv_rows(path):
            yield row if isinstance(row, Unreadable) else {name: _unpacked(value) for name, value in row.items()}
    elif path.suffix == ".json":
        try:
            content = read_json(path)
        except (OSError, ValueError) as error:
            raise RecordsError(f"{path} is not JSON ({error}).") from None
        whole = content.get("data") if isinstance(content, dict) else content
        yield from whole if isinstance(whole, list) else [content]
    else:
        for _, value in json_lines(path):
            yield value


def _langsmith(run: Row, feedback: str | None) -> Iterator[Row]:
    """A run (``inputs``, ``outputs``, ``feedback_stats``), or an example of a data set (``outputs`` is the answer)."""
    inputs, outputs = _unpacked(run.get("inputs")), _unpacked(run.get("outputs"))
    is_run = "run_type" in run or "trace_id" in run or "dotted_order" in run
    if is_run and run.get("run_type") not in (None, "llm"):
        return  # chains and tools: the calls of models inside them have runs of their own
    if run.get("error"):
        yield {LEFT_OUT: "the call failed"}
        return
    extra = _unpacked(run.get("extra")) or {}
    stats = _unpacked(run.get("feedback_stats")) or {}
    means = {key: stat.get("avg") for key, stat in stats.items() if isinstance(stat, dict)}
    model = _model({**extra.get("invocation_params", {}), **extra.get("metadata", {})}) if is_run else None
    yield _row(inputs, None if is_run else outputs, model, means, feedback)


def _langfuse(record: Row, feedback: str | None) -> Iterator[Row]:
    """An observation or a trace (``input``, ``output``, ``scores``), or a data set's item (``expectedOutput``)."""
    kind = str(record.get("type") or "").upper()
    if kind and kind != "GENERATION":
        return  # spans and events around the generations
    if str(record.get("level") or "").upper() == "ERROR":
        yield {LEFT_OUT: "the call failed"}
        return
    for observation in record.get("observations") or ():
        if isinstance(observation, dict):
            yield from _langfuse({"scores": record.get("scores"), **observation}, feedback)
    if record.get("observations"):
        return
    listed = _unpacked(record.get("scores")) or ()
    values = {str(s.get("name")): s.get("value") for s in listed if isinstance(s, dict)}
    expected = record.get("expectedOutput", record.get("expected_output"))
    model = record.get("model") or record.get("providedModelName") or record.get("provided_model_name")
    yield _row(_unpacked(record.get("input")), _unpacked(expected), model, values, feedback)


def _otel(export: Row, feedback: str | None) -> Iterator[Row]:
    """OTLP in JSON, or one span a line."""
    for call in otel.calls_of(export):
        yield (
            {LEFT_OUT: "the call failed"}
            if call.failed
            else _row(call.messages, None, call.model, call.scores, feedback)
        )


def _row(asked: Any, answer: Any, model: Any, values: Mapping[str, Any], feedback: str | None) -> Row:  # noqa: ANN401
    instruction, why = user_text(asked)
    if instruction is None:
        return {LEFT_OUT: why}
    row: dict[str, Any] = {"instruction": instruction}
    if answer is not None and (text := output_text(answer)):
        row["answer"] = text
    outcomes = {key: value for key, value in values.items() if feedback in (None, key) and _is_outcome(value)}
    if len(outcomes) > 1:
        return {LEFT_OUT: f"feedback of several kinds ({', '.join(sorted(outcomes)[:3])}): name one with --feedback"}
    if outcomes and isinstance(model, str) and model:
        row["scores"] = {model: outcome_of(next(iter(outcomes.values())))}
    return row


def user_text(asked: Any) -> tuple[str | None, str]:  # noqa: ANN401 - any JSON value
    """What the user said in an input; None, and why, where that is not one message."""
    content = asked
    while isinstance(content, dict) and "role" not in content and "kwargs" not in content:
        key = next((key for key in _INPUT_KEYS if key in content), None)
        texts = [value for value in content.values() if isinstance(value, str)]
        if key is None and len(texts) != 1:
            return None, "no text of a user"
        content = texts[0] if key is None else content[key]
    if isinstance(content, str):
        return (content, "") if content.strip() else (None, "no text of a user")
    messages = _messages(content)
    spoken = [(role, text) for role, text in messages if role not in ("system", "developer")]
    if len(spoken) > 1:
        return None, "amid a longer conversation"
    if not spoken or spoken[0][0] not in _USER or not spoken[0][1].strip():
        return None, "no text of a user"
    return spoken[0][1], ""


def output_text(value: Any) -> str:  # noqa: ANN401 - any JSON value
    """The text of an output."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        messages = _messages(value)
        return messages[-1][1] if messages else (output_text(value[-1]) if value else "")
    if isinstance(value, dict):
        if "role" in value or "kwargs" in value:
            return _message(value)[1]
        key = next((key for key in _OUTPUT_KEYS if key in value), None)
        if key is not None:
            return output_text(value[key])
        texts = [text for text in value.values() if isinstance(text, str)]
        return texts[0] if len(texts) == 1 else json.dumps(value, ensure_ascii=False)
    return "" if value is None else json.dumps(value)


def _messages(messages: Any) -> list[tuple[str, str]]:  # noqa: ANN401 - any JSON value
    """(role, text) of each message; a batch of one is opened."""
    if isinstance(messages, dict):
        messages = [messages]
    if isinstance(messages, list) and len(messages) == 1 and isinstance(messages[0], list):
        messages = messages[0]
    return (
        [_message(message) for message in messages if isinstance(message, dict)] if isinstance(messages, list) else []
    )


def _message(message: Row) -> tuple[str, str]:
    """A message as providers write it, as LangChain serialises it, or in parts."""
    inner = message.get("kwargs") if isinstance(message.get("kwargs"), dict) else message.get("message", message)
    inner = inner if isinstance(inner, dict) else message
    role = str(inner.get("role") or inner.get("type") or message.get("role") or "").lower()
    content = inner.get("content", inner.get("parts", inner.get("text")))
    return role, _content(content)


def _content(content: Any) -> str:  # noqa: ANN401 - any JSON value
    if isinstance(content, str):
        return content
    if not isinstance(content, Sequence):
        return ""
    parts = [part if isinstance(part, str) else part.get("text", part.get("content", "")) for part in content if part]
    return "\n".join(part for part in parts if isinstance(part, str))


def _model(facts: Row) -> str | None:
    return next((facts[key] for key in _MODEL_KEYS if isinstance(facts.get(key), str)), None)


def _is_outcome(value: Any) -> bool:  # noqa: ANN401 - any JSON value
    try:
        outcome_of(value)
    except Unreadable:
        return False
    return True


def _unpacked(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """A value that an export holds as a text of JSON."""
    if not isinstance(value, str) or value.strip()[:1] not in ("{", "["):
        return value
    try:
        return parse_json(value)
    except ValueError:
        return value
