"""`ChatMSAT`: a chat model that routes each call to the candidate most likely to answer it well.

It overrides what a Runnable does (invoke, stream, batch, …) and not what a chat model generates: a call is one
chain run with exactly one LLM run below it, the chosen candidate's own. Calling a candidate from inside
``_generate`` would report every token and every usage twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from typing import Any, cast

from langchain_core.callbacks import (
    AsyncCallbackManagerForLLMRun,
    CallbackManagerForChainRun,
    CallbackManagerForLLMRun,
    Callbacks,
)
from langchain_core.language_models import BaseChatModel, LangSmithParams, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult, LLMResult
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import (
    ensure_config,
    get_config_list,
    get_executor_for_config,
    merge_configs,
)
from langchain_core.runnables.utils import gather_with_concurrency
from langchain_core.tools import BaseTool
from pydantic import BaseModel, Field, PrivateAttr, SkipValidation

from langchain_msat.candidates import CandidateModels, ChatRunnable, common_profile
from langchain_msat.messages import turns_of
from langchain_msat.routed_call import DECISION, STRUCTURED, TOOLS, RoutedCall
from msat_core.errors import ConfigurationError
from msat_core.routing.dispatch import (
    Attempts,
    Fallback,
    Sticky,
    afirst_answer,
    afirst_stream,
    first_answer,
    first_stream,
    read_conversation,
)
from msat_core.routing.policy import RoutingDecision, RoutingPolicy
from msat_core.scoring.base import check_instructions


class ChatMSAT(BaseChatModel):
    """A chat model over candidates; see the module.

    Args:
        candidates: chat models (or bindings, fallbacks, ``init_chat_model`` strings) by the name or an alias of a
            candidate in the router's zoo.
        router: scores and chooses; default: the shipped one.
        policy: in place of the router's.
        sticky: how long a candidate keeps a conversation: ``turn`` (a tool loop), ``conversation`` or ``never``.
        fallback: who comes next when a candidate fails, and how far to go.
        instruction_of: maps the messages to the text to score, in place of the last real instruction; None falls
            back to it.

    ``config["configurable"]`` may hold ``msat_candidate`` (a name that must be used) and ``msat_policy``.
    The decision is in ``response_metadata["msat"]`` of the answer (of its first chunk, when streaming).

    Raises:
        ZooError: a name is not in the zoo.
    """

    candidates: Mapping[str, SkipValidation[Any]] = Field(exclude=True, repr=False)
    router: SkipValidation[Any] = Field(default=None, exclude=True, repr=False)
    policy: RoutingPolicy | None = None
    sticky: Sticky = "turn"
    fallback: Fallback = Field(default_factory=Fallback)
    instruction_of: SkipValidation[Callable[[list[BaseMessage]], str | None] | None] = Field(
        default=None, exclude=True, repr=False
    )

    _models: CandidateModels = PrivateAttr()
    _key_of: dict[str, str] = PrivateAttr()  # the caller's name for each candidate of the zoo

    def __init__(self, candidates: Mapping[str, Any], **fields: Any) -> None:
        models = CandidateModels(candidates)
        if "profile" not in fields:
            fields["profile"] = common_profile(models.resolved()) if len(models.resolved()) == len(candidates) else None
        if fields.get("router") is None:
            from msat_core.routing.router import Router

            fields["router"] = Router.from_pretrained()
        super().__init__(candidates=candidates, **fields)
        self._models = models
        self._key_of = {self.router.zoo[name].name: name for name in candidates}
        if len(self._key_of) < len(candidates):
            raise ConfigurationError(f"Two of {', '.join(candidates)} are the same candidate: give each once.")

    @classmethod
    def from_pretrained(cls, candidates: Mapping[str, Any], *, zoo: Any = None, **fields: Any) -> ChatMSAT:
        """A router with the shipped scorer; see :class:`ChatMSAT`.

        Args:
            candidates: chat models by candidate name or alias.
            zoo: a zoo or a zoo file in place of the shipped one.
            **fields: of :class:`ChatMSAT`.
        """
        from msat_core.routing.router import Router

        return cls(candidates=candidates, router=Router.from_pretrained(zoo=zoo), **fields)

    @property
    def _llm_type(self) -> str:
        return "msat"

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop, **kwargs)
        params["ls_provider"] = self._llm_type
        params.setdefault("ls_model_name", self._llm_type)
        return params

    # --- what callers may bind ---

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """A binding of the router; the chosen candidate's own ``bind_tools`` is called when it is known."""
        choice = {} if tool_choice is None else {"tool_choice": tool_choice}
        return self.bind(tools=list(tools), **choice, **kwargs)

    def with_structured_output(
        self, schema: dict[str, Any] | type, *, include_raw: bool = False, **kwargs: Any
    ) -> Runnable[LanguageModelInput, dict[str, Any] | BaseModel]:
        """Output as the chosen candidate's own ``with_structured_output`` gives it."""
        bound = self.bind(**{STRUCTURED: (schema, {"include_raw": include_raw, **kwargs})})
        return cast("Runnable[LanguageModelInput, dict[str, Any] | BaseModel]", bound)

    # --- one call ---

    def invoke(self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any) -> AIMessage:
        """Route, then call the chosen candidate."""

        def run(
            messages_in: LanguageModelInput, run_manager: CallbackManagerForChainRun, config: RunnableConfig
        ) -> AIMessage:
            call = self._call(messages_in, config, kwargs)
            attempts = self._attempts(call.decide())
            output = first_answer(attempts, lambda name: call.runnable(name).invoke(*call.args, **call.kwargs))
            return cast("AIMessage", call.tagged(output, attempts))

        return self._call_with_config(run, input, self._config(config))

    async def ainvoke(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AIMessage:
        """Like :meth:`invoke`; the scorer runs off the event loop."""

        async def run(messages_in: LanguageModelInput, run_manager: Any, config: RunnableConfig) -> AIMessage:
            call = self._call(messages_in, config, kwargs)
            attempts = self._attempts(await call.adecide())
            output = await afirst_answer(attempts, lambda name: call.runnable(name).ainvoke(*call.args, **call.kwargs))
            return cast("AIMessage", call.tagged(output, attempts))

        return await self._acall_with_config(run, input, self._config(config))

    def stream(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[AIMessageChunk]:
        """The chosen candidate's chunks; another candidate is tried only before the first has gone out."""

        def run(
            inputs: Iterator[Any], run_manager: CallbackManagerForChainRun, config: RunnableConfig
        ) -> Iterator[Any]:
            call = self._call(next(inputs), config, kwargs)
            attempts = self._attempts(call.decide())
            opened = first_stream(attempts, lambda name: call.runnable(name).stream(*call.args, **call.kwargs))
            with contextlib.closing(opened.rest):
                if opened.first is not None:
                    yield call.tagged(opened.first, attempts)
                    yield from opened.rest

        chunks = self._transform_stream_with_config(iter([input]), run, self._config(config))
        yield from cast("Iterator[AIMessageChunk]", chunks)

    async def astream(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[AIMessageChunk]:
        """Like :meth:`stream`."""

        async def run(inputs: AsyncIterator[Any], run_manager: Any, config: RunnableConfig) -> AsyncIterator[Any]:
            call = self._call(await anext(inputs), config, kwargs)
            attempts = self._attempts(await call.adecide())

            async def start(name: str) -> AsyncIterator[Any]:
                return call.runnable(name).astream(*call.args, **call.kwargs)

            opened = await afirst_stream(attempts, start)
            async with contextlib.aclosing(opened.rest):
                if opened.first is not None:
                    yield call.tagged(opened.first, attempts)
                    async for chunk in opened.rest:
                        yield chunk

        async def inputs() -> AsyncIterator[Any]:
            yield input

        async for chunk in self._atransform_stream_with_config(inputs(), run, self._config(config)):
            yield cast("AIMessageChunk", chunk)

    def stream_events(self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """As every Runnable's; version "v3" is the chosen candidate's own stream, without fallback."""
        if kwargs.get("version") != "v3":
            return Runnable.stream_events(self, input, config, **kwargs)
        call = self._call(input, self._config(config), kwargs)
        return call.runnable(call.decide().candidate).stream_events(*call.args, **call.kwargs)

    def astream_events(self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Like :meth:`stream_events`."""
        if kwargs.get("version") != "v3":
            return Runnable.astream_events(self, input, config, **kwargs)
        return self._astream_events_v3(input, self._config(config), kwargs)

    async def _astream_events_v3(
        self, input: LanguageModelInput, config: RunnableConfig, kwargs: dict[str, Any]
    ) -> Any:
        call = self._call(input, config, kwargs)
        chosen = call.runnable((await call.adecide()).candidate)
        return await cast("Awaitable[Any]", chosen.astream_events(*call.args, **call.kwargs))

    # --- many calls, one scorer call ---

    def batch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[AIMessage]:
        """Route all inputs with one scorer call, then call the chosen candidates concurrently."""
        found: dict[int, Any] = dict(
            self.batch_as_completed(inputs, config, return_exceptions=return_exceptions, **kwargs)
        )
        return [found[i] for i in range(len(inputs))]

    def batch_as_completed(  # type: ignore[override]
        self,
        inputs: Sequence[LanguageModelInput],
        config: RunnableConfig | Sequence[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> Iterator[tuple[int, AIMessage | Exception]]:
        """Like :meth:`batch`, each answer as it comes."""
        if not inputs:
            return
        configs = get_config_list(config, len(inputs))
        decisions = self._decide_all(inputs, configs, kwargs)

        def one(i: int) -> tuple[int, AIMessage | Exception]:
            try:
                return i, self.invoke(inputs[i], configs[i], **kwargs, **{DECISION: decisions[i]})
            except Exception as error:
                if not return_exceptions:
                    raise
                return i, error

        with get_executor_for_config(configs[0]) as executor:
            waiting = {executor.submit(one, i) for i in range(len(inputs))}
            try:
                while waiting:
                    done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                    for future in done:
                        yield future.result()
            finally:
                for future in waiting:
                    future.cancel()

    async def abatch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[AIMessage]:
        """Like :meth:`batch`."""
        calls, configs = await self._acalls(inputs, config, return_exceptions, kwargs)
        limit = configs[0].get("max_concurrency") if configs else None
        return [output for _, output in await gather_with_concurrency(limit, *calls)]

    async def abatch_as_completed(  # type: ignore[override]
        self,
        inputs: Sequence[LanguageModelInput],
        config: RunnableConfig | Sequence[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> AsyncIterator[tuple[int, AIMessage | Exception]]:
        """Like :meth:`batch_as_completed`."""
        calls, configs = await self._acalls(inputs, config, return_exceptions, kwargs)
        limit = asyncio.Semaphore((configs[0].get("max_concurrency") if configs else None) or max(1, len(calls)))

        async def bounded(call: Awaitable[tuple[int, Any]]) -> tuple[int, Any]:
            async with limit:
                return await call

        for next_done in asyncio.as_completed([bounded(call) for call in calls]):
            yield await next_done

    async def _acalls(
        self, inputs: Sequence[LanguageModelInput], config: Any, return_exceptions: bool, kwargs: dict[str, Any]
    ) -> tuple[list[Coroutine[Any, Any, tuple[int, Any]]], list[RunnableConfig]]:
        if not inputs:
            return [], []
        configs = get_config_list(config, len(inputs))
        decisions = await asyncio.to_thread(self._decide_all, inputs, configs, kwargs)

        async def one(i: int) -> tuple[int, Any]:
            try:
                return i, await self.ainvoke(inputs[i], configs[i], **kwargs, **{DECISION: decisions[i]})
            except Exception as error:
                if not return_exceptions:
                    raise
                return i, error

        return [one(i) for i in range(len(inputs))], configs

    def generate(
        self,
        messages: list[list[BaseMessage]],
        stop: list[str] | None = None,
        callbacks: Callbacks = None,
        *,
        run_id: uuid.UUID | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        """One generation for each list of messages, routed with one scorer call."""
        configs, options = _configs(len(messages), callbacks, run_id, kwargs)
        return _result(self.batch(cast("list[Any]", messages), configs, stop=stop, **options))

    async def agenerate(
        self,
        messages: list[list[BaseMessage]],
        stop: list[str] | None = None,
        callbacks: Callbacks = None,
        *,
        run_id: uuid.UUID | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        """Like :meth:`generate`."""
        configs, options = _configs(len(messages), callbacks, run_id, kwargs)
        return _result(await self.abatch(cast("list[Any]", messages), configs, stop=stop, **options))

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        callbacks = cast("Any", run_manager).get_child() if hasattr(run_manager, "get_child") else None
        message = self.invoke(messages, {"callbacks": callbacks}, stop=stop, **kwargs)
        return ChatResult(generations=[ChatGeneration(message=message)])

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        callbacks = cast("Any", run_manager).get_child() if hasattr(run_manager, "get_child") else None
        message = await self.ainvoke(messages, {"callbacks": callbacks}, stop=stop, **kwargs)
        return ChatResult(generations=[ChatGeneration(message=message)])

    # --- deciding ---

    def _config(self, config: RunnableConfig | None) -> RunnableConfig:
        """The call's configuration with the callbacks, tags and metadata that this object was given."""
        own: RunnableConfig = {}
        if self.callbacks is not None:
            own["callbacks"] = self.callbacks
        if self.tags:
            own["tags"] = self.tags
        if self.metadata:
            own["metadata"] = self.metadata
        return merge_configs(own, ensure_config(config)) if own else ensure_config(config)

    def _call(self, input: LanguageModelInput, config: RunnableConfig, kwargs: dict[str, Any]) -> RoutedCall:
        messages = self._convert_input(input).to_messages()
        reading = read_conversation(turns_of(messages), sticky=self.sticky)
        hooked = self.instruction_of(messages) if self.instruction_of else None
        if hooked is not None:
            reading = dataclasses.replace(reading, instruction=hooked)
        tools = bool(kwargs.get(TOOLS)) or STRUCTURED in kwargs
        names = frozenset(self.candidates)
        among = names & self._models.with_tools() if tools else names
        if not among:
            raise ConfigurationError(f"None of {', '.join(self.candidates)} can bind tools.")
        return RoutedCall(self, messages, config, dict(kwargs), reading, reading.request(tools=tools, among=among))

    def model_of(self, name: str) -> ChatRunnable:
        """What stands behind a candidate of the zoo."""
        return self._models[self._key_of[name]]

    def key_of(self, name: str) -> str:
        """The caller's name for a candidate of the zoo."""
        return self._key_of.get(name, name)

    def _attempts(self, decision: RoutingDecision) -> Attempts:
        return Attempts(decision, self.router.zoo, self.fallback)

    def _decide_all(
        self, inputs: Sequence[LanguageModelInput], configs: list[RunnableConfig], kwargs: dict[str, Any]
    ) -> list[RoutingDecision | Exception]:
        """A decision for each input; one scorer call a policy."""
        found: list[RoutingDecision | Exception | None] = [None] * len(inputs)
        open_calls: dict[str, list[tuple[int, RoutedCall]]] = {}
        for i, (given, config) in enumerate(zip(inputs, configs, strict=True)):
            try:
                call = self._call(given, config, kwargs)
                found[i] = call.settled()
                if found[i] is None:
                    check_instructions([call.instruction])
                    open_calls.setdefault(call.policy_key(), []).append((i, call))
            except Exception as error:
                found[i] = error
        for calls in open_calls.values():
            decisions = self.router.route_batch(
                [call.instruction for _, call in calls],
                policy=calls[0][1].policy,
                requests=[call.request for _, call in calls],
            )
            for (i, _), decision in zip(calls, decisions, strict=True):
                found[i] = decision
        return cast("list[RoutingDecision | Exception]", found)


def _configs(
    n: int, callbacks: Callbacks, run_id: uuid.UUID | None, kwargs: dict[str, Any]
) -> tuple[list[RunnableConfig], dict[str, Any]]:
    """A configuration for each of ``generate``'s inputs, and what is left of its keywords."""
    shared = {key: kwargs.pop(key) for key in ("tags", "metadata", "run_name") if kwargs.get(key) is not None}
    ids = [run_id] + [None] * (n - 1) if run_id else [None] * n
    base = cast("RunnableConfig", {"callbacks": callbacks, **shared})
    return [cast("RunnableConfig", {**base, **({"run_id": i} if i else {})}) for i in ids], kwargs


def _result(messages: list[AIMessage]) -> LLMResult:
    return LLMResult(generations=[[ChatGeneration(message=message)] for message in messages], llm_output={})
