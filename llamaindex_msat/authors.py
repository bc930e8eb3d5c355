"""Who wrote which answer: for texts that come back without their decision.

Chat engines, memories and code agents keep an answer's text and make a message of it. The text is then all that is
left to know its author by.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, ChatResponse, ToolCallBlock

from llamaindex_msat.messages import tag_in, text_of

KEPT = 2048  # answers remembered, the latest


class Authors:
    """Decisions by the answer they led to, and by the question within one span. Thread-safe; copies start empty.

    What is remembered depends on what was said and not on who called when: a call changes nothing for another one
    that holds other texts.
    """

    def __init__(self) -> None:
        self._tags: OrderedDict[tuple[str, ...], dict[str, Any]] = OrderedDict()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[Authors], tuple[()]]:
        return Authors, ()

    def remember(self, output: Any, tag: Mapping[str, Any]) -> None:
        """An answer was given."""
        message = output.message if isinstance(output, ChatResponse) else None
        text = text_of(output)
        if text and text.strip():
            self._keep(("text", _digest(text.strip())), tag)
        elif message is not None and (calls := _calls(message)):
            self._keep(("calls", _digest(calls)), tag)

    def of(self, message: ChatMessage) -> Mapping[str, Any] | None:
        """The decision that led to a message: what it carries, else what is remembered of its text or tool calls."""
        carried = tag_in(message)
        if carried is not None:
            return carried
        text = (message.content or "").strip()
        if text:
            return self.of_text(text)
        calls = _calls(message)
        return self._tags.get(("calls", _digest(calls))) if calls else None

    def of_text(self, text: str) -> Mapping[str, Any] | None:
        """The decision that led to a text; None if no answer said it."""
        text = text.strip()
        return self._tags.get(("text", _digest(text))) if text else None

    def remember_in(self, span: str, tag: Mapping[str, Any]) -> None:
        """A question was answered within a span (a synthesis, say)."""
        self._keep(("span", span, str(tag["turn"])), tag)

    def of_span(self, span: str, turn: str) -> Mapping[str, Any] | None:
        """The decision for the same question earlier in the same span."""
        return self._tags.get(("span", span, turn))

    def remember_turn(self, tag: Mapping[str, Any]) -> None:
        """A candidate has taken a step of a turn."""
        self._keep(("turn", str(tag["turn"]), str(tag["candidate"])), tag)
        self._keep(("turn", str(tag["turn"])), tag)

    def of_turn(self, turn: str, candidate: str | None = None) -> Mapping[str, Any] | None:
        """The latest decision in a turn, or a candidate's latest one in it."""
        return self._tags.get(("turn", turn) if candidate is None else ("turn", turn, candidate))

    def _keep(self, key: tuple[str, ...], tag: Mapping[str, Any]) -> None:
        with self._lock:
            self._tags[key] = dict(tag)
            self._tags.move_to_end(key)
            while len(self._tags) > KEPT:
                self._tags.popitem(last=False)


def _calls(message: ChatMessage) -> str:
    blocks = [(b.tool_call_id, b.tool_name, str(b.tool_kwargs)) for b in message.blocks if isinstance(b, ToolCallBlock)]
    return repr((blocks, dict(message.additional_kwargs))) if blocks or message.additional_kwargs else ""


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
