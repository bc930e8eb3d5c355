from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llama_index.core import Settings
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.response.schema import Response, StreamingResponse
from llama_index.core.query_engine import CustomQueryEngine, RouterQueryEngine
from llama_index.core.retrievers import RouterRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from llama_index.core.tools import QueryEngineTool, RetrieverTool, ToolMetadata
from rule_llm import RuleLLM
from support import profile, stall_share, table_router

import llamaindex_msat
from llamaindex_msat import (
    MSATRouteEvent,
    MSATSelection,
    MSATSelector,
    MSATSelectorResult,
    candidate_query_engines,
)
from llamaindex_msat.selector import ZooErrorAsValue
from msat_core import Candidate, RoutingPolicy
from msat_core.errors import ConfigurationError

Q = {"to fair": {"good": 0.4, "fair": 0.9, "poor": 0.1}}
CHOICES = ["good", "fair", "poor"]


def selector(**options: Any) -> MSATSelector:
    return MSATSelector(table_router(Q), **options)


def result(found: Any) -> MSATSelectorResult:
    assert isinstance(found, MSATSelectorResult)
    return found


def test_public_names() -> None:
    assert llamaindex_msat.__all__ == [
        "MSATRouteEvent",
        "MSATRouterLLM",
        "MSATSelection",
        "MSATSelector",
        "MSATSelectorResult",
        "candidate_query_engines",
        "exam_client",
    ]


async def test_1_texts_and_metadata_sync_and_async_agree() -> None:
    metadata = [ToolMetadata(description=f"engine {n}", name=n) for n in CHOICES]
    for choices in (CHOICES, metadata):
        for query in ("to fair", QueryBundle("to fair")):
            found = result(selector().select(choices, query))
            assert found.ind == 1
            assert found == await selector().aselect(choices, query)


def test_2_indices_are_in_range_unique_and_sorted() -> None:
    found = result(selector(top_k=9).select(CHOICES, "to fair"))
    assert found.inds == [1, 0, 2]
    scores = [s.score for s in found.selections]
    assert scores == sorted(scores, reverse=True)  # type: ignore[type-var]
    assert selector().select(CHOICES, "to fair") == selector().select(CHOICES, "to fair")


@given(st.permutations(CHOICES))
def test_2_permuting_choices_permutes_indices(order: list[str]) -> None:
    found = result(selector(top_k=3).select(order, "to fair"))
    assert [order[i] for i in found.inds] == ["fair", "good", "poor"]


def test_3_mistakes_are_value_errors_that_list_what_is_known() -> None:
    with pytest.raises(ValueError, match="holds good, fair, poor"):
        selector().select(["good", "zz"], "q")
    with pytest.raises(ValueError, match="Choices 0 and 1 both stand for 'good'"):
        selector().select(["good", "good"], "q")
    with pytest.raises(ValueError, match="nothing to select from"):
        selector().select([], "q")
    with pytest.raises(ConfigurationError, match="top_k >= 1"):
        selector(top_k=0)


def test_3_tools_are_mapped_by_name_then_own_name_then_description() -> None:
    choices = [ToolMetadata("good", name="one"), ToolMetadata("x", name="two"), ToolMetadata("y", name="poor")]
    found = result(selector(candidates={"two": "fair"}, top_k=3).select(choices, "to fair"))
    assert [s.candidate for s in found.selections] == ["fair", "good", "poor"]
    assert found.inds == [1, 0, 2]


def test_4_every_score_survives_json() -> None:
    found = result(selector().select(CHOICES, "to fair"))
    again = MSATSelectorResult.model_validate(json.loads(json.dumps(found.model_dump())))
    assert again == found
    assert again.scores == pytest.approx(Q["to fair"])
    assert again.selections[0].score == pytest.approx(0.9)


def test_5_the_reason_names_candidate_and_probability() -> None:
    found = result(selector(top_k=2).select(CHOICES, "to fair"))
    assert found.reasons[0].startswith("fair: P(correct) 0.90")
    assert found.reasons[1] == "good: P(correct) 0.40."


def test_6_never_empty() -> None:
    assert selector(top_k=3, threshold=0.99).select(CHOICES, "to fair").inds == [1]
    assert selector(top_k=3, threshold=0.3).select(CHOICES, "to fair").inds == [1, 0]
    denied = selector(policy=RoutingPolicy(deny=frozenset(CHOICES), default="poor"))
    assert denied.select(CHOICES, "to fair").inds == [2]


async def test_7_the_loop_stays_free_and_concurrent_calls_stay_right() -> None:
    slow = MSATSelector(table_router(Q, delay_s=0.3))
    assert await stall_share(lambda: slow.aselect(CHOICES, "to fair")) <= 0.5
    table = {f"q{i}": {"good": 0.5, "fair": i / 20, "poor": 0.0} for i in range(20)}
    many = MSATSelector(table_router(table, delay_s=0.01))
    found = await asyncio.gather(*(many.aselect(CHOICES, f"q{i}") for i in range(20)))
    assert [f.ind for f in found] == [0 if i <= 10 else 1 for i in range(20)]


class Engine(CustomQueryEngine):
    name: str

    def custom_query(self, query_str: str) -> str:
        return f"{self.name}: {query_str}"


class StreamEngine(CustomQueryEngine):
    name: str

    def custom_query(self, query_str: str) -> Any:
        return StreamingResponse(response_gen=(piece for piece in (self.name, ": ", query_str)))


def tools(kind: Any = Engine) -> list[QueryEngineTool]:
    return [QueryEngineTool.from_defaults(kind(name=n), name=n, description="d") for n in CHOICES]


async def test_8_router_query_engine_single_multi_and_streaming() -> None:
    engine = RouterQueryEngine.from_defaults(tools(), llm=RuleLLM(), selector=selector())
    for response in (engine.query("to fair"), await engine.aquery("to fair")):
        assert isinstance(response, Response)
        assert str(response) == "fair: to fair"
        assert response.metadata is not None
        assert result(response.metadata["selector_result"]).scores["good"] == pytest.approx(0.4)
    multi = RouterQueryEngine.from_defaults(tools(), llm=RuleLLM(name="sum"), selector=selector(top_k=2))
    assert "fair: to fair" in str(multi.query("to fair"))
    assert "good: to fair" in str(multi.query("to fair"))
    streaming = RouterQueryEngine.from_defaults(tools(StreamEngine), llm=RuleLLM(), selector=selector())
    found = streaming.query("to fair")
    assert isinstance(found, StreamingResponse)
    assert "".join(found.response_gen) == "fair: to fair"


def test_8_router_retriever() -> None:
    class Retriever(BaseRetriever):
        def __init__(self, name: str) -> None:
            self._name = name
            super().__init__()

        def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
            return [NodeWithScore(node=TextNode(text=self._name), score=1.0)]

    choices = [RetrieverTool.from_defaults(Retriever(n), name=n, description="d") for n in CHOICES]
    router = RouterRetriever(selector=selector(), retriever_tools=choices, llm=RuleLLM())
    assert [node.text for node in router.retrieve("to fair")] == ["fair"]


def test_one_query_engine_per_candidate_over_one_index() -> None:
    from llama_index.core import Document, MockEmbedding, VectorStoreIndex

    index = VectorStoreIndex.from_documents([Document(text="A fact.")], embed_model=MockEmbedding(embed_dim=4))
    llms = {n: RuleLLM(name=n) for n in ("good", "fair")}
    made = candidate_query_engines(index, llms)
    engine = RouterQueryEngine.from_defaults(made, llm=RuleLLM(), selector=selector())
    answer = str(engine.query("to fair"))
    assert answer.startswith("fair: ")
    assert "A fact." in answer


def test_aliases_are_candidates_too() -> None:
    zoo = [Candidate(profile=profile("long-name", 0.9), aliases=("short",)), Candidate(profile=profile("other"))]
    found = result(MSATSelector(table_router(candidates=zoo)).select(["other", "short"], "q"))
    assert (found.ind, found.candidate) == (1, "long-name")


@pytest.fixture(autouse=True)
def no_default_llm() -> Any:
    """Nothing here may fall back to a provider's LLM."""
    before = Settings._llm
    Settings._llm = RuleLLM(name="default")
    yield
    Settings._llm = before


# --- several tools of a candidate, tools that are nobody's, mistakes ---


def test_several_tools_of_one_candidate() -> None:
    named = [(who, what) for who in ("good", "fair") for what in ("a", "b")]
    tools = [ToolMetadata(f"searches {what}", name=f"{who}-{what}") for who, what in named]
    candidates = {tool.name: str(tool.name).partition("-")[0] for tool in tools}
    assert result(selector(candidates=candidates).select(tools, "to fair")).inds == [2]
    found = result(selector(candidates=candidates, top_k=2).select(tools, "to fair"))
    assert found.inds == [2, 0] and [one.candidate for one in found.selections] == ["fair", "good"]

    class Last(MSATSelector):
        def _select(self, choices: Any, query: Any) -> Any:
            return MSATSelectorResult(
                selections=[MSATSelection(index=len(choices) - 1, reason="r", candidate="x")], candidate="x", scores={}
            )

    inner = Last(table_router(Q))
    assert result(selector(candidates=candidates, within=inner).select(tools, "to fair")).inds == [3]


def test_a_tool_that_is_nobodys_has_the_default() -> None:
    tools = [ToolMetadata("d", name="poor"), ToolMetadata("d", name="calculator")]
    assert result(selector(default="fair").select(tools, "to fair")).inds == [1]
    with pytest.raises(ZooErrorAsValue, match="calculator"):
        selector().select(tools, "to fair")


def test_a_mapping_is_checked() -> None:
    with pytest.raises(ValueError, match="'faiir'"):
        selector(candidates={"good": "faiir"})
    with pytest.raises(ValueError, match="'nobody'"):
        selector(default="nobody")
    with pytest.raises(ConfigurationError, match="'goood'"):
        selector(candidates={"goood": "fair"}).select([ToolMetadata("d", name="good")], "to fair")


@pytest.mark.parametrize("query", ["", "  ", QueryBundle("", image_path="x.png")])
async def test_an_empty_query_is_decided_as_by_the_llm(query: Any) -> None:
    assert result(selector().select(["poor", "good"], query)).inds == [1]
    assert result(await selector().aselect(["poor", "good"], query)).inds == [1]


def test_it_is_made_as_llamaindexs_own_are_and_tells_its_choice() -> None:
    from llama_index_instrumentation import get_dispatcher
    from llama_index_instrumentation.event_handlers import BaseEventHandler

    seen: list[Any] = []

    class Keep(BaseEventHandler):
        def handle(self, event: Any, **kwargs: Any) -> None:
            seen.append(event)

    root = get_dispatcher()
    before, root.event_handlers = root.event_handlers, [*root.event_handlers, Keep()]
    try:
        MSATSelector.from_defaults(table_router(Q), top_k=2).select(CHOICES, "to fair")
    finally:
        root.event_handlers = before
    (event,) = [one for one in seen if isinstance(one, MSATRouteEvent)]
    assert event.candidate == "fair" and event.scores == pytest.approx(Q["to fair"])
