"""What an answer says of itself, and which conversation it belongs to: for records of decisions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llama_index_instrumentation.dispatcher import active_instrument_tags

from msat_core import TokenUsage

_INPUT_KEYS = ("prompt_tokens", "input_tokens", "prompt_token_count", "prompt_eval_count")
_OUTPUT_KEYS = ("completion_tokens", "output_tokens", "candidates_token_count", "eval_count")
_CONVERSATION_KEYS = ("conversation_id", "session_id", "thread_id")


def usage_of(usage: TokenUsage, output: Any) -> TokenUsage:
    """What is known after a response or a chunk: what comes later counts, as providers send totals."""
    raw = getattr(output, "raw", None)
    counts = [_field(raw, "usage"), _field(raw, "usage_metadata"), raw, getattr(output, "additional_kwargs", None)]
    model = _field(raw, "model") or _field(raw, "model_version")
    return TokenUsage(
        usage.model or (str(model) if model else None),
        _count(counts, _INPUT_KEYS, usage.input_tokens),
        _count(counts, _OUTPUT_KEYS, usage.output_tokens),
        _count([_field(_field(raw, "usage"), "prompt_tokens_details")], ("cached_tokens",), usage.cached_tokens),
    )


def conversation() -> str | None:
    """The conversation's name, where ``instrument_tags`` around the call hold one."""
    tags = active_instrument_tags.get()
    return next((str(tags[key]) for key in _CONVERSATION_KEYS if tags.get(key)), None)


def _count(holders: list[Any], keys: tuple[str, ...], default: int | None) -> int | None:
    for holder in holders:
        for key in keys:
            if isinstance(value := _field(holder, key), int):
                return value
    return default


def _field(holder: Any, name: str) -> Any:
    return holder.get(name) if isinstance(holder, Mapping) else getattr(holder, name, None)
