"""The router as langchain-core's decision model, in both forms of the interface."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

import langchain_core
import pytest
from langchain_core.messages import HumanMessage
from pydantic import BaseModel
from rule_chat import RuleChat
from support import table_router

from msat_core import ConfigurationError, Router, RoutingPolicy, ZooError

Q = {"to fair": {"good": 0.1, "fair": 0.9, "poor": 0.2}}


class Noul(BaseModel):
    type: str = "noul"
    instructions: str


class Score(Noul):
    type: str = "score"


class Released(BaseModel):
    type: str = "choice"
    criteria: dict[str, Any]


class Successor(BaseModel):
    type: str = "choice"
    choices: list[str]


class NoulAnswer(BaseModel):
    type: str
    noul: float


class ChoiceAnswer(BaseModel):
    type: str
    choice: str
    probabilities: dict[str, float]
    confidence: float


class Response(BaseModel):
    model: str
    answers: dict[str, Any]


class ClassifyingModel(BaseModel):
    def ask(self, state: Any, **questions: Any) -> Any:
        return self._classify(state, questions)  # type: ignore[attr-defined]

    async def aask(self, state: Any, **questions: Any) -> Any:
        return await self._aclassify(state, questions)  # type: ignore[attr-defined]


class DecidingModel(BaseModel):
    def ask(self, state: Any, **questions: Any) -> Any:
        return self._decide(state, questions)  # type: ignore[attr-defined]

    async def aask(self, state: Any, **questions: Any) -> Any:
        return await self._adecide(state, questions)  # type: ignore[attr-defined]


def released_choice(*names: str) -> Released:
    return Released(criteria=dict.fromkeys(names))


def successor_choice(*names: str) -> Successor:
    return Successor(choices=list(names))


@pytest.fixture(params=["released", "successor"])
def core(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`langchain_core.decisions` in one of its forms, and `MSATDecisionModel` made for it."""
    released = request.param == "released"
    fake = ModuleType("langchain_core.decisions")
    names: dict[str, Any] = {
        "BaseDecisionModel": ClassifyingModel if released else DecidingModel,
        "NoulAnswer": NoulAnswer,
    }
    names |= {"ChoiceAnswer": ChoiceAnswer, "ClassifierResponse" if released else "DecisionResponse": Response}
    vars(fake).update(names)
    monkeypatch.setitem(sys.modules, "langchain_core.decisions", fake)
    monkeypatch.setattr(langchain_core, "decisions", fake, raising=False)
    monkeypatch.delitem(sys.modules, "langchain_msat.decision_model", raising=False)
    fake.model = importlib.import_module("langchain_msat.decision_model").MSATDecisionModel  # type: ignore[attr-defined]
    fake.choice = released_choice if released else successor_choice  # type: ignore[attr-defined]
    yield fake
    sys.modules.pop("langchain_msat.decision_model", None)


def model_of(core: Any, router: Router | None = None, **fields: Any) -> Any:
    return core.model(router=router or table_router(Q), **fields)


async def test_it_chooses_among_the_labels(core: Any) -> None:
    model = model_of(core)
    for state in ("to fair", HumanMessage("to fair"), {"messages": [HumanMessage("to fair")]}):
        question = core.choice("good", "fair")
        for response in (model.ask(state, who=question), await model.aask(state, who=question)):
            answer = response.answers["who"]
            assert (response.model, answer.choice, answer.confidence) == ("msat", "fair", pytest.approx(0.9))
            assert answer.probabilities == pytest.approx({"good": 0.1, "fair": 0.9})
    answer = model.ask("to fair", who=core.choice("good", "fair", "poor")).answers["who"]
    assert sum(answer.probabilities.values()) == pytest.approx(1)
    assert answer.probabilities["poor"] == pytest.approx(0.2 / 1.2)
    blank = model.ask(" ", who=core.choice("good", "poor")).answers["who"]
    assert (blank.choice, blank.confidence) == ("good", 0.8)
    denied = model_of(core, policy=RoutingPolicy(deny=frozenset({"fair"})))
    assert denied.ask("to fair", who=core.choice("good", "fair")).answers["who"].choice == "good"


def test_a_yes_or_no_gets_the_chance_of_being_right(core: Any) -> None:
    model = model_of(core)
    assert model.ask("to fair", ok=Noul(instructions="Would poor get this right?")).answers["ok"].noul == 0.2
    assert model.ask("to fair", ok=Noul(instructions="Will the answer be right?")).answers["ok"].noul == 0.9
    with pytest.raises(ConfigurationError, match="about one candidate, got good and poor"):
        model.ask("to fair", ok=Noul(instructions="Would good or poor get this right?"))


def test_other_questions_and_strangers_are_refused(core: Any) -> None:
    with pytest.raises(ConfigurationError, match="got a score question"):
        model_of(core).ask("x", urgent=Score(instructions="?"))
    with pytest.raises(ZooError):
        model_of(core).ask("x", who=core.choice("nobody"))


def test_an_older_core_is_told() -> None:
    try:
        import langchain_core.decisions  # noqa: F401
    except ImportError:
        with pytest.raises(ImportError, match=r"needs langchain-core 1\.8"):
            from langchain_msat import MSATDecisionModel  # noqa: F401
    else:
        pytest.skip("this langchain-core has decision models")


def test_it_drives_the_model_router_middleware() -> None:
    pytest.importorskip("langchain_core.decisions", reason="needs langchain-core 1.8")
    from langchain.agents import create_agent
    from langchain.agents.middleware import ModelChoice, ModelRouterMiddleware  # type: ignore[attr-defined]  # of a later version

    from langchain_msat import MSATDecisionModel

    middleware = ModelRouterMiddleware(
        choices={name: ModelChoice(model=RuleChat(name=name), criteria=None) for name in ("good", "fair")},
        instructions="Who answers this well?",
        classifier=MSATDecisionModel(router=table_router(Q)),
    )
    agent = create_agent(RuleChat(name="unused"), [], middleware=[middleware])
    assert agent.invoke({"messages": [HumanMessage("to fair")]})["messages"][-1].content == "fair: to fair"
