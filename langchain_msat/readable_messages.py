"""A conversation as another candidate can read it.

Some of what a provider writes only it can read again: signed thinking, results of tools on its servers, ids of its
store, cache markers. Sent to another provider they are refused, and with them every later turn of the thread. So
they are left out of what goes to a candidate that did not write them; the caller's own messages stay as they are.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage

from langchain_msat.messages import tags_of

CACHE = ("cache_control", "cachePoint")
_TAKE_CACHE = ("anthropic", "claude", "bedrock", "openrouter", "litellm")
_TOOL_ID = re.compile(r"[a-zA-Z0-9_-]{1,40}\Z")  # what the strictest of the others takes
_SHORT_TOOL_ID = re.compile(r"[a-zA-Z0-9]{9}\Z")  # Mistral's
_STORED = "resp_"  # an answer kept at OpenAI, which its own models look up by this id
_KEPT_BLOCKS = ("text", "image", "image_url", "audio", "video", "file", "text-plain", "refusal")


@dataclass(frozen=True)
class Reader:
    """Who will read a conversation.

    Attributes:
        name: the caller's name for the candidate.
        provider: what its chat model calls its provider; empty if it does not say.
    """

    name: str
    provider: str = ""

    @property
    def takes_cache_markers(self) -> bool:
        """Whether the provider knows ``cache_control``; a stranger might refuse it."""
        return any(name in self.provider for name in _TAKE_CACHE)


def readable(messages: Sequence[BaseMessage], reader: Reader) -> list[BaseMessage]:
    """The messages without what this reader cannot read; those without such are the caller's own objects."""
    renamed: dict[str, str] = {}  # ids of tool calls that the reader's provider would refuse
    copies: list[BaseMessage] = []
    for message in messages:  # there may be thousands: the plain ones first, in few steps
        kind, plain = type(message), type(message.content) is str
        if plain and (kind is HumanMessage or (kind is AIMessage and _is_plain(message))):  # type: ignore[arg-type]  # an AIMessage
            copies.append(message)
        elif isinstance(message, AIMessage):
            copies.append(_answer(message, reader, renamed))
        elif renamed and isinstance(message, ToolMessage) and message.tool_call_id in renamed:
            copies.append(_unmarked(message, reader, tool_call_id=renamed[message.tool_call_id]))
        elif plain:
            copies.append(message)
        else:
            copies.append(_unmarked(message, reader))
    return copies


def _answer(message: AIMessage, reader: Reader, renamed: dict[str, str]) -> AIMessage:
    if not _is_foreign(message, reader):
        return message if type(message.content) is str else _unmarked(message, reader)
    for call in message.tool_calls:
        if call["id"] and not (_SHORT_TOOL_ID if "mistral" in reader.provider else _TOOL_ID).match(call["id"]):
            renamed[call["id"]] = hashlib.sha256(call["id"].encode()).hexdigest()[:9]
    calls = [{**call, "id": renamed.get(call["id"] or "", call["id"])} for call in message.tool_calls]
    content = _kept(message.content)
    if not content and not calls:
        content = "…"  # a turn without content is refused by some providers
    return message.model_copy(
        update={"content": content, "tool_calls": calls, "additional_kwargs": {}, "response_metadata": {}}
    )


def _is_plain(message: AIMessage) -> bool:
    """Whether everybody can read an answer whose content is a text: it holds nothing else that would be sent."""
    if message.tool_calls or (message.additional_kwargs and any(message.additional_kwargs.values())):
        return False
    metadata = message.response_metadata
    return not metadata or "id" not in metadata or not str(metadata["id"]).startswith(_STORED)


def _is_foreign(message: AIMessage, reader: Reader) -> bool:
    """Whether somebody else wrote it: by the router's own tag, else by the provider that the message names."""
    authors = [tag.get("candidate") for tag in tags_of(message)]
    if authors:
        return reader.name not in authors
    provider = message.response_metadata.get("model_provider")
    return bool(provider and reader.provider and provider != reader.provider)


def _kept(content: Any) -> str | list[Any]:
    """Text and media of a content; as one text where there is nothing else."""
    if isinstance(content, str):
        return content
    blocks = [_block(block) for block in content if isinstance(block, str) or block.get("type") in _KEPT_BLOCKS]
    texts = [block if isinstance(block, str) else block.get("text") for block in blocks]
    if all(isinstance(text, str) for text in texts):
        return "".join(str(text) for text in texts)
    return blocks


def _block(block: Any) -> Any:
    """A block without ids, indices, signatures and what else its author hung onto it."""
    if isinstance(block, dict) and block.get("type") == "text":
        return {"type": "text", "text": block.get("text", "")}
    if isinstance(block, dict) and block.get("type") == "refusal":
        return {"type": "text", "text": block.get("refusal", "")}
    return block


def _unmarked(message: BaseMessage, reader: Reader, **update: Any) -> Any:
    """The message without cache markers, where its reader's provider does not know them."""
    content = message.content
    if not isinstance(content, str) and not reader.takes_cache_markers and any(map(_is_marked, content)):
        blocks = [block for block in content if not (isinstance(block, dict) and "cachePoint" in block)]
        update["content"] = [_without_marks(block) for block in blocks]
    return message.model_copy(update=update) if update else message


def _is_marked(block: Any) -> bool:
    return isinstance(block, dict) and any(key in block for key in CACHE)


def _without_marks(block: Any) -> Any:
    return {key: value for key, value in block.items() if key not in CACHE} if _is_marked(block) else block


def tool_choice_for(choice: Any, reader: Reader) -> Any:
    """A choice of tools in the words that this reader's provider understands.

    OpenAI's "required" is everybody's "any", a choice written as one provider's object is the tool's name, and
    "none" is an object to Anthropic, which would look for a tool of that name.
    """
    if isinstance(choice, dict):
        function = choice.get("function")
        name = function.get("name") if isinstance(function, dict) else choice.get("name")
        word = choice.get("type")
        choice = name or (word if word in ("any", "auto", "none", "required") else choice)
    if choice == "required" or choice is True:
        choice = "any"
    if choice == "none" and "anthropic" in reader.provider:
        return {"type": "none"}
    return choice
