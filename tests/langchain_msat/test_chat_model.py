"""What a router that is a chat model must do, point by point."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler, UsageMetadataCallbackHandler
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, SystemMessage, ToolMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langchain_core.tracers.base import BaseTracer
from pydantic import BaseModel
from rule_chat import RuleChat
from support import profile, scored, stall_share, table_router

import langchain_msat
from langchain_msat import ChatMSAT, candidate_selector
from msat_core import Candidate, Router, RoutingPolicy
from msat_core.errors import ConfigurationError, ZooError
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
    punchline: str


def models(**special: Any) -> dict[str, Any]:
    return {name: special.get(name) or RuleChat(name=name) for name in NAMES}


def chat(router: Router | None = None, fields: dict[str, Any] | None = None, **special: Any) -> ChatMSAT:
    return ChatMSAT(candidates=models(**special), router=router or table_router(Q), **(fields or {}))


def calls(chat: ChatMSAT) -> list[tuple[str, ...]]:
    return scored(chat.router)


class Runs(BaseTracer):
    """Keeps the finished run trees."""

    def __init__(self) -> None:
        super().__init__()
        self.trees: list[Any] = []

    def _persist_run(self, run: Any) -> None:
        self.trees.append(run)


def test_public_names() -> None:
    assert langchain_msat.__all__ == [
        "ChatMSAT",
        "MSATDecisionModel",
        "MSATMiddleware",
        "MSATRouterChain",
        "candidate_selector",
        "exam_client",
    ]


def test_the_decision_is_in_the_metadata() -> None:
    answer = chat().invoke("to fair")
    assert answer.content == "fair: to fair"
    tag = answer.response_metadata["msat"]
    assert tag["candidate"] == "fair"
    assert tag["scores"] == Q["to fair"]
    assert tag["path"] == [{"candidate": "fair"}]
    assert "P(correct) 0.90" in tag["reason"]


async def test_all_ways_to_call_agree() -> None:
    router = chat()
    expected = ["fair: to fair", "poor: to poor", "good: other"]
    texts = ["to fair", "to poor", "other"]
    assert [router.invoke(t).content for t in texts] == expected
    assert [(await router.ainvoke(t)).content for t in texts] == expected
    assert [m.content for m in router.batch(texts)] == expected
    assert [m.content for m in await router.abatch(texts)] == expected
    streamed = ["".join(str(c.content) for c in router.stream(t)) for t in texts]
    assert streamed == expected
    for text, whole in zip(texts, expected, strict=True):
        assert "".join([str(c.content) async for c in router.astream(text)]) == whole
    lists = [[HumanMessage(t)] for t in texts]
    assert [g[0].text for g in router.generate(lists).generations] == expected  # type: ignore[arg-type]
    assert [g[0].text for g in (await router.agenerate(lists)).generations] == expected  # type: ignore[arg-type]
    assert [m.content for _, m in sorted(router.batch_as_completed(texts))] == expected  # type: ignore[union-attr]
    done = [pair async for pair in router.abatch_as_completed(texts)]
    assert [m.content for _, m in sorted(done)] == expected  # type: ignore[union-attr]


def test_2_agent_finishes_a_tool_loop_and_gives_structured_responses() -> None:
    from langchain.agents import create_agent

    router = chat()
    agent = create_agent(router, [double])
    result = agent.invoke({"messages": [HumanMessage("Please double the number 21")]})
    kinds = [m.type for m in result["messages"]]
    assert kinds == ["human", "ai", "tool", "ai"]
    assert result["messages"][2].content == "42"
    assert len(calls(router)) == 1  # 15: the route holds through the loop
    structured = create_agent(chat(), [], response_format=Joke)
    assert isinstance(structured.invoke({"messages": [HumanMessage("a joke")]})["structured_response"], Joke)


def test_3_and_4_each_token_once_and_usage_as_of_a_direct_call() -> None:
    from langchain.agents import create_agent

    agent = create_agent(chat(), [])
    question: Any = {"messages": [HumanMessage("to fair")]}
    tokens = [c.content for c, _ in agent.stream(question, stream_mode="messages") if isinstance(c, AIMessageChunk)]
    assert "".join(map(str, tokens)) == "fair: to fair"
    direct = UsageMetadataCallbackHandler()
    RuleChat(name="fair").invoke("to fair", {"callbacks": [direct]})
    for run in (
        lambda config: chat().invoke("to fair", config),
        lambda config: (chat() | StrOutputParser()).invoke("to fair", config),
        lambda config: create_agent(chat(), []).invoke(question, config),
        lambda config: list(chat().stream("to fair", config)),
    ):
        ours = UsageMetadataCallbackHandler()
        run({"callbacks": [ours]})
        assert ours.usage_metadata == direct.usage_metadata


async def test_5_many_inputs_are_one_scorer_call() -> None:
    texts: list[Any] = [f"question {i}" for i in range(20)]
    pipe: Any = ChatPromptTemplate.from_template("{q}") | chat()
    for run, router in (
        (lambda r: r.batch(texts), chat()),
        (lambda r: r.bind_tools([double]).batch(texts), chat()),
        (lambda r: list(r.batch_as_completed(texts)), chat()),
        (lambda r: r.generate([[HumanMessage(t)] for t in texts]), chat()),
        (lambda r: r.with_structured_output(Joke).batch(texts), chat()),
    ):
        run(router)
        assert [len(call) for call in calls(router)] == [20]
    router = chat()
    await router.abatch(texts)
    assert [len(call) for call in calls(router)] == [20]
    pipe.batch([{"q": t} for t in texts])
    assert [len(call) for call in calls(pipe.last)] == [20]


def test_5_order_configs_and_exceptions_are_kept() -> None:
    router = chat(poor=RuleChat(name="poor", fails=ValueError("no")), fields={"fallback": Fallback(max_attempts=1)})
    texts: list[Any] = ["to fair", "to poor", 3, "other"]
    runs = [Runs() for _ in texts]
    found = router.batch(
        texts, [{"callbacks": [r], "tags": [f"t{i}"]} for i, r in enumerate(runs)], return_exceptions=True
    )
    assert isinstance(found[1], ValueError)
    assert "Invalid input type" in str(found[2])
    assert [found[0].content, found[3].content] == ["fair: to fair", "good: other"]
    assert [run.trees[0].tags for run in runs] == [["t0"], ["t1"], ["t2"], ["t3"]]
    with pytest.raises(ValueError, match=r"no|Invalid input type"):
        router.batch(texts)


def test_6_chunks_are_those_of_the_chosen_candidate() -> None:
    direct = list(RuleChat(name="fair").stream("to fair"))
    ours = list(chat().stream("to fair"))
    assert [c.content for c in ours] == [c.content for c in direct]
    assert sum("msat" in c.response_metadata for c in ours) == 1
    whole = ours[0]
    for chunk in ours[1:]:
        whole = whole + chunk
    assert whole.response_metadata["msat"]["candidate"] == "fair"
    assert whole.usage_metadata == RuleChat(name="fair").invoke("to fair").usage_metadata


@pytest.mark.parametrize("way", ["invoke", "stream"])
def test_7_one_chain_run_with_one_llm_run_below(way: str) -> None:
    runs = Runs()
    config: Any = {"callbacks": [runs], "run_name": "mine", "tags": ["t"], "metadata": {"k": "v"}}
    list(chat().stream("to fair", config)) if way == "stream" else chat().invoke("to fair", config)
    (tree,) = runs.trees
    assert (tree.name, tree.run_type, tree.tags, tree.metadata["k"]) == ("mine", "chain", ["t"], "v")
    (child,) = tree.child_runs
    assert child.run_type in ("llm", "chat_model")
    assert "t" in child.tags
    assert child.metadata["k"] == "v"


def test_7_own_callbacks_tags_and_metadata_count() -> None:
    runs = Runs()
    chat(fields={"callbacks": [runs], "tags": ["own"], "metadata": {"a": 1}}).invoke("to fair", {"tags": ["call"]})
    assert set(runs.trees[0].tags) == {"own", "call"}
    assert runs.trees[0].metadata["a"] == 1


def test_8_fallbacks_and_tools_together() -> None:
    failing: Any = {n: RuleChat(name=n, fails=ValueError("no")) for n in NAMES}
    broken = chat(**failing, fields={"fallback": Fallback(max_attempts=1)})
    answer = broken.with_fallbacks([RuleChat(name="spare")]).bind_tools([double]).invoke("double 4")
    assert answer.tool_calls[0]["args"] == {"number": 4}


def test_8_candidates_may_be_bindings_and_fallbacks() -> None:
    bound, inner = RuleChat(name="fair").bind(stop=["!"]), RuleChat(name="good", fails=ValueError("no"))
    router = chat(fair=bound.with_config(tags=["x"]), good=inner.with_fallbacks([RuleChat(name="spare")]))
    router = router.bind_tools([double])  # type: ignore[assignment]
    assert router.invoke("to fair").tool_calls[0]["name"] == "double"
    assert bound.bound.seen[-1][1]["stop"] == ["!"]  # type: ignore[attr-defined]
    assert router.invoke("other 5").tool_calls[0]["args"] == {"number": 5}


@pytest.mark.parametrize("bind", [False, True])
def test_9_overrides_at_run_time(bind: bool) -> None:
    router: Any = chat()
    router = router.bind_tools([double]) if bind else router
    forced = router.invoke("to fair", {"configurable": {"msat_candidate": "poor"}})
    assert forced.response_metadata["msat"]["candidate"] == "poor"
    policy = RoutingPolicy(deny=frozenset({"fair"}))
    denied = router.invoke("to fair", {"configurable": {"msat_policy": policy}})
    assert denied.response_metadata["msat"]["candidate"] == "poor"
    (batched,) = router.batch(["to fair"], {"configurable": {"msat_policy": {"deny": ["fair", "poor"]}}})
    assert batched.response_metadata["msat"]["candidate"] == "good"
    with pytest.raises(ZooError):
        router.invoke("to fair", {"configurable": {"msat_candidate": "nobody"}})


def test_10_structured_output_is_the_candidates_own() -> None:
    class Native(RuleChat):
        def with_structured_output(self, schema: Any, **kwargs: Any) -> Any:
            return RunnableLambda(lambda _: {"by": self.name, **kwargs})

    router = chat(fair=Native(name="fair"))
    assert router.with_structured_output(Joke, include_raw=False, method="json_schema").invoke("to fair") == {
        "by": "fair",
        "include_raw": False,
        "method": "json_schema",
    }
    assert isinstance(router.with_structured_output(Joke).invoke("to poor"), Joke)
    raw: Any = router.with_structured_output(Joke, include_raw=True).invoke("to poor")
    assert raw["raw"].response_metadata["msat"]["candidate"] == "poor"
    assert list(router.with_structured_output(Joke).stream("to poor"))[-1]


def test_11_profile_is_what_all_can_do() -> None:
    profiles = [
        {"max_input_tokens": 100, "tool_calling": True, "image_inputs": True},
        {"max_input_tokens": 50, "tool_calling": True, "image_inputs": False},
        {"max_input_tokens": 70, "tool_calling": True, "image_inputs": True, "audio_inputs": True},
    ]
    special: Any = {n: RuleChat(name=n, profile=p) for n, p in zip(NAMES, profiles, strict=True)}
    assert chat(**special).profile == {"max_input_tokens": 50, "tool_calling": True, "image_inputs": False}
    assert chat().profile is None


def test_12_images_and_system_messages_arrive_unchanged() -> None:
    seeing = Candidate(profile=profile("fair", 0.6), modalities=frozenset({"text", "image"}))
    blind = [Candidate(profile=profile(n)) for n in ("good", "poor")]
    router = table_router(Q, RoutingPolicy(default="fair"), candidates=[blind[0], seeing, blind[1]])
    fair = RuleChat(name="fair")
    image = {"type": "image", "url": "https://example.com/x.png", "mime_type": "image/png"}
    messages = [SystemMessage("Be brief."), HumanMessage([image])]
    answer = chat(router, fair=fair).invoke(messages)
    assert answer.response_metadata["msat"]["candidate"] == "fair"
    assert answer.response_metadata["msat"]["score"] is None
    assert fair.seen[0][0][0] == messages[0]
    assert fair.seen[0][0][1].content_blocks[0]["url"] == image["url"]
    assert scored(router) == []


async def test_13_router_chain_in_a_multi_route_chain() -> None:
    from langchain_classic.chains.router.base import MultiRouteChain
    from langchain_classic.chains.transform import TransformChain

    from langchain_msat import MSATRouterChain

    def ending(name: str) -> Any:
        return TransformChain(
            input_variables=["input"],
            output_variables=["text"],
            transform=lambda inputs, n=name: {"text": f"{n}: {inputs['input']}"},
        )

    router = MSATRouterChain(
        router=table_router(Q), destinations={"fair": "a", "poor": "b", "good": "a"}, min_score=0.85
    )
    chain = MultiRouteChain(
        router_chain=router, destination_chains={"a": ending("a"), "b": ending("b")}, default_chain=ending("default")
    )
    assert chain.invoke({"input": "to poor"})["text"] == "b: to poor"
    assert (await chain.ainvoke({"input": "to fair"}))["text"] == "a: to fair"
    assert chain.invoke({"input": "nobody is sure"})["text"] == "default: nobody is sure"


async def test_14_middleware_in_an_agent() -> None:
    from langchain.agents import create_agent

    from langchain_msat import MSATMiddleware

    unused = RuleChat(name="unused")
    middleware = MSATMiddleware(models(), router=table_router(Q))
    agent = create_agent(unused, [double], middleware=[middleware])
    result = await agent.ainvoke({"messages": [HumanMessage("double 8")]})
    assert result["messages"][2].content == "16"
    assert agent.invoke({"messages": [HumanMessage("double 9")]})["messages"][2].content == "18"
    assert unused.seen == []
    assert len(scored(middleware.chat.router)) == 2


def test_15_stickiness_and_its_settings() -> None:
    history = [HumanMessage("to fair"), chat().invoke("to fair")]
    loop = [*history, ToolMessage("42", tool_call_id="x")]
    assert chat().invoke(loop).response_metadata["msat"]["candidate"] == "fair"
    new = [*history, HumanMessage("Now for something else: to whom?")]
    assert chat().invoke(new).response_metadata["msat"]["candidate"] == "good"
    kept = chat(fields={"sticky": "conversation"}).invoke(new)
    assert kept.response_metadata["msat"]["candidate"] == "fair"
    never = chat(fields={"sticky": "never"})
    never.invoke(loop)
    assert len(calls(never)) == 1


def test_15_a_hook_says_what_is_scored() -> None:
    router = chat(fields={"instruction_of": lambda messages: "to poor"})
    assert router.invoke("anything").content == "poor: anything"


async def test_15_scoring_leaves_the_event_loop_free() -> None:
    router = chat(table_router(Q, delay_s=0.3))
    assert await stall_share(lambda: router.ainvoke("to fair")) <= 0.5


async def test_100_concurrent_calls_need_at_most_10_scorer_calls() -> None:
    table = {f"q{i}": {"good": 0.5, "fair": i / 100, "poor": 0.0} for i in range(100)}
    router = chat(table_router(table, delay_s=0.01))
    answers = await asyncio.gather(*(router.ainvoke(f"q{i}") for i in range(100)))
    assert [a.content for a in answers] == [f"{'good' if i <= 50 else 'fair'}: q{i}" for i in range(100)]
    assert len(calls(router)) <= 10


# --- fallback ---


class RateLimitError(Exception):
    """As a provider raises it."""


async def test_the_next_best_answers_where_the_best_fails() -> None:
    router = chat(fair=RuleChat(name="fair", fails=RateLimitError("slow down")))
    for answer in (router.invoke("to fair"), await router.ainvoke("to fair"), next(router.stream("to fair"))):
        tag = answer.response_metadata["msat"]
        assert tag["candidate"] == "poor"
        assert tag["score"] == 0.2
        assert [(s["candidate"], s.get("kind")) for s in tag["path"]] == [("fair", "rate_limit"), ("poor", None)]
    (first, *_) = [c async for c in router.astream("to fair")]
    assert first.response_metadata["msat"]["candidate"] == "poor"


async def test_nobody_steps_in_once_a_chunk_has_gone_out() -> None:
    router = chat(fair=RuleChat(name="fair", fail_after=1))
    got: list[Any] = []
    with pytest.raises(ConnectionError, match="the stream broke"):
        got.extend(chunk for chunk in router.stream("to fair"))
    with pytest.raises(ConnectionError):
        async for chunk in router.astream("to fair"):
            got.append(chunk)
    assert all(m.seen == [] for n, m in router.candidates.items() if n != "fair")


async def test_timeouts_bound_each_candidate() -> None:
    fields = {"fallback": Fallback(timeout_s=0.1)}
    slow = RuleChat(name="fair", delay_s=0.8)
    assert chat(fair=slow, fields=fields).invoke("to fair").response_metadata["msat"]["candidate"] == "poor"
    answer = await chat(fair=slow, fields=fields).ainvoke("to fair")
    assert answer.response_metadata["msat"]["path"][0]["kind"] == "timeout"
    assert next(chat(fair=slow, fields=fields).stream("to fair")).response_metadata["msat"]["candidate"] == "poor"
    (first, *_) = [c async for c in chat(fair=slow, fields=fields).astream("to fair")]
    assert first.response_metadata["msat"]["candidate"] == "poor"


def test_all_failures_are_told_together() -> None:
    failing: Any = {n: RuleChat(name=n, fails=ConnectionError("down")) for n in NAMES}
    router = chat(**failing)
    with pytest.raises(ConnectionError, match="down") as failed:
        router.invoke("to fair")
    assert "fair: ConnectionError: down; poor: ConnectionError: down; good:" in failed.value.__notes__[0]


def test_a_bad_request_is_not_repeated() -> None:
    class BadRequestError(Exception):
        status_code = 400

    router = chat(fair=RuleChat(name="fair", fails=BadRequestError("messages: roles must alternate")))
    with pytest.raises(BadRequestError):
        router.invoke("to fair")
    assert router.candidates["poor"].seen == []


def test_messages_from_a_cache_are_copied_before_they_are_tagged() -> None:
    shared = AIMessage("same", response_metadata={"k": 1})

    class Cached(RuleChat):
        def invoke(self, *args: Any, **kwargs: Any) -> AIMessage:
            return shared

    assert "msat" in chat(fair=Cached(name="fair")).invoke("to fair").response_metadata
    assert shared.response_metadata == {"k": 1}


# --- names ---


def test_a_blank_text_is_answered_unscored() -> None:
    assert chat().invoke(" ").response_metadata["msat"]["score"] is None


def test_aliases_and_unknown_names() -> None:
    zoo = [Candidate(profile=profile("gpt-4o-2024-08-06", 0.8), aliases=("gpt-4o",)), Candidate(profile=profile("x"))]
    router = table_router(candidates=zoo)
    answer = ChatMSAT(candidates={"gpt-4o": RuleChat(name="a")}, router=router).invoke("q")
    assert answer.response_metadata["msat"]["candidate"] == "gpt-4o"
    assert answer.response_metadata["msat"]["scores"] == {"gpt-4o": 0.8}
    with pytest.raises(ZooError, match=r"did you mean gpt-4o.*msat profile run.*msat profile from-scores"):
        ChatMSAT(candidates={"gpt-4": RuleChat(name="a")}, router=router)
    with pytest.raises(ConfigurationError, match="are the same candidate"):
        ChatMSAT(candidates={"gpt-4o": RuleChat(), "gpt-4o-2024-08-06": RuleChat()}, router=router)
    with pytest.raises(ConfigurationError, match="at least one candidate"):
        ChatMSAT(candidates={}, router=router)
    with pytest.raises(ConfigurationError, match="is a int"):
        ChatMSAT(candidates={"x": 3}, router=router)


def test_strings_are_resolved_on_first_use(monkeypatch: pytest.MonkeyPatch) -> None:
    import langchain.chat_models

    asked: list[str] = []

    def init(model: str) -> RuleChat:
        asked.append(model)
        return RuleChat(name="late")

    monkeypatch.setattr(langchain.chat_models, "init_chat_model", init)
    router = chat(fair="openai:gpt-4o-mini")
    router.invoke("other")
    assert asked == []
    assert router.invoke("to fair").content == "late: to fair"
    router.invoke("to fair")
    assert asked == ["openai:gpt-4o-mini"]


def test_from_pretrained_names_shipped_candidates() -> None:
    router = ChatMSAT.from_pretrained({"gpt-4o": RuleChat(name="a"), "mathstral-7B": RuleChat(name="b")})
    tag = router.invoke("Which enzyme unwinds the DNA double helix?").response_metadata["msat"]
    assert tag["candidate"] == "gpt-4o"
    assert set(tag["scores"]) == {"gpt-4o", "mathstral-7B"}


# --- the rest ---


def test_tools_reach_only_those_that_can_bind_them() -> None:
    from langchain_core.language_models.fake_chat_models import FakeListChatModel

    router = chat(fair=FakeListChatModel(responses=["plain"]))
    assert router.invoke("to fair").content == "plain"
    assert router.bind_tools([double]).invoke("to fair").response_metadata["msat"]["candidate"] == "poor"
    only = ChatMSAT(candidates={"fair": FakeListChatModel(responses=["plain"])}, router=table_router(Q))
    with pytest.raises(ConfigurationError, match="can bind tools"):
        only.bind_tools([double]).invoke("to fair")


def test_retry_config_and_callbacks_compose() -> None:
    class Flaky(BaseCallbackHandler):
        starts = 0

        def on_chain_start(self, *args: Any, **kwargs: Any) -> None:
            Flaky.starts += 1

    router = chat(poor=RuleChat(name="poor", fails=ValueError("no")), fields={"fallback": Fallback(max_attempts=1)})
    retried = router.with_retry(stop_after_attempt=2, wait_exponential_jitter=False).with_config(callbacks=[Flaky()])
    with pytest.raises(ValueError, match="no"):
        retried.invoke("to poor")
    assert Flaky.starts == 3  # the retry's own run and its two attempts


async def test_events_of_version_2() -> None:
    kinds = [event["event"] async for event in chat().astream_events("to fair", version="v2")]
    assert kinds.count("on_chat_model_start") == 1
    assert kinds.count("on_chain_start") == 1
    direct = [event["event"] async for event in RuleChat(name="fair").astream_events("to fair", version="v2")]
    assert kinds.count("on_chat_model_stream") == direct.count("on_chat_model_stream")


async def test_selector_names_the_candidate() -> None:
    selector = candidate_selector(table_router(Q), among=["fair", "good"])
    assert selector.invoke("to fair") == "fair"
    assert await selector.ainvoke([HumanMessage("to poor")]) == "fair"
    assert selector.invoke(ChatPromptTemplate.from_template("{q}").invoke({"q": "other"})) == "good"
