"""LangChain messages as the turns that msat_core reads, and decisions as metadata."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, convert_to_messages
from langchain_core.prompt_values import PromptValue

from msat_core import Modality, Role, Turn, modalities_of, role_of

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
    return role_of(getattr(message, "role", message.type.removesuffix("MessageChunk").lower()))


def _modalities(message: BaseMessage) -> frozenset[Modality]:
    blocks = [] if isinstance(message.content, str) else message.content
    return modalities_of(block.get("type", "") for block in blocks if isinstance(block, dict))


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
