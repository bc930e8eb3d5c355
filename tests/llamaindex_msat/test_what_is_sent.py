"""What is measured is what is sent, what is scored is the question, and nothing of the router's is sent."""

from __future__ import annotations

import json
from typing import Any

import pytest
from llama_index.core import Document, MockEmbedding, PromptTemplate, Settings, VectorStoreIndex
from llama_index.core.agent.workflow import AgentWorkflow, CodeActAgent, FunctionAgent, ReActAgent
from llama_index.core.base.llms.types import (
    CachePoint,
    ChatMessage,
    ChatResponse,
    ImageBlock,
    TextBlock,
    ThinkingBlock,
)
from llama_index.core.indices.query.query_transform import HyDEQueryTransform
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.prompts import ChatPromptTemplate
from llama_index.core.question_gen import LLMQuestionGenerator
from llama_index.core.retrievers import QueryFusionRetriever
from llama_index.core.schema import QueryBundle
from llama_index.core.tools import FunctionTool, ToolMetadata
from pydantic import BaseModel
from rule_llm import RuleLLM
from support import profile, scored, table_router

from llamaindex_msat import MSATRouterLLM
from llamaindex_msat.messages import Told
from msat_core import Candidate, NoCandidateError, RoutingPolicy

NAMES = ("good", "fair", "poor")
FAIR, POOR = "Which act did the fair one pass?", "Which poem did the poor one write?"
NEXT = "Which bridge was it that fell down in spring?"
Q = {FAIR: {"good": 0.1, "fair": 0.9, "poor": 0.2}, POOR: {"good": 0.1, "fair": 0.2, "poor": 0.9}}
LONG = "word " * 40_000  # 50,000 tokens by the router's estimate


def routed(llms: dict[str, RuleLLM] | None = None, **fields: Any) -> MSATRouterLLM:
    return MSATRouterLLM({n: (llms or {}).get(n) or RuleLLM(name=n) for n in NAMES}, table_router(Q), **fields)


def asked(router: MSATRouterLLM) -> list[str]:
    return [text for call in scored(router._router) for text in call]


def calls_of(router: MSATRouterLLM) -> dict[str, int]:
    return {name: len(llm.seen) for name, llm in router.llms.items() if llm.seen}  # type: ignore[attr-defined]


def memory() -> ChatMemoryBuffer:
    return ChatMemoryBuffer.from_defaults(token_limit=4000)


@pytest.fixture
def index() -> Any:
    before, Settings._llm = Settings._llm, RuleLLM()
    yield VectorStoreIndex.from_documents([Document(text="A fact.")], embed_model=MockEmbedding(embed_dim=4))
    Settings._llm = before


def double(number: int) -> int:
    """Twice the number."""
    return 2 * number


# --- limits ---


def dear_and_cheap(**fields: Any) -> MSATRouterLLM:
    """The better candidate costs a hundred times as much and has the smaller window."""
    good = Candidate(
        profile=profile("good", 0.8), usd_per_mtok_in=10, usd_per_mtok_out=10, context_window=fields.pop("window", None)
    )
    fair = Candidate(profile=profile("fair", 0.6), usd_per_mtok_in=0.1, usd_per_mtok_out=0.1, context_window=200_000)
    llms = {name: RuleLLM(name=name, window=100_000) for name in ("good", "fair")}
    return MSATRouterLLM(llms, table_router({"q": {"good": 0.9, "fair": 0.5}}, candidates=[good, fair]), **fields)


class Answer(BaseModel):
    number: int


@pytest.mark.parametrize("limit", [{"policy": RoutingPolicy(max_usd=0.01)}, {"window": 8000}])
async def test_a_cap_and_a_window_bind_the_whole_prompt(limit: dict[str, Any]) -> None:
    prompt = PromptTemplate("Context: {context_str}\nQuestion: {query_str}")
    router = dear_and_cheap(**limit)
    short = {"context_str": "", "query_str": "q"}
    long: dict[str, Any] = {"context_str": LONG, "query_str": "q"}
    assert router.predict(prompt, **short).startswith("good")
    assert router.predict(prompt, **long).startswith("fair")
    assert (await router.apredict(prompt, **long)).startswith("fair")
    assert "".join(router.stream(prompt, **long)).startswith("fair")
    assert "".join([token async for token in await router.astream(prompt, **long)]).startswith("fair")
    assert set(asked(router)) == {"q"}
    for llm in router.llms.values():
        llm.script = ['{"number": 1}']  # type: ignore[attr-defined]
        llm.functions = False  # type: ignore[attr-defined]
    before = len(router.llms["good"].seen)  # type: ignore[attr-defined]
    assert router.structured_predict(Answer, prompt, **long) == Answer(number=1)
    assert len(router.llms["good"].seen) == before  # type: ignore[attr-defined]


def test_and_that_of_a_query_engine(index: Any) -> None:
    facts = VectorStoreIndex.from_documents([Document(text="fact " * 20_000)], embed_model=MockEmbedding(embed_dim=4))
    router = dear_and_cheap(policy=RoutingPolicy(max_usd=0.01))
    assert str(facts.as_query_engine(llm=router, similarity_top_k=50).query("q")).startswith("fair")
    small = index.as_query_engine(llm=dear_and_cheap(policy=RoutingPolicy(max_usd=0.01)))
    assert str(small.query("q")).startswith("good")


def test_the_schema_of_tools_and_of_objects_weighs_too() -> None:
    def wide(number: int) -> int:
        return number

    tool = FunctionTool.from_defaults(wide, description="Twice. " * 3000)
    router = dear_and_cheap(policy=RoutingPolicy(max_usd=0.01))
    assert router.chat([ChatMessage("q")]).additional_kwargs["msat_candidate"] == "good"
    assert router.chat_with_tools([tool], "q 1").additional_kwargs["msat_candidate"] == "fair"


def test_an_image_in_a_prompt_is_seen() -> None:
    seeing = Candidate(profile=profile("poor", 0.2), modalities=frozenset({"text", "image"}))
    blind = Candidate(profile=profile("good", 0.8), modalities=frozenset({"text"}))
    router = MSATRouterLLM({n: RuleLLM(name=n) for n in ("good", "poor")}, table_router(candidates=[blind, seeing]))
    blocks = [TextBlock(text="{query_str}"), ImageBlock(image=b"x", image_mimetype="image/png")]
    prompt = ChatPromptTemplate([ChatMessage(role="user", blocks=blocks)])
    assert router.predict(prompt, query_str="what is it?").startswith("poor")
    assert "".join(router.stream(prompt, query_str="what is it?")).startswith("poor")


def test_a_childs_own_window_is_used() -> None:
    router = routed({"fair": RuleLLM(name="fair", window=500)})
    assert router.complete(FAIR).text.startswith("fair")
    asked_long = f"{FAIR} {'word ' * 1000}"
    assert router.complete(asked_long, msat_instruction=FAIR).text.startswith("poor")
    everybody = MSATRouterLLM({n: RuleLLM(name=n, window=500) for n in NAMES}, table_router(Q))
    assert everybody.complete(asked_long, msat_instruction=FAIR).text.startswith("fair")  # its own server decides


# --- the question ---


@pytest.mark.parametrize("mode", ["simple", "context", "condense_plus_context", "condense_question"])
@pytest.mark.parametrize("streaming", [False, True])
def test_a_conversation_stays_with_its_candidate(index: Any, mode: str, streaming: bool) -> None:
    router = routed(sticky="conversation")
    engine = index.as_chat_engine(chat_mode=mode, llm=router, memory=memory())

    def said(text: str) -> str:
        return "".join(engine.stream_chat(text).response_gen) if streaming else str(engine.chat(text))

    assert said(FAIR).startswith("fair")
    assert said(NEXT).startswith("fair")
    assert set(calls_of(router)) == {"fair"}
    free = routed()
    engine = index.as_chat_engine(chat_mode=mode, llm=free, memory=memory())
    assert said(FAIR).startswith("fair")
    assert said(NEXT).startswith("good")


@pytest.mark.parametrize("mode", ["simple", "context", "condense_plus_context", "condense_question"])
def test_a_short_follow_up_is_read_with_what_it_follows(index: Any, mode: str) -> None:
    router = routed()
    engine = index.as_chat_engine(chat_mode=mode, llm=router, memory=memory())
    engine.chat(FAIR)
    engine.chat("and in 2019?")
    assert f"{FAIR}\nand in 2019?" in asked(router)


def test_condensed_expanded_and_divided_questions_are_found(index: Any) -> None:
    router = routed()
    engine = index.as_chat_engine(chat_mode="condense_plus_context", llm=router, memory=memory())
    engine.chat(POOR)
    engine.chat(FAIR)
    assert asked(router) == [POOR, FAIR, FAIR]
    router = routed()
    HyDEQueryTransform(llm=router).run(FAIR)
    QueryFusionRetriever([index.as_retriever()], llm=router, num_queries=2, use_async=False).retrieve(FAIR)
    assert set(asked(router)) == {FAIR}
    assert set(calls_of(router)) == {"fair"}
    lists = {n: RuleLLM(name=n, script=['[{"sub_question": "a", "tool_name": "b"}]']) for n in NAMES}
    router = routed(lists)
    LLMQuestionGenerator.from_defaults(llm=router).generate([ToolMetadata("d", name="b")], QueryBundle(FAIR))
    assert asked(router) == [FAIR]


def test_the_caller_may_say_outright() -> None:
    f_string = f"Context: {'helicase and ligase. ' * 50}\nAnswer this: {FAIR}"
    seen: list[dict[str, Any]] = []

    class Strict(RuleLLM):
        def chat(self, messages: Any, **kwargs: Any) -> ChatResponse:
            seen.append(kwargs)
            answer: ChatResponse = super().chat(messages, **kwargs)
            return answer

        def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
            seen.append(kwargs)
            return super().complete(prompt, formatted=formatted, **kwargs)

    router = routed({n: Strict(name=n) for n in NAMES})
    said: dict[str, Any] = {"msat_instruction": FAIR}
    assert router.complete(f_string, **said).text.startswith("fair")
    assert router.chat([ChatMessage(f_string)], **said).message.content.startswith("fair")  # type: ignore[union-attr]
    assert router.predict(PromptTemplate("{thing}"), thing=f_string, **said).startswith("fair")
    assert router.complete(FAIR, msat_candidate="poor").text.startswith("poor")
    assert router.complete(FAIR, msat_policy={"deny": ["fair"]}).text.startswith("poor")
    with pytest.raises(NoCandidateError):
        router.complete(FAIR, msat_candidate="poor", msat_policy=RoutingPolicy(deny=frozenset({"poor"})))
    assert seen == [{}] * len(seen)
    limited = routed({n: Strict(name=n) for n in NAMES}, policy=RoutingPolicy(deny=frozenset({"fair"})))
    for lifting in ({"objective": "quality"}, {"allow": ["fair", "poor"]}, RoutingPolicy()):
        assert not limited.complete(FAIR, msat_policy=lifting).text.startswith("fair")  # a call lifts no limit
        with pytest.raises(NoCandidateError):
            limited.chat([ChatMessage(FAIR)], msat_policy=lifting, msat_candidate="fair")
    of_field = routed(instruction_of=lambda messages: (messages[-1].content or "").partition("Answer this: ")[2])
    assert of_field.complete(f_string).text.startswith("fair")


def test_functions_in_a_prompt_run_once() -> None:
    ran: list[int] = []

    def shots(**given: Any) -> str:
        ran.append(1)
        return "shots"

    prompt = PromptTemplate("{few_shot} {text}", function_mappings={"few_shot": shots})
    failing = routed({"good": RuleLLM(name="good", fails=ConnectionError("down"))})
    assert failing.predict(prompt, text="anything at all, please").endswith("shots anything at all, please")
    assert ran == [1]


# --- a turn does not change hands ---


async def test_within_code_and_reasoning_agents() -> None:
    script = ["<execute>\nprint(1)\n</execute>", "It is 42."]
    router = routed({"fair": RuleLLM(name="fair", script=[*script])})
    agent = CodeActAgent(code_execute_fn=lambda code: "output 42", llm=router, tools=[double])
    await agent.run(user_msg=FAIR, memory=memory())
    assert calls_of(router) == {"fair": 2}
    script = ["Action: nope", "Thought: I can answer without using any more tools.\nAnswer: fair"]
    router = routed({"fair": RuleLLM(name="fair", script=[*script])})
    reasoning = ReActAgent(tools=[double], llm=router, streaming=False)
    assert str(await reasoning.run(user_msg=FAIR, memory=memory())) == "fair"
    assert calls_of(router) == {"fair": 2}
    assert asked(router) == [FAIR]


async def test_who_stepped_in_keeps_the_turn() -> None:
    script = [
        'Thought: I need a tool.\nAction: double\nAction Input: {"number": 21}',
        "Thought: I can answer without using any more tools.\nAnswer: 42",
    ]
    dead, helper = RuleLLM(name="fair", fails=ConnectionError("down")), RuleLLM(name="poor", script=script)
    router = routed({"fair": dead, "poor": helper})
    await ReActAgent(tools=[double], llm=router, streaming=False).run(user_msg=FAIR, memory=memory())
    assert calls_of(router) == {"fair": 1, "poor": 2}


async def test_a_workflow_with_state() -> None:
    router = routed()
    agent = FunctionAgent(name="one", description="d", tools=[], llm=router)
    workflow = AgentWorkflow(agents=[agent], initial_state={"mood": "good", "poor": FAIR})
    await workflow.run(user_msg=POOR)
    assert asked(router) == [POOR]


# --- nothing of ours is sent ---


class Listening(RuleLLM):
    """Keeps what it was sent as a strict server would see it, and signs what it thinks."""

    def chat(self, messages: Any, **kwargs: Any) -> ChatResponse:
        self.seen.append(json.dumps([message.model_dump(mode="json") for message in messages]))
        for message in messages:
            for block in message.blocks:
                if isinstance(block, ThinkingBlock) and block.additional_information["signature"] != self.name:
                    raise ValueError("Invalid `signature` in `thinking` block")
        response = ChatResponse(message=ChatMessage(f"{self.name} answers", role="assistant"))
        signed = ThinkingBlock(content="hm", additional_information={"signature": self.name})
        response.message.blocks.insert(0, signed)
        return response


def test_tags_do_not_reach_children_and_foreign_thinking_neither() -> None:
    router = routed({n: Listening(name=n) for n in NAMES})
    first = router.chat([ChatMessage(FAIR)]).message
    said: Any = first.additional_kwargs.get("msat")
    assert first.additional_kwargs["msat_candidate"] == said["candidate"] == "fair"
    assert not dict(first.additional_kwargs) and "msat" not in first.model_dump_json()
    forged = ChatMessage("x", role="assistant", additional_kwargs={"msat_candidate": "poor", "msat": {"a": 1}})
    second = router.chat([ChatMessage(FAIR), first, forged, ChatMessage(POOR)]).message
    assert second.additional_kwargs["msat_candidate"] == "poor"
    again = router.chat([ChatMessage(FAIR), first, ChatMessage(FAIR)])
    assert again.message.additional_kwargs["msat_candidate"] == "fair"
    sent = {name: llm.seen for name, llm in router.llms.items()}  # type: ignore[attr-defined]
    assert not any("msat" in text for texts in sent.values() for text in texts)
    assert "hm" in sent["fair"][-1] and "hm" not in sent["poor"][-1]
    assert any(isinstance(block, ThinkingBlock) for block in first.blocks)  # the caller's own stays as it was


def test_cache_markers_go_to_those_who_know_them() -> None:
    class AnthropicLike(Listening):
        pass

    message = ChatMessage(blocks=[TextBlock(text=FAIR), CachePoint(cache_control={"type": "ephemeral"})])
    for llm, there in ((Listening(name="fair"), False), (AnthropicLike(name="fair"), True)):
        routed({"fair": llm}).chat([message])
        assert ("ephemeral" in llm.seen[-1]) == there


def test_a_forged_name_is_not_believed() -> None:
    kwargs = {"msat_candidate": "poor", "msat": {"candidate": "poor", "turn": "x", "seal": "y"}}
    history = [
        ChatMessage(FAIR),
        ChatMessage("step", role="assistant", additional_kwargs=kwargs),
        ChatMessage(role="tool"),
    ]
    router = routed(sticky="conversation")
    assert router.chat(history).additional_kwargs["msat_candidate"] == "fair"


def test_what_is_told_survives_copies_and_pickles() -> None:
    import copy
    import pickle

    told = Told({"a": 1, "msat": {}}, {"candidate": "fair"})
    for one in (told, copy.copy(told), copy.deepcopy(told), pickle.loads(pickle.dumps(told))):
        assert dict(one) == {"a": 1} and one["msat_candidate"] == "fair" and one.get("b", 2) == 2
        with pytest.raises(KeyError):
            one["b"]
