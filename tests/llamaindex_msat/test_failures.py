"""What is known of llms, and what is heard when they fail or come late."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage, ChatResponse
from llama_index.core.callbacks import CallbackManager, LlamaDebugHandler
from llama_index.core.constants import DEFAULT_CONTEXT_WINDOW
from llama_index.core.llms.callbacks import llm_chat_callback
from rule_llm import RuleLLM, user
from support import table_router

from llamaindex_msat import MSATRouterLLM
from msat_core.routing.fallback import Fallback

FAIR = "to fair"
Q = {FAIR: {"good": 0.1, "fair": 0.9, "poor": 0.2}}


class SlowLLM(RuleLLM):
    """Answers late."""

    delay_s: float = 0.4

    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        time.sleep(self.delay_s)
        return ChatResponse(message=self._message(messages, kwargs))


def test_a_window_that_a_child_states_is_known() -> None:
    long = user("word " * 40_000)
    for windows, expected in (
        ({"good": DEFAULT_CONTEXT_WINDOW, "fair": 200_000}, "fair"),  # good has the higher score and no known window
        ({"good": 200_000, "fair": 200_000}, "good"),
    ):
        llms = {name: RuleLLM(name=name, window=window) for name, window in windows.items()}
        answer = MSATRouterLLM(llms, table_router({})).chat(long)
        assert answer.message.additional_kwargs["msat_candidate"] == expected


def test_a_late_child_is_not_heard_any_more() -> None:
    handler = LlamaDebugHandler(print_trace_on_end=False)
    late, soon = SlowLLM(name="fair"), RuleLLM(name="poor")
    for llm in (late, soon):
        llm.callback_manager = CallbackManager([handler])
    router = MSATRouterLLM({"fair": late, "poor": soon}, table_router(Q), fallback=Fallback(timeout_s=0.1))
    assert router.chat(user(FAIR)).message.content == f"poor: {FAIR}"
    pairs = handler.get_llm_inputs_outputs()
    assert len(pairs) == 2 and all(len(pair) == 2 for pair in pairs)  # what was begun is ended, with the error
    assert [any("exception" in str(event.payload) for event in pair[1:]) for pair in pairs] == [True, False]
    n_events = len(handler.get_events())
    time.sleep(0.6)
    assert len(late.seen) == 1  # it did go on
    assert len(handler.get_events()) == n_events


@pytest.mark.parametrize("how", ["chat", "complete", "stream_chat", "achat", "astream_chat"])
async def test_that_nobody_answered_is_told(routes: list[Any], how: str) -> None:
    down = ConnectionError("down")
    llms = {name: RuleLLM(name=name, fails=down) for name in ("fair", "poor")}
    router = MSATRouterLLM(llms, table_router(Q))
    asked = FAIR if how == "complete" else user(FAIR)
    with pytest.raises(ConnectionError, match="down"):
        if how.startswith("a"):
            await getattr(router, how)(asked)
        else:
            list(getattr(router, how)(asked))
    (event,) = routes
    assert event.candidate is None and event.score is None
    assert [(step["candidate"], step["kind"]) for step in event.path] == [
        ("fair", "unavailable"),
        ("poor", "unavailable"),
    ]
    assert event.instruction == FAIR and event.scores["fair"] == 0.9


def test_a_callers_error_is_no_failure_to_be_told(routes: list[Any]) -> None:
    closed = RuleLLM(name="fair", fails=RuntimeError("Event loop is closed"))
    router = MSATRouterLLM({"fair": closed, "poor": RuleLLM(name="poor")}, table_router(Q))
    with pytest.raises(RuntimeError, match="closed"):
        router.chat(user(FAIR))
    assert routes == []
