"""LLMs that answer by rule: one that can call functions, one that cannot."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

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
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.tools import BaseTool
from pydantic import ConfigDict, Field


class RuleLLM(FunctionCallingLLM):
    """Says "<name>: <last text>", or calls the first tool with the number in the text."""

    name: str = "rule"
    window: int = 4000
    functions: bool = True
    script: list[str] = Field(default_factory=list)  # said in turn, where given
    fails: Exception | None = Field(default=None, exclude=True)
    fail_after: int | None = None
    empty: bool = False
    seen: list[Any] = Field(default_factory=list, exclude=True)

    model_config = ConfigDict(arbitrary_types_allowed=True)

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(
            context_window=self.window,
            num_output=256,
            is_chat_model=True,
            is_function_calling_model=self.functions,
            model_name=self.name,
        )

    def _say(self, text: str) -> str:
        self.seen.append(text)
        if self.fails is not None:
            raise self.fails
        return self.script.pop(0) if self.script else f"{self.name}: {text}"

    def _message(self, messages: Sequence[ChatMessage], kwargs: dict[str, Any]) -> ChatMessage:
        last = messages[-1]
        if kwargs.get("tools") and last.role.value == "user":
            self._say(last.content or "")
            number = int(re.findall(r"\d+", last.content or "0")[0])
            call = ToolSelection(tool_id="1", tool_name=kwargs["tools"][0], tool_kwargs={"number": number})
            return ChatMessage(role="assistant", content="", additional_kwargs={"calls": [call.model_dump()]})
        return ChatMessage(role="assistant", content=self._say(last.content or ""))

    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        return ChatResponse(message=self._message(messages, kwargs))

    @llm_chat_callback()
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        return self._pieces(self._message(messages, kwargs))

    def _pieces(self, message: ChatMessage) -> ChatResponseGen:
        words = [] if self.empty else re.findall(r"\s*\S+", message.content or "") or [""]
        whole = ""
        for i, word in enumerate(words):
            if self.fail_after is not None and i >= self.fail_after:
                raise ConnectionError("the stream broke")
            whole += word
            yield ChatResponse(message=message.model_copy(update={"blocks": ChatMessage(whole).blocks}), delta=word)

    @llm_chat_callback()
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        return ChatResponse(message=self._message(messages, kwargs))

    @llm_chat_callback()
    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        message = self._message(messages, kwargs)

        async def chunks() -> ChatResponseAsyncGen:
            for piece in self._pieces(message):
                yield piece

        return chunks()

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return CompletionResponse(text=self._say(prompt))

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        text = self._say(prompt)

        def chunks() -> CompletionResponseGen:
            for i in range(0 if self.empty else len(text)):
                yield CompletionResponse(text=text[: i + 1], delta=text[i])

        return chunks()

    @llm_completion_callback()
    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return CompletionResponse(text=self._say(prompt))

    @llm_completion_callback()
    async def astream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseAsyncGen:
        text = self._say(prompt)

        async def chunks() -> CompletionResponseAsyncGen:
            for i in range(len(text)):
                yield CompletionResponse(text=text[: i + 1], delta=text[i])

        return chunks()

    def _prepare_chat_with_tools(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        messages = list(chat_history or [])
        if user_msg is not None:
            messages.append(ChatMessage(role="user", content=user_msg) if isinstance(user_msg, str) else user_msg)
        return {"messages": messages, "tools": [tool.metadata.name for tool in tools]}

    def get_tool_calls_from_response(
        self, response: ChatResponse, error_on_no_tool_call: bool = True, **kwargs: Any
    ) -> list[ToolSelection]:
        return [ToolSelection(**call) for call in response.message.additional_kwargs.get("calls", [])]


def user(text: str) -> list[ChatMessage]:
    """What a user says, as messages."""
    return [ChatMessage(role="user", content=text)]
