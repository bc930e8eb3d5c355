"""One call on its way from its messages to a candidate."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import TimeoutError as FutureTimeout
from typing import TYPE_CHECKING, Any, cast

from langchain_core.messages import BaseMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import ContextThreadPoolExecutor

from langchain_msat.candidates import ChatRunnable, rewrapped
from langchain_msat.messages import tagged
from msat_core.routing.dispatch import Attempts, Reading, settled
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
        forced = (self.config.get("configurable") or {}).get("msat_candidate")
        return settled(self.chat.router, self.reading, self.request, policy=self.policy, forced=forced)

    def decide(self) -> RoutingDecision:
        """The decision; blocks while the scorer runs."""
        given = self._given()
        if given is not None:
            return given
        decision: RoutingDecision = self.settled() or self.chat.router.route(
            self.instruction, policy=self.policy, request=self.request
        )
        return decision

    async def adecide(self) -> RoutingDecision:
        """The decision; the event loop stays free."""
        given = self._given()
        if given is not None:
            return given
        decision: RoutingDecision = self.settled() or await self.chat.router.aroute(
            self.instruction, policy=self.policy, request=self.request
        )
        return decision

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


@contextlib.contextmanager
def closing(chunks: Iterator[Any]) -> Iterator[None]:
    """Close a candidate's stream on leaving, unless it is late and still at work in the thread of :func:`within`."""
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            cast("Any", chunks).close()


def within(timeout_s: float | None, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """The call's result within the time, or TimeoutError; a call that is late is left behind in its thread."""
    if timeout_s is None:
        return call(*args, **kwargs)
    executor = ContextThreadPoolExecutor(max_workers=1)
    future = executor.submit(call, *args, **kwargs)
    try:
        return future.result(timeout_s)
    except FutureTimeout:
        if future.done():
            raise
        raise TimeoutError(f"No answer within {timeout_s:.1f} s.") from None
    finally:
        executor.shutdown(wait=False)


async def afirst(chunks: AsyncIterator[Any], timeout_s: float | None) -> Any:
    """The first chunk within the time; None if the stream is empty."""
    first = anext(chunks, None)
    return await (first if timeout_s is None else asyncio.wait_for(cast("Any", first), timeout_s))
