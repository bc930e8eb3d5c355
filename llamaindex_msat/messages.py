"""LlamaIndex messages as the turns that msat_core reads, and decisions on answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)

from msat_core import MEDIUM_CHARS, TAG, Turn, believed, modalities_of, role_of, size_of

CANDIDATE = "msat_candidate"
OURS = (CANDIDATE, TAG)
_TOOL_CALLS = ("tool_calls", "function_call")  # where older integrations keep them in a message

AuthorOf = Callable[[ChatMessage], Mapping[str, Any] | None]


class Told(dict[str, Any]):
    """A message's ``additional_kwargs`` with a decision beside them.

    Integrations send what is in ``additional_kwargs``, chat engines write it into prompts, and strict servers refuse
    what they do not know. So the decision is not in there: who asks for it by name gets it, who copies, prints,
    stores or sends the dictionary does not.
    """

    def __init__(self, sent: Mapping[str, Any], tag: Mapping[str, Any]) -> None:
        super().__init__({key: value for key, value in sent.items() if key not in OURS})
        self.tag = dict(tag)

    def __missing__(self, key: str) -> Any:
        if key == TAG:
            return self.tag
        if key == CANDIDATE:
            return self.tag["candidate"]
        raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        return key in OURS or super().__contains__(key)

    def get(self, key: str, default: Any = None) -> Any:
        """The value under a name, the decision's included."""
        return self[key] if key in self else default

    def __reduce__(self) -> tuple[Any, ...]:
        return Told, (dict(self), self.tag)


def turns_of(messages: Sequence[ChatMessage], author_of: AuthorOf = lambda message: None) -> list[Turn]:
    """One turn a message; who wrote an answer is said where it can be believed."""
    turns = []
    for message in messages:
        turn = _turn(message)
        tag = author_of(message) if turn.role == "assistant" else None
        if tag is not None and believed(tag):
            turn = turn._replace(candidate=tag["candidate"], turn=tag["turn"])
        turns.append(turn)
    return turns


def _turn(message: ChatMessage) -> Turn:
    media = modalities_of(block.block_type for block in _flat(message.blocks))
    return Turn(role_of(message.role.value), message.content or "", media, extra_chars=_extra_chars(message))


def _flat(blocks: Iterable[Any]) -> list[Any]:
    """Content blocks and those inside them (of documents that can be cited)."""
    flat = []
    for block in blocks:
        inner = getattr(block, "content", None)
        flat += [block, *(_flat(inner) if isinstance(inner, list) else [])]
    return flat


def _extra_chars(message: ChatMessage) -> int:
    """Size of what is sent beside the text: media, tool calls, thinking."""
    extra = sum(len(str(message.additional_kwargs.get(key) or "")) for key in _TOOL_CALLS)
    for block in _flat(message.blocks):
        if isinstance(block, ToolCallBlock):
            extra += len(block.tool_name) + len(str(block.tool_kwargs))
        elif isinstance(block, ThinkingBlock):
            extra += size_of(block.content or "")
        elif not isinstance(block, TextBlock):
            extra += sum(MEDIUM_CHARS[kind] for kind in modalities_of([block.block_type]))
    return extra


def size_of_tools(tools: Iterable[Any]) -> int:
    """Characters of tools' schemas as they are sent."""
    total = 0
    for tool in tools:
        try:
            schema = tool.metadata.to_openai_tool() if hasattr(tool, "metadata") else tool
            total += len(json.dumps(schema, default=str))
        except Exception:  # a tool without a schema, or with one of its own kind: no more than its description is known
            total += len(str(getattr(getattr(tool, "metadata", None), "description", "")))
    return total


# --- the decision on an answer ---


def tag_in(answer: Any) -> Mapping[str, Any] | None:
    """The decision that an answer, its message or its last event carries."""
    if isinstance(answer, Mapping):
        tag = answer if "candidate" in answer else answer.get(TAG)
        return tag if isinstance(tag, Mapping) else None
    decision: Mapping[str, Any] | None = None
    for holder in (answer, getattr(answer, "message", None), getattr(answer, "response", None)):
        kwargs = getattr(holder, "additional_kwargs", None)
        if decision is None and isinstance(kwargs, Mapping) and isinstance(kwargs.get(TAG), Mapping):
            decision = kwargs[TAG]
    return decision


def tagged(output: Any, tag: Mapping[str, Any]) -> Any:
    """A copy of a response that carries the decision; anything else comes back as it is."""
    if isinstance(output, (ChatResponse, CompletionResponse)):
        inner = tag_in(output)
        tag = dict(tag) if inner is None else {**tag, "inner": dict(inner)}
        kwargs = {**output.additional_kwargs, CANDIDATE: tag["candidate"], TAG: tag}
        update: dict[str, Any] = {"additional_kwargs": kwargs}
        if isinstance(output, ChatResponse):
            update["message"] = _with(output.message, Told(output.message.additional_kwargs, tag))
        return output.model_copy(update=update)
    return output


def unwrapped(response: ChatResponse) -> ChatResponse:
    """A response as the candidate gave it that is a router itself: with that router's decision, or without any."""
    inner = (tag_in(response) or {}).get("inner")
    kwargs = {key: value for key, value in response.additional_kwargs.items() if key not in OURS}
    message = untagged(response.message)
    bare = response.model_copy(update={"additional_kwargs": kwargs, "message": message})
    return tagged(bare, inner) if isinstance(inner, Mapping) else bare


def untagged(message: ChatMessage) -> ChatMessage:
    """The message without anything of ours; the same object where there is nothing."""
    kwargs = message.additional_kwargs
    if isinstance(kwargs, Told) or any(key in kwargs for key in OURS):
        return _with(message, {key: value for key, value in kwargs.items() if key not in OURS})
    return message


def _with(message: ChatMessage, kwargs: dict[str, Any]) -> ChatMessage:
    return message.model_copy(update={"additional_kwargs": kwargs})


# --- what an answer says ---


def text_of(output: Any) -> str | None:
    """The text of an answer or a chunk; None for an object."""
    if isinstance(output, ChatResponse):
        return output.message.content
    if isinstance(output, CompletionResponse):
        return output.text
    return output if isinstance(output, str) else None


def says_something(output: Any) -> bool:
    """Whether an answer or a chunk holds anything. The first chunk of many providers is empty: a role, a start."""
    if isinstance(output, ChatResponse):
        blocks = output.message.blocks
        return bool(
            output.delta
            or output.message.content
            or output.additional_kwargs.get("thinking_delta")
            or any(isinstance(b, ToolCallBlock) or (isinstance(b, ThinkingBlock) and b.content) for b in blocks)
            or any(output.message.additional_kwargs.values())
        )
    if isinstance(output, CompletionResponse):
        return bool(output.delta or output.text)
    return bool(output) if isinstance(output, str) else output is not None


def finish_reason(output: Any) -> str | None:
    """Why the provider says that the answer ended; None if it does not say."""
    keys = ("finish_reason", "stop_reason", "done_reason", "stopReason")
    raw = getattr(output, "raw", None)
    choices = _field(raw, "choices")
    holders = [raw, choices[0] if choices else None, getattr(output, "additional_kwargs", None)]
    reasons = (_field(holder, key) for holder in holders if holder is not None for key in keys)
    return next((str(reason) for reason in reasons if reason), None)


def _field(holder: Any, name: str) -> Any:
    return holder.get(name) if isinstance(holder, Mapping) else getattr(holder, name, None)


class Said:
    """What a stream has said: its last chunk where chunks grow, else their texts together."""

    def __init__(self) -> None:
        self._last: Any = None
        self._texts: list[str] = []

    def heard(self, chunk: Any) -> Any:
        """Take in a chunk."""
        self._last = chunk
        self._texts.append((chunk if isinstance(chunk, str) else getattr(chunk, "delta", None)) or "")
        return chunk

    @property
    def whole(self) -> Any:
        """The answer."""
        together = "".join(self._texts)
        return together if len(together) > len(text_of(self._last) or "") else self._last
