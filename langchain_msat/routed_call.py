"""One call on its way from its messages to a candidate."""

from __future__ import annotations

import inspect
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables import RunnableConfig

from langchain_msat.callbacks import from_callbacks
from langchain_msat.candidates import CandidateModels
from langchain_msat.messages import finish_reason, is_empty, messages_of, tagged, turns_of
from langchain_msat.prepared_call import DECISION, STRUCTURED, PreparedCall
from langchain_msat.usage import conversation_of, usage_of
from msat_core import (
    TAG,
    Attempt,
    Attempts,
    ConfigurationError,
    Fallback,
    Observer,
    Router,
    RoutingAsk,
    RoutingDecision,
    RoutingPolicy,
    Sticky,
    ZooError,
    decide_all,
    tag_of,
)


@dataclass(frozen=True)
class Setup:
    """What a call needs to know of the router it goes through.

    Attributes:
        router: scores and chooses.
        models: the candidates, by the caller's names.
        key_of: the caller's name for each candidate of the zoo.
        policy, sticky, fallback, instruction_of, prefix, top_scores: as of :class:`langchain_msat.ChatMSAT`.
        observers: its decisions.
    """

    router: Router
    models: CandidateModels
    key_of: Mapping[str, str]
    policy: RoutingPolicy | None = None
    sticky: Sticky = "turn"
    fallback: Fallback = field(default_factory=Fallback)
    instruction_of: Callable[[list[BaseMessage]], str | None] | None = None
    prefix: str = TAG
    top_scores: int | None = None
    observers: Sequence[Observer] = ()

    def name_of(self, candidate: str) -> str:
        """The caller's name for a candidate of the zoo."""
        return self.key_of.get(candidate, candidate)


@dataclass(frozen=True)
class RoutedCall:
    """One call on its way: what it holds, what it asks of the router, and how a candidate is called for it."""

    setup: Setup
    messages: list[BaseMessage]
    config: RunnableConfig
    bound: dict[str, Any]  # keyword arguments, bound or given with the call
    ask: RoutingAsk

    @classmethod
    def of(
        cls, setup: Setup, prompt: LanguageModelInput, config: RunnableConfig, bound: Mapping[str, Any]
    ) -> RoutedCall:
        """Read a call of the router."""
        messages = messages_of(prompt)
        options = {key: value for key, value in bound.items() if value is not None}
        if not options.get("tools"):  # None and [] are no tools
            options.pop("tools", None)
        tools = "tools" in options or STRUCTURED in options
        among = setup.models.with_tools() if tools else frozenset(setup.models)
        if not among:
            raise ConfigurationError(f"None of {', '.join(setup.models)} can bind tools.")
        override = config.get("configurable") or {}
        usual = setup.router.policy if setup.policy is None else setup.policy
        stated = override.get(f"{setup.prefix}_policy")
        policy = usual if stated is None else RoutingPolicy.of_call(stated).within(usual)  # a call may not lift limits
        forced = override.get(f"{setup.prefix}_candidate") or None
        if forced is not None and forced not in setup.router.zoo:
            raise ZooError(
                f"{setup.prefix}_candidate names {forced!r:.100}; {setup.router.zoo.hint(str(forced))} Where it is "
                "meant for another router of the same graph, give each its own keys: ChatMSAT(prefix=…)."
            )
        ask = RoutingAsk.of(
            setup.router,
            turns_of(messages, scope=setup.prefix, names=frozenset(setup.models)),
            sticky=setup.sticky,
            tools=tools,
            among=among,
            policy=policy,
            forced=forced,
            instruction=setup.instruction_of(messages) if setup.instruction_of else None,
            extra_chars=_size_of_tools(options),
            facts=setup.models.facts(),
            conversation=conversation_of(config),
            observers=setup.observers,
        )
        return cls(setup, messages, config, options, ask)

    # --- who is tried ---

    def attempts(self) -> Attempts:
        """The candidates to try; blocks while the scorer runs."""
        return self._attempts(self._given() or self.ask.decide())

    async def aattempts(self) -> Attempts:
        """The candidates to try; the event loop stays free."""
        return self._attempts(self._given() or await self.ask.adecide())

    def _attempts(self, decision: RoutingDecision) -> Attempts:
        return self.ask.attempts(decision, self.setup.fallback, passes=from_callbacks, usage_of=usage_of)

    def _given(self) -> RoutingDecision | None:
        decision: RoutingDecision | Exception | None = self.bound.get(DECISION)
        if isinstance(decision, Exception):
            raise decision
        return decision

    # --- calling a candidate ---

    def invoke(self, attempts: Attempts) -> Callable[[Attempt], Any]:
        """A function that lets a candidate answer."""

        def answer(attempt: Attempt) -> Any:
            prepared = PreparedCall(self, attempts, attempt)
            while True:
                try:
                    return prepared.checked(prepared.start("invoke"))
                except TypeError as error:
                    prepared.drop_unknown(error)

        return answer

    def ainvoke(self, attempts: Attempts) -> Callable[[Attempt], Any]:
        """Like :meth:`invoke`."""

        async def answer(attempt: Attempt) -> Any:
            prepared = PreparedCall(self, attempts, attempt)
            while True:
                try:
                    return prepared.checked(await prepared.start("ainvoke"))
                except TypeError as error:
                    prepared.drop_unknown(error)

        return answer

    def stream(self, attempts: Attempts, method: str = "stream", **fixed: Any) -> Callable[[Attempt], Iterator[Any]]:
        """A function that opens a candidate's stream."""

        def chunks(attempt: Attempt) -> Iterator[Any]:
            prepared = PreparedCall(self, attempts, attempt)
            while True:
                try:
                    yield from prepared.start(method, **fixed)
                    return
                except TypeError as error:
                    prepared.drop_unknown(error)

        return chunks

    def astream(
        self, attempts: Attempts, method: str = "astream", **fixed: Any
    ) -> Callable[[Attempt], AsyncIterator[Any]]:
        """Like :meth:`stream`."""

        async def chunks(attempt: Attempt) -> AsyncIterator[Any]:
            prepared = PreparedCall(self, attempts, attempt)
            while True:
                started = prepared.start(method, **fixed)
                stream = await started if inspect.isawaitable(started) else started
                try:
                    async for chunk in stream:
                        yield chunk
                    return
                except TypeError as error:
                    prepared.drop_unknown(error)
                finally:
                    if hasattr(stream, "aclose"):
                        await stream.aclose()

        return chunks

    # --- the decision in the answer ---

    def tag(self, attempts: Attempts) -> dict[str, Any]:
        """The decision under the names that the caller uses."""
        setup = self.setup
        return tag_of(attempts, self.ask, setup.name_of, scope=setup.prefix, top_scores=setup.top_scores)

    def tagged(self, output: Any, attempts: Attempts) -> Any:
        """The output with the decision in its metadata."""
        return tagged(output, {**self.tag(attempts), **_ending(output)})

    def teller(self, attempts: Attempts) -> Callable[[Any], Any]:
        """A function that passes chunks on: the first with the decision, the last with an ending that is missing."""
        key, reason = "", None

        def relay(chunk: Any) -> Any:
            nonlocal key, reason
            if isinstance(chunk, AIMessage):
                reason = reason or finish_reason(chunk)
            if not key:
                key, chunk = self.setup.name_of(str(attempts.current)), tagged(chunk, self.tag(attempts))
            if getattr(chunk, "chunk_position", None) == "last" and self.setup.models.lacks_reason(key, reason):
                tag = chunk.response_metadata.get(TAG, {})
                metadata = {**chunk.response_metadata, TAG: {**tag, "finish_reason": None}}
                chunk = chunk.model_copy(update={"response_metadata": metadata})
            return chunk

        return relay


def _size_of_tools(options: Mapping[str, Any]) -> int:
    """Characters of the tools' schemas as they are sent."""
    return sum(len(json.dumps(tool, default=str)) for tool in options.get("tools", ()) if isinstance(tool, dict))


def _ending(output: Any) -> dict[str, Any]:
    """What is to be told of an answer that looks unfinished."""
    message = output.get("raw") if isinstance(output, dict) else output
    if not isinstance(message, AIMessage):
        return {}
    return {"finish_reason": finish_reason(message), **({"empty": True} if is_empty(message) else {})}


def asks_of(
    setup: Setup, inputs: Sequence[LanguageModelInput], configs: Sequence[RunnableConfig], bound: Mapping[str, Any]
) -> list[RoutingAsk | Exception]:
    """What each of many calls asks of the router; an error where a call cannot be read."""
    asks: list[RoutingAsk | Exception] = []
    for prompt, config in zip(inputs, configs, strict=True):
        try:
            asks.append(RoutedCall.of(setup, prompt, config, bound).ask)
        except Exception as error:
            asks.append(error)
    return asks


def decisions_of(
    setup: Setup, inputs: Sequence[LanguageModelInput], configs: Sequence[RunnableConfig], bound: Mapping[str, Any]
) -> list[RoutingDecision | Exception]:
    """A decision or its error for each of many calls, with one scorer call."""
    return decide_all(asks_of(setup, inputs, configs, bound))
