"""Decision records of LangChain calls, however they are made."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.tools import tool
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from rule_chat import RuleChat
from support import table_router

from langchain_msat import ChatMSAT, candidate_selector
from msat_core import DecisionTelemetry, FeedbackLog, NoCandidateError, Router, RoutingPolicy, read_decisions

Q = {"to fair": {"good": 0.1, "fair": 0.9, "poor": 0.2}}
NAMES = ("good", "fair", "poor")


@tool
def double(number: int) -> int:
    """Twice the number."""
    return 2 * number


def chat(decisions: Any, router: Router | None = None, policy: RoutingPolicy | None = None, **special: Any) -> ChatMSAT:
    models = {name: special.get(name) or RuleChat(name=name) for name in NAMES}
    return ChatMSAT(candidates=models, router=router or table_router(Q), policy=policy, decisions=decisions)


WAYS: dict[str, Any] = {
    "invoke": lambda model, config: model.invoke("to fair", config),
    "ainvoke": lambda model, config: asyncio.run(model.ainvoke("to fair", config)),
    "stream": lambda model, config: list(model.stream("to fair", config)),
    "astream": lambda model, config: asyncio.run(_drained(model.astream("to fair", config))),
    "batch": lambda model, config: model.batch(["to fair"], config),
    "abatch": lambda model, config: asyncio.run(model.abatch(["to fair"], config)),
}


async def _drained(stream: Any) -> list[Any]:
    return [chunk async for chunk in stream]


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_call_leaves_one_record(tmp_path: Path, way: str) -> None:
    answer = WAYS[way](chat(tmp_path / "log.jsonl"), {"configurable": {"thread_id": "t-1"}})
    [record] = read_decisions(tmp_path / "log.jsonl")
    assert (record.candidate, record.answered_by, record.status) == ("fair", "fair", "answered")
    [call] = record.path
    assert (call.model, call.input_tokens, call.output_tokens) == ("fair", 3, 4)
    assert record.conversation == "t-1"
    assert (call.first_token_s is not None) is ("stream" in way)
    if isinstance(answer, list):
        answer = answer[0]
    assert answer.response_metadata["msat"]["id"] == record.id


@pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning")
async def test_v3_events_leave_one_record(tmp_path: Path) -> None:
    model = chat(tmp_path / "log.jsonl")
    if not hasattr(RuleChat, "stream_events"):
        pytest.skip("this langchain-core has no v3 events")
    _ = model.stream_events("to fair", version="v3").output
    stream: Any = await model.astream_events("to fair", version="v3")
    await stream.output
    await asyncio.sleep(0.05)  # the task that reads the candidate's stream comes to its end
    records = read_decisions(tmp_path / "log.jsonl")
    assert [(record.status, record.path[0].output_tokens) for record in records] == [("answered", 4)] * 2


def test_a_batch_leaves_one_record_an_input(tmp_path: Path) -> None:
    model = chat(tmp_path / "log.jsonl")
    answers = model.batch(["to fair", "another", "to fair"])
    records = read_decisions(tmp_path / "log.jsonl")
    assert sorted(record.id for record in records) == sorted(one.response_metadata["msat"]["id"] for one in answers)


def test_fallbacks_are_calls_of_one_route(tmp_path: Path) -> None:
    chat(tmp_path / "log.jsonl", fair=RuleChat(name="fair", fails=ConnectionError("down"))).invoke("to fair")
    [record] = read_decisions(tmp_path / "log.jsonl")
    assert (record.candidate, record.answered_by) == ("fair", "poor")
    assert [call.candidate for call in record.path] == ["fair", "poor"] and record.path[0].failure


def test_shadow_mode_serves_the_incumbent_through_a_tool_loop(tmp_path: Path) -> None:
    policy = RoutingPolicy(observe="poor")
    model = chat(tmp_path / "log.jsonl", policy=policy).bind_tools([double])
    asked = HumanMessage("to fair")
    called: Any = model.invoke([asked])
    from langchain_core.messages import ToolMessage

    model.invoke([asked, called, ToolMessage("42", tool_call_id=called.tool_calls[0]["id"])])
    first, second = read_decisions(tmp_path / "log.jsonl")
    assert (first.candidate, first.recommended, first.basis) == ("poor", "fair", "scores")
    assert (second.candidate, second.basis) == ("poor", "turn")


def test_in_shadow_mode_an_incumbents_failure_is_the_callers(tmp_path: Path) -> None:
    model = chat(
        tmp_path / "log.jsonl",
        policy=RoutingPolicy(observe="poor"),
        poor=RuleChat(name="poor", fails=ConnectionError("down")),
    )
    with pytest.raises(ConnectionError):
        model.invoke("to fair")
    [record] = read_decisions(tmp_path / "log.jsonl")
    assert record.status == "failed" and [call.candidate for call in record.path] == ["poor"]


def test_a_call_cannot_lift_the_shadow(tmp_path: Path) -> None:
    model = chat(tmp_path / "log.jsonl", policy=RoutingPolicy(observe="poor"))
    answer = model.invoke("to fair", {"configurable": {"msat_policy": {"objective": "quality"}}})
    assert answer.response_metadata["msat"]["candidate"] == "poor"


def test_an_outcome_names_its_decision(tmp_path: Path) -> None:
    learned: list[Any] = []
    router = table_router(Q)
    router.record = lambda *given, **named: learned.append((given, named))  # type: ignore[method-assign]
    model = chat(tmp_path / "log.jsonl", router)
    model.record(model.invoke("to fair"), 1.0, source="test")
    [record] = read_decisions(tmp_path / "log.jsonl")
    assert learned == [(("to fair", "fair", 1.0), {"source": "test", "decision": record.id})]
    assert len(FeedbackLog()) == 0


def test_an_agents_middleware_records(tmp_path: Path) -> None:
    pytest.importorskip("langchain")
    from langchain.agents import create_agent

    from langchain_msat import MSATMiddleware

    models = {name: RuleChat(name=name) for name in NAMES}
    middleware = MSATMiddleware(models, router=table_router(Q), decisions=tmp_path / "log.jsonl")
    agent: Any = create_agent(RuleChat(name="unused"), [double], middleware=[middleware])
    agent.invoke({"messages": [HumanMessage("double 21")]}, {"configurable": {"thread_id": "t-9"}})
    records = read_decisions(tmp_path / "log.jsonl")
    assert [record.basis for record in records] == ["scores", "turn"]
    assert {record.conversation for record in records} == {"t-9"}


def test_who_only_chooses_records_the_decision(tmp_path: Path) -> None:
    pytest.importorskip("langchain_classic")
    from langchain_msat import MSATRouterChain

    router = Router(table_router(Q).scorer, table_router(Q).zoo, decisions=tmp_path / "log.jsonl")
    chain = MSATRouterChain(router=router, destinations={"good": "a", "fair": "b"})
    assert chain.invoke({"input": "to fair"})["destination"] == "b"
    assert asyncio.run(chain.ainvoke({"input": "to fair"}))["destination"] == "b"
    assert candidate_selector(router).invoke("to fair") == "fair"
    assert asyncio.run(candidate_selector(router).ainvoke("to fair")) == "fair"
    records = read_decisions(tmp_path / "log.jsonl")
    assert [(record.candidate, record.status) for record in records] == [("fair", "decided")] * 4
    with pytest.raises(NoCandidateError):
        candidate_selector(router, among=["good"], policy=RoutingPolicy(observe="poor")).invoke("to fair")


def test_spans_of_a_call_with_a_fallback() -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    telemetry = DecisionTelemetry(provider)
    model = chat(telemetry, fair=RuleChat(name="fair", fails=ConnectionError("down")))
    list(model.stream("to fair"))
    spans = sorted(exporter.get_finished_spans(), key=lambda span: span.start_time or 0)
    assert [span.name for span in spans] == ["msat.route", "msat.call", "msat.call"]
    asked = [dict(span.attributes or {}).get("gen_ai.request.model") for span in spans]
    assert asked == [None, "fair", "poor"]
    assert dict(spans[2].attributes or {})["gen_ai.response.model"] == "poor"


def test_structured_answers_without_their_message_have_no_tokens(tmp_path: Path) -> None:
    schema = {"title": "joke", "type": "object", "properties": {"setup": {"type": "string"}}}
    chat(tmp_path / "log.jsonl").with_structured_output(schema).invoke("to fair")
    chat(tmp_path / "log.jsonl").with_structured_output(schema, include_raw=True).invoke("to fair")
    bare, raw = read_decisions(tmp_path / "log.jsonl")
    assert bare.path[0].input_tokens is None and bare.cost_usd is None
    assert raw.path[0].input_tokens is not None


def test_without_decisions_nothing_is_added() -> None:
    answer: AIMessage = chat(None).invoke("to fair")
    assert "id" not in answer.response_metadata["msat"]
