"""`ChatMSAT`: a chat model that routes each call to the candidate most likely to answer it well.

It overrides what a Runnable does (invoke, stream, batch, …) and not what a chat model generates: a call is one
chain run with exactly one LLM run below it, the chosen candidate's own. Calling a candidate from inside
``_generate`` would report every token and every usage twice.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any, cast

from langchain_core.language_models import BaseChatModel, LangSmithParams, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import ensure_config, merge_configs
from pydantic import BaseModel, Field, PrivateAttr, SkipValidation

from langchain_msat.batches import BatchedCalls
from langchain_msat.candidates import CandidateModels, ChatRunnable, leaves
from langchain_msat.routed_call import STRUCTURED, RoutedCall
from msat_core import (
    Fallback,
    Router,
    RoutingPolicy,
    Sticky,
    afirst_answer,
    afirst_stream,
    first_answer,
    first_stream,
    names_of,
)


class ChatMSAT(BatchedCalls, BaseChatModel):  # type: ignore[misc]  # a Runnable's batches, typed for every input
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

    ``config["configurable"]`` may hold ``msat_candidate`` (a name that must be used, within the policy's limits) and
    ``msat_policy``. The decision is in ``response_metadata["msat"]`` of the answer (of its first chunk, when
    streaming; of the LLM run's metadata, in v3 events). Caches, rate limits and token limits are the candidates' own.

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
        fields.setdefault("profile", models.common_profile())
        if fields.get("router") is None:
            fields["router"] = Router.from_pretrained()
        super().__init__(candidates=candidates, **fields)
        self._models = models
        self._key_of = names_of(self.router.zoo, candidates)

    @classmethod
    def from_pretrained(cls, candidates: Mapping[str, Any], *, zoo: Any = None, **fields: Any) -> ChatMSAT:
        """A router with the shipped scorer; see :class:`ChatMSAT`.

        Args:
            candidates: chat models by candidate name or alias.
            zoo: a zoo or a zoo file in place of the shipped one.
            **fields: of :class:`ChatMSAT`.
        """
        from msat_core import Router

        return cls(candidates=candidates, router=Router.from_pretrained(zoo=zoo), **fields)

    @property
    def models(self) -> CandidateModels:
        """What stands behind the candidates, by the caller's names."""
        return self._models

    def model_of(self, name: str) -> ChatRunnable:
        """What stands behind a candidate of the zoo."""
        return self._models[self._key_of[name]]

    def key_of(self, name: str) -> str:
        """The caller's name for a candidate of the zoo."""
        return self._key_of.get(name, name)

    @property
    def _llm_type(self) -> str:
        return "msat"

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop, **kwargs)
        params["ls_provider"] = self._llm_type
        params.setdefault("ls_model_name", self._llm_type)
        return params

    def get_num_tokens(self, text: str) -> int:
        """The most tokens that any candidate counts in a text: each could be chosen for it."""
        return max(int(leaf.get_num_tokens(text)) for leaf in self._leaves())

    def get_num_tokens_from_messages(self, messages: list[BaseMessage], tools: Sequence[Any] | None = None) -> int:
        """The most tokens that any candidate counts in messages."""
        return max(int(leaf.get_num_tokens_from_messages(messages, tools)) for leaf in self._leaves())

    def _leaves(self) -> list[Any]:
        return [leaf for name in self.candidates for leaf in leaves(self._models[name])]

    # --- what callers may bind ---

    def bind_tools(
        self, tools: Sequence[Any], *, tool_choice: str | None = None, **kwargs: Any
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

        def run(given: LanguageModelInput, run_manager: Any, config: RunnableConfig) -> AIMessage:
            call = RoutedCall.of(self, given, config, kwargs)
            attempts = call.attempts()
            return cast("AIMessage", call.tagged(first_answer(attempts, call.through("invoke")), attempts))

        return self._call_with_config(run, input, self._config(config))

    async def ainvoke(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AIMessage:
        """Like :meth:`invoke`; the scorer runs off the event loop."""

        async def run(given: LanguageModelInput, run_manager: Any, config: RunnableConfig) -> AIMessage:
            call = RoutedCall.of(self, given, config, kwargs)
            attempts = await call.aattempts()
            return cast("AIMessage", call.tagged(await afirst_answer(attempts, call.through("ainvoke")), attempts))

        return await self._acall_with_config(run, input, self._config(config))

    def stream(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[AIMessageChunk]:
        """The chosen candidate's chunks; another candidate is tried only before the first has gone out."""

        def run(inputs: Iterator[Any], run_manager: Any, config: RunnableConfig) -> Iterator[Any]:
            call = RoutedCall.of(self, next(inputs), config, kwargs)
            attempts = call.attempts()
            opened = first_stream(attempts, call.through("stream"))
            yield from dataclasses.replace(opened, first=call.tagged(opened.first, attempts))

        chunks = self._transform_stream_with_config(iter([input]), run, self._config(config))
        yield from cast("Iterator[AIMessageChunk]", chunks)

    async def astream(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[AIMessageChunk]:
        """Like :meth:`stream`."""

        async def run(inputs: AsyncIterator[Any], run_manager: Any, config: RunnableConfig) -> AsyncIterator[Any]:
            call = RoutedCall.of(self, await anext(inputs), config, kwargs)
            attempts = await call.aattempts()
            opened = await afirst_stream(attempts, call.through("astream"))
            tagged = dataclasses.replace(opened, first=call.tagged(opened.first, attempts))
            async with contextlib.aclosing(aiter(tagged)) as chunks:
                async for chunk in chunks:
                    yield chunk

        async def inputs() -> AsyncIterator[Any]:
            yield input

        chunks = self._atransform_stream_with_config(inputs(), run, self._config(config))
        async with contextlib.aclosing(cast("Any", chunks)):
            async for chunk in chunks:
                yield cast("AIMessageChunk", chunk)

    def stream_events(self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """As every Runnable's; version "v3" is the chosen candidate's own stream, the next best's if it fails to open.

        A v3 stream is an object that its reader pumps, so there is no chain run around it: the decision is in the
        metadata of the candidate's run.
        """
        if kwargs.get("version") != "v3":
            return Runnable.stream_events(self, input, config, **kwargs)
        call = RoutedCall.of(self, input, self._config(config), kwargs)
        attempts = call.attempts()

        def opened(name: str) -> Any:
            stream = call.traced(attempts).through("stream_events")(name)
            next(iter(stream), None)  # the first event stays in the stream's buffer for its readers
            return stream

        return first_answer(attempts, opened)

    def astream_events(self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Like :meth:`stream_events`."""
        if kwargs.get("version") != "v3":
            return Runnable.astream_events(self, input, config, **kwargs)
        return self._astream_events_v3(RoutedCall.of(self, input, self._config(config), kwargs))

    async def _astream_events_v3(self, call: RoutedCall) -> Any:
        attempts = await call.aattempts()

        async def opened(name: str) -> Any:
            stream = await call.traced(attempts).through("astream_events")(name)
            try:
                await anext(aiter(stream), None)
            except BaseException:
                await stream.aclose()  # its producer is a task of its own, which a timeout here does not end
                raise
            return stream

        return await afirst_answer(attempts, opened)

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        """A chat model must have this hook; nothing here comes through it."""
        return ChatResult(generations=[ChatGeneration(message=self.invoke(messages, **kwargs))])

    def _config(self, config: RunnableConfig | None) -> RunnableConfig:
        """The call's configuration with the callbacks, tags and metadata that this object was given."""
        own = {"callbacks": self.callbacks, "tags": self.tags, "metadata": self.metadata}
        given = {key: value for key, value in own.items() if value}
        return merge_configs(cast("RunnableConfig", given), ensure_config(config))
