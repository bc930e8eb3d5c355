"""Decision records of LlamaIndex calls, however they are made."""

from __future__ import annotations

import asyncio
import pickle
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, CompletionResponse
from llama_index_instrumentation.dispatcher import instrument_tags
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from rule_llm import RuleLLM
from support import table_router

from llamaindex_msat import MSATRouterLLM, MSATSelector
from llamaindex_msat.usage import usage_of
from msat_core import DecisionTelemetry, Router, RoutingPolicy, TokenUsage, read_decisions

Q = {"to fair": {"good": 0.1, "fair": 0.9, "poor": 0.2}}
NAMES = ("good", "fair", "poor")
SAID = [ChatMessage(role="user", content="to fair")]


def llm(decisions: Any, policy: RoutingPolicy | None = None, **special: Any) -> MSATRouterLLM:
    llms = {name: special.get(name) or RuleLLM(name=name) for name in NAMES}
    return MSATRouterLLM(llms=llms, router=table_router(Q), policy=policy, decisions=decisions)


async def _drained(stream: Any) -> list[Any]:
    return [chunk async for chunk in await stream]


WAYS: dict[str, Any] = {
    "chat": lambda model: model.chat(SAID),
    "achat": lambda model: asyncio.run(model.achat(SAID)),
    "stream_chat": lambda model: list(model.stream_chat(SAID)),
    "astream_chat": lambda model: asyncio.run(_drained(model.astream_chat(SAID))),
    "complete": lambda model: model.complete("to fair"),
    "acomplete": lambda model: asyncio.run(model.acomplete("to fair")),
    "stream_complete": lambda model: list(model.stream_complete("to fair")),
    "astream_complete": lambda model: asyncio.run(_drained(model.astream_complete("to fair"))),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_call_leaves_one_record(tmp_path: Path, way: str) -> None:
    with instrument_tags({"conversation_id": "c-3"}):
        answer = WAYS[way](llm(tmp_path / "log.jsonl"))
    [record] = read_decisions(tmp_path / "log.jsonl")
    assert (record.candidate, record.answered_by, record.status) == ("fair", "fair", "answered")
    assert record.conversation == "c-3"
    assert (record.path[0].first_token_s is not None) is ("stream" in way)
    last = answer[-1] if isinstance(answer, list) else answer
    assert last.additional_kwargs["msat"]["id"] == record.id


def test_what_responses_say_of_themselves() -> None:
    raw = {
        "model": "m-1",
        "usage": {"prompt_tokens": 7, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 3}},
    }
    message = ChatMessage(role="assistant", content="a")
    assert usage_of(TokenUsage(), ChatResponse(message=message, raw=raw)) == TokenUsage("m-1", 7, 2, 3)
    said = CompletionResponse(text="a", additional_kwargs={"prompt_tokens": 5, "completion_tokens": 4})
    assert usage_of(TokenUsage("m-1"), said) == TokenUsage("m-1", 5, 4)
    assert usage_of(TokenUsage("m-1", 5, 4), ChatResponse(message=message)) == TokenUsage(
        "m-1", 5, 4
    )  # a chunk without counts
    assert usage_of(TokenUsage(), "a text") == TokenUsage()


def test_shadow_mode_and_fallbacks(tmp_path: Path) -> None:
    served = llm(tmp_path / "log.jsonl", RoutingPolicy(observe="poor")).chat(SAID)
    assert served.message.content == "poor: to fair"
    llm(tmp_path / "log.jsonl", fair=RuleLLM(name="fair", fails=ConnectionError("down"))).chat(SAID)
    shadow, fallback = read_decisions(tmp_path / "log.jsonl")
    assert (shadow.candidate, shadow.recommended) == ("poor", "fair")
    assert (fallback.candidate, fallback.answered_by, len(fallback.path)) == ("fair", "poor", 2)


def test_a_broken_stream_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConnectionError):
        list(llm(tmp_path / "log.jsonl", fair=RuleLLM(name="fair", fail_after=1)).stream_chat(SAID))
    assert read_decisions(tmp_path / "log.jsonl")[0].status == "broken"


def test_a_selector_records_the_decision(tmp_path: Path) -> None:
    router = Router(table_router(Q).scorer, table_router(Q).zoo, decisions=tmp_path / "log.jsonl")
    selector = MSATSelector(router)
    assert selector.select(list(NAMES), "to fair").ind == 1
    assert asyncio.run(selector.aselect(list(NAMES), "to fair")).ind == 1
    assert selector.select(list(NAMES), " ").ind == 0
    records = read_decisions(tmp_path / "log.jsonl")
    assert [(record.candidate, record.basis) for record in records] == [
        ("fair", "scores"),
        ("fair", "scores"),
        ("good", "accuracy"),
    ]


def test_a_copy_in_another_process_records_too(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(llm(tmp_path / "log.jsonl"))).chat(SAID)
    assert len(read_decisions(tmp_path / "log.jsonl")) == 1
    assert "decisions" not in llm(tmp_path / "log.jsonl").to_dict()


def test_spans_of_a_call() -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    list(llm(DecisionTelemetry(provider)).stream_chat(SAID))
    call, route = exporter.get_finished_spans()
    assert (call.name, route.name) == ("msat.call", "msat.route")
    assert dict(call.attributes or {})["gen_ai.request.model"] == "fair"
