"""`MSATRouterChain`: a drop-in ``RouterChain`` for ``MultiRouteChain`` of langchain-classic."""

from __future__ import annotations

from typing import Any

from langchain_classic.chains.router.base import RouterChain
from langchain_core.callbacks import AsyncCallbackManagerForChainRun, CallbackManagerForChainRun
from pydantic import ConfigDict, SkipValidation

from msat_core import RoutingDecision, RoutingPolicy, RoutingRequest


class MSATRouterChain(RouterChain):
    """Names the destination chain for an input; None sends it to the default chain.

    Attributes:
        router: scores and chooses.
        destinations: destination chain by candidate (name or alias).
        input_key: which input is scored.
        policy: in place of the router's.
        min_score: below it, nobody is trusted and the default chain answers.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    router: SkipValidation[Any]
    destinations: dict[str, str]
    input_key: str = "input"
    policy: RoutingPolicy | None = None
    min_score: float = 0.0

    @property
    def input_keys(self) -> list[str]:
        """The one key that is scored."""
        return [self.input_key]

    def _call(self, inputs: dict[str, Any], run_manager: CallbackManagerForChainRun | None = None) -> dict[str, Any]:
        text = inputs[self.input_key]
        return self._route(inputs, self.router.route(text, policy=self.policy, request=self._request()))

    async def _acall(
        self, inputs: dict[str, Any], run_manager: AsyncCallbackManagerForChainRun | None = None
    ) -> dict[str, Any]:
        text = inputs[self.input_key]
        return self._route(inputs, await self.router.aroute(text, policy=self.policy, request=self._request()))

    def _request(self) -> RoutingRequest:
        return RoutingRequest(among=frozenset(self.destinations))

    def _route(self, inputs: dict[str, Any], decision: RoutingDecision) -> dict[str, Any]:
        trusted = decision.score is None or decision.score >= self.min_score
        by_candidate = {self.router.zoo[name].name: chain for name, chain in self.destinations.items()}
        return {
            "destination": by_candidate[decision.candidate] if trusted else None,
            "next_inputs": {self.input_key: inputs[self.input_key]},
        }
