"""What is told of a routed call, and whose errors are no candidate's."""

from __future__ import annotations

from typing import Any

from llama_index_instrumentation import get_dispatcher
from llama_index_instrumentation.base import BaseEvent
from pydantic import Field

dispatcher = get_dispatcher(__name__)

_HANDLERS = ("on_event_start", "on_event_end", "start_trace", "end_trace")


class MSATRouteEvent(BaseEvent):
    """A call was routed and answered, or everybody failed. All names are those that the caller gave.

    Attributes:
        candidate: who answered; None where everybody that was asked has failed.
        score: its calibrated P(correct); None where there was no text to score.
        scores: of every candidate considered.
        reason: why the router chose as it did; one sentence.
        cost_usd: expected price of the call; None where unknown.
        path: who was tried, with ``error`` and ``kind`` where a candidate failed; who has none answered.
        instruction: the text that was scored.
        truncated_tokens: tokens of it that the scorer could not read.
        elapsed_s: seconds until the answer, or its first token.
    """

    candidate: str | None
    score: float | None = None
    scores: dict[str, float]
    reason: str
    cost_usd: float | None = None
    path: list[dict[str, Any]] = Field(default_factory=list)
    instruction: str = ""
    truncated_tokens: int = 0
    elapsed_s: float | None = None

    @classmethod
    def class_name(cls) -> str:
        """The event's name."""
        return "MSATRouteEvent"


def from_handlers(error: BaseException) -> bool:
    """Whether a callback handler raised it: nobody else would be spared it."""
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        if code.co_name in _HANDLERS and code.co_filename.replace("\\", "/").endswith("core/callbacks/base.py"):
            return True
        trace = trace.tb_next
    return False
