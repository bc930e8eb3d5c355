"""The router as langchain-core's decision model, which older versions do not have."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from rule_chat import RuleChat
from support import table_router

from msat_core import RoutingPolicy
from msat_core.errors import ConfigurationError, ZooError

Q = {"to fair": {"good": 0.1, "fair": 0.9, "poor": 0.2}}


def test_an_older_core_is_told() -> None:
    try:
        import langchain_core.decisions  # noqa: F401
    except ImportError:
        with pytest.raises(ImportError, match=r"needs langchain-core 1\.8"):
            from langchain_msat import MSATDecisionModel  # noqa: F401
    else:
        pytest.skip("this langchain-core has decision models")


@pytest.fixture
def decisions() -> Any:
    return pytest.importorskip("langchain_core.decisions", reason="needs langchain-core 1.8")


def choice(decisions: Any, *labels: str) -> Any:
    return decisions.Choice(instructions="Who?", criteria=dict.fromkeys(labels))


async def test_it_chooses_among_the_labels(decisions: Any) -> None:
    from langchain_msat import MSATDecisionModel

    model = MSATDecisionModel(router=table_router(Q))
    for state in ("to fair", HumanMessage("to fair"), {"messages": [HumanMessage("to fair")]}):
        request = {"state": state, "questions": {"who": choice(decisions, "good", "fair")}}
        for response in (model.invoke(request), await model.ainvoke(request)):
            answer = response.choices["who"]
            assert (answer.choice, answer.confidence) == ("fair", pytest.approx(0.9))
            assert answer.probabilities == pytest.approx({"good": 0.1, "fair": 0.9})
    blank = model.invoke({"state": " ", "questions": {"who": choice(decisions, "good", "poor")}}).choices["who"]
    assert (blank.choice, blank.confidence) == ("good", 0.8)
    denied = MSATDecisionModel(router=table_router(Q), policy=RoutingPolicy(deny=frozenset({"fair"})))
    request = {"state": "to fair", "questions": {"who": choice(decisions, "good", "fair")}}
    assert denied.invoke(request).choices["who"].choice == "good"


def test_other_questions_and_strangers_are_refused(decisions: Any) -> None:
    from langchain_msat import MSATDecisionModel

    model = MSATDecisionModel(router=table_router(Q))
    with pytest.raises(ConfigurationError, match="got a noul question"):
        model.invoke({"state": "x", "questions": {"urgent": decisions.Noul(instructions="?")}})
    with pytest.raises(ZooError):
        model.invoke({"state": "x", "questions": {"who": choice(decisions, "nobody")}})


def test_it_drives_the_model_router_middleware(decisions: Any) -> None:
    from langchain.agents import create_agent
    from langchain.agents.middleware import ModelChoice, ModelRouterMiddleware

    from langchain_msat import MSATDecisionModel

    middleware = ModelRouterMiddleware(
        choices={name: ModelChoice(model=RuleChat(name=name), criteria=None) for name in ("good", "fair")},
        instructions="Who answers this well?",
        classifier=MSATDecisionModel(router=table_router(Q)),
    )
    agent = create_agent(RuleChat(name="unused"), [], middleware=[middleware])
    assert agent.invoke({"messages": [HumanMessage("to fair")]})["messages"][-1].content == "fair: to fair"
