"""The router LLM and the selector inside the engines, agents and settings that applications use."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import time
from collections.abc import Iterator
from typing import Any

import pytest
from llama_index.core import Document, MockEmbedding, PromptTemplate, Settings, VectorStoreIndex
from llama_index.core.agent.workflow import AgentStream, AgentWorkflow, FunctionAgent, ReActAgent
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.query_engine import RouterQueryEngine, SubQuestionQueryEngine
from llama_index.core.question_gen import LLMQuestionGenerator
from llama_index.core.retrievers import RouterRetriever
from llama_index.core.tools import FunctionTool, QueryEngineTool, RetrieverTool
from pydantic import BaseModel
from rule_llm import RuleLLM, user
from support import profile, scored, table_router

from llamaindex_msat import MSATRouterLLM, MSATSelector, candidate_query_engines
from msat_core import Candidate, RoutingPolicy
from msat_core.routing.fallback import Fallback

NAMES = ("good", "fair", "poor")
Q = {
    "to fair": {"good": 0.1, "fair": 0.9, "poor": 0.2},
    "to poor": {"good": 0.1, "fair": 0.2, "poor": 0.9},
    "Double 21 to fair": {"good": 0.1, "fair": 0.9, "poor": 0.2},
}


class Number(BaseModel):
    number: int


def double(number: int) -> int:
    """Twice the number."""
    return 2 * number


def llm(fields: dict[str, Any] | None = None, **special: Any) -> MSATRouterLLM:
    llms = {n: special.get(n) or RuleLLM(name=n) for n in NAMES}
    return MSATRouterLLM(llms=llms, router=table_router(Q), **(fields or {}))


def calls(router: MSATRouterLLM) -> list[tuple[str, ...]]:
    return scored(router._router)


def memory() -> ChatMemoryBuffer:
    """Not the default one, which leaves its database open until it is collected."""
    return ChatMemoryBuffer.from_defaults(token_limit=4000)


@pytest.fixture(scope="module")
def index() -> VectorStoreIndex:
    documents = [Document(text="A fact."), Document(text="Another.")]
    return VectorStoreIndex.from_documents(documents, embed_model=MockEmbedding(embed_dim=4))


@pytest.fixture(autouse=True)
def settings() -> Iterator[None]:
    before = Settings._llm, Settings._callback_manager
    Settings._llm = RuleLLM(name="default")
    yield
    Settings._llm, Settings._callback_manager = before


# --- engines ---


@pytest.mark.parametrize("mode", ["simple", "context", "condense_plus_context", "condense_question"])
async def test_chat_engines_route_on_the_users_message(mode: Any, index: VectorStoreIndex) -> None:
    router = llm()
    engine = index.as_chat_engine(chat_mode=mode, llm=router, memory=memory())
    assert str(engine.chat("to fair")).startswith("fair: ")
    engine.reset()
    assert str(await engine.achat("to poor")).startswith("poor: ")
    engine.reset()
    assert "".join(engine.stream_chat("to fair").response_gen).startswith("fair: ")
    assert {text for call in calls(router) for text in call} == {"to fair", "to poor"}


async def test_query_engines_through_settings(index: VectorStoreIndex) -> None:
    router = llm()
    Settings.llm = router
    assert str(index.as_query_engine().query("to fair")).startswith("fair: ")
    assert str(await index.as_query_engine().aquery("to poor")).startswith("poor: ")
    assert str(index.as_query_engine(streaming=True).query("to fair")).startswith("fair: ")
    assert {text for call in calls(router) for text in call} == {"to fair", "to poor"}


def test_sub_questions_are_routed_one_by_one(index: VectorStoreIndex) -> None:
    items = '{"items": [{"sub_question": "to fair", "tool_name": "t"}, {"sub_question": "to poor", "tool_name": "t"}]}'
    router = llm(good=RuleLLM(name="good", script=[f"```json\n{items}\n```"]))
    tool = QueryEngineTool.from_defaults(index.as_query_engine(llm=router), name="t", description="d")
    engine = SubQuestionQueryEngine.from_defaults(
        [tool],
        llm=router,
        question_gen=LLMQuestionGenerator.from_defaults(llm=router),
        use_async=False,
        verbose=False,
    )
    answer = str(engine.query("Something of interest to everybody"))
    assert "fair: " in answer
    assert "poor: " in answer
    assert ("to fair",) in calls(router)
    assert ("to poor",) in calls(router)


async def test_one_engine_per_candidate_through_a_router_engine(index: VectorStoreIndex) -> None:
    llms = {n: RuleLLM(name=n) for n in NAMES}
    engine = RouterQueryEngine.from_defaults(
        candidate_query_engines(index, llms), llm=RuleLLM(), selector=MSATSelector(table_router(Q))
    )
    assert str(engine.query("to fair")).startswith("fair: ")
    assert str(await engine.aquery("to poor")).startswith("poor: ")


async def test_a_router_retriever_takes_several(index: VectorStoreIndex) -> None:
    tools = [RetrieverTool.from_defaults(index.as_retriever(), name=n, description="d") for n in NAMES]
    for top_k in (1, 2):
        selector = MSATSelector(table_router(Q), top_k=top_k)
        retriever = RouterRetriever(selector=selector, retriever_tools=tools, llm=RuleLLM())
        found = {node.node_id for node in retriever.retrieve("to fair")}
        assert found == {node.node_id for node in await retriever.aretrieve("to fair")} != set()


# --- structured output ---


async def test_structured_llms_are_the_chosen_childs() -> None:
    class Native(RuleLLM):
        def stream_structured_predict(self, *args: Any, **kwargs: Any) -> Any:
            yield Number(number=3)

        async def astream_structured_predict(self, *args: Any, **kwargs: Any) -> Any:
            async def objects() -> Any:
                yield Number(number=3)

            return objects()

    router = llm(fair=Native(name="fair", functions=False, script=['{"number": 3}'] * 9))
    structured = router.as_structured_llm(Number)
    assert structured.chat(user("to fair")).raw == Number(number=3)
    assert (await structured.achat(user("to fair"))).raw == Number(number=3)
    assert structured.complete("to fair").raw == Number(number=3)
    assert list(structured.stream_chat(user("to fair")))[-1].raw == Number(number=3)
    prompt = PromptTemplate("Context: 7\nQuery: {query_str}")
    assert list(router.stream_structured_predict(Number, prompt, query_str="to fair"))[-1] == Number(number=3)
    stream = await router.astream_structured_predict(Number, prompt, query_str="to fair")
    assert [found async for found in stream][-1] == Number(number=3)
    assert router.llms["good"].seen == router.llms["poor"].seen == []  # type: ignore[attr-defined]


# --- agents ---


async def test_agents_stream_and_keep_the_route_through_a_turn() -> None:
    router = llm()
    handler = FunctionAgent(tools=[double], llm=router).run(user_msg="Double 21 to fair", memory=memory())
    deltas = [event.delta async for event in handler.stream_events() if isinstance(event, AgentStream)]
    assert str(await handler) == "fair: 42"
    assert "".join(deltas) == "fair: 42"
    assert calls(router) == [("Double 21 to fair",)]


async def test_a_turn_goes_on_with_the_candidate_that_stepped_in() -> None:
    router = llm(fair=RuleLLM(name="fair", fails=ConnectionError("down")))
    assert (
        str(await FunctionAgent(tools=[double], llm=router).run(user_msg="Double 21 to fair", memory=memory()))
        == "poor: 42"
    )
    assert len(router.llms["fair"].seen) == 1  # type: ignore[attr-defined]  # not asked again after the tool


async def test_a_new_turn_is_routed_anew_unless_the_conversation_sticks() -> None:
    for sticky, second in (("turn", "good: 8"), ("conversation", "fair: 8")):
        agent, kept = FunctionAgent(tools=[double], llm=llm({"sticky": sticky}), streaming=False), memory()
        assert str(await agent.run(user_msg="Double 21 to fair", memory=kept)) == "fair: 42"
        assert str(await agent.run(user_msg="And now please double the number 4", memory=kept)) == second


async def test_react_steps_score_the_question_and_not_the_observation() -> None:
    script = [
        'Thought: I need a tool.\nAction: double\nAction Input: {"number": 21}',
        "Thought: I can answer without using any more tools.\nAnswer: 42",
    ]
    router = llm(fair=RuleLLM(name="fair", script=script))
    agent = ReActAgent(tools=[double], llm=router, streaming=True)
    assert str(await agent.run(user_msg="Double 21 to fair", memory=memory())) == "42"
    assert {text for call in calls(router) for text in call} == {"Double 21 to fair"}
    assert len(router.llms["fair"].seen) == 2  # type: ignore[attr-defined]


async def test_agents_of_a_workflow_hand_over() -> None:
    other = RuleLLM(name="fair")
    first = FunctionAgent(name="first", description="d", tools=[double], llm=llm(fair=other), can_handoff_to=["second"])
    second = FunctionAgent(name="second", description="d", tools=[double], llm=llm())
    workflow = AgentWorkflow(agents=[first, second], root_agent="first")
    assert str(await workflow.run(user_msg="Double 21 to fair", memory=memory())) == "fair: 42"


# --- settings, callbacks, copies ---


def counter() -> TokenCountingHandler:
    return TokenCountingHandler(tokenizer=str.split)


def test_settings_callbacks_reach_the_children() -> None:
    handler, router = counter(), llm()
    Settings.llm = router
    Settings.callback_manager = CallbackManager([handler])
    Settings.llm.complete("to fair")
    assert handler.total_llm_token_count == len("to fair fair: to fair".split())


def test_a_call_changes_no_childs_callbacks_and_own_handlers_stay() -> None:
    own, first, second = counter(), counter(), counter()
    mine = CallbackManager([own])
    router = llm({"callback_manager": CallbackManager([first])}, poor=RuleLLM(name="poor", callback_manager=mine))
    before = {n: llm.callback_manager for n, llm in router.llms.items()}
    router.complete("to fair")
    router.complete("to poor")
    assert {n: llm.callback_manager for n, llm in router.llms.items()} == before
    assert router.llms["poor"].callback_manager is mine
    assert own.total_llm_token_count > 0
    counted = first.total_llm_token_count
    router.callback_manager = CallbackManager([second])
    router.complete("to fair")
    assert (first.total_llm_token_count, second.total_llm_token_count) == (counted, counted)


async def test_token_counts_equal_a_direct_call_in_every_way() -> None:
    async def drain(stream: Any) -> None:
        [chunk async for chunk in stream]

    async def use(model: Any) -> None:
        model.chat(user("to fair"))
        list(model.stream_chat(user("to fair")))
        await model.achat(user("to fair"))
        await drain(await model.astream_chat(user("to fair")))
        model.complete("to fair")
        await model.acomplete("to fair")
        list(model.stream_complete("to fair"))
        await drain(await model.astream_complete("to fair"))

    direct, ours = counter(), counter()
    await use(RuleLLM(name="fair", callback_manager=CallbackManager([direct])))
    await use(llm({"callback_manager": CallbackManager([ours])}))
    assert ours.total_llm_token_count == direct.total_llm_token_count > 0
    assert len(ours.llm_token_counts) == len(direct.llm_token_counts)


def test_copies() -> None:
    router = llm()
    assert copy.deepcopy(router).complete("to fair").text == "fair: to fair"
    assert router.model_copy().complete("to fair").text == "fair: to fair"


# --- failures ---


async def test_timeouts_and_streams_that_nobody_reads_on() -> None:
    class Slow(RuleLLM):
        async def achat(self, messages: Any, **kwargs: Any) -> Any:
            await asyncio.sleep(60)

        def chat(self, messages: Any, **kwargs: Any) -> Any:
            time.sleep(1.0)

    router = llm({"fallback": Fallback(timeout_s=0.1)}, fair=Slow(name="fair"))
    assert (await router.achat(user("to fair"))).message.content == "poor: to fair"
    assert router.chat(user("to fair")).message.content == "poor: to fair"
    closed: list[str] = []

    class Closing(RuleLLM):
        async def astream_chat(self, messages: Any, **kwargs: Any) -> Any:
            inner = await super().astream_chat(messages, **kwargs)

            async def chunks() -> Any:
                try:
                    async for chunk in inner:
                        yield chunk
                finally:
                    closed.append(self.name)

            return chunks()

    stream = await llm(fair=Closing(name="fair")).astream_chat(user("to fair"))
    async with contextlib.aclosing(stream) as chunks:
        await anext(chunks)
    assert closed == ["fair"]


def test_failures_come_at_the_call_as_a_childs_do() -> None:
    failing: Any = {n: RuleLLM(name=n, fails=ValueError("no")) for n in NAMES}
    router = llm(**failing)
    with pytest.raises(ValueError, match="no"):
        router.stream_chat(user("to fair"))


def test_caps_hold_for_the_choice_and_the_fallback() -> None:
    prices = {"good": 1000.0, "fair": 1.0, "poor": 0.5}
    zoo = [Candidate(profile=profile(n), usd_per_mtok_in=p, usd_per_mtok_out=p) for n, p in prices.items()]
    llms = {n: RuleLLM(name=n, fails=ConnectionError("down")) for n in NAMES}
    table = {"Answer Yes.": {"good": 1.0, "fair": 0.2, "poor": 0.1}}
    router = MSATRouterLLM(llms=llms, router=table_router(table, candidates=zoo), policy=RoutingPolicy(max_usd=0.001))
    with pytest.raises(ConnectionError) as failed:
        router.complete("Answer Yes.")
    assert [step["candidate"] for step in failed.value.msat_path] == ["fair", "poor"]  # type: ignore[attr-defined]
    assert llms["good"].seen == []


def test_tools_are_prepared_by_the_chosen_child() -> None:
    tool = FunctionTool.from_defaults(double)
    prepared = llm()._prepare_chat_with_tools([tool], user_msg="Double 21 to fair", chat_history=None)
    assert prepared["tools"] == ["double"]
