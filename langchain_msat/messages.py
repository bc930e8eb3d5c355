"""LangChain messages as the turns that msat_core reads, and decisions as metadata."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, convert_to_messages
from langchain_core.prompt_values import PromptValue

from msat_core.routing.dispatch import Role, Turn
from msat_core.zoo import Modality

_ROLES: dict[str, Role] = {
    "ai": "assistant",
    "assistant": "assistant",
    "system": "system",
    "developer": "system",
    "tool": "tool",
    "function": "tool",
}
_MODALITIES: dict[str, Modality] = {
    "image": "image",
    "image_url": "image",
    "input_image": "image",
    "audio": "audio",
    "input_audio": "audio",
    "video": "video",
    "file": "file",
    "document": "file",
}
TAG = "msat"

Out = TypeVar("Out")


def messages_of(given: Any) -> list[BaseMessage]:
    """The messages in a text, a message, a list of messages or a prompt value."""
    if isinstance(given, PromptValue):
        return given.to_messages()
    if isinstance(given, BaseMessage):
        return [given]
    return [HumanMessage(given)] if isinstance(given, str) else convert_to_messages(given)


def turns_of(messages: Sequence[BaseMessage]) -> list[Turn]:
    """One turn a message."""
    return [
        Turn(
            role=_role(message),
            text=str(message.text),
            modalities=_modalities(message),
            candidate=_tag(message).get("candidate"),
        )
        for message in messages
    ]


def _role(message: BaseMessage) -> Role:
    if "lc_source" in message.additional_kwargs:
        return "system"  # an agent's middleware wrote it (a summary, say), not the user
    return _ROLES.get(getattr(message, "role", message.type.removesuffix("MessageChunk").lower()), "user")


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
