"""LangChain messages as the turns that msat_core reads, and decisions as metadata."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from langchain_core.messages import AIMessage, BaseMessage

from msat_core.routing.dispatch import Role, Turn
from msat_core.zoo import Modality

_ROLES: dict[str, Role] = {"human": "user", "ai": "assistant", "system": "system", "tool": "tool", "function": "tool"}
_MODALITIES: dict[str, Modality] = {
    "image": "image",
    "image_url": "image",
    "audio": "audio",
    "input_audio": "audio",
    "video": "video",
    "file": "file",
}
TAG = "msat"

Out = TypeVar("Out")


def turns_of(messages: Sequence[BaseMessage]) -> list[Turn]:
    """One turn a message."""
    return [
        Turn(
            role=_ROLES.get(message.type.removesuffix("MessageChunk").lower(), "user"),
            text=str(message.text),
            modalities=_modalities(message),
            candidate=_tag(message).get("candidate"),
        )
        for message in messages
    ]


def _modalities(message: BaseMessage) -> frozenset[Modality]:
    if isinstance(message.content, str):
        return frozenset()
    kinds = {block.get("type", "") for block in message.content if isinstance(block, dict)}
    return frozenset(_MODALITIES[kind] for kind in kinds if kind in _MODALITIES)


def _tag(message: BaseMessage) -> dict[str, Any]:
    tag = message.response_metadata.get(TAG) if isinstance(message, AIMessage) else None
    return tag if isinstance(tag, dict) else {}


def tagged(output: Out, tag: dict[str, Any]) -> Out:
    """A copy of a message (or of a structured output's raw message) that carries the decision.

    A copy, because caches hand the same message to several callers. Other outputs come back as they are.
    """
    if isinstance(output, AIMessage):
        return output.model_copy(update={"response_metadata": {**output.response_metadata, TAG: tag}})
    if isinstance(output, dict) and isinstance(output.get("raw"), AIMessage):
        return {**output, "raw": tagged(output["raw"], tag)}  # type: ignore[return-value]
    return output
