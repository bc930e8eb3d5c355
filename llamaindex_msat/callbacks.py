"""What a candidate's call tells the caller's handlers: everything, until the candidate is given up.

A candidate that is late goes on in a thread of its own. From the moment at which nobody waits for it any longer, its
callbacks reach nobody, and what it had started is ended with the error.
"""

from __future__ import annotations

import copy
from typing import Any

from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload
from llama_index.core.callbacks.base_handler import BaseCallbackHandler

from msat_core import Attempt


def gated(manager: CallbackManager, attempt: Attempt) -> CallbackManager:
    """A manager for one attempt's call, over the same traces; its handlers hear of it while the attempt lasts."""
    gated_manager = copy.copy(manager)
    gated_manager.handlers = [_Gate(handler, attempt) for handler in manager.handlers]
    return gated_manager


class _Gate(BaseCallbackHandler):
    """Stands between one attempt and one of the caller's handlers."""

    def __init__(self, handler: BaseCallbackHandler, attempt: Attempt) -> None:
        super().__init__(list(handler.event_starts_to_ignore), list(handler.event_ends_to_ignore))
        self._handler, self._attempt = handler, attempt
        self._open: dict[str, CBEventType] = {}
        attempt.when_given_up(self._close)

    def on_event_start(
        self,
        event_type: CBEventType,
        payload: dict[str, Any] | None = None,
        event_id: str = "",
        parent_id: str = "",
        **kwargs: Any,
    ) -> str:
        """Pass it on while the attempt lasts."""
        if self._attempt.given_up:
            return event_id
        self._open[event_id] = event_type
        return self._handler.on_event_start(event_type, payload, event_id=event_id, parent_id=parent_id, **kwargs)

    def on_event_end(
        self, event_type: CBEventType, payload: dict[str, Any] | None = None, event_id: str = "", **kwargs: Any
    ) -> None:
        """Pass it on while the attempt lasts."""
        if self._open.pop(event_id, None) is not None and not self._attempt.given_up:
            self._handler.on_event_end(event_type, payload, event_id=event_id, **kwargs)

    def start_trace(self, trace_id: str | None = None) -> None:
        """Pass it on while the attempt lasts."""
        if not self._attempt.given_up:
            self._handler.start_trace(trace_id)

    def end_trace(self, trace_id: str | None = None, trace_map: dict[str, list[str]] | None = None) -> None:
        """Pass it on while the attempt lasts."""
        if not self._attempt.given_up:
            self._handler.end_trace(trace_id, trace_map)

    def _close(self, error: BaseException) -> None:
        """End what the call has started: nothing of it will be heard again."""
        for event_id, event_type in list(self._open.items()):
            if event_type not in self.event_ends_to_ignore:
                self._handler.on_event_end(event_type, {EventPayload.EXCEPTION: error}, event_id=event_id)
        self._open.clear()
