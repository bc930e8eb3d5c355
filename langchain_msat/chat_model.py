"""`ChatMSAT`: a chat model that routes each call to the candidate most likely to answer it well.

It overrides what a Runnable does (invoke, stream, batch, …) and not what a chat model generates: a call is one
chain run with exactly one LLM run below it, the chosen candidate's own. Calling a candidate from inside
``_generate`` would report every token and every usage twice.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any, cast

from langchain_core.language_models import LangSmithParams, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import ensure_config, merge_configs
from langchain_core.runnables.utils import ConfigurableFieldSpec
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import BaseModel, Field, PrivateAttr, SkipValidation

from langchain_msat.batches import RoutedBatches
from langchain_msat.bindings import AlternativeChat, ConfigurableChat, StructuredChat, check_schema
from langchain_msat.candidates import CandidateModels, by_name, router_over
from langchain_msat.events import arouted_events, routed_events
from langchain_msat.messages import says_something, tags_of
from langchain_msat.prepared_call import STRUCTURED, BoundTool
from langchain_msat.routed_call import RoutedCall, Setup
from langchain_msat.settings import SHARED, check_fields, token_count
from msat_core import (
    TAG,
    TOP_SCORES,
    Fallback,
    FeedbackSource,
    Observer,
    Router,
    RoutingPolicy,
    Sticky,
    afirst_answer,
    afirst_stream,
    first_answer,
    first_stream,
    learn_from,
    names_in_zoo,
    observers_of,
)


class ChatMSAT(RoutedBatches):
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
        prefix: how this router's keys in ``config["configurable"]`` begin; give each router of a graph its own.
        top_scores: how many scores the answer's metadata lists, best first; None for all.
        abilities: what ``profile`` says: what ``every`` candidate can do, or what ``some`` candidate can.
        decisions: where every call is recorded, beside where the router records: a file, or as of
            :class:`msat_core.Router`.

    ``config["configurable"]`` may hold ``msat_candidate`` (a name that must be used, within the policy's limits) and
    ``msat_policy``. The decision is in ``response_metadata["msat"]`` of the answer (of its first chunk, when
    streaming; of the LLM run's metadata too, in v3 events). ``cache``, ``rate_limiter``, ``disable_streaming`` and
    ``output_version`` hold for each candidate that has not set its own; other settings are the candidates'.

    Raises:
        ZooError: a name is not in the zoo.
        ConfigurationError: a setting that does not exist, or a candidate that is no chat model.
    """

    candidates: Mapping[str, SkipValidation[Any]] = Field(exclude=True, repr=False)
    router: SkipValidation[Router] = Field(exclude=True, repr=False)
    policy: RoutingPolicy | None = None
    sticky: Sticky = "turn"
    fallback: Fallback = Field(default_factory=Fallback)
    instruction_of: SkipValidation[Callable[[list[BaseMessage]], str | None] | None] = Field(
        default=None, exclude=True, repr=False
    )
    prefix: str = TAG
    top_scores: int | None = TOP_SCORES
    abilities: str = "every"
    decisions: SkipValidation[Any] = Field(default=None, exclude=True, repr=False)

    _models: CandidateModels = PrivateAttr()
    _key_of: dict[str, str] = PrivateAttr()  # the caller's name for each candidate of the zoo
    _observers: tuple[Observer, ...] = PrivateAttr()

    def __init__(self, candidates: Mapping[str, Any], **fields: Any) -> None:
        check_fields(type(self), fields)
        models = CandidateModels(candidates, {name: fields[name] for name in SHARED if fields.get(name) is not None})
        widest = fields.get("abilities") == "some"
        fields.setdefault("profile", models.widest_profile() if widest else models.common_profile())
        if fields.get("router") is None:
            fields["router"] = router_over(candidates)
        super().__init__(candidates=candidates, **fields)
        self._models = models
        self._key_of = names_in_zoo(self.router.zoo, candidates)
        self._observers = observers_of(self.decisions)
        if self.policy is not None:
            self.router.check_names(self.policy)

    @classmethod
    def from_pretrained(
        cls, candidates: Mapping[str, Any] | Sequence[str], *, zoo: Any = None, **fields: Any
    ) -> ChatMSAT:
        """A router with the shipped scorer; see :class:`ChatMSAT`.

        Args:
            candidates: chat models by candidate name or alias, or ``init_chat_model`` strings alone, such as
                ``["openai:gpt-5-mini", "anthropic:claude-sonnet-4.5"]``.
            zoo: a zoo or a zoo file in place of the shipped one.
            **fields: of :class:`ChatMSAT`.
        """
        named = candidates if isinstance(candidates, Mapping) else by_name(candidates)
        return cls(candidates=named, router=router_over(named, zoo), **fields)

    @property
    def _setup(self) -> Setup:
        return Setup(
            self.router,
            self._models,
            self._key_of,
            self.policy,
            self.sticky,
            self.fallback,
            self.instruction_of,
            self.prefix,
            self.top_scores,
            self._observers,
        )

    @property
    def _llm_type(self) -> str:
        return "msat"

    @property
    def model_name(self) -> str | None:
        """What agents look a model's abilities up by: see :meth:`CandidateModels.model_name`."""
        return self._models.model_name()

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        """The candidates' provider where they share one: middleware reads usage by it."""
        params = super()._get_ls_params(stop=stop, **kwargs)
        params["ls_provider"] = self._models.provider() or self._llm_type
        params.setdefault("ls_model_name", self._llm_type)
        return params

    def get_num_tokens(self, text: str) -> int:
        """The most tokens that any candidate counts in a text: each could be chosen for it."""
        return token_count(self._models.leaves(), "get_num_tokens", text)

    def get_num_tokens_from_messages(self, messages: list[BaseMessage], tools: Sequence[Any] | None = None) -> int:
        """The most tokens that any candidate counts in messages."""
        return token_count(self._models.leaves(), "get_num_tokens_from_messages", messages, tools)

    def record(self, answer: BaseMessage, outcome: float, *, source: FeedbackSource = "user") -> None:
        """Learn from how right an answer of this router was: evidence about who gave it, without training.

        Args:
            answer: as it came, or as it was stored; its metadata says who answered what.
            outcome: in [0, 1]: a test's verdict, a judge's grade, a thumb (0 or 1).
            source: see :meth:`msat_core.Router.record`.
        """
        learn_from(self.router, next(iter(tags_of(answer)), None), outcome, source=source)

    # --- what callers may bind ---

    def bind_tools(
        self, tools: Sequence[Any], *, tool_choice: Any = None, **kwargs: Any
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """A binding of the router; the chosen candidate's own ``bind_tools`` is called when it is known."""
        choice = {} if tool_choice is None else {"tool_choice": tool_choice}
        bound = [tool if isinstance(tool, dict) else BoundTool(convert_to_openai_tool(tool), tool) for tool in tools]
        return self.bind(tools=bound, **choice, **kwargs)

    def with_structured_output(
        self, schema: dict[str, Any] | type, **kwargs: Any
    ) -> Runnable[LanguageModelInput, dict[str, Any] | BaseModel]:
        """Output as the chosen candidate's own ``with_structured_output`` gives it."""
        check_schema(schema, kwargs)
        gives = schema if isinstance(schema, type) and issubclass(schema, BaseModel) else None
        return StructuredChat(
            bound=self,
            kwargs={STRUCTURED: (schema, kwargs)},
            config={},
            custom_output_type=None if kwargs.get("include_raw") else gives,
        )

    def configurable_fields(self, **fields: Any) -> Any:
        """As every Runnable's; tools and schemas may be bound to it."""
        return ConfigurableChat(**super().configurable_fields(**fields).__dict__)

    def configurable_alternatives(self, which: Any, **alternatives: Any) -> Any:
        """As every Runnable's; tools and schemas may be bound to it."""
        return AlternativeChat(**super().configurable_alternatives(which, **alternatives).__dict__)

    @property
    def config_specs(self) -> list[ConfigurableFieldSpec]:
        """What ``config["configurable"]`` may hold for this router."""
        return [
            ConfigurableFieldSpec(f"{self.prefix}_candidate", str, "Candidate", "A name that must be used.", None),
            ConfigurableFieldSpec(f"{self.prefix}_policy", dict, "Policy", "In place of the router's.", None),
        ]

    # --- one call ---

    def invoke(self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any) -> AIMessage:
        """Route, then call the chosen candidate."""

        def run(prompt: LanguageModelInput, run_manager: Any, config: RunnableConfig) -> AIMessage:
            call = RoutedCall.of(self._setup, prompt, config, kwargs)
            attempts = call.attempts()
            return cast("AIMessage", call.tagged(first_answer(attempts, call.invoke(attempts)), attempts))

        return self._call_with_config(run, input, self._config(config))

    async def ainvoke(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AIMessage:
        """Like :meth:`invoke`; the scorer runs off the event loop."""

        async def run(prompt: LanguageModelInput, run_manager: Any, config: RunnableConfig) -> AIMessage:
            call = RoutedCall.of(self._setup, prompt, config, kwargs)
            attempts = await call.aattempts()
            return cast("AIMessage", call.tagged(await afirst_answer(attempts, call.ainvoke(attempts)), attempts))

        return await self._acall_with_config(run, input, self._config(config))

    def stream(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[AIMessageChunk]:
        """The chosen candidate's chunks; another candidate is tried only before the first token has gone out."""

        def run(inputs: Iterator[Any], run_manager: Any, config: RunnableConfig) -> Iterator[Any]:
            call = RoutedCall.of(self._setup, next(inputs), config, kwargs)
            attempts = call.attempts()
            relay = call.teller(attempts)
            for chunk in first_stream(attempts, call.stream(attempts), says_something):
                yield relay(chunk)

        chunks = self._transform_stream_with_config(iter([input]), run, self._config(config))
        yield from cast("Iterator[AIMessageChunk]", chunks)

    async def astream(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[AIMessageChunk]:
        """Like :meth:`stream`."""

        async def run(inputs: AsyncIterator[Any], run_manager: Any, config: RunnableConfig) -> AsyncIterator[Any]:
            call = RoutedCall.of(self._setup, await anext(inputs), config, kwargs)
            attempts = await call.aattempts()
            relay = call.teller(attempts)
            opened = await afirst_stream(attempts, call.astream(attempts), says_something)
            async with contextlib.aclosing(aiter(opened)) as chunks:
                async for chunk in chunks:
                    yield relay(chunk)

        async def inputs() -> AsyncIterator[Any]:
            yield input

        chunks = self._atransform_stream_with_config(inputs(), run, self._config(config))
        async with contextlib.aclosing(cast("Any", chunks)):
            async for chunk in chunks:
                yield cast("AIMessageChunk", chunk)

    def stream_events(self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """As every Runnable's; version "v3" is the candidate's own stream, see :mod:`langchain_msat.events`."""
        if kwargs.get("version") != "v3":
            return Runnable.stream_events(self, input, config, **kwargs)
        return routed_events(self._events_call(input, config, kwargs))

    def astream_events(self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Like :meth:`stream_events`."""
        if kwargs.get("version") != "v3":
            return Runnable.astream_events(self, input, config, **kwargs)
        return arouted_events(self._events_call(input, config, kwargs))

    def _events_call(self, input: Any, config: RunnableConfig | None, kwargs: Mapping[str, Any]) -> RoutedCall:
        bound = {key: value for key, value in kwargs.items() if key != "version"}
        return RoutedCall.of(self._setup, input, self._config(config), bound)

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        """A chat model must have this hook; nothing here comes through it."""
        return ChatResult(generations=[ChatGeneration(message=self.invoke(messages, **kwargs))])

    def _config(self, config: RunnableConfig | None) -> RunnableConfig:
        """The call's configuration with the callbacks, tags and metadata that this object was given."""
        settings = {"callbacks": self.callbacks, "tags": self.tags, "metadata": self.metadata}
        stated = {key: value for key, value in settings.items() if value}
        return merge_configs(cast("RunnableConfig", stated), ensure_config(config))
