"""`MSATDecisionModel`: the router as a decision model, for ``ModelRouterMiddleware``. Needs langchain-core 1.8.

The interface has two forms: the released one (``_classify``, ``ClassifierResponse``, labels in ``Choice.criteria``) and
its successor (``_decide``, ``DecisionResponse``, labels in ``Choice.choices``). The model serves the installed one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ConfigDict, Field, SkipValidation

from langchain_msat.messages import messages_of, turns_of
from msat_core import ConfigurationError, Router, RoutingAsk, RoutingDecision, RoutingPolicy, names_in_zoo

try:
    import langchain_core.decisions as decisions  # of langchain-core 1.8
except ImportError:
    raise ImportError("MSATDecisionModel needs langchain-core 1.8 or later: pip install -U langchain-core.") from None

_Response: Any = getattr(decisions, "DecisionResponse", None) or decisions.ClassifierResponse


class MSATDecisionModel(decisions.BaseDecisionModel):  # type: ignore[misc]  # Any, where langchain-core is older
    """Answers who should answer, and whether a candidate would be right.

    A ``Choice``'s labels are names or aliases in the router's zoo. Its probabilities are the candidates' P(correct) in
    proportion, so that they sum to one; its confidence is the chosen candidate's own P(correct). A yes/no question
    ("Would gpt-5-mini get this right?") gets the P(correct) of the candidate that it names, or, where it names none, of
    the one that would be chosen. Where there is no text to score, exam accuracies stand for P(correct).

    Attributes:
        router: scores and chooses.
        policy: in place of the router's.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    model: str = "msat"
    router: SkipValidation[Router] = Field(exclude=True, repr=False)
    policy: RoutingPolicy | None = None

    @property
    def _provider(self) -> str:
        return "msat"

    def _classify(self, state: Any, questions: dict[str, Any]) -> Any:
        return self._response(
            questions, {key: self._ask(state, question).route() for key, question in questions.items()}
        )

    async def _aclassify(self, state: Any, questions: dict[str, Any]) -> Any:
        return self._response(
            questions, {key: await self._ask(state, question).aroute() for key, question in questions.items()}
        )

    _decide, _adecide = _classify, _aclassify

    def _ask(self, state: Any, question: Any) -> RoutingAsk:
        messages = messages_of(state["messages"] if isinstance(state, Mapping) else state)
        return RoutingAsk.of(self.router, turns_of(messages), among=self._labels(question), policy=self.policy)

    def _labels(self, question: Any) -> list[str] | None:
        """Who may be chosen; None for the whole zoo."""
        if question.type == "choice":
            return list(getattr(question, "criteria", None) or question.choices)
        if question.type == "noul":
            return self._named_in(str(question.instructions))
        raise ConfigurationError(
            f"Expected a Choice whose labels are candidates, or a yes/no question, got a {question.type} question."
        )

    def _named_in(self, text: str) -> list[str] | None:
        words = {word.strip(".,:;?!\"'`()") for word in text.split()}
        named = [candidate.name for candidate in self.router.zoo if words & {candidate.name, *candidate.aliases}]
        if len(named) > 1:
            raise ConfigurationError(
                f"A yes/no question is about one candidate, got {' and '.join(named)}: ask for each."
            )
        return named or None

    def _response(self, questions: dict[str, Any], routed: dict[str, RoutingDecision]) -> Any:
        return _Response(
            model=self.model,
            answers={key: self._answer(questions[key], decision) for key, decision in routed.items()},
        )

    def _answer(self, question: Any, decision: RoutingDecision) -> Any:
        zoo, chosen = self.router.zoo, decision.candidate
        if question.type == "noul":
            score = decision.scores.get(chosen, zoo[chosen].profile.accuracy)
            return decisions.NoulAnswer(type="noul", noul=score)
        label_of = names_in_zoo(zoo, self._labels(question) or ())
        scores = decision.scores or {name: zoo[name].profile.accuracy for name in label_of}
        total = sum(scores.values()) or 1.0
        return decisions.ChoiceAnswer(
            type="choice",
            choice=label_of[chosen],
            probabilities={
                label_of[name]: score / total if total else 1 / len(scores) for name, score in scores.items()
            },
            confidence=scores[chosen],
        )
