"""`MSATRouterChain`: a drop-in ``RouterChain`` for ``MultiRouteChain`` of langchain-classic, and a Runnable in LCEL."""

from __future__ import annotations

from typing import Any

from langchain_classic.chains.router.base import RouterChain
from langchain_core.callbacks import AsyncCallbackManagerForChainRun, CallbackManagerForChainRun
from pydantic import ConfigDict, SkipValidation

from langchain_msat.messages import messages_of, turns_of
from msat_core import NoCandidateError, Router, RoutingAsk, RoutingDecision, RoutingPolicy


class MSATRouterChain(RouterChain):
    """Names the destination chain for an input and hands on all inputs; None sends them to the default chain.

    The default chain answers where there is no text to score, where nobody is within the policy's limits, and where
    nobody is trusted. The scored input may be a text or messages.

    Attributes:
        router: scores and chooses.
        destinations: destination chain by candidate (name or alias).
        input_key: which input is scored.
        policy: in place of the router's.
        min_score: below it, nobody is trusted and the default chain answers.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    router: SkipValidation[Router]
    destinations: dict[str, str]
    input_key: str = "input"
    policy: RoutingPolicy | None = None
    min_score: float = 0.0

    @property
    def input_keys(self) -> list[str]:
        """The one key that is scored; what else comes is handed on."""
        return [self.input_key]

    def _call(self, inputs: dict[str, Any], run_manager: CallbackManagerForChainRun | None = None) -> dict[str, Any]:
        try:
            return self._routed(inputs, self._ask(inputs).route())
        except NoCandidateError:
            return self._routed(inputs, None)

    async def _acall(
        self, inputs: dict[str, Any], run_manager: AsyncCallbackManagerForChainRun | None = None
    ) -> dict[str, Any]:
        try:
            return self._routed(inputs, await self._ask(inputs).aroute())
        except NoCandidateError:
            return self._routed(inputs, None)

    def _ask(self, inputs: dict[str, Any]) -> RoutingAsk:
        turns = turns_of(messages_of(inputs[self.input_key]))
        return RoutingAsk.of(self.router, turns, among=self.destinations, policy=self.policy)

    def _routed(self, inputs: dict[str, Any], decision: RoutingDecision | None) -> dict[str, Any]:
        trusted = decision is not None and decision.score is not None and decision.score >= self.min_score
        by_candidate = {self.router.zoo[name].name: chain for name, chain in self.destinations.items()}
        return {
            "destination": by_candidate[decision.candidate] if decision is not None and trusted else None,
            "next_inputs": {key: value for key, value in inputs.items() if key not in self.output_keys},
        }
