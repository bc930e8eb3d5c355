"""The endpoints of a router: each call goes whole to the candidate that was chosen for it.

Nothing here is decorated with LlamaIndex's LLM callbacks: the candidate reports its own call, and tokens are counted
once.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, cast

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
    ToolCallBlock,
)
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.tools import BaseTool

from llamaindex_msat.messages import CANDIDATE, size_of_tools, tag_in, unwrapped
from llamaindex_msat.questions import as_messages
from llamaindex_msat.routed_call import RoutedCall
from llamaindex_msat.setup import Setup, Wishes

UserMessage = str | ChatMessage | None
History = list[ChatMessage] | None


class RoutedEndpoints(FunctionCallingLLM):
    """Chat and completion, with and without tools.

    Every call takes ``msat_instruction``, ``msat_policy`` and ``msat_candidate`` beside its own arguments; see
    :class:`llamaindex_msat.setup.Wishes`.
    """

    @property
    def _setup(self) -> Setup:
        raise NotImplementedError

    # --- chat and completion ---

    def _chat_call(self, messages: Sequence[ChatMessage], kwargs: dict[str, Any]) -> RoutedCall:
        wishes, tools = Wishes.taken_from(kwargs), kwargs.get("tools") or ()
        return RoutedCall(self._setup, messages, wishes, tools=bool(tools), extra_chars=size_of_tools(tools))

    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """The chosen candidate's chat."""
        call = self._chat_call(messages, kwargs)
        return cast("ChatResponse", call.answer(lambda to: to.llm.chat(to.reads(messages), **kwargs)))

    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Like :meth:`chat`."""
        call = self._chat_call(messages, kwargs)
        return cast("ChatResponse", await call.aanswer(lambda to: to.llm.achat(to.reads(messages), **kwargs)))

    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """The chosen candidate's chunks."""
        call = self._chat_call(messages, kwargs)
        return call.chunks(lambda to: to.llm.stream_chat(to.reads(messages), **kwargs))

    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        """Like :meth:`stream_chat`."""
        call = self._chat_call(messages, kwargs)
        return await call.achunks(lambda to: to.llm.astream_chat(to.reads(messages), **kwargs))

    def _completion_call(self, prompt: str, kwargs: dict[str, Any]) -> RoutedCall:
        return RoutedCall(self._setup, as_messages(prompt), Wishes.taken_from(kwargs))

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """The chosen candidate's completion."""
        call = self._completion_call(prompt, kwargs)
        response = call.answer(lambda to: to.llm.complete(prompt, formatted=formatted, **kwargs))
        return cast("CompletionResponse", response)

    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Like :meth:`complete`."""
        call = self._completion_call(prompt, kwargs)
        response = await call.aanswer(lambda to: to.llm.acomplete(prompt, formatted=formatted, **kwargs))
        return cast("CompletionResponse", response)

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        """The chosen candidate's chunks."""
        call = self._completion_call(prompt, kwargs)
        return call.chunks(lambda to: to.llm.stream_complete(prompt, formatted=formatted, **kwargs))

    async def astream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseAsyncGen:
        """Like :meth:`stream_complete`."""
        call = self._completion_call(prompt, kwargs)
        return await call.achunks(lambda to: to.llm.astream_complete(prompt, formatted=formatted, **kwargs))

    # --- the four with tools, which go to candidates that can call functions ---

    def _tool_call(
        self, tools: Sequence[BaseTool], user_msg: UserMessage, history: History, options: dict[str, Any]
    ) -> _WithTools:
        wishes = Wishes.taken_from(options)
        last = [ChatMessage(role="user", content=user_msg)] if isinstance(user_msg, str) else []
        last = [user_msg] if isinstance(user_msg, ChatMessage) else last
        messages, size = [*(history or []), *last], size_of_tools(tools)
        call = RoutedCall(self._setup, messages, wishes, tools=True, extra_chars=size)
        return _WithTools(call, tools, user_msg, history, options)

    def chat_with_tools(
        self,
        tools: Sequence[BaseTool],
        user_msg: UserMessage = None,
        chat_history: History = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        **kwargs: Any,
    ) -> ChatResponse:
        """The chosen candidate's chat with tools."""
        options = _options(verbose, allow_parallel_tool_calls, tool_required, kwargs)
        tool_call = self._tool_call(tools, user_msg, chat_history, options)
        return cast("ChatResponse", tool_call.call.answer(lambda to: to.llm.chat_with_tools(**tool_call.arguments(to))))

    async def achat_with_tools(
        self,
        tools: Sequence[BaseTool],
        user_msg: UserMessage = None,
        chat_history: History = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        **kwargs: Any,
    ) -> ChatResponse:
        """Like :meth:`chat_with_tools`."""
        options = _options(verbose, allow_parallel_tool_calls, tool_required, kwargs)
        tool_call = self._tool_call(tools, user_msg, chat_history, options)
        response = await tool_call.call.aanswer(lambda to: to.llm.achat_with_tools(**tool_call.arguments(to)))
        return cast("ChatResponse", response)

    def stream_chat_with_tools(
        self,
        tools: Sequence[BaseTool],
        user_msg: UserMessage = None,
        chat_history: History = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        **kwargs: Any,
    ) -> ChatResponseGen:
        """The chosen candidate's chunks."""
        options = _options(verbose, allow_parallel_tool_calls, tool_required, kwargs)
        tool_call = self._tool_call(tools, user_msg, chat_history, options)
        return tool_call.call.chunks(lambda to: to.llm.stream_chat_with_tools(**tool_call.arguments(to)))

    async def astream_chat_with_tools(
        self,
        tools: Sequence[BaseTool],
        user_msg: UserMessage = None,
        chat_history: History = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        **kwargs: Any,
    ) -> ChatResponseAsyncGen:
        """Like :meth:`stream_chat_with_tools`."""
        options = _options(verbose, allow_parallel_tool_calls, tool_required, kwargs)
        tool_call = self._tool_call(tools, user_msg, chat_history, options)
        return await tool_call.call.achunks(lambda to: to.llm.astream_chat_with_tools(**tool_call.arguments(to)))

    def _prepare_chat_with_tools(
        self,
        tools: Sequence[BaseTool],
        user_msg: UserMessage = None,
        chat_history: History = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """The chosen candidate's own arguments, which it alone understands; they name it for the call that follows."""
        options = _options(verbose, allow_parallel_tool_calls, tool_required, kwargs)
        tool_call = self._tool_call(tools, user_msg, chat_history, options)
        candidate = tool_call.call.prepared(tool_call.call.ask.decide().candidate)
        prepared = candidate.llm._prepare_chat_with_tools_compat(**tool_call.arguments(candidate))
        return {**prepared, CANDIDATE: candidate.name}

    # --- what an answer calls ---

    def get_tool_calls_from_response(
        self, response: ChatResponse, error_on_no_tool_call: bool = True, **kwargs: Any
    ) -> list[ToolSelection]:
        """The tool calls as the candidate that answered reads them; where it is not known, as the message says them."""
        tag = tag_in(response) or self._setup.authors.of(response.message)
        candidates = self._setup.candidates.llms
        candidate = candidates.get(str(tag["candidate"])) if tag else None
        if isinstance(candidate, FunctionCallingLLM):
            return candidate.get_tool_calls_from_response(
                unwrapped(response), error_on_no_tool_call=error_on_no_tool_call, **kwargs
            )
        calls = _in_blocks(response.message) or _as_somebody_reads(list(candidates.values()), response, kwargs)
        if not calls and error_on_no_tool_call:
            raise ValueError(
                "Expected at least one tool call, but no candidate gave this response, and none can read one in it."
            )
        return calls


class _WithTools:
    """The arguments of a call with tools, for whichever candidate gets them."""

    def __init__(
        self,
        call: RoutedCall,
        tools: Sequence[BaseTool],
        user_msg: UserMessage,
        history: History,
        options: dict[str, Any],
    ) -> None:
        self.call = call
        self._tools, self._user_msg, self._history, self._options = tools, user_msg, history, options

    def arguments(self, to: Any) -> dict[str, Any]:
        """As this candidate can read them."""
        last, history = self._user_msg, self._history
        if isinstance(last, ChatMessage):
            (last,) = to.reads([last])
        history = to.reads(history) if history else history
        return {"tools": self._tools, "user_msg": last, "chat_history": history, **self._options}


def _options(verbose: bool, parallel: bool, required: bool, kwargs: dict[str, Any]) -> dict[str, Any]:
    """The options as they are passed on: those at their defaults are left to the candidate's own."""
    flags = {"verbose": verbose, "allow_parallel_tool_calls": parallel, "tool_required": required}
    return {**{name: value for name, value in flags.items() if value}, **kwargs}


def _in_blocks(message: ChatMessage) -> list[ToolSelection]:
    calls = []
    for i, block in enumerate(block for block in message.blocks if isinstance(block, ToolCallBlock)):
        arguments = block.tool_kwargs
        if isinstance(arguments, str):
            try:
                arguments = json.loads(arguments)
            except (ValueError, RecursionError):  # LlamaIndex's own integrations read it so
                arguments = {}
        call = ToolSelection(tool_id=block.tool_call_id or str(i), tool_name=block.tool_name, tool_kwargs=arguments)
        calls.append(call)
    return calls


def _as_somebody_reads(candidates: list[Any], response: ChatResponse, kwargs: dict[str, Any]) -> list[ToolSelection]:
    """Older integrations keep calls in a form of their own: the first candidate that finds any is right."""
    for candidate in candidates:
        if isinstance(candidate, FunctionCallingLLM):
            try:
                calls = candidate.get_tool_calls_from_response(response, error_on_no_tool_call=False, **kwargs)
            except Exception:  # the response is in another provider's form
                continue
            if calls:
                return calls
    return []
