"""One call on its way from its messages to a candidate."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from langchain_core.messages import BaseMessage
from langchain_core.runnables import RunnableConfig

from langchain_msat.candidates import ChatRunnable, rewrapped
from langchain_msat.messages import tagged
from msat_core.routing.dispatch import Attempts, Reading, adecide, decide, settled
from msat_core.routing.policy import RoutingDecision, RoutingPolicy, RoutingRequest

if TYPE_CHECKING:
    from langchain_msat.chat_model import ChatMSAT

TOOLS = "tools"
STRUCTURED = "msat_structured"  # a bound key: (schema, options) for the candidate's own with_structured_output
DECISION = "msat_decision"  # a keyword of ChatMSAT's own calls: a decision already made


@dataclasses.dataclass(frozen=True)
class RoutedCall:
    """One call on its way: what it holds, what it asks of the router, and how a candidate is called for it."""

    chat: ChatMSAT
    messages: list[BaseMessage]
    config: RunnableConfig
    bound: dict[str, Any]  # keyword arguments, bound or given with the call
    reading: Reading
    request: RoutingRequest

    @property
    def instruction(self) -> str:
        """The text to score."""
        return self.reading.instruction or ""

    @property
    def policy(self) -> RoutingPolicy | None:
        """The call's policy; None for the router's."""
        policy = (self.config.get("configurable") or {}).get("msat_policy", self.chat.policy)
        return RoutingPolicy.model_validate(policy) if isinstance(policy, Mapping) else policy

    def policy_key(self) -> str:
        """Equal for calls under the same policy."""
        return self.policy.digest if self.policy else ""

    def settled(self) -> RoutingDecision | None:
        """The decision, where nothing has to be scored."""
        return settled(self.chat.router, self.reading, self.request, policy=self.policy, forced=self._forced)

    def decide(self) -> RoutingDecision:
        """The decision; blocks while the scorer runs."""
        return self._given() or decide(
            self.chat.router, self.reading, self.request, policy=self.policy, forced=self._forced
        )

    async def adecide(self) -> RoutingDecision:
        """The decision; the event loop stays free."""
        return self._given() or await adecide(
            self.chat.router, self.reading, self.request, policy=self.policy, forced=self._forced
        )

    @property
    def _forced(self) -> str | None:
        return (self.config.get("configurable") or {}).get("msat_candidate")

    def _given(self) -> RoutingDecision | None:
        given: RoutingDecision | Exception | None = self.bound.get(DECISION)
        if isinstance(given, Exception):
            raise given
        return given

    def runnable(self, name: str) -> ChatRunnable:
        """The candidate, with the call's tools or output schema bound in its own way."""
        model = self.chat.model_of(name)
        if TOOLS in self.bound:
            options = {key: value for key, value in self.bound.items() if key not in (DECISION, "stop", "version")}
            tools = options.pop(TOOLS)
            return rewrapped(model, lambda leaf: leaf.bind_tools(tools, **options))
        if STRUCTURED in self.bound:
            schema, options = self.bound[STRUCTURED]
            return rewrapped(model, lambda leaf: leaf.with_structured_output(schema, **options))
        return model

    @property
    def args(self) -> tuple[list[BaseMessage], RunnableConfig]:
        """What a candidate is called with."""
        return self.messages, self.config

    @property
    def kwargs(self) -> dict[str, Any]:
        """Keyword arguments that are not bound by :meth:`runnable`."""
        if TOOLS in self.bound:
            return {key: self.bound[key] for key in ("stop", "version") if self.bound.get(key) is not None}
        return {
            key: value for key, value in self.bound.items() if key not in (STRUCTURED, DECISION) and value is not None
        }

    def tagged(self, output: Any, attempts: Attempts) -> Any:
        """The output with the decision in its metadata, under the names that the caller uses."""
        key_of, decision = self.chat.key_of, attempts.decision
        tag = {
            "candidate": key_of(attempts.path[-1]["candidate"]),
            "score": decision.scores.get(attempts.path[-1]["candidate"]),
            "scores": {key_of(name): score for name, score in decision.scores.items()},
            "costs_usd": {key_of(name): cost for name, cost in decision.costs_usd.items()},
            "reason": decision.reason,
            "path": [{**step, "candidate": key_of(step["candidate"])} for step in attempts.path],
            "truncated_tokens": decision.truncated_tokens,
        }
        return tagged(output, tag)
