"""`MSATSelector`: chooses among query engines, retrievers or tools by the candidate behind each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llama_index.core.base.base_selector import BaseSelector, SelectorResult, SingleSelection
from llama_index.core.prompts.mixin import PromptDictType
from llama_index.core.schema import QueryBundle
from llama_index.core.tools.types import ToolMetadata

from msat_core import ConfigurationError, Router, RoutingDecision, RoutingPolicy, RoutingRequest, ZooError


class MSATSelection(SingleSelection):
    """One choice: its index, its candidate, the score and the reason."""

    candidate: str
    score: float | None = None


class MSATSelectorResult(SelectorResult):
    """The choices, best first, with every candidate's score."""

    selections: list[MSATSelection]  # type: ignore[assignment]
    candidate: str
    scores: dict[str, float]


class MSATSelector(BaseSelector):
    """Selects the choices whose candidates are most likely to answer the query well.

    Args:
        router: scores and chooses; default: the shipped one.
        candidates: candidate (name or alias) by tool name; a tool that is not listed is found by its
            own name, then by its description.
        policy: in place of the router's.
        top_k: most choices; 1 for a single selection.
        threshold: with ``top_k`` above 1, scores below it are left out; the best choice always stays.
    """

    def __init__(
        self,
        router: Router | None = None,
        *,
        candidates: Mapping[str, str] | None = None,
        policy: RoutingPolicy | None = None,
        top_k: int = 1,
        threshold: float = 0.0,
    ) -> None:
        if top_k < 1 or not 0 <= threshold <= 1:
            raise ConfigurationError(f"Expected top_k >= 1 and a threshold in [0, 1], got {top_k} and {threshold}.")
        if router is None:
            router = Router.from_pretrained()
        self._router, self._policy = router, policy
        self._candidates = dict(candidates or {})
        self._top_k, self._threshold = top_k, threshold

    def _get_prompts(self) -> PromptDictType:
        return {}

    def _update_prompts(self, prompts: PromptDictType) -> None:
        """There are no prompts: nobody is asked to choose."""

    def _select(self, choices: Sequence[ToolMetadata], query: QueryBundle) -> MSATSelectorResult:
        index_of = self._index_of(choices)
        request = RoutingRequest(among=frozenset(index_of))
        return self._result(index_of, self._router.route(query.query_str, policy=self._policy, request=request))

    async def _aselect(self, choices: Sequence[ToolMetadata], query: QueryBundle) -> MSATSelectorResult:
        index_of = self._index_of(choices)
        request = RoutingRequest(among=frozenset(index_of))
        return self._result(index_of, await self._router.aroute(query.query_str, policy=self._policy, request=request))

    def _index_of(self, choices: Sequence[ToolMetadata]) -> dict[str, int]:
        """Position of the choice behind each candidate's name."""
        if not choices:
            raise ConfigurationError("There is nothing to select from: give at least one choice.")
        found: dict[str, int] = {}
        for index, choice in enumerate(choices):
            name = self._candidate_of(choice)
            if name in found:
                raise ConfigurationError(
                    f"Choices {found[name]} and {index} both stand for {name!r}: give each tool a name of its own "
                    "(every query engine tool is called 'query_engine_tool' by default)."
                )
            found[name] = index
        return found

    def _candidate_of(self, choice: ToolMetadata) -> str:
        named = self._candidates.get(choice.name or "")
        tried = [text for text in (named, choice.name, choice.description) if text]
        for text in tried:
            if text in self._router.zoo:
                return self._router.zoo[text].name
        known = ", ".join(self._router.zoo.names)
        raise ZooErrorAsValue(
            f"No candidate for the choice {tried[0] if tried else ''!r}; the zoo holds {known}. Name the tool "
            "after its candidate, or give MSATSelector(candidates={tool name: candidate})."
        )

    def _result(self, index_of: dict[str, int], decision: RoutingDecision) -> MSATSelectorResult:
        ranking = list(dict.fromkeys((decision.candidate, *decision.ranking)))[: self._top_k]
        kept = [name for i, name in enumerate(ranking) if i == 0 or decision.scores[name] >= self._threshold]
        selections = [
            MSATSelection(
                index=index_of[name],
                candidate=name,
                score=decision.scores.get(name),
                reason=decision.reason if i == 0 else f"{name}: P(correct) {decision.scores[name]:.2f}.",
            )
            for i, name in enumerate(kept)
        ]
        return MSATSelectorResult(selections=selections, candidate=decision.candidate, scores=decision.scores)


class ZooErrorAsValue(ZooError, ValueError):
    """A :class:`ZooError` that LlamaIndex code may catch as the ValueError it expects of a selector."""
