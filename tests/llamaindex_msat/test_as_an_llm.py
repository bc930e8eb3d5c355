"""The router as an LLM among others: what it says of itself, which settings hold, what is told, and copies of it."""

from __future__ import annotations

import logging
import pickle
from typing import Any

import pytest
from llama_index.core import Document, MockEmbedding, PromptTemplate, Settings, VectorStoreIndex
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, LLMMetadata, ToolCallBlock
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.callbacks.base_handler import BaseCallbackHandler
from llama_index.core.extractors import KeywordExtractor
from llama_index.core.indices.prompt_helper import PromptHelper
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.llms import MockLLM
from llama_index.core.response_synthesizers import ResponseMode, get_response_synthesizer
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.core.tools import FunctionTool
from llama_index.core.types import BaseOutputParser, PydanticProgramMode
from pydantic import BaseModel, Field
from rule_llm import RuleLLM, user
from support import profile, scored, table_router

from llamaindex_msat import MSATRouterLLM
from llamaindex_msat.candidates import SILENT_S, CandidateLLMs
from msat_core import Candidate, ConfigurationError, Fallback, RoutingPolicy

NAMES = ("good", "fair", "poor")
Q = {"to fair": {"good": 0.1, "fair": 0.9, "poor": 0.2}}
PROMPT = PromptTemplate("Q: {query_str}")


def routed(llms: dict[str, Any] | None = None, **fields: Any) -> MSATRouterLLM:
    return MSATRouterLLM({n: (llms or {}).get(n) or RuleLLM(name=n) for n in NAMES}, table_router(Q), **fields)


def candidate(answer: Any) -> str:
    return str(answer.additional_kwargs["msat_candidate"])


class Sized(RuleLLM):
    output: int = 256

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(context_window=self.window, num_output=self.output, is_chat_model=True)


class Down(RuleLLM):
    """An LLM whose server is needed to know what it can do, and is not there."""

    asked: list[int] = Field(default_factory=list)

    @property
    def metadata(self) -> LLMMetadata:
        self.asked.append(1)
        raise ConnectionError("refused")


# --- metadata ---


def room(metadata: LLMMetadata) -> int:
    return PromptHelper.from_llm_metadata(metadata)._get_available_context_size(0)


@pytest.mark.parametrize(
    "sizes", [[(8192, 4096), (128_000, 256)], [(8192, 4096), (6000, 256)], [(8192, -1), (9000, 8000)], [(-1, -1)]]
)
def test_a_full_prompt_fits_into_every_child_beside_its_output(sizes: list[tuple[int, int]]) -> None:
    llms = {name: Sized(window=w, output=o) for name, (w, o) in zip(NAMES, sizes, strict=False)}
    metadata = MSATRouterLLM(llms, table_router(Q)).metadata
    rooms = [w - (o if o > 0 else 256) for w, o in sizes if w > 0]
    assert room(metadata) == min(rooms, default=3900 - 256)
    assert metadata.context_window == min((w for w, _ in sizes if w > 0), default=3900)
    assert metadata.num_output > 0


def test_a_child_that_does_not_say_counts_as_unknown() -> None:
    tool = FunctionTool.from_defaults(lambda number: number, name="same", description="d")
    router = routed({"fair": Down(name="fair")})
    assert router.metadata.context_window == 4000 and router.metadata.is_function_calling_model
    assert candidate(router.chat(user("to fair"))) == "poor"  # the next best
    assert candidate(router.chat_with_tools([tool], "to fair 1")) != "fair"
    before, Settings._llm = Settings._llm, RuleLLM()
    index = VectorStoreIndex.from_documents([Document(text="A fact.")], embed_model=MockEmbedding(embed_dim=4))
    Settings._llm = before
    assert str(index.as_query_engine(llm=router).query("to fair")).startswith("poor")
    assert routed({n: Down(name=n) for n in NAMES}).metadata.context_window == 3900


def test_and_is_not_asked_again_at_once() -> None:
    now, llm = [0.0], Down()
    llms = CandidateLLMs({"one": llm}, lambda: now[0])
    assert llms.metadata_of("one") is llms.metadata_of("one") is None
    assert len(llm.asked) == 1
    now[0] = SILENT_S + 1
    llms.metadata_of("one")
    assert len(llm.asked) == 2


# --- settings ---


class Shout(BaseOutputParser):
    def parse(self, output: str) -> Any:
        return output.upper()

    def format(self, query: str) -> str:
        return f"{query} LOUD"


class Recording(RuleLLM):
    def chat(self, messages: Any, **kwargs: Any) -> ChatResponse:
        self.seen.append([message.content for message in messages])
        answer: ChatResponse = super().chat(messages, **kwargs)
        return answer


class Completing(RuleLLM):
    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(context_window=4000, is_chat_model=False)


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"system_prompt": "Be brief."}, Recording),
        ({"output_parser": Shout()}, Recording),
        ({"query_wrapper_prompt": PromptTemplate("<s>{query_str}</s>")}, Completing),
        ({"completion_to_prompt": lambda prompt: f"[{prompt}]"}, Completing),
        ({"system_prompt": "Be brief.", "output_parser": Shout()}, Completing),
    ],
)
def test_settings_do_what_they_do_on_a_plain_llm(fields: dict[str, Any], kind: type[RuleLLM]) -> None:
    plain, llm = kind(name="fair", **fields), kind(name="fair")
    router = routed({"fair": llm}, **fields)
    assert router.predict(PROMPT, query_str="to fair") == plain.predict(PROMPT, query_str="to fair")
    assert llm.seen == plain.seen
    own = kind(name="fair", **{**fields, "system_prompt": "My own."})
    routed({"fair": own}, **fields).predict(PROMPT, query_str="to fair")
    assert "My own." in str(own.seen) and "Be brief." not in str(own.seen)


async def test_a_rate_limiter_holds_for_each_call_of_a_child() -> None:
    limiters = pytest.importorskip("llama_index.core.rate_limiter", reason="came after the oldest LlamaIndex")

    class Counting(limiters.BaseRateLimiter):  # type: ignore[misc, name-defined]
        n = 0

        def acquire(self, num_tokens: int = 0) -> None:
            type(self).n += 1

        async def async_acquire(self, num_tokens: int = 0) -> None:
            type(self).n += 1

    limiter = Counting()
    router = routed(rate_limiter=limiter)
    router.chat(user("to fair"))
    await router.acomplete("to fair")
    assert limiter.n == 2


def test_the_mode_of_structured_prediction_is_handed_on() -> None:
    class Answer(BaseModel):
        number: int

    llm = RuleLLM(name="fair", script=['{"number": 3}'])  # calls functions, but is told to write text
    router = routed({"fair": llm}, pydantic_program_mode=PydanticProgramMode.LLM)
    assert router.structured_predict(Answer, PROMPT, query_str="to fair") == Answer(number=3)


def test_other_settings_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"temperature.*give settings of a model to the LLMs"):
        routed(temperature=0.5)
    with pytest.raises(ConfigurationError, match="did you mean fallback"):
        routed(fallbacks=3)


def test_children_may_be_shared_and_report_to_whoever_called() -> None:
    one, two, own = (TokenCountingHandler(tokenizer=str.split) for _ in range(3))
    llms = {n: RuleLLM(name=n) for n in NAMES}
    first = MSATRouterLLM(llms, table_router(Q), callback_manager=CallbackManager([one]))
    second = MSATRouterLLM(llms, table_router(Q), callback_manager=CallbackManager([two]))
    second.chat(user("to fair"))
    assert (len(one.llm_token_counts), len(two.llm_token_counts)) == (0, 1)
    list(first.stream_chat(user("to fair")))
    assert (len(one.llm_token_counts), len(two.llm_token_counts)) == (1, 1)
    llms["fair"].callback_manager = CallbackManager([own])
    first.chat(user("to fair"))
    assert (len(one.llm_token_counts), len(own.llm_token_counts)) == (1, 1)


def test_a_handlers_error_is_no_candidates() -> None:
    class Broken(BaseCallbackHandler):
        def on_event_start(self, *args: Any, **kwargs: Any) -> str:
            raise ValueError("the handler's own")

        def on_event_end(self, *args: Any, **kwargs: Any) -> None: ...
        def start_trace(self, trace_id: str | None = None) -> None: ...
        def end_trace(self, *args: Any, **kwargs: Any) -> None: ...

    router = routed(callback_manager=CallbackManager([Broken([], [])]))
    with pytest.raises(ValueError, match="the handler's own"):
        router.chat(user("to fair"))
    assert all(not llm.seen for llm in router.llms.values())  # type: ignore[attr-defined]


def test_retries_of_a_childs_own_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    class Retrying(RuleLLM):
        max_retries: int = 3

    with caplog.at_level(logging.WARNING):
        routed({"fair": Retrying(name="fair", max_retries=0)})
        routed({"fair": Retrying(name="fair")}, fallback=Fallback(max_attempts=1))
    assert not caplog.records
    routed({"fair": Retrying(name="fair")})
    assert "max_retries=0" in caplog.text and "fair" in caplog.text


# --- copies ---


def test_a_pickle_keeps_router_policy_and_limits() -> None:
    policy, limits = RoutingPolicy(deny=frozenset({"fair"})), Fallback(max_attempts=1, timeout_s=5)
    of_router = MSATRouterLLM({n: RuleLLM(name=n) for n in NAMES}, table_router(Q, policy))
    for router in (of_router, routed(policy=policy, fallback=limits, sticky="never")):
        copy = pickle.loads(pickle.dumps(router))
        assert candidate(copy.complete("to fair")) == candidate(router.complete("to fair")) == "poor"
        assert (copy.policy, copy.fallback, copy.sticky) == (router.policy, router.fallback, router.sticky)
    unpicklable = routed(instruction_of=lambda messages: None)
    with pytest.raises(pickle.PicklingError, match="instruction_of"):
        pickle.dumps(unpicklable)


def test_an_ingestion_pipeline_of_several_processes() -> None:
    nodes = [TextNode(text=f"fact {i}") for i in range(4)]
    extractor = KeywordExtractor(llm=routed(), num_workers=1, show_progress=False)
    done = IngestionPipeline(transformations=[extractor], disable_cache=True).run(nodes=nodes, num_workers=2)
    assert len(done) == 4 and all("excerpt_keywords" in node.metadata for node in done)


def test_plain_data_make_the_same_router() -> None:
    policy = RoutingPolicy(deny=frozenset({"fair"}))
    router = MSATRouterLLM({n: MockLLM(max_tokens=3) for n in NAMES}, table_router(Q), policy=policy, sticky="never")
    for again in (
        MSATRouterLLM.from_dict(router.to_dict(), router=table_router(Q)),
        MSATRouterLLM.from_json(router.to_json(), router=table_router(Q)),
    ):
        assert again.to_dict() == router.to_dict()
        assert candidate(again.complete("to fair")) == "poor"
    data = routed().to_dict()
    with pytest.raises(ConfigurationError, match=r"give the LLMs themselves"):
        MSATRouterLLM.from_dict(data, router=table_router(Q))
    given = MSATRouterLLM.from_dict(data, router=table_router(Q), llms={n: RuleLLM(name=n) for n in NAMES})
    assert given.complete("to fair").text == "fair: to fair"


def test_a_child_may_come_later() -> None:
    zoo = [Candidate(profile=profile(name, 0.5)) for name in (*NAMES, "extra")]
    table = {"q": {"good": 0.1, "fair": 0.1, "poor": 0.1, "extra": 0.9}}
    router = MSATRouterLLM({n: RuleLLM(name=n) for n in NAMES}, table_router(table, candidates=zoo))
    router.llms["extra"] = RuleLLM(name="extra")
    assert router.complete("q").text == "extra: q"
    assert candidate(router.complete("q")) == "extra"


# --- what is told ---


def test_the_event_and_the_answer_tell_who_answered_and_why(routes: list[Any]) -> None:
    zoo = [Candidate(profile=profile("good", 0.8), aliases=frozenset({"gpt"})), Candidate(profile=profile("poor", 0.2))]
    table = {"q": {"good": 0.9, "poor": 0.3}}
    llms = {"gpt": RuleLLM(fails=ConnectionError("api_key=abc1234567890")), "poor": RuleLLM(name="poor")}
    router = MSATRouterLLM(llms, table_router(table, candidates=zoo))
    answer = router.chat(user("q"))
    (event,) = routes
    assert event.candidate == answer.additional_kwargs["msat"]["candidate"] == "poor"
    assert event.scores == pytest.approx({"gpt": 0.9, "poor": 0.3}) and event.score == pytest.approx(0.3)
    assert [step["candidate"] for step in event.path] == ["gpt", "poor"]
    assert event.path[0]["kind"] == "unavailable" and "abc123" not in str(event)
    assert event.instruction == "q" and event.truncated_tokens == 0
    assert answer.additional_kwargs["msat"]["path"] == event.path
    router.llms["gpt"].fails = None  # type: ignore[attr-defined]
    list(router.stream_complete("q"))
    router.predict(PROMPT, query_str="q")
    assert [one.candidate for one in routes] == ["poor", "gpt", "gpt"]


def test_one_question_of_a_synthesis_is_scored_once(routes: list[Any]) -> None:
    nodes = [NodeWithScore(node=TextNode(text="fact " * 2000)) for _ in range(3)]
    router = routed({"fair": RuleLLM(name="fair", script=list("abcdefgh"))})
    get_response_synthesizer(llm=router, response_mode=ResponseMode.REFINE).synthesize("to fair", nodes)
    assert scored(router._router) == [("to fair",)]
    assert len(routes) >= 3 and {event.candidate for event in routes} == {"fair"}
    assert all(event.scores[event.candidate] == pytest.approx(0.9) for event in routes)


def test_fallback_within_a_turn_goes_by_its_scores() -> None:
    router = routed()
    first = router.chat(user("to fair")).message
    router.llms["fair"].fails = ConnectionError("down")  # type: ignore[attr-defined]
    history = [*user("to fair"), first, ChatMessage("42", role="tool")]
    assert candidate(router.chat(history)) == "poor"  # by exam accuracy it would be good
    assert scored(router._router) == [("to fair",)]


def test_outcomes_are_learned_from_answers_and_from_what_engines_make_of_them() -> None:
    router, learned = routed(), []
    router._router.record = lambda *args, **kwargs: learned.append((*args, kwargs["source"]))  # type: ignore[method-assign]
    router.record(router.chat(user("to fair")), 1)
    router.record(router.chat(user("to fair")).message, 0.5, source="judge")
    router.record(router.complete("to fair"), 1)
    router.record(router.predict(PROMPT, query_str="to fair"), 0)
    assert learned == [
        ("to fair", "fair", 1, "user"),
        ("to fair", "fair", 0.5, "judge"),
        ("to fair", "fair", 1, "user"),
        ("to fair", "fair", 0, "user"),
    ]
    with pytest.raises(ConfigurationError, match="answer of a router"):
        router.record("nobody said this", 1)


def test_a_dead_candidate_is_not_asked_first_for_ever() -> None:
    router = routed({"fair": RuleLLM(name="fair", fails=ConnectionError("down"))})
    for _ in range(10):
        router.chat(user("to fair"))
    assert len(router.llms["fair"].seen) == 3  # type: ignore[attr-defined]


def test_empty_answers_go_to_the_next_where_that_is_wanted() -> None:
    llms = {"fair": RuleLLM(name="fair", script=[""])}
    assert candidate(routed(dict(llms)).chat(user("to fair"))) == "fair"
    llms = {"fair": RuleLLM(name="fair", script=[""])}
    assert candidate(routed(llms, fallback=Fallback(empty="next")).chat(user("to fair"))) == "poor"


# --- tool calls ---


def test_tool_calls_are_read_without_a_tag() -> None:
    block = ToolCallBlock(tool_call_id="1", tool_name="double", tool_kwargs='{"number": 3}')
    response = ChatResponse(message=ChatMessage(role="assistant", blocks=[block]))
    (call,) = routed().get_tool_calls_from_response(response)
    assert (call.tool_id, call.tool_name, call.tool_kwargs) == ("1", "double", {"number": 3})
    older = {"calls": [{"tool_id": "2", "tool_name": "double", "tool_kwargs": {}}]}
    response = ChatResponse(message=ChatMessage(role="assistant", additional_kwargs=older))
    assert [call.tool_id for call in routed().get_tool_calls_from_response(response)] == ["2"]


def test_a_router_may_be_a_candidate() -> None:
    zoo = [Candidate(profile=profile("a", 0.9)), Candidate(profile=profile("b", 0.5))]
    inner = MSATRouterLLM({n: RuleLLM(name=n) for n in ("a", "b")}, table_router(candidates=zoo))
    outer = routed({"fair": inner})
    tool = FunctionTool.from_defaults(lambda number: number, name="same", description="d")
    answer = outer.chat_with_tools([tool], "to fair 21", msat_instruction="to fair")
    assert candidate(answer) == "fair" and answer.additional_kwargs["msat"]["inner"]["candidate"] == "a"
    assert [call.tool_kwargs for call in outer.get_tool_calls_from_response(answer)] == [{"number": 21}]


def test_arguments_by_position_and_prepared_ones() -> None:
    tool = FunctionTool.from_defaults(lambda number: number, name="same", description="d")
    router, said = routed(), "Double 21, to fair"
    answer = router.chat_with_tools([tool], said, [], False, True, msat_candidate="fair")
    assert candidate(answer) == "fair"
    prepared = router._prepare_chat_with_tools([tool], said, msat_candidate="poor")
    assert prepared["msat_candidate"] == "poor"  # only it can read them
    assert candidate(router.chat(**prepared)) == "poor"
