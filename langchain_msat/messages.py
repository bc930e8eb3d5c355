"""LangChain messages as the turns that msat_core reads, and decisions as metadata."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    convert_to_messages,
)
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.prompt_values import PromptValue

from msat_core import MEDIUM_CHARS, TAG, Turn, TurnRole, believed, media_in, role_of, size_of

RECENT = 256  # messages among which the user's last instruction is looked for; of older texts only the size is read
_SPOKEN, _HEARD = Turn("assistant"), Turn("user")
FINISH_KEYS = ("finish_reason", "stop_reason", "done_reason", "stopReason", "finishReason", "status")

Out = TypeVar("Out")


def messages_of(prompt: Any) -> list[BaseMessage]:
    """The messages in a text, a message, a list of messages or a prompt value."""
    if isinstance(prompt, PromptValue):
        return prompt.to_messages()
    if isinstance(prompt, BaseMessage):
        return [prompt]
    if isinstance(prompt, str):
        return [HumanMessage(prompt)]
    if isinstance(prompt, Sequence):
        whole = all(isinstance(message, BaseMessage) for message in prompt)
        return list(prompt) if whole else convert_to_messages(prompt)
    raise ValueError(f"Invalid input type {type(prompt)}: expected a text, a list of messages or a prompt value.")


def turns_of(messages: Sequence[BaseMessage], *, scope: str = TAG, names: Collection[str] | None = None) -> list[Turn]:
    """One turn a message, and one for the size of plain answers. Of the tags, the last that can be believed is read.

    Args:
        messages: the conversation.
        scope: the router's prefix.
        names: of its candidates; tags of routers around it or inside it name others.
    """
    turns: list[Turn] = []
    carrying, chars, recent = [], 0, len(messages) - RECENT
    for i, message in enumerate(messages):
        kind, content = type(message), message.content
        if kind is HumanMessage:
            if type(content) is not str or message.additional_kwargs:
                turns.append(_turn(message))
            elif i >= recent:
                turns.append(Turn("user", content))
            else:
                chars += len(content) if content.isascii() else size_of(content)
                turns.append(_HEARD)
            continue
        if kind is AIMessage and type(content) is str and not message.tool_calls:  # type: ignore[attr-defined]  # an AIMessage
            chars += len(content) if content.isascii() else size_of(content)
            turns.append(_SPOKEN)  # of an answer in words only its size is read: one turn serves for all
        else:
            turns.append(_turn(message))
        if TAG in message.response_metadata:
            carrying.append(i)
    for i in reversed(carrying[-RECENT:]):
        mine = [tag for tag in tags_of(messages[i]) if names is None or tag.get("candidate") in names]
        tag = next((tag for tag in mine if believed(tag, scope)), None)
        if tag is not None:
            turns[i] = turns[i]._replace(candidate=tag["candidate"], turn=tag["turn"])
            break
    return [Turn("system", extra_chars=chars), *turns] if chars else turns


def _turn(message: BaseMessage) -> Turn:
    content, role, extra = message.content, _role(message), 0
    if isinstance(message, AIMessage) and message.tool_calls:
        extra = sum(len(str(call)) for call in message.tool_calls)
    if isinstance(content, str):
        return Turn(role, content, extra_chars=extra)
    texts = [block if isinstance(block, str) else block["text"] for block in content if _is_text(block)]
    media = list(media_in(content))
    other_chars = sum(size_of(str(block)) for block in content if not _is_text(block)) if not media else 0
    extra += other_chars + sum(MEDIUM_CHARS[kind] for kind in media)
    return Turn(role, "".join(texts), frozenset(media), extra_chars=extra)


def _is_text(block: Any) -> bool:
    return isinstance(block, str) or (block.get("type") == "text" and isinstance(block.get("text"), str))


def _role(message: BaseMessage) -> TurnRole:
    if type(message) is AIMessage:
        return "assistant"
    if "lc_source" in message.additional_kwargs:
        return "system"  # an agent's middleware wrote it (a summary, say), not the user
    kind = message.type
    return role_of(getattr(message, "role", kind) if kind == "chat" else kind.removesuffix("MessageChunk").lower())


# --- the decision in an answer's metadata ---


def tags_of(message: BaseMessage) -> Iterator[Mapping[str, Any]]:
    """The decisions that a message carries: that of the router that gave it, then those of routers inside it."""
    tag = message.response_metadata.get(TAG) if isinstance(message, AIMessage) else None
    while isinstance(tag, Mapping):
        yield tag
        tag = tag.get("inner")


def tagged(output: Out, tag: dict[str, Any]) -> Out:
    """A copy of a message (or of a structured output's raw message) that carries the decision.

    A copy, because caches hand the same message to several callers. Other outputs come back as they are.
    """
    if isinstance(output, AIMessage):
        inner = next(tags_of(output), None)
        whole = tag if inner is None else {**tag, "inner": dict(inner)}
        return output.model_copy(update={"response_metadata": {**output.response_metadata, TAG: whole}})
    if isinstance(output, dict) and isinstance(output.get("raw"), AIMessage):
        return {**output, "raw": tagged(output["raw"], tag)}  # type: ignore[return-value]  # Out is a dict here
    return output


def finish_reason(message: AIMessage) -> str | None:
    """Why the provider says that the answer ended; None if it does not say."""
    reasons = (message.response_metadata.get(key) for key in FINISH_KEYS)
    return next((str(reason) for reason in reasons if reason), None)


def is_empty(output: Any) -> bool:
    """Whether an answer is a message without text, content blocks or tool calls."""
    message = output.get("raw") if isinstance(output, dict) else output
    return isinstance(message, AIMessage) and not says_something(message)


def says_something(chunk: Any) -> bool:
    """Whether a chunk, a token or an event of a stream holds anything of the answer.

    The first chunk of many providers is empty (a role, a message's start), and so may be the first of a block.
    """
    if isinstance(chunk, ChatGenerationChunk):
        chunk = chunk.message
    if isinstance(chunk, BaseMessage):
        calls = [*getattr(chunk, "tool_calls", ()), *getattr(chunk, "invalid_tool_calls", ())]
        calls += chunk.tool_call_chunks if isinstance(chunk, AIMessageChunk) else []
        return bool(calls) or says_something(chunk.content) or any(chunk.additional_kwargs.values())
    if isinstance(chunk, list):
        return any(says_something(block) for block in chunk)
    if isinstance(chunk, Mapping):
        event = chunk.get("event")
        if event is not None:
            return event not in ("message-start", "message-finish", "ping") and any(
                says_something(chunk.get(part)) for part in ("delta", "content", "content_block")
            )
        return any(value for key, value in chunk.items() if key not in ("type", "index", "id", "annotations"))
    return bool(chunk)
