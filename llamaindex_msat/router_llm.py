"""`MSATRouterLLM`: an LLM that hands each call, whole, to the candidate most likely to answer it well.

Nothing is decorated with LlamaIndex's LLM callbacks here: the chosen child reports its own call, so tokens are
counted once. The router adds one :class:`MSATRouteEvent`.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator, Mapping, Sequence
from typing import Any, TypeVar, cast

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
    LLMMetadata,
)
from llama_index.core.callbacks import CallbackManager
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import LLM, ToolSelection
from llama_index.core.prompts import BasePromptTemplate
from llama_index.core.tools import BaseTool
from llama_index.core.types import TokenAsyncGen, TokenGen
from llama_index_instrumentation import get_dispatcher
from llama_index_instrumentation.base import BaseEvent
from pydantic import BaseModel, Field, PrivateAttr, SerializeAsAny

from llamaindex_msat.messages import TAG, tagged, turns_of, turns_of_prompt
from msat_core import (
    Ask,
    Attempts,
    ConfigurationError,
    Fallback,
    Router,
    RoutingDecision,
    RoutingPolicy,
    Sticky,
    Turn,
    afirst_answer,
    afirst_stream,
    common_abilities,
    first_answer,
    first_stream,
    names_of,
)

Out = TypeVar("Out")
Model = TypeVar("Model", bound=BaseModel)
dispatcher = get_dispatcher(__name__)


class MSATRouteEvent(BaseEvent):
    """A call was routed: to whom, why, and every score."""

    candidate: str
    reason: str
    scores: dict[str, float]

    @classmethod
    def class_name(cls) -> str:
        """The event's name."""
        return "MSATRouteEvent"


class MSATRouterLLM(FunctionCallingLLM):
    """An LLM over candidates; see the module.

    Args:
        llms: the LLM of each candidate, by a name or alias in the router's zoo.
        router: scores and chooses; default: the shipped one.
        policy: in place of the router's.
        sticky: how long a candidate keeps a conversation: ``turn``, ``conversation`` or ``never``.
        fallback: who comes next when a candidate fails, and how far to go.

    The candidate is in ``additional_kwargs["msat_candidate"]`` of the message (of each chunk, when streaming).

    Raises:
        ZooError: a name is not in the zoo.
    """

    llms: dict[str, SerializeAsAny[LLM]]
    policy: RoutingPolicy | None = None
    sticky: Sticky = "turn"
    fallback: Fallback = Field(default_factory=Fallback)

    _router: Router = PrivateAttr()
    _key_of: dict[str, str] = PrivateAttr()  # the caller's name for each candidate of the zoo

    def __init__(self, llms: Mapping[str, LLM], router: Router | None = None, **fields: Any) -> None:
        if not llms:
            raise ConfigurationError("MSATRouterLLM needs at least one candidate: {name: LLM}.")
        if router is None:
            router = Router.from_pretrained()
        super().__init__(llms=dict(llms), **fields)
        self._router = router
        self._key_of = names_of(router.zoo, llms)
        self._pass_on(CallbackManager())

    def __setattr__(self, name: str, value: Any) -> None:
        before = getattr(self, "callback_manager", None)
        super().__setattr__(name, value)
        if name == "callback_manager":
            self._pass_on(before)

    def _pass_on(self, before: CallbackManager | None) -> None:
        """Children without handlers of their own report to the router's, as those of `Settings` do to its.

        It happens when the manager is set and not when a child is called: a call changes nothing.
        """
        for llm in self.llms.values():
            if llm.callback_manager is before or not llm.callback_manager.handlers:
                llm.callback_manager = self.callback_manager

    @classmethod
    def class_name(cls) -> str:
        """The component's name."""
        return "MSATRouterLLM"

    @property
    def metadata(self) -> LLMMetadata:
        """What every child can take; function calling if any child can (tools go to those alone)."""
        of = [llm.metadata for llm in self.llms.values()]
        common = common_abilities([one.model_dump() for one in of])
        functions = any(one.is_function_calling_model for one in of)
        return LLMMetadata(**{**common, "is_function_calling_model": functions, "model_name": "msat"})

    # --- one call ---

    def _ask(self, turns: Sequence[Turn], tools: bool) -> Ask:
        among = [n for n, llm in self.llms.items() if not tools or llm.metadata.is_function_calling_model]
        return Ask.of(self._router, turns, sticky=self.sticky, tools=tools, among=among, policy=self.policy)

    def _attempts(self, decision: RoutingDecision) -> Attempts:
        """The candidates to try, after telling who was chosen."""
        key = self._key_of[decision.candidate]
        dispatcher.event(MSATRouteEvent(candidate=key, reason=decision.reason, scores=decision.scores))
        return Attempts(decision, self._router.zoo, self.fallback, self._router.cooldown)

    def _child(self, name: str) -> Any:
        return self.llms[self._key_of[name]]

    def _answer(self, turns: Sequence[Turn], call: Callable[[Any], Any], tools: bool = False) -> Any:
        attempts = self._attempts(self._ask(turns, tools).decide())
        return self._signed(first_answer(attempts, lambda name: call(self._child(name))), attempts)

    async def _aanswer(self, turns: Sequence[Turn], call: Callable[[Any], Awaitable[Out]], tools: bool = False) -> Out:
        attempts = self._attempts(await self._ask(turns, tools).adecide())
        return self._signed(await afirst_answer(attempts, lambda name: call(self._child(name))), attempts)

    def _chunks(
        self, turns: Sequence[Turn], call: Callable[[Any], Iterator[Out]], tools: bool = False
    ) -> Iterator[Out]:
        attempts = self._attempts(self._ask(turns, tools).decide())
        opened = first_stream(attempts, lambda name: iter(call(self._child(name))))
        return (self._signed(chunk, attempts) for chunk in opened)

    async def _achunks(
        self, turns: Sequence[Turn], call: Callable[[Any], Awaitable[AsyncIterator[Out]]], tools: bool = False
    ) -> AsyncIterator[Out]:
        attempts = self._attempts(await self._ask(turns, tools).adecide())
        opened = await afirst_stream(attempts, lambda name: call(self._child(name)))

        async def signed() -> AsyncIterator[Out]:
            async with contextlib.aclosing(aiter(opened)) as chunks:
                async for chunk in chunks:
                    yield self._signed(chunk, attempts)

        return signed()

    def _signed(self, output: Out, attempts: Attempts) -> Out:
        return cast("Out", tagged(output, self._key_of[str(attempts.current)]))

    # --- the eight endpoints ---

    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """The chosen child's chat."""
        response = self._answer(turns_of(messages), lambda llm: llm.chat(messages, **kwargs))
        return cast("ChatResponse", response)

    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """The chosen child's chunks."""
        chunks = self._chunks(turns_of(messages), lambda llm: llm.stream_chat(messages, **kwargs))
        return cast("ChatResponseGen", chunks)

    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Like :meth:`chat`."""
        return await self._aanswer(turns_of(messages), lambda llm: llm.achat(messages, **kwargs))

    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        """Like :meth:`stream_chat`."""
        chunks = await self._achunks(turns_of(messages), lambda llm: llm.astream_chat(messages, **kwargs))
        return cast("ChatResponseAsyncGen", chunks)

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """The chosen child's completion."""
        response = self._answer([Turn("user", prompt)], lambda llm: llm.complete(prompt, formatted=formatted, **kwargs))
        return cast("CompletionResponse", response)

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        """The chosen child's chunks."""
        chunks = self._chunks(
            [Turn("user", prompt)], lambda llm: llm.stream_complete(prompt, formatted=formatted, **kwargs)
        )
        return cast("CompletionResponseGen", chunks)

    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Like :meth:`complete`."""
        return await self._aanswer(
            [Turn("user", prompt)], lambda llm: llm.acomplete(prompt, formatted=formatted, **kwargs)
        )

    async def astream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseAsyncGen:
        """Like :meth:`stream_complete`."""
        chunks = await self._achunks(
            [Turn("user", prompt)], lambda llm: llm.astream_complete(prompt, formatted=formatted, **kwargs)
        )
        return cast("CompletionResponseAsyncGen", chunks)

    # --- the four with tools, which go to children that can call functions ---

    def chat_with_tools(  # type: ignore[override]  # the other options are in kwargs
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        **kwargs: Any,
    ) -> ChatResponse:
        """The chosen child's chat with tools."""
        response = self._answer(
            _conversation(user_msg, chat_history),
            lambda llm: llm.chat_with_tools(tools, user_msg=user_msg, chat_history=chat_history, **kwargs),
            tools=True,
        )
        return cast("ChatResponse", response)

    async def achat_with_tools(  # type: ignore[override]  # the other options are in kwargs
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        **kwargs: Any,
    ) -> ChatResponse:
        """Like :meth:`chat_with_tools`."""
        return await self._aanswer(
            _conversation(user_msg, chat_history),
            lambda llm: llm.achat_with_tools(tools, user_msg=user_msg, chat_history=chat_history, **kwargs),
            tools=True,
        )

    def stream_chat_with_tools(  # type: ignore[override]  # the other options are in kwargs
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        **kwargs: Any,
    ) -> ChatResponseGen:
        """The chosen child's chunks."""
        chunks = self._chunks(
            _conversation(user_msg, chat_history),
            lambda llm: llm.stream_chat_with_tools(tools, user_msg=user_msg, chat_history=chat_history, **kwargs),
            tools=True,
        )
        return cast("ChatResponseGen", chunks)

    async def astream_chat_with_tools(  # type: ignore[override]  # the other options are in kwargs
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        **kwargs: Any,
    ) -> ChatResponseAsyncGen:
        """Like :meth:`stream_chat_with_tools`."""
        chunks = await self._achunks(
            _conversation(user_msg, chat_history),
            lambda llm: llm.astream_chat_with_tools(tools, user_msg=user_msg, chat_history=chat_history, **kwargs),
            tools=True,
        )
        return cast("ChatResponseAsyncGen", chunks)

    def _prepare_chat_with_tools(self, tools: Sequence[BaseTool], **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        turns = _conversation(kwargs.get("user_msg"), kwargs.get("chat_history"))
        child = self._child(self._ask(turns, tools=True).decide().candidate)
        return cast("dict[str, Any]", child._prepare_chat_with_tools(tools, **kwargs))

    def get_tool_calls_from_response(
        self, response: ChatResponse, error_on_no_tool_call: bool = True, **kwargs: Any
    ) -> list[ToolSelection]:
        """The tool calls as the child that answered reads them; none in a response that no child gave."""
        candidate = response.message.additional_kwargs.get(TAG)
        if candidate in self.llms:
            child = cast("FunctionCallingLLM", self.llms[candidate])
            return child.get_tool_calls_from_response(response, error_on_no_tool_call=error_on_no_tool_call, **kwargs)
        if error_on_no_tool_call:
            raise ValueError("Expected at least one tool call, but no candidate gave this response.")
        return []

    # --- prompts, routed on the question inside them ---

    def predict(self, prompt: BasePromptTemplate, **prompt_args: Any) -> str:
        """The chosen child's prediction."""
        text = self._answer(turns_of_prompt(prompt, prompt_args), lambda llm: llm.predict(prompt, **prompt_args))
        return cast("str", text)

    async def apredict(self, prompt: BasePromptTemplate, **prompt_args: Any) -> str:
        """Like :meth:`predict`."""
        return await self._aanswer(
            turns_of_prompt(prompt, prompt_args), lambda llm: llm.apredict(prompt, **prompt_args)
        )

    def stream(self, prompt: BasePromptTemplate, **prompt_args: Any) -> TokenGen:
        """The chosen child's tokens."""
        tokens = self._chunks(turns_of_prompt(prompt, prompt_args), lambda llm: llm.stream(prompt, **prompt_args))
        return cast("TokenGen", tokens)

    async def astream(self, prompt: BasePromptTemplate, **prompt_args: Any) -> TokenAsyncGen:
        """Like :meth:`stream`."""
        tokens = await self._achunks(
            turns_of_prompt(prompt, prompt_args), lambda llm: llm.astream(prompt, **prompt_args)
        )
        return cast("TokenAsyncGen", tokens)

    def structured_predict(
        self, output_cls: type[Model], prompt: Any, llm_kwargs: dict[str, Any] | None = None, **prompt_args: Any
    ) -> Model:
        """The chosen child's structured prediction, in its own way."""
        result = self._answer(
            turns_of_prompt(prompt, prompt_args),
            lambda llm: llm.structured_predict(output_cls, prompt, llm_kwargs=llm_kwargs, **prompt_args),
        )
        return cast("Model", result)

    async def astructured_predict(
        self, output_cls: type[Model], prompt: Any, llm_kwargs: dict[str, Any] | None = None, **prompt_args: Any
    ) -> Model:
        """Like :meth:`structured_predict`."""
        return await self._aanswer(
            turns_of_prompt(prompt, prompt_args),
            lambda llm: llm.astructured_predict(output_cls, prompt, llm_kwargs=llm_kwargs, **prompt_args),
        )

    def stream_structured_predict(
        self, output_cls: type[Model], prompt: Any, llm_kwargs: dict[str, Any] | None = None, **prompt_args: Any
    ) -> Generator[Model | list[Model], None, None]:
        """The chosen child's partial objects."""
        objects = self._chunks(
            turns_of_prompt(prompt, prompt_args),
            lambda llm: llm.stream_structured_predict(output_cls, prompt, llm_kwargs=llm_kwargs, **prompt_args),
        )
        return cast("Generator[Model | list[Model], None, None]", objects)

    async def astream_structured_predict(
        self, output_cls: type[Model], prompt: Any, llm_kwargs: dict[str, Any] | None = None, **prompt_args: Any
    ) -> AsyncGenerator[Model | list[Model], None]:
        """Like :meth:`stream_structured_predict`."""
        objects = await self._achunks(
            turns_of_prompt(prompt, prompt_args),
            lambda llm: llm.astream_structured_predict(output_cls, prompt, llm_kwargs=llm_kwargs, **prompt_args),
        )
        return cast("AsyncGenerator[Model | list[Model], None]", objects)


def _conversation(user_msg: str | ChatMessage | None, history: Sequence[ChatMessage] | None) -> list[Turn]:
    last = [ChatMessage(role="user", content=user_msg)] if isinstance(user_msg, str) else [user_msg] if user_msg else []
    return turns_of([*(history or []), *last])
