"""One call on its way from its messages to a candidate."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import BaseMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import merge_configs

from langchain_msat.candidates import ChatRunnable, rewrapped
from langchain_msat.messages import TAG, tagged, turns_of
from msat_core import Ask, Attempts, ConfigurationError, RoutingDecision

if TYPE_CHECKING:
    from langchain_msat.chat_model import ChatMSAT

TOOLS = "tools"
STRUCTURED = "msat_structured"  # a bound key: (schema, options) for the candidate's own with_structured_output
DECISION = "msat_decision"  # a keyword of ChatMSAT's own calls: a decision already made
_WITH_TOOLS = ("stop", "version")  # keywords that a call takes even where its tools are bound to the candidate


@dataclasses.dataclass(frozen=True)
class RoutedCall:
    """One call on its way: what it holds, what it asks of the router, and how a candidate is called for it."""

    chat: ChatMSAT
    messages: list[BaseMessage]
    config: RunnableConfig
    bound: dict[str, Any]  # keyword arguments, bound or given with the call
    ask: Ask

    @classmethod
    def of(cls, chat: ChatMSAT, given: LanguageModelInput, config: RunnableConfig, bound: dict[str, Any]) -> RoutedCall:
        """Read a call of the router."""
        messages = chat._convert_input(given).to_messages()
        tools = bool(bound.get(TOOLS)) or STRUCTURED in bound
        among = chat.models.with_tools() if tools else frozenset(chat.candidates)
        if not among:
            raise ConfigurationError(f"None of {', '.join(chat.candidates)} can bind tools.")
        override = config.get("configurable") or {}
        ask = Ask.of(
            chat.router,
            turns_of(messages),
            sticky=chat.sticky,
            tools=tools,
            among=among,
            policy=override.get("msat_policy", chat.policy),
            forced=override.get("msat_candidate"),
            instruction=chat.instruction_of(messages) if chat.instruction_of else None,
        )
        return cls(chat, messages, config, bound, ask)

    def attempts(self) -> Attempts:
        """The candidates to try; blocks while the scorer runs."""
        return self._attempts(self._given() or self.ask.decide())

    async def aattempts(self) -> Attempts:
        """The candidates to try; the event loop stays free."""
        return self._attempts(self._given() or await self.ask.adecide())

    def _attempts(self, decision: RoutingDecision) -> Attempts:
        return Attempts(decision, self.chat.router.zoo, self.chat.fallback)

    def _given(self) -> RoutingDecision | None:
        given: RoutingDecision | Exception | None = self.bound.get(DECISION)
        if isinstance(given, Exception):
            raise given
        return given

    def through(self, method: str) -> Callable[[str], Any]:
        """A function that calls a method of the candidate that it is given the name of."""
        return lambda name: getattr(self._runnable(name), method)(self.messages, self.config, **self._options())

    def traced(self, attempts: Attempts) -> RoutedCall:
        """The same call with the decision in its run's metadata."""
        config = merge_configs(self.config, {"metadata": {TAG: attempts.report(self.chat.key_of)}})
        return dataclasses.replace(self, config=config)

    def tagged(self, output: Any, attempts: Attempts) -> Any:
        """The output with the decision in its metadata, under the names that the caller uses."""
        return tagged(output, attempts.report(self.chat.key_of))

    def _runnable(self, name: str) -> ChatRunnable:
        """The candidate, with the call's tools or output schema bound in its own way."""
        model = self.chat.model_of(name)
        if TOOLS in self.bound:
            options = {key: value for key, value in self.bound.items() if key not in (TOOLS, DECISION, *_WITH_TOOLS)}
            return rewrapped(model, lambda leaf: leaf.bind_tools(self.bound[TOOLS], **options))
        if STRUCTURED in self.bound:
            schema, options = self.bound[STRUCTURED]
            return rewrapped(model, lambda leaf: leaf.with_structured_output(schema, **options))
        return model

    def _options(self) -> dict[str, Any]:
        """Keyword arguments that are not bound by :meth:`_runnable`."""
        given = {key: value for key, value in self.bound.items() if value is not None}
        kept = _WITH_TOOLS if TOOLS in self.bound else given.keys() - {STRUCTURED, DECISION}
        return {key: given[key] for key in given if key in kept}


def asks_of(
    chat: ChatMSAT, inputs: Sequence[LanguageModelInput], configs: Sequence[RunnableConfig], bound: dict[str, Any]
) -> list[Ask | Exception]:
    """What each of many calls asks of the router; an error where a call cannot be read."""
    asks: list[Ask | Exception] = []
    for given, config in zip(inputs, configs, strict=True):
        try:
            asks.append(RoutedCall.of(chat, given, config, bound).ask)
        except Exception as error:
            asks.append(error)
    return asks
