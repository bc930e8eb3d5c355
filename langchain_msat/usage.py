"""What an answer says of itself, and which conversation it belongs to: for records of decisions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig

from msat_core import TokenUsage

_MODEL_KEYS = ("model_name", "model", "model_id")
_CONVERSATION_KEYS = ("thread_id", "session_id", "conversation_id")  # LangGraph's and LangSmith's


def usage_of(usage: TokenUsage, output: Any) -> TokenUsage:
    """What is known after a message, a chunk or an event of a stream: chunks' counts add up."""
    message = output.get("raw") if isinstance(output, Mapping) and "raw" in output else output
    if isinstance(message, AIMessage):
        model = next(
            (message.response_metadata[key] for key in _MODEL_KEYS if message.response_metadata.get(key)), None
        )
        return _added(usage, model, message.usage_metadata)
    if isinstance(message, Mapping) and str(message.get("event", "")).startswith("message-"):
        about = message.get("metadata") or {}
        return _added(usage, next((about[key] for key in _MODEL_KEYS if about.get(key)), None), message.get("usage"))
    return usage


def conversation_of(config: RunnableConfig) -> str | None:
    """The conversation's name, where the call's configuration holds one."""
    for holder in (config.get("configurable") or {}, config.get("metadata") or {}):
        for key in _CONVERSATION_KEYS:
            if holder.get(key):
                return str(holder[key])
    return None


def _added(usage: TokenUsage, model: Any, counts: Any) -> TokenUsage:
    if not isinstance(counts, Mapping):
        return usage._replace(model=usage.model or (str(model) if model else None))
    details = counts.get("input_token_details")
    cached = details.get("cache_read") if isinstance(details, Mapping) else None
    return TokenUsage(
        usage.model or (str(model) if model else None),
        _sum(usage.input_tokens, counts.get("input_tokens")),
        _sum(usage.output_tokens, counts.get("output_tokens")),
        _sum(usage.cached_tokens, cached),
    )


def _sum(count: int | None, more: int | None) -> int | None:
    return count if more is None else (count or 0) + more
