"""`MSATSelector`: chooses among query engines, retrievers or tools by the candidate behind each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from llama_index.core.base.base_selector import BaseSelector, SelectorResult, SingleSelection
from llama_index.core.prompts.mixin import PromptDictType
from llama_index.core.schema import QueryBundle
from llama_index.core.tools.types import ToolMetadata

from llamaindex_msat.events import MSATRouteEvent, dispatcher
from llamaindex_msat.usage import conversation
from msat_core import ConfigurationError, Router, RoutingAsk, RoutingDecision, RoutingPolicy, Turn, ZooError

ToolsOf = dict[str, list[int]]  # positions of the choices behind each candidate


class MSATSelection(SingleSelection):
    """One choice: its index, its candidate, the score and the reason."""

    candidate: str
    score: float | None = None


class MSATSelectorResult(SelectorResult):
    """The choices, best first, with every candidate's score."""

    selections: list[MSATSelection]  # type: ignore[assignment]  # narrower than its parent's
    candidate: str
    scores: dict[str, float]


class MSATSelector(BaseSelector):
    """Selects the choices whose candidates are most likely to answer the query well.

    Args:
        router: scores and chooses; default: the shipped one.
        candidates: candidate (name or alias) by tool name; a tool that is not listed is found by its
            own name, then by its description. Several tools may be the same candidate's.
        policy: in place of the router's.
        top_k: most candidates; 1 for a single selection.
        threshold: with ``top_k`` above 1, scores below it are left out; the best choice always stays.
        default: candidate of the tools that are nobody's; without it such a tool is an error.
        within: chooses among several tools of one candidate (by their descriptions, say); without it, the first.
    """

    def __init__(
        self,
        router: Router | None = None,
        *,
        candidates: Mapping[str, str] | None = None,
        policy: RoutingPolicy | None = None,
        top_k: int = 1,
        threshold: float = 0.0,
        default: str | None = None,
        within: BaseSelector | None = None,
    ) -> None:
        if not (isinstance(top_k, int) and top_k >= 1 and 0 <= threshold <= 1):
            raise ConfigurationError(f"Expected top_k >= 1 and a threshold in [0, 1], got {top_k} and {threshold}.")
        if router is None:
            router = Router.from_pretrained()
        self._router, self._policy = router, policy
        self._candidates = dict(candidates or {})
        for name in (*self._candidates.values(), *([default] if default else [])):
            self._known(name)
        self._top_k, self._threshold, self._default, self._within = top_k, threshold, default, within

    @classmethod
    def from_defaults(cls, router: Router | None = None, **options: Any) -> MSATSelector:
        """As the constructor; LlamaIndex's own selectors are made so."""
        return cls(router, **options)

    def _get_prompts(self) -> PromptDictType:
        return {}

    def _update_prompts(self, prompts: PromptDictType) -> None:
        """There are no prompts: nobody is asked to choose."""

    def _select(self, choices: Sequence[ToolMetadata], query: QueryBundle) -> MSATSelectorResult:
        tools = self._tools_of(choices)
        decision = self._ask(tools, query).route()
        picked = {}
        for name in self._kept(decision):
            if self._within is None or len(tools[name]) == 1:
                picked[name] = tools[name][0]
            else:
                result = self._within.select([choices[i] for i in tools[name]], query)
                picked[name] = tools[name][result.inds[0]]
        return self._result(picked, decision, query)

    async def _aselect(self, choices: Sequence[ToolMetadata], query: QueryBundle) -> MSATSelectorResult:
        tools = self._tools_of(choices)
        decision = await self._ask(tools, query).aroute()
        picked = {}
        for name in self._kept(decision):
            if self._within is None or len(tools[name]) == 1:
                picked[name] = tools[name][0]
            else:
                result = await self._within.aselect([choices[i] for i in tools[name]], query)
                picked[name] = tools[name][result.inds[0]]
        return self._result(picked, decision, query)

    def _ask(self, tools: ToolsOf, query: QueryBundle) -> RoutingAsk:
        return RoutingAsk.of(
            self._router,
            [Turn("user", query.query_str)],
            sticky="never",
            among=tools,
            policy=self._policy,
            instruction=query.query_str if query.query_str.strip() else None,
            conversation=conversation(),
        )

    # --- whose tool is whose ---

    def _tools_of(self, choices: Sequence[ToolMetadata]) -> ToolsOf:
        """Positions of the choices behind each candidate's name."""
        if not choices:
            raise ConfigurationError("There is nothing to select from: give at least one choice.")
        names = [choice.name for choice in choices if choice.name]
        labels = [choice.name or choice.description for choice in choices]
        for label, n in Counter(labels).items():
            if n > 1:
                first, second = [i for i, other_label in enumerate(labels) if other_label == label][:2]
                raise ConfigurationError(
                    f"Choices {first} and {second} both stand for {label!r}: give each tool a name of its own "
                    "(every query engine tool is called 'query_engine_tool' by default)."
                )
        strangers = [name for name in self._candidates if name not in names]
        if strangers:
            raise ConfigurationError(
                f"MSATSelector(candidates=…) names {', '.join(map(repr, strangers))}, but no tool is called so: there "
                f"is {', '.join(map(repr, names)) or 'none with a name'}."
            )
        positions: ToolsOf = {}
        for index, choice in enumerate(choices):
            positions.setdefault(self._candidate_of(choice), []).append(index)
        return positions

    def _candidate_of(self, choice: ToolMetadata) -> str:
        named = self._candidates.get(choice.name or "")
        if named is not None:
            return self._known(named)
        tried = [text for text in (choice.name, choice.description) if text]
        for text in tried:
            if text in self._router.zoo:
                return self._router.zoo[text].name
        return self._known(self._default or (tried[0] if tried else ""))

    def _known(self, name: str) -> str:
        if name in self._router.zoo:
            return self._router.zoo[name].name
        raise ZooErrorAsValue(
            f"No candidate for the choice {name!r}; {self._router.zoo.hint(name)} Name the tool after its candidate, "
            "or give MSATSelector(candidates={tool name: candidate}) or MSATSelector(default=candidate)."
        )

    # --- what comes out ---

    def _kept(self, decision: RoutingDecision) -> list[str]:
        """The candidates to select, best first."""
        ranking = list(dict.fromkeys((decision.candidate, *decision.ranking)))[: self._top_k]
        scores = decision.scores
        return [name for i, name in enumerate(ranking) if i == 0 or scores.get(name, 0.0) >= self._threshold]

    def _result(self, picked: Mapping[str, int], decision: RoutingDecision, query: QueryBundle) -> MSATSelectorResult:
        selections = []
        for name, index in picked.items():
            score = decision.scores.get(name)
            note = f"{name}: P(correct) {score:.2f}." if score is not None else f"{name}: no text to score."
            reason = decision.reason if name == decision.candidate else note
            selections.append(MSATSelection(index=index, candidate=name, score=score, reason=reason))
        dispatcher.event(
            MSATRouteEvent(
                candidate=decision.candidate,
                score=decision.score,
                scores=decision.scores,
                reason=decision.reason,
                cost_usd=decision.costs_usd.get(decision.candidate),
                path=[{"candidate": name} for name in picked],
                instruction=query.query_str,
                truncated_tokens=decision.truncated_tokens,
            )
        )
        return MSATSelectorResult(selections=selections, candidate=decision.candidate, scores=decision.scores)


class ZooErrorAsValue(ZooError, ValueError):
    """A :class:`ZooError` that LlamaIndex code may catch as the ValueError it expects of a selector."""
