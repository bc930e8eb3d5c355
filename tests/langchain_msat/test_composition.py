"""What applications put around a chat model, put around the router."""

from __future__ import annotations

import asyncio
import contextlib
import copy
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import CallbackManager, UsageMetadataCallbackHandler
from langchain_core.globals import set_llm_cache
from langchain_core.load import dumpd
from langchain_core.messages import ChatMessage, HumanMessage, ToolMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import ConfigurableField, RunnableParallel
from langchain_core.tools import tool
from pydantic import BaseModel, Field
from rule_chat import RuleChat
from support import profile, scored, table_router

from langchain_msat import ChatMSAT
from msat_core import Candidate, RoutingPolicy
from msat_core.errors import NoCandidateError
from msat_core.routing.fallback import Fallback

NAMES = ("good", "fair", "poor")
Q = {"to fair": {"good": 0.1, "fair": 0.9, "poor": 0.2}, "to poor": {"good": 0.1, "fair": 0.2, "poor": 0.9}}


@tool
def double(number: int) -> int:
    """Twice the number."""
    return 2 * number


class Joke(BaseModel):
    """A joke."""

    setup: str


def chat(fields: dict[str, Any] | None = None, **special: Any) -> ChatMSAT:
    candidates = {n: special.get(n) or RuleChat(name=n) for n in NAMES}
    return ChatMSAT(candidates=candidates, router=table_router(Q), **(fields or {}))


def by(answer: Any) -> str:
    return str(answer.response_metadata["msat"]["candidate"])


# --- Runnables ---


def test_configurable_fields_and_alternatives() -> None:
    deny = {"configurable": {"p": RoutingPolicy(deny=frozenset({"fair"}))}}
    fields: Any = chat().configurable_fields(policy=ConfigurableField(id="p"))
    assert by(fields.invoke("to fair")) == "fair"
    assert by(fields.invoke("to fair", deny)) == "poor"
    assert [by(a) for a in fields.batch(["to fair", "to poor"], deny)] == ["poor", "poor"]
    which = ConfigurableField(id="llm")
    ours: Any = chat().configurable_alternatives(which, default_key="msat", plain=RuleChat(name="plain"))
    assert ours.invoke("to fair").content == "fair: to fair"
    assert ours.with_config(configurable={"llm": "plain"}).invoke("to fair").content == "plain: to fair"
    theirs: Any = RuleChat(name="plain").configurable_alternatives(which, default_key="plain", msat=chat())
    assert theirs.with_config(configurable={"llm": "msat"}).invoke("to fair").content == "fair: to fair"


def test_a_candidate_may_be_configurable() -> None:
    fair = RuleChat(name="fair")
    configurable = fair.configurable_fields(max_tokens=ConfigurableField(id="max_tokens"))
    answer = chat(fair=configurable).bind_tools([double]).invoke("to fair")
    assert by(answer) == "fair"
    assert answer.tool_calls[0]["name"] == "double"


async def test_pipes_parallels_and_listeners() -> None:
    pipe = ChatPromptTemplate.from_template("{q}") | chat() | StrOutputParser()
    assert list(pipe.stream({"q": "to fair"})) == ["fair:", " to", " fair", ""]
    assert [piece async for piece in pipe.astream({"q": "to fair"})] == ["fair:", " to", " fair", ""]
    both: Any = RunnableParallel(a=chat(), b=chat() | StrOutputParser())
    assert by(both.invoke("to fair")["a"]) == "fair"
    assert [found["b"] for found in both.batch(["to fair", "to poor"])] == ["fair: to fair", "poor: to poor"]
    ended: list[str] = []
    chat().with_listeners(on_end=lambda run: ended.append(run.name)).invoke("to fair")
    assert ended == ["ChatMSAT"]


async def test_retries_keep_one_scorer_call_and_configs_run_names() -> None:
    router = chat()
    router.with_retry(stop_after_attempt=2).batch(["to fair"] * 5)
    await router.with_config(tags=["t"]).abatch(["to fair"] * 5)
    assert [len(call) for call in scored(router.router)] == [5, 5]


async def test_one_bad_input_harms_no_other() -> None:
    configs: Any = [{"configurable": {"msat_policy": {"deny": list(NAMES)}}}, {}]
    router = chat()
    for found in (
        router.batch(["to fair", "to poor"], configs, return_exceptions=True),
        await router.abatch(["to fair", "to poor"], configs, return_exceptions=True),
    ):
        assert isinstance(found[0], NoCandidateError)
        assert by(found[1]) == "poor"
    assert len(scored(router.router)) == 2  # one each, though the policies differ
    with pytest.raises(NoCandidateError):
        await router.abatch(["to fair", "to poor"], configs)
    assert len(asyncio.all_tasks()) == 1


async def test_concurrency_is_bounded_as_configured() -> None:
    active = most = 0

    class Counting(RuleChat):
        async def _agenerate(self, *args: Any, **kwargs: Any) -> Any:
            nonlocal active, most
            active += 1
            most = max(most, active)
            await asyncio.sleep(0.01)
            active -= 1
            return await super()._agenerate(*args, **kwargs)

    await chat(fair=Counting(name="fair")).abatch(["to fair"] * 9, {"max_concurrency": 3})
    assert most == 3


def test_bound_stops_and_callbacks_given_as_managers() -> None:
    assert chat().invoke("to fair", stop=["fair"]).content == ""
    assert chat().bind(stop=[" to"]).invoke("to fair").content == "fair:"
    given, own = UsageMetadataCallbackHandler(), UsageMetadataCallbackHandler()
    manager = CallbackManager([given], inheritable_handlers=[given])
    chat({"callbacks": CallbackManager([own], inheritable_handlers=[own])}).invoke("to fair", {"callbacks": manager})
    assert given.usage_metadata == own.usage_metadata != {}


def test_copies_and_serialisation() -> None:
    router = chat()
    assert by(router.model_copy(update={"sticky": "never"}).invoke("to fair")) == "fair"
    twin = copy.deepcopy(router)
    assert by(twin.invoke("to fair")) == "fair"
    assert router.candidates["fair"].seen != twin.candidates["fair"].seen
    assert twin.router is router.router
    assert dumpd(router)["type"] == "not_implemented"
    assert "RuleChat" not in repr(router)


def test_a_global_cache_serves_candidates_and_every_answer_is_tagged() -> None:
    set_llm_cache(InMemoryCache())
    try:
        router = chat()
        answers = [router.invoke("to fair") for _ in range(3)]
        assert len(router.candidates["fair"].seen) == 1
        assert [by(answer) for answer in answers] == ["fair"] * 3
        assert "".join(str(chunk.content) for chunk in router.stream("to fair")) == "fair: to fair"
    finally:
        set_llm_cache(None)


def test_tokens_are_counted_by_the_candidate_that_counts_most() -> None:
    class Words(RuleChat):
        factor: int = 1

        def get_num_tokens(self, text: str) -> int:
            return self.factor * len(text.split())

    words: Any = {n: Words(name=n, factor=f) for f, n in enumerate(NAMES, start=1)}
    router = chat(**words)
    assert router.get_num_tokens("one two") == 6
    assert router.get_num_tokens_from_messages([HumanMessage("one two")]) == max(
        model.get_num_tokens_from_messages([HumanMessage("one two")]) for model in router.candidates.values()
    )


def test_a_router_may_be_a_candidate() -> None:
    assert by(chat(fair=chat()).invoke("to fair")) == "fair"


# --- agents and graphs ---


async def test_an_agents_tokens_come_once_through_a_tool_loop() -> None:
    from langchain.agents import create_agent

    agent: Any = create_agent(chat(), [double])
    question = {"messages": [HumanMessage("Please double 21")]}
    sync = [m for m, _ in agent.stream(question, stream_mode="messages")]
    found = [m async for m, _ in agent.astream(question, stream_mode="messages")]
    for messages in (sync, found):
        assert [m.content for m in messages if isinstance(m, ToolMessage)] == ["42"]
        assert "".join(str(m.content) for m in messages if m.type == "AIMessageChunk") == "good: 42"


def test_a_graph_node_streams_and_remembers() -> None:
    from langgraph.graph import START, MessagesState, StateGraph

    router = chat({"sticky": "conversation"})
    graph = StateGraph(MessagesState)
    graph.add_node("model", lambda state: {"messages": [router.invoke(state["messages"])]})
    graph.add_edge(START, "model")
    app: Any = graph.compile()
    tokens = [m.content for m, _ in app.stream({"messages": [("user", "to fair")]}, stream_mode="messages")]
    assert "".join(map(str, tokens)) == "fair: to fair"
    state = app.invoke({"messages": [("user", "to fair")]})
    again = app.invoke({"messages": [*state["messages"], ("user", "And now for something else entirely")]})
    assert by(again["messages"][-1]) == "fair"


def test_what_a_middleware_wrote_is_not_scored() -> None:
    router = chat()
    summary = HumanMessage("Here is a summary of it all: long.", additional_kwargs={"lc_source": "summarization"})
    router.invoke([HumanMessage("to fair"), summary])
    router.invoke([HumanMessage("to fair"), ChatMessage(content="…", role="assistant")])
    assert scored(router.router) == [("to fair",), ("to fair",)]


# --- streams that fail, and streams that nobody reads on ---


class Closing(RuleChat):
    """Counts the streams that ended or were closed."""

    closed: list[int] = Field(default_factory=list)

    def _stream(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        try:
            yield from super()._stream(*args, **kwargs)
        finally:
            self.closed.append(1)

    async def _astream(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        try:
            async for chunk in super()._astream(*args, **kwargs):
                yield chunk
                await asyncio.sleep(0.01)
        finally:
            self.closed.append(1)


async def test_a_candidates_stream_is_closed_with_ours() -> None:
    fair = Closing(name="fair")
    router = chat(fair=fair)
    stream: Any = router.stream("to fair")
    next(stream)
    stream.close()
    assert len(fair.closed) == 1
    async with contextlib.aclosing(router.astream("to fair")) as chunks:  # type: ignore[type-var]
        await anext(chunks)
    assert len(fair.closed) == 2

    async def read() -> None:
        async for _ in router.astream("to fair"):
            pass

    task = asyncio.create_task(read())
    while not fair.seen or len(fair.seen) < 3:
        await asyncio.sleep(0.002)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(fair.closed) == 3
    assert all(router.candidates[n].seen == [] for n in ("good", "poor"))


async def test_a_callers_own_timeout_is_no_failure_of_the_candidate() -> None:
    router = chat(fair=RuleChat(name="fair", delay_s=60))
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(router.ainvoke("to fair"), 0.05)
    assert router.candidates["poor"].seen == []


async def test_answers_that_cannot_be_parsed_go_to_the_next() -> None:
    class Confused(RuleChat):
        def _answer(self, messages: Any, kwargs: dict[str, Any]) -> Any:
            answer = super()._answer(messages, kwargs)
            return answer.model_copy(update={"tool_calls": [{**c, "args": {"wrong": 1}} for c in answer.tool_calls]})

    router = chat(fair=Confused(name="fair"))
    assert router.with_structured_output(Joke).invoke("to fair") == Joke(setup="to fair")
    assert await router.with_structured_output(Joke).ainvoke("to fair") == Joke(setup="to fair")
    assert len(router.candidates["poor"].seen) == 2


def test_overflow_goes_to_a_window_that_fits() -> None:
    windows = {"good": None, "fair": 8000, "poor": 4000, "large": 32_000}
    zoo = [Candidate(profile=profile(n, 0.5), context_window=w) for n, w in windows.items()]
    table = {"long": {"good": 0.1, "fair": 0.9, "poor": 0.8, "large": 0.2}}
    overflow = RuleChat(name="fair", fails=ValueError("This model's maximum context length is 8000 tokens"))
    candidates = {n: RuleChat(name=n) for n in windows} | {"fair": overflow}
    router = ChatMSAT(candidates=candidates, router=table_router(table, candidates=zoo))
    answer = router.invoke("long")
    path = answer.response_metadata["msat"]["path"]
    assert [(step["candidate"], step.get("kind")) for step in path] == [("fair", "context_overflow"), ("large", None)]


def test_one_budget_for_all_attempts() -> None:
    prices = {"good": 1000.0, "fair": 10.0, "poor": 1.0}
    zoo = [Candidate(profile=profile(n), usd_per_mtok_in=p, usd_per_mtok_out=p) for n, p in prices.items()]
    down = {n: RuleChat(name=n, fails=ConnectionError("down")) for n in NAMES}
    router = ChatMSAT(
        candidates=down,
        router=table_router({"q": {"good": 0.9, "fair": 0.8, "poor": 0.1}}, candidates=zoo),
        fallback=Fallback(max_usd=0.01),
    )
    with pytest.raises(ConnectionError) as failed:
        router.invoke("q")
    assert [step["candidate"] for step in failed.value.msat_path] == ["fair", "poor"]  # type: ignore[attr-defined]
    assert down["good"].seen == []


def test_what_a_configuration_asks_for_stays_within_the_limits() -> None:
    ask: Any = {"configurable": {"msat_candidate": "fair"}}
    assert by(chat().invoke("to poor", ask)) == "fair"
    with pytest.raises(NoCandidateError, match="fair: on the deny list"):
        chat({"policy": RoutingPolicy(deny=frozenset({"fair"}))}).invoke("to poor", ask)


# --- v3 events, where langchain-core has them ---


@pytest.fixture
def v3() -> None:
    if not hasattr(RuleChat, "stream_events"):
        pytest.skip("this langchain-core has no v3 events")


pytestmark = pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning")


async def test_v3_streams_are_the_candidates_own(v3: None) -> None:
    usage, direct = UsageMetadataCallbackHandler(), UsageMetadataCallbackHandler()
    stream = chat().stream_events("to fair", {"callbacks": [usage]}, version="v3")
    assert list(stream.text) == ["fair:", " to", " fair"]
    assert stream.output.text == "fair: to fair"
    RuleChat(name="fair").invoke("to fair", {"callbacks": [direct]})
    assert usage.usage_metadata == direct.usage_metadata
    astream = await chat().astream_events("to fair", version="v3")
    assert [piece async for piece in astream.text] == ["fair:", " to", " fair"]
    bound: Any = chat().bind_tools([double])
    assert bound.stream_events("double 4", version="v3").output.tool_calls[0]["args"] == {"number": 4}


async def test_v3_streams_fall_back_before_their_first_event(v3: None) -> None:
    router = chat({"fallback": Fallback(timeout_s=0.2)}, fair=RuleChat(name="fair", fails=ConnectionError("down")))
    assert router.stream_events("to fair", version="v3").output.text == "poor: to fair"
    assert (await (await router.astream_events("to fair", version="v3")).output).text == "poor: to fair"
    slow = chat({"fallback": Fallback(timeout_s=0.1)}, fair=RuleChat(name="fair", delay_s=60))
    stream = await slow.astream_events("to fair", version="v3")
    assert (await stream).text == "poor: to fair"
    assert len(asyncio.all_tasks()) == 1  # the late candidate's own task was ended


async def test_v3_streams_never_change_hands_after_it(v3: None) -> None:
    router = chat(fair=RuleChat(name="fair", fail_after=1))
    with pytest.raises(ConnectionError, match="the stream broke"):
        _ = router.stream_events("to fair", version="v3").output
    stream = await router.astream_events("to fair", version="v3")
    with pytest.raises(ConnectionError, match="the stream broke"):
        await stream.output
    assert router.candidates["poor"].seen == []


def test_v3_decisions_are_in_the_runs_metadata(v3: None) -> None:
    from langchain_core.tracers.base import BaseTracer

    runs: list[Any] = []

    class Runs(BaseTracer):
        def _persist_run(self, run: Any) -> None:
            runs.append(run)

    down = RuleChat(name="fair", fails=ConnectionError("down"))
    _ = chat(fair=down).stream_events("to fair", {"callbacks": [Runs()]}, version="v3").output
    assert [run.metadata["msat"]["candidate"] for run in runs] == ["fair", "poor"]
    assert [step["candidate"] for step in runs[1].metadata["msat"]["path"]] == ["fair", "poor"]


async def test_an_agent_streams_v3_events(v3: None) -> None:
    from langchain.agents import create_agent

    router = chat()
    agent: Any = create_agent(router, [double])
    stream = await agent.astream_events({"messages": [HumanMessage("Please double 21")]}, version="v3")
    texts = [(await message.output).text async for message in stream.messages]
    assert texts == ["", "good: 42"]
    assert len(scored(router.router)) == 1
