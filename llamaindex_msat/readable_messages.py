"""A conversation as another candidate can read it.

Some of what a provider writes only it can read again: signed thinking, cache markers, what an integration hangs onto
a message. Sent to another provider it is refused, and with it every later turn. So it is left out of what goes to a
candidate that did not write it; the caller's own messages stay as they are. Nothing of ours goes to anybody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llama_index.core.base.llms.types import (
    CachePoint,
    ChatMessage,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)

from llamaindex_msat.messages import AuthorOf, untagged

_TAKE_CACHE = ("anthropic", "bedrock", "claude")
_CACHE = "cache_control"
_SHARED = ("tool_calls", "tool_call_id", "name")  # what integrations of several providers write and read


def readable(messages: Sequence[ChatMessage], name: str, llm: Any, author_of: AuthorOf) -> list[ChatMessage]:
    """The messages without what this candidate cannot read; those without such are the caller's own objects.

    Args:
        messages: the conversation.
        name: the caller's name for the candidate.
        llm: its LLM.
        author_of: the decision that led to a message, where one is known.
    """
    kind = f"{type(llm).__module__}.{type(llm).__name__}".lower()
    takes_cache = any(name in kind for name in _TAKE_CACHE)
    copies = []
    for message in messages:
        foreign = message.role is MessageRole.ASSISTANT and _is_foreign(author_of(message), name)
        message = _plain(untagged(message)) if foreign else untagged(message)
        copies.append(message if takes_cache else _unmarked(message))
    return copies


def _is_foreign(tag: Mapping[str, Any] | None, name: str) -> bool:
    """Whether somebody else is known to have written it."""
    authors = set()
    while isinstance(tag, Mapping):
        authors.add(tag.get("candidate"))
        tag = tag.get("inner")
    return bool(authors) and name not in authors


def _plain(message: ChatMessage) -> ChatMessage:
    blocks = [block for block in message.blocks if not isinstance(block, ThinkingBlock)]
    calls = any(isinstance(block, ToolCallBlock) for block in blocks)
    kept = {key: value for key, value in message.additional_kwargs.items() if key in _SHARED}
    if calls:
        kept.pop("tool_calls", None)  # the blocks say it in everybody's words
    if not blocks and not kept:
        blocks = [TextBlock(text="…")]  # a turn without content is refused by some providers
    if blocks == message.blocks and kept == message.additional_kwargs:
        return message
    return message.model_copy(update={"blocks": blocks, "additional_kwargs": kept})


def _unmarked(message: ChatMessage) -> ChatMessage:
    """The message without cache markers."""
    blocks = [block for block in message.blocks if not isinstance(block, CachePoint)]
    if len(blocks) == len(message.blocks) and _CACHE not in message.additional_kwargs:
        return message
    kwargs = {key: value for key, value in message.additional_kwargs.items() if key != _CACHE}
    return message.model_copy(update={"blocks": blocks, "additional_kwargs": kwargs})
