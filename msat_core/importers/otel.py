"""Spans by OpenTelemetry's conventions for generative AI, as OTLP writes them in JSON."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from msat_core.reading import parse_json

_INDEXED = re.compile(r"^gen_ai\.prompt\.(\d+)\.(role|content)$")  # an older convention, still sent by instrumentations
_EVENTS = {"gen_ai.system.message": "system", "gen_ai.user.message": "user", "gen_ai.assistant.message": "assistant"}
_EVALUATION = "gen_ai.evaluation.result"
_FAILED = (2, "STATUS_CODE_ERROR", "ERROR")


@dataclass(frozen=True)
class Call:
    """One call of a model.

    Attributes:
        model: that answered, else that was asked for; None if the span names none.
        messages: of the input, ``{"role", "content"}``.
        scores: of evaluations, by name.
        failed: whether the span ended in an error.
    """

    model: str | None
    messages: Sequence[Mapping[str, Any]]
    scores: Mapping[str, Any] = field(default_factory=dict)
    failed: bool = False


def calls_of(export: Mapping[str, Any]) -> Iterator[Call]:
    """The calls of models in a batch of spans, or in one span; other spans are passed over."""
    if "resourceSpans" in export:
        for resource in export["resourceSpans"] or ():
            for scope in resource.get("scopeSpans") or ():
                for span in scope.get("spans") or ():
                    yield from _call(span)
    else:
        yield from _call(export)


def _call(span: Mapping[str, Any]) -> Iterator[Call]:
    facts = _attributes(span.get("attributes"))
    model = facts.get("gen_ai.response.model") or facts.get("gen_ai.request.model")
    events = [(str(event.get("name")), _attributes(event.get("attributes"))) for event in span.get("events") or ()]
    messages = _input(facts, events)
    if model is None and not messages:
        return
    status = span.get("status") or {}
    failed = "error.type" in facts or (isinstance(status, dict) and status.get("code") in _FAILED)
    scores = {
        str(about.get("gen_ai.evaluation.name", "evaluation")): about.get("gen_ai.evaluation.score.value")
        for name, about in events
        if name == _EVALUATION
    }
    yield Call(None if model is None else str(model), messages, scores, failed)


def _input(facts: Mapping[str, Any], events: Sequence[tuple[str, Mapping[str, Any]]]) -> list[Mapping[str, Any]]:
    """The input's messages: of the attribute, of the span's events, or of indexed attributes."""
    for holder in (facts, *(about for _, about in events)):
        written = holder.get("gen_ai.input.messages")
        if written is not None:
            messages = _unpacked(written)
            return [message for message in messages if isinstance(message, dict)] if isinstance(messages, list) else []
    messages = [{"role": _EVENTS[name], "content": about.get("content")} for name, about in events if name in _EVENTS]
    if messages:
        return list(messages)
    indexed: dict[int, dict[str, Any]] = {}
    for key, value in facts.items():
        if match := _INDEXED.match(key):
            indexed.setdefault(int(match.group(1)), {})[match.group(2)] = value
    return [indexed[i] for i in sorted(indexed)]


def _attributes(attributes: Any) -> dict[str, Any]:  # noqa: ANN401 - any JSON value
    """Attributes as a mapping, from OTLP's list of keys and typed values or from a mapping."""
    if isinstance(attributes, dict):
        return attributes
    return {
        str(attribute.get("key")): _value(attribute.get("value"))
        for attribute in (attributes if isinstance(attributes, list) else ())
        if isinstance(attribute, dict)
    }


def _value(typed: Any) -> Any:  # noqa: ANN401 - any JSON value
    if not isinstance(typed, dict):
        return typed
    if "arrayValue" in typed:
        return [_value(item) for item in (typed["arrayValue"] or {}).get("values") or ()]
    if "kvlistValue" in typed:
        return _attributes((typed["kvlistValue"] or {}).get("values"))
    return next(iter(typed.values()), None)


def _unpacked(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    try:
        return parse_json(value) if isinstance(value, str) else value
    except ValueError:
        return None
