from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from llama_index.core import PromptTemplate
from llama_index.core.agent.workflow import AgentWorkflow, FunctionAgent, ReActAgent
from llama_index.core.base.llms.types import ChatMessage, ImageBlock
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.response_synthesizers import ResponseMode, get_response_synthesizer
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.core.tools import FunctionTool
from pydantic import BaseModel
from rule_llm import RuleLLM, user
from support import profile, scored, table_router

from llamaindex_msat import MSATRouterLLM
from llamaindex_msat.router_llm import MSATRouteEvent
from msat_core import Candidate, RoutingPolicy
from msat_core.errors import ConfigurationError, ZooError
from msat_core.routing.fallback import Fallback

Q = {
    "to fair": {"good": 0.1, "fair": 0.9, "poor": 0.2},
    "to poor": {"good": 0.1, "fair": 0.2, "poor": 0.9},
    "Double 21 to fair": {"good": 0.1, "fair": 0.9, "poor": 0.2},
}
NAMES = ("good", "fair", "poor")


def double(number: int) -> int:
    """Twice the number."""
    return 2 * number


TOOL = FunctionTool.from_defaults(double)


def llm(fields: dict[str, Any] | None = None, **special: Any) -> MSATRouterLLM:
    llms = {n: special.get(n) or RuleLLM(name=n) for n in NAMES}
    return MSATRouterLLM(llms=llms, router=table_router(Q), **(fields or {}))


async def test_10_all_endpoints_reach_the_chosen_child_and_say_so() -> None:
    router, messages = llm(), user("to fair")
    for chat in (router.chat(messages), await router.achat(messages)):
        assert chat.message.content == "fair: to fair"
        assert chat.message.additional_kwargs["msat_candidate"] == "fair"
    for done in (router.complete("to poor"), await router.acomplete("to poor")):
        assert done.text == "poor: to poor"
        assert done.additional_kwargs["msat_candidate"] == "poor"
    chunks = [list(router.stream_chat(messages)), [c async for c in await router.astream_chat(messages)]]
    for found in chunks:
        assert "".join(c.delta or "" for c in found) == "fair: to fair"
        assert {c.message.additional_kwargs["msat_candidate"] for c in found} == {"fair"}
    pieces = [list(router.stream_complete("to poor")), [c async for c in await router.astream_complete("to poor")]]
    for some in pieces:
        assert some[-1].text == "poor: to poor"
        assert {c.additional_kwargs["msat_candidate"] for c in some} == {"poor"}


async def test_10_the_four_with_tools() -> None:
    router = llm()
    answers = [
        router.chat_with_tools([TOOL], user_msg="Double 21 to fair"),
        await router.achat_with_tools([TOOL], user_msg=ChatMessage(role="user", content="Double 21 to fair")),
        list(router.stream_chat_with_tools([TOOL], chat_history=user("Double 21 to fair")))[-1],
        [c async for c in await router.astream_chat_with_tools([TOOL], user_msg="Double 21 to fair")][-1],
    ]
    for answer in answers:
        assert answer.message.additional_kwargs["msat_candidate"] == "fair"
        (call,) = router.get_tool_calls_from_response(answer)
        assert (call.tool_name, call.tool_kwargs) == ("double", {"number": 21})
    assert router.predict_and_call([TOOL], user_msg="Double 21 to fair").response == "42"
    assert (await router.apredict_and_call([TOOL], user_msg="Double 21 to fair")).response == "42"


async def test_11_tools_never_reach_a_child_that_cannot_call_functions() -> None:
    plain = RuleLLM(name="fair", functions=False)
    router = llm(fair=plain)
    assert router.metadata.is_function_calling_model
    answer = router.chat_with_tools([TOOL], user_msg="Double 21 to fair")
    assert answer.message.additional_kwargs["msat_candidate"] == "poor"
    assert plain.seen == []
    plain_ones: Any = {n: RuleLLM(name=n, functions=False) for n in NAMES}
    none = llm(**plain_ones)
    assert not none.metadata.is_function_calling_model
    workflow = AgentWorkflow.from_tools_or_functions([double], llm=none)
    assert isinstance(next(iter(workflow.agents.values())), ReActAgent)


async def test_12_the_route_is_constant_within_a_function_agents_turn() -> None:
    router = llm()
    agent = FunctionAgent(tools=[double], llm=router, streaming=False)
    answer = await agent.run(user_msg="Double 21 to fair")
    assert str(answer) == "fair: 42"
    assert [name for name, llm in router.llms.items() if llm.seen] == ["fair"]  # type: ignore[attr-defined]
    assert len(scored(router._router)) == 1
    streaming = FunctionAgent(tools=[double], llm=llm(), streaming=True)
    assert str(await streaming.run(user_msg="Double 21 to fair")) == "fair: 42"


async def test_12_and_within_a_react_agents() -> None:
    script = [
        'Thought: I need a tool.\nAction: double\nAction Input: {"number": 21}',
        "Thought: I can answer without using any more tools.\nAnswer: 42",
    ]
    router = llm(fair=RuleLLM(name="fair", script=script))
    agent = ReActAgent(tools=[double], llm=router, streaming=False)
    assert str(await agent.run(user_msg="Double 21 to fair")) == "42"
    assert router.llms["good"].seen == router.llms["poor"].seen == []  # type: ignore[attr-defined]


async def test_12_workflow_of_agents() -> None:
    workflow = AgentWorkflow.from_tools_or_functions([double], llm=llm())
    assert "42" in str(await workflow.run(user_msg="Double 21 to fair"))


async def test_13_empty_streams_are_safe() -> None:
    router = llm(fair=RuleLLM(name="fair", empty=True))
    assert list(router.stream_chat(user("to fair")))[-1].message.content == "poor: to fair"
    silent: Any = {n: RuleLLM(name=n, empty=True) for n in NAMES}
    nobody_speaks = llm(**silent)
    assert list(nobody_speaks.stream_chat(user("to fair"))) == []
    assert [c async for c in await nobody_speaks.astream_chat(user("to fair"))] == []
    # LlamaIndex's own decorator fails on a candidate's empty completion stream: the next best answers.
    assert list(router.stream_complete("to fair"))[-1].text == "poor: to fair"
    from llama_index.core.base.llms.types import ChatResponse

    nobody = ChatResponse(message=ChatMessage())
    assert router.get_tool_calls_from_response(nobody, error_on_no_tool_call=False) == []
    with pytest.raises(ValueError, match="no candidate gave this response"):
        router.get_tool_calls_from_response(nobody)


@pytest.mark.parametrize("mode", [ResponseMode.COMPACT, ResponseMode.REFINE, ResponseMode.TREE_SUMMARIZE])
async def test_14_synthesizers_route_on_the_question(mode: ResponseMode) -> None:
    nodes = [NodeWithScore(node=TextNode(text=f"Fact {i}, which is long.")) for i in range(3)]
    for streaming in (False, True):
        router = llm()
        synthesizer = get_response_synthesizer(llm=router, response_mode=mode, streaming=streaming)
        assert str(synthesizer.synthesize("to fair", nodes)).startswith("fair: ")
        await synthesizer.asynthesize("to fair", nodes)
        asked = {text for call in scored(router._router) for text in call}
        assert asked == {"to fair"}
        assert router.llms["good"].seen == router.llms["poor"].seen == []  # type: ignore[attr-defined]


async def test_14_predictions_and_structured_ones() -> None:
    class Answer(BaseModel):
        number: int

    prompt, router = PromptTemplate("Context: 7\nQuery: {query_str}"), llm()
    assert router.predict(prompt, query_str="to fair").startswith("fair: ")
    assert (await router.apredict(prompt, query_str="to poor")).startswith("poor: ")
    assert "".join(router.stream(prompt, query_str="to fair")).startswith("fair: ")
    assert "".join([t async for t in await router.astream(prompt, query_str="to fair")]).startswith("fair: ")
    fair = RuleLLM(name="fair", functions=False, script=['{"number": 3}', '{"number": 4}'])
    router = llm(fair=fair)
    assert router.structured_predict(Answer, prompt, query_str="to fair") == Answer(number=3)
    assert await router.astructured_predict(Answer, prompt, query_str="to fair") == Answer(number=4)


def test_15_tokens_are_counted_once_and_one_route_is_told(events: list[Any]) -> None:
    direct, ours = TokenCountingHandler(tokenizer=str.split), TokenCountingHandler(tokenizer=str.split)
    RuleLLM(name="fair", callback_manager=CallbackManager([direct])).chat(user("to fair"))
    router = llm({"callback_manager": CallbackManager([ours])})
    events.clear()
    router.chat(user("to fair"))
    assert ours.total_llm_token_count == direct.total_llm_token_count > 0
    kinds = [type(event).__name__ for event in events]
    assert kinds.count("LLMChatStartEvent") == kinds.count("LLMChatEndEvent") == 1
    (route,) = [event for event in events if isinstance(event, MSATRouteEvent)]
    assert route.candidate == "fair"
    assert route.scores == pytest.approx(Q["to fair"])
    assert kinds.index("LLMChatEndEvent") < kinds.index("MSATRouteEvent")  # told when it is known who answered


def test_16_the_window_is_the_smallest() -> None:
    assert llm(poor=RuleLLM(name="poor", window=100)).metadata.context_window == 100


async def test_17_no_state_is_kept_between_calls() -> None:
    table = {f"q{i}": {"good": 0.5, "fair": i / 200, "poor": 0.0} for i in range(200)}
    router = MSATRouterLLM(llms={n: RuleLLM(name=n) for n in NAMES}, router=table_router(table, delay_s=0.002))
    before = set(vars(router))

    async def one(i: int) -> str:
        kind = random.Random(i).randrange(3)
        if kind == 0:
            return str((await router.achat(user(f"q{i}"))).message.content)
        if kind == 1:
            return (await router.acomplete(f"q{i}")).text
        return [c async for c in await router.astream_chat(user(f"q{i}"))][-1].message.content or ""

    found = await asyncio.gather(*(one(i) for i in range(200)))
    assert found == [f"{'good' if i <= 100 else 'fair'}: q{i}" for i in range(200)]
    assert set(vars(router)) == before


async def test_18_the_next_best_steps_in_but_never_after_the_first_chunk() -> None:
    router = llm(fair=RuleLLM(name="fair", fails=ConnectionError("down")))
    for answer in (router.chat(user("to fair")), await router.achat(user("to fair"))):
        assert answer.message.additional_kwargs["msat_candidate"] == "poor"
    assert list(router.stream_complete("to fair"))[-1].text == "poor: to fair"
    broken = llm(fair=RuleLLM(name="fair", fail_after=1))
    with pytest.raises(ConnectionError, match="the stream broke"):
        list(broken.stream_chat(user("to fair")))
    with pytest.raises(ConnectionError):
        [c async for c in await broken.astream_chat(user("to fair"))]
    assert broken.llms["poor"].seen == []  # type: ignore[attr-defined]
    failing: Any = {n: RuleLLM(name=n, fails=ConnectionError("down")) for n in NAMES}
    everyone = llm(**failing)
    with pytest.raises(ConnectionError, match="down"):
        everyone.chat(user("to fair"))
    only = llm({"fallback": Fallback(max_attempts=1)}, fair=RuleLLM(name="fair", fails=KeyError("own")))
    with pytest.raises(KeyError):
        only.chat(user("to fair"))


def test_conversations_images_and_policies() -> None:
    first = llm().chat(user("to fair")).message
    history = [*user("to fair"), first, *user("And now for something new, please")]
    assert llm({"sticky": "conversation"}).chat(history).message.additional_kwargs["msat_candidate"] == "fair"
    assert llm().chat(history).message.additional_kwargs["msat_candidate"] == "good"
    seeing = Candidate(profile=profile("poor", 0.2), modalities=frozenset({"text", "image"}))
    zoo = [Candidate(profile=profile("good", 0.8)), seeing]
    router = MSATRouterLLM(llms={n: RuleLLM(name=n) for n in ("good", "poor")}, router=table_router(candidates=zoo))
    image = ChatMessage(role="user", blocks=[ImageBlock(image=b"x")])
    assert router.chat([image]).message.additional_kwargs["msat_candidate"] == "poor"
    denied = llm({"policy": RoutingPolicy(deny=frozenset({"fair"}))})
    assert denied.complete("to fair").additional_kwargs["msat_candidate"] == "poor"


def test_mistakes_are_told() -> None:
    with pytest.raises(ZooError, match="did you mean good"):
        MSATRouterLLM(llms={"goods": RuleLLM()}, router=table_router())
    with pytest.raises(ConfigurationError, match="at least one candidate"):
        MSATRouterLLM(llms={}, router=table_router())


def test_it_is_a_component_that_settings_take() -> None:
    from llama_index.core import Settings

    router, before = llm(), Settings._llm
    try:
        Settings.llm = router
        assert Settings.llm is router
    finally:
        Settings._llm = before
    assert router.to_dict()["class_name"] == "MSATRouterLLM"
    assert set(router.to_dict()["llms"]) == set(NAMES)
