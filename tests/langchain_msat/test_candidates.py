"""Candidates keep what they are, conversations change hands, and a chat model's settings work or are refused."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage, trim_messages
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.rate_limiters import BaseRateLimiter
from langchain_core.runnables import ConfigurableField, RunnableLambda
from langchain_core.tools import tool
from pydantic import BaseModel
from rule_chat import RuleChat
from support import profile, scored, table_router

from langchain_msat import ChatMSAT, MSATMiddleware
from langchain_msat.readable_messages import Reader, readable, tool_choice_for
from msat_core import Candidate, ConfigurationError, RoutingPolicy

NAMES = ("good", "fair")
Q = {t: {"good": 0.1, "fair": 0.9} for t in ("for fair", "this one is for fair alone")}


@tool
def double(number: int) -> int:
    """Twice the number."""
    return 2 * number


class Joke(BaseModel):
    """A joke."""

    setup: str


class Strict(RuleChat):
    """Knows no parameter but stop, tools and tool_choice, as a provider's client knows only its own."""

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        for name in kwargs.keys() - {"tools", "tool_choice"}:
            raise TypeError(f"create() got an unexpected keyword argument '{name}'")
        return super()._generate(messages, stop, run_manager, **kwargs)


class Deaf(RuleChat):
    """Cannot bind tools."""

    bind_tools = BaseChatModel.bind_tools  # type: ignore[pydantic-field]  # a method, not a field


def chat(fields: dict[str, Any] | None = None, **special: Any) -> ChatMSAT:
    candidates = {n: special.get(n) or RuleChat(name=n) for n in NAMES}
    return ChatMSAT(candidates=candidates, router=table_router(Q, candidates=_zoo()), **(fields or {}))


def _zoo() -> list[Candidate]:
    return [Candidate(profile=profile("good", 0.9)), Candidate(profile=profile("fair", 0.3))]


def by(answer: Any) -> str:
    return str(answer.response_metadata["msat"]["candidate"])


# --- bindings, fields, parameters, sequences ---


def test_the_callers_tools_and_arguments_win_over_a_candidates_own() -> None:
    own = {"type": "function", "function": {"name": "own", "parameters": {"type": "object", "properties": {}}}}
    good = RuleChat(name="good")
    router = chat(good=good.bind_tools([own]).bind(temperature=0.9, top_k=3))
    router.bind_tools([double]).invoke("x 4", temperature=0.0)
    given = good.seen[-1][1]
    assert [one["function"]["name"] for one in given["tools"]] == ["double"]
    assert (given["temperature"], given["top_k"]) == (0.0, 3)
    router.invoke("x")
    assert [one["function"]["name"] for one in good.seen[-1][1]["tools"]] == ["own"]


def test_configurable_candidates_and_routers_keep_their_fields_when_tools_are_bound() -> None:
    good = RuleChat(name="good").configurable_fields(max_tokens=ConfigurableField(id="limit"))
    seen: list[int | None] = []

    class Noting(RuleChat):
        def _generate(self, *args: Any, **kwargs: Any) -> ChatResult:
            seen.append(self.max_tokens)
            return super()._generate(*args, **kwargs)

    noting = Noting(name="good", max_tokens=5).configurable_fields(max_tokens=ConfigurableField(id="limit"))
    for bound in (chat(good=noting), chat(good=noting).bind_tools([double])):
        bound.invoke("x 3", {"configurable": {"limit": 7}})
    assert seen == [7, 7]
    assert by(chat(good=good).invoke("x")) == "good"

    deny = {"configurable": {"p": RoutingPolicy(deny=frozenset({"good"}))}}
    late: Any = chat().configurable_fields(policy=ConfigurableField(id="p")).bind_tools([double])
    assert (by(late.invoke("x 3")), by(late.invoke("x 3", deny))) == ("good", "fair")
    which = ConfigurableField(id="llm")
    others: Any = chat().configurable_alternatives(which, default_key="msat", plain=RuleChat(name="plain"))
    plain: Any = {"configurable": {"llm": "plain"}}
    assert others.bind_tools([double]).invoke("x 3", plain).tool_calls[0]["args"] == {"number": 3}
    assert others.with_structured_output(Joke).invoke("x", plain) == Joke(setup="x")
    assert others.with_structured_output(Joke).invoke("x") == Joke(setup="x")


def test_a_parameter_that_a_candidate_does_not_know_is_dropped_with_a_notice(caplog: Any) -> None:
    answer = chat(good=Strict(name="good")).invoke("x", reasoning_effort="low", logprobs=True)
    tag = answer.response_metadata["msat"]
    assert tag["candidate"] == "good"
    assert sorted(tag["path"][0]["dropped"]) == ["logprobs", "reasoning_effort"]
    assert "does not know the parameter reasoning_effort" in caplog.text
    fair = RuleChat(name="fair")
    chat(good=Strict(name="good"), fair=fair).invoke("for fair", reasoning_effort="low")
    assert fair.seen[-1][1]["reasoning_effort"] == "low"


def test_sequences_work_where_they_take_messages_and_are_refused_where_not() -> None:
    briefly: RunnableLambda[Any, Any] = RunnableLambda(lambda messages: [SystemMessage("Be brief."), *messages])
    good = RuleChat(name="good")
    router = chat(good=briefly | good)
    assert router.invoke("x").text == "good: x"
    assert router.bind_tools([double]).invoke("x 3").tool_calls
    assert good.seen[-1][0][0].text == "Be brief."
    prompt = ChatPromptTemplate.from_messages([("system", "Be brief."), ("placeholder", "{messages}")])
    with pytest.raises(ConfigurationError, match="begins with a ChatPromptTemplate"):
        chat(good=prompt | RuleChat())
    from langchain_core.output_parsers import StrOutputParser

    with pytest.raises(ConfigurationError, match="ends in a StrOutputParser"):
        chat(good=RuleChat() | StrOutputParser())


def test_no_tools_are_no_tools() -> None:
    nothing: tuple[list[Any] | None, ...] = (None, [])
    for tools in nothing:
        assert by(chat(good=Deaf(name="good")).invoke("x", tools=tools)) == "good"
    assert by(chat(good=Deaf(name="good")).bind_tools([double]).invoke("x 3")) == "fair"


def test_bad_tools_schemas_and_methods_are_refused_when_they_are_bound() -> None:
    with pytest.raises(ValueError, match="Unsupported function"):
        chat().bind_tools([object()])
    with pytest.raises(ValueError, match="Unrecognized method"):
        chat().with_structured_output(Joke, method="telepathy")
    with pytest.raises(ValueError, match="Expected a schema"):
        chat().with_structured_output(3)  # type: ignore[arg-type]


def test_a_schema_is_kept_and_known() -> None:
    structured = chat().with_structured_output(Joke)
    assert structured.OutputType is Joke
    assert structured.get_output_jsonschema()["title"] == "Joke"
    assert not hasattr(structured, "bind_tools")

    class Plain(RuleChat):
        def with_structured_output(self, schema: Any) -> Any:  # type: ignore[override]
            return RunnableLambda(lambda _: {"ok": True})

    assert chat(good=Plain(name="good")).with_structured_output(Joke).invoke("x") == {"ok": True}


@pytest.mark.filterwarnings("ignore::langgraph.warnings.LangGraphDeprecatedSinceV10")
def test_a_bound_router_serves_the_older_agent() -> None:
    from langgraph.prebuilt import create_react_agent

    agent = create_react_agent(chat().bind_tools([double]), [double])
    assert agent.invoke({"messages": [("user", "double 21")]})["messages"][2].content == "42"


# --- a conversation across providers ---


class Signing(RuleChat):
    """Signs its thinking, and refuses anybody else's signature."""

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        for message in messages:
            for block in message.content if isinstance(message.content, list) else []:
                if block.get("signature", self.name) != self.name:
                    raise AssertionError("a foreign signature")
        text = {"type": "text", "text": f"{self.name} speaks"}
        content: Any = [{"type": "thinking", "thinking": "…", "signature": self.name}, text]
        return ChatResult(generations=[ChatGeneration(message=AIMessage(content))])


def test_a_thread_changes_hands_and_back() -> None:
    router = chat(good=Signing(name="good"), fair=Signing(name="fair"))
    history: list[Any] = []
    for question, who in (
        ("please begin the story", "good"),
        ("this one is for fair alone", "fair"),
        ("and now the last part of it", "good"),
    ):
        answer = router.invoke([*history, HumanMessage(question)])
        assert by(answer) == who
        assert [step.get("error") for step in answer.response_metadata["msat"]["path"]] == [None]
        history += [HumanMessage(question), answer]
    assert history[1].content[0]["signature"] == "good"  # the caller's own messages stay as they are


def foreign(content: Any, **fields: Any) -> AIMessage:
    return AIMessage(content, response_metadata={"msat": {"candidate": "other"}, "id": "resp_1"}, **fields)


def test_what_only_its_author_can_read_is_left_out() -> None:
    content: list[Any] = [
        {"type": "redacted_thinking", "data": "x"},
        {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}},
        {"type": "web_search_tool_result", "tool_use_id": "s", "content": []},
        {"type": "text", "text": "Hello", "id": "msg_1", "annotations": [], "cache_control": {"type": "ephemeral"}},
        {"type": "tool_use", "id": "t", "name": "double", "input": {}},
    ]
    call = {"name": "double", "args": {}, "id": "call with spaces|fc_1", "type": "tool_call"}
    message = foreign(content, tool_calls=[call], additional_kwargs={"reasoning_content": "hm"})
    result = ToolMessage("4", tool_call_id=call["id"])
    mine, reply = readable([message, result], Reader("me", "openai"))
    assert mine.content == "Hello"
    assert (mine.additional_kwargs, mine.response_metadata) == ({}, {})
    assert mine.tool_calls[0]["id"] == reply.tool_call_id != call["id"]  # type: ignore[attr-defined]
    assert message.tool_calls[0]["id"] == call["id"]
    own = AIMessage(content, response_metadata={"msat": {"candidate": "me"}})
    assert readable([own], Reader("me", "anthropic"))[0] is own
    assert readable([foreign([content[0]])], Reader("me"))[0].content == "…"
    (short,) = readable([foreign("", tool_calls=[{**call, "id": "call_abcdef"}])], Reader("me", "mistral"))
    assert len(short.tool_calls[0]["id"]) == 9  # type: ignore[attr-defined]


def test_cache_markers_reach_only_providers_that_know_them() -> None:
    marked = HumanMessage([{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}])
    assert readable([marked], Reader("me", "openai"))[0].content == [{"type": "text", "text": "x"}]
    assert readable([marked], Reader("me", "anthropic"))[0] is marked

    from langchain.agents import create_agent
    from langchain.agents.middleware import AgentMiddleware

    class Caching(AgentMiddleware):
        def wrap_model_call(self, request: Any, handler: Any) -> Any:
            settings = {**request.model_settings, "cache_control": {"type": "ephemeral"}}
            return handler(request.override(model_settings=settings))

    candidates = {"good": Strict(name="good"), "fair": RuleChat(name="fair")}
    routing = MSATMiddleware(candidates, router=table_router(candidates=_zoo()))
    agent: Any = create_agent(RuleChat(), [], middleware=[Caching(), routing])
    assert by(agent.invoke({"messages": [("user", "x")]})["messages"][-1]) == "good"


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("required", "any"),
        (True, "any"),
        ("any", "any"),
        ("double", "double"),
        ({"type": "function", "function": {"name": "double"}}, "double"),
        ({"type": "tool", "name": "double"}, "double"),
        ({"type": "any"}, "any"),
        ("none", "none"),
    ],
)
def test_a_choice_of_tools_means_the_same_everywhere(choice: Any, expected: str) -> None:
    assert tool_choice_for(choice, Reader("me", "openai")) == expected
    anthropic = {"type": "none"} if expected == "none" else expected
    assert tool_choice_for(choice, Reader("me", "anthropic")) == anthropic


# --- what is seen of an input ---


@pytest.mark.parametrize(
    "block",
    [
        {"type": "media", "mime_type": "image/png", "data": ""},
        {"type": "input_file", "file_id": "f"},
        {"image": {"format": "png", "source": {"bytes": b""}}},
    ],
)
def test_media_in_every_form_go_to_who_can_see(block: dict[str, Any]) -> None:
    seeing = Candidate(profile=profile("fair", 0.3), modalities=frozenset({"text", "image", "file"}))
    zoo = [Candidate(profile=profile("good", 0.9), modalities=frozenset({"text"})), seeing]
    router = ChatMSAT({n: RuleChat(name=n) for n in NAMES}, router=table_router(candidates=zoo))
    assert by(router.invoke([HumanMessage([{"type": "text", "text": "what is it?"}, block])])) == "fair"


def test_tools_and_their_arguments_count_against_the_window() -> None:
    windows = {"good": 8000, "fair": 200_000}
    zoo = [Candidate(profile=profile(n, s), context_window=windows[n]) for n, s in (("good", 0.9), ("fair", 0.3))]
    router = ChatMSAT({n: RuleChat(name=n) for n in NAMES}, router=table_router(candidates=zoo))
    big = {"type": "function", "function": {"name": "big", "description": "d" * 100_000, "parameters": {}}}
    assert by(router.bind_tools([big]).invoke("hello")) == "fair"
    call = {"name": "write", "args": {"text": "w " * 50_000}, "id": "1", "type": "tool_call"}
    history = [HumanMessage("hello"), AIMessage("", tool_calls=[call]), ToolMessage("ok", tool_call_id="1")]
    assert by(router.invoke(history)) == "fair"


# --- a chat model's settings and counts ---


class Counting(BaseRateLimiter):
    acquired = 0

    def acquire(self, *, blocking: bool = True) -> bool:
        Counting.acquired += 1
        return True

    async def aacquire(self, *, blocking: bool = True) -> bool:
        return self.acquire()


def test_settings_of_a_chat_model_hold_for_the_candidates() -> None:
    good = RuleChat(name="good")
    router = chat({"cache": InMemoryCache()}, good=good)
    assert router.invoke("x").text == router.invoke("x").text
    assert len(good.seen) == 1
    chat({"rate_limiter": Counting()}).invoke("x")
    assert Counting.acquired == 1
    assert len(list(chat({"disable_streaming": True}).stream("one two three"))) == 1
    assert chat({"output_version": "v1"}).invoke("x").content == [{"type": "text", "text": "good: x"}]
    own = InMemoryCache()
    uncached = RuleChat(name="good", cache=False)
    cached = chat({"cache": own}, good=uncached)
    cached.invoke("x")
    cached.invoke("x")
    assert len(uncached.seen) == 2


@pytest.mark.parametrize(("name", "hint"), [("temperature", "candidates"), ("polcy", "did you mean policy")])
def test_settings_that_do_not_exist_are_refused(name: str, hint: str) -> None:
    with pytest.raises(ConfigurationError, match=hint):
        chat({name: 0})


def test_tokens_are_counted_by_those_who_can() -> None:
    class CannotCount(RuleChat):
        def get_num_tokens_from_messages(self, *args: Any, **kwargs: Any) -> int:
            raise NotImplementedError

    class Words(RuleChat):
        def get_num_tokens_from_messages(self, messages: Any, tools: Any = None) -> int:
            return sum(len(message.text.split()) for message in messages)

    messages = [HumanMessage("a b c"), AIMessage("d"), HumanMessage("e")]
    router = chat(good=Words(name="good"), fair=CannotCount(name="fair"))
    assert len(trim_messages(messages, max_tokens=3, token_counter=router)) == 2
    nobody = chat(good=CannotCount(name="good"), fair=CannotCount(name="fair"))
    assert nobody.get_num_tokens_from_messages(messages) > 0


def test_profiles_of_all_or_of_some() -> None:
    said: Any = {
        "good": {"tool_calling": True, "max_input_tokens": 10},
        "fair": {"tool_calling": False, "max_input_tokens": 20},
    }
    special: Any = {n: RuleChat(name=n, profile=said[n]) for n in NAMES}
    assert chat(**special).profile == {"tool_calling": False, "max_input_tokens": 10}
    assert chat({"abilities": "some"}, **special).profile == {"tool_calling": True, "max_input_tokens": 20}


def test_what_a_chat_model_says_of_itself_binds_routing() -> None:
    said: Any = {
        "good": {"tool_calling": False, "max_input_tokens": 1000, "image_inputs": False},
        "fair": {"tool_calling": True, "max_input_tokens": 100_000, "image_inputs": True},
    }
    special: Any = {n: RuleChat(name=n, profile=said[n]) for n in NAMES}
    router = chat(**special)
    image = {"type": "image", "url": "https://example.com/x.png"}
    assert by(router.invoke("x")) == "good"
    assert by(router.bind_tools([double]).invoke("x 3")) == "fair"
    assert by(router.invoke("word " * 4000)) == "fair"
    assert by(router.invoke([HumanMessage([{"type": "text", "text": "what is it?"}, image])])) == "fair"
    assert router.router.zoo["fair"].context_window is None  # nothing in the zoo changes


def test_generate_gives_every_generation_and_what_it_says_of_the_call() -> None:
    class Two(RuleChat):
        def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
            made = [ChatGeneration(message=AIMessage(f"{self.name} {i}")) for i in range(2)]
            return ChatResult(generations=made, llm_output={"token_usage": {"total_tokens": 3}})

    result = chat(good=Two(name="good")).generate([[HumanMessage("x")], [HumanMessage("y")]])
    assert [[g.text for g in one] for one in result.generations] == [["good 0", "good 1"]] * 2
    assert result.llm_output == {"token_usage": {"total_tokens": 6}}


def test_summaries_by_reported_tokens_fire_as_for_the_candidate() -> None:
    class OfOpenAI(RuleChat):
        def _get_ls_params(self, stop: Any = None, **kwargs: Any) -> Any:
            return {"ls_provider": "openai", "ls_model_type": "chat"}

    assert chat(good=OfOpenAI(name="good"), fair=OfOpenAI(name="fair"))._get_ls_params()["ls_provider"] == "openai"
    assert chat(good=OfOpenAI(name="good"))._get_ls_params()["ls_provider"] == "msat"


# --- several routers, and settings of a call ---


def test_routers_of_one_graph_have_keys_of_their_own() -> None:
    first, second = chat({"prefix": "first"}), chat({"prefix": "second"})
    chain: Any = first | RunnableLambda(lambda message: message.text) | second
    answer = chain.invoke("x", {"configurable": {"first_candidate": "fair"}})
    assert answer.text == "good: fair: x"
    assert {spec.id for spec in first.config_specs} == {"first_candidate", "first_policy"}
    from msat_core import ZooError

    with pytest.raises(ZooError, match=r"names 'b'.* holds good, fair.*ChatMSAT\(prefix=…\)"):
        first.invoke("x", {"configurable": {"first_candidate": "b"}})


def test_an_empty_policy_in_a_call_lifts_nothing() -> None:
    router = chat({"policy": RoutingPolicy(deny=frozenset({"good"}))})
    for empty in (None, ""):
        assert by(router.invoke("x", {"configurable": {"msat_policy": empty or None}})) == "fair"


def test_a_router_inside_a_router_keeps_its_turn() -> None:
    inner = ChatMSAT(
        {n: RuleChat(name=n) for n in ("left", "right")},
        router=table_router(
            {"x y z w v": {"left": 0.1, "right": 0.9}},
            candidates=[Candidate(profile=profile(n)) for n in ("left", "right")],
        ),
    )
    router = chat(good=inner)
    question = HumanMessage("x y z w v")
    answer = router.invoke([question])
    tag = answer.response_metadata["msat"]
    assert (tag["candidate"], tag["inner"]["candidate"]) == ("good", "right")
    again = router.invoke([question, answer, ToolMessage("4", tool_call_id="1")])
    assert again.response_metadata["msat"]["inner"]["candidate"] == "right"
    assert len(scored(inner.router)) == 1


def test_a_router_can_be_pickled() -> None:
    router = pickle.loads(pickle.dumps(chat()))
    assert by(router.invoke("for fair")) == "fair"


# --- the tag ---


def test_the_tag_is_small_and_something_can_be_learned_from_it() -> None:
    names = [f"m{i}" for i in range(9)]
    zoo = [Candidate(profile=profile(n, 0.1 + i / 20)) for i, n in enumerate(names)]
    candidates = {n: RuleChat(name=n) for n in names}
    router = ChatMSAT(candidates, router=table_router(candidates=zoo))
    tag = router.invoke([HumanMessage("Write a parser in Rust"), AIMessage("…"), HumanMessage("and in Go?")])
    data = tag.response_metadata["msat"]
    assert list(data["scores"]) == ["m8", "m7", "m6", "m5", "m4"]
    assert data["instruction"] == "Write a parser in Rust\nand in Go?"
    assert data["policy"] == router.invoke("x").response_metadata["msat"]["policy"]
    everything = ChatMSAT(candidates, router=table_router(candidates=zoo), top_scores=None)
    assert len(everything.invoke("x").response_metadata["msat"]["scores"]) == 9
    told: list[Any] = []
    router.router.record = lambda *args, **kwargs: told.append((args, kwargs))  # type: ignore[method-assign]
    router.record(tag, 1.0, source="judge")
    assert told == [((data["instruction"], "m8", 1.0), {"source": "judge", "decision": None})]
    with pytest.raises(ConfigurationError, match="Expected an answer of a router"):
        router.record(AIMessage("x"), 1.0)


# --- the router chain ---


async def test_the_router_chain_hands_on_all_inputs_and_knows_when_to_default() -> None:
    from langchain_classic.chains.router.base import MultiRouteChain
    from langchain_classic.chains.transform import TransformChain

    from langchain_msat import MSATRouterChain

    def ending(name: str) -> Any:
        return TransformChain(
            input_variables=["input", "context"],
            output_variables=["text"],
            transform=lambda inputs, n=name: {"text": f"{n}: {inputs['input']} in {inputs['context']}"},
        )

    router = MSATRouterChain(router=table_router(Q, candidates=_zoo()), destinations={"good": "a", "fair": "b"})
    chain = MultiRouteChain(
        router_chain=router, destination_chains={"a": ending("a"), "b": ending("b")}, default_chain=ending("default")
    )
    given = [{"input": text, "context": "c"} for text in ("for fair", "else", " ")]
    expected = ["b: for fair in c", "a: else in c", "default:   in c"]
    assert [chain.invoke(one)["text"] for one in given] == expected
    assert [(await chain.ainvoke(one))["text"] for one in given] == expected
    assert [one["text"] for one in chain.batch(given)] == expected
    lcel: Any = router | RunnableLambda(lambda routed: (routed["destination"], routed["next_inputs"]["context"]))
    assert lcel.invoke(given[0]) == ("b", "c")
    capped = router.model_copy(update={"policy": RoutingPolicy(deny=frozenset({"good", "fair"}))})
    assert capped.invoke(given[0])["destination"] is None
    assert router.invoke({"input": [HumanMessage("for fair")]})["destination"] == "b"
