"""`MSATDecisionModel`: the router as a decision model, for ``ModelRouterMiddleware``. Needs langchain-core 1.8."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, SkipValidation

from langchain_msat.messages import messages_of, turns_of
from msat_core import Ask, ConfigurationError, RoutingDecision, RoutingPolicy, names_of

try:
    from langchain_core.decisions import BaseDecisionModel, ChoiceAnswer, ClassifierResponse
except ImportError:
    raise ImportError("MSATDecisionModel needs langchain-core 1.8 or later: pip install -U langchain-core.") from None


class MSATDecisionModel(BaseDecisionModel):  # type: ignore[misc]  # Any, where langchain-core is older
    """Answers a ``Choice`` among candidates: the one most likely to answer the state's instruction well.

    The labels of ``criteria`` are names or aliases in the router's zoo. Each probability is that candidate's own
    P(correct), so they do not sum to one; the confidence is the chosen candidate's. Where there is no text to score,
    both are exam accuracies.

    Attributes:
        router: scores and chooses.
        policy: in place of the router's.
    """

    model: str = "msat"
    router: SkipValidation[Any] = Field(exclude=True, repr=False)
    policy: RoutingPolicy | None = None

    @property
    def _provider(self) -> str:
        return "msat"

    def _classify(self, state: Any, questions: dict[str, Any]) -> Any:
        return self._response(questions, {key: self._ask(state, one).decide() for key, one in questions.items()})

    async def _aclassify(self, state: Any, questions: dict[str, Any]) -> Any:
        return self._response(questions, {key: await self._ask(state, one).adecide() for key, one in questions.items()})

    def _ask(self, state: Any, question: Any) -> Ask:
        if question.type != "choice":
            raise ConfigurationError(f"Expected a Choice whose labels are candidates, got a {question.type} question.")
        messages = messages_of(state["messages"] if isinstance(state, Mapping) else state)
        return Ask.of(self.router, turns_of(messages), among=question.criteria, policy=self.policy)

    def _response(self, questions: dict[str, Any], decisions: dict[str, RoutingDecision]) -> Any:
        return ClassifierResponse(
            model=self.model, answers={key: self._answer(questions[key], one) for key, one in decisions.items()}
        )

    def _answer(self, question: Any, decision: RoutingDecision) -> Any:
        label_of = names_of(self.router.zoo, question.criteria)
        scores = decision.scores or {name: self.router.zoo[name].profile.accuracy for name in label_of}
        return ChoiceAnswer(
            type="choice",
            choice=label_of[decision.candidate],
            probabilities={label_of[name]: score for name, score in scores.items()},
            confidence=scores[decision.candidate],
        )
