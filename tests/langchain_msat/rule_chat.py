"""A chat model that answers by rule: no network, all that a provider's class can do."""

from __future__ import annotations

import asyncio
import importlib.util
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, ToolMessage
from langchain_core.messages.tool import ToolCall, tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import Field

HAS_V3 = importlib.util.find_spec("langchain_core.language_models.chat_model_stream") is not None  # v3 event streams


class RuleChat(BaseChatModel):
    """Says "<name>: <last text>", or calls the first bound tool with numbers found in the text.

    Args:
        name: what it says it is.
        fails: raised instead of answering, while ``fail_times`` lasts.
        delay_s: how long it takes.
        fail_after: chunks after which a stream breaks.
    """

    name: str = "rule"
    temperature: float | None = None
    max_tokens: int | None = None
    timeout: float | None = None
    stop: list[str] | None = None
    max_retries: int | None = None
    fails: Exception | None = Field(default=None, exclude=True)
    fail_after: int | None = None
    delay_s: float = 0.0
    seen: list[Any] = Field(default_factory=list, exclude=True)

    @property
    def _llm_type(self) -> str:
        return "rule"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"name": self.name}

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        choice = {} if tool_choice is None else {"tool_choice": tool_choice}
        return self.bind(tools=[convert_to_openai_tool(tool) for tool in tools], **choice, **kwargs)

    def _answer(self, messages: list[BaseMessage], kwargs: dict[str, Any]) -> AIMessage:
        self.seen.append((messages, kwargs))
        if self.fails is not None:
            raise self.fails
        text = str(messages[-1].text)
        calls = []
        if kwargs.get("tools") and not isinstance(messages[-1], ToolMessage):
            calls = [_call(kwargs["tools"][0]["function"], text)]
        spoken = "" if calls else f"{self.name}: {text}"
        for mark in kwargs.get("stop") or []:
            spoken = spoken.split(mark)[0]
        n_in = sum(len(str(m.text).split()) for m in messages) + 1
        n_out = len(spoken.split()) + 1
        return AIMessage(
            spoken,
            tool_calls=calls,
            usage_metadata={"input_tokens": n_in, "output_tokens": n_out, "total_tokens": n_in + n_out},
            response_metadata={"model_name": self.name, "model_provider": "rule"},
        )

    def _chunks(self, message: AIMessage) -> Iterator[ChatGenerationChunk]:
        pieces = re.findall(r"\s*\S+", str(message.text)) or [""]
        for i, piece in enumerate(pieces):
            if self.fail_after is not None and i >= self.fail_after:
                raise ConnectionError("the stream broke")
            calls = [
                tool_call_chunk(name=c["name"], args=_json(c["args"]), id=c["id"], index=0) for c in message.tool_calls
            ]
            chunk = AIMessageChunk(content=piece, tool_call_chunks=calls if i == 0 else [])
            if i == len(pieces) - 1:
                chunk.usage_metadata = message.usage_metadata
                chunk.response_metadata = dict(message.response_metadata)
            yield ChatGenerationChunk(message=chunk)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        time.sleep(self.delay_s)
        return ChatResult(generations=[ChatGeneration(message=self._answer(messages, {"stop": stop, **kwargs}))])

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        await asyncio.sleep(self.delay_s)
        return ChatResult(generations=[ChatGeneration(message=self._answer(messages, {"stop": stop, **kwargs}))])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        time.sleep(self.delay_s)
        for chunk in self._chunks(self._answer(messages, {"stop": stop, **kwargs})):
            if run_manager:
                run_manager.on_llm_new_token(str(chunk.text), chunk=chunk)
            yield chunk

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        await asyncio.sleep(self.delay_s)
        for chunk in self._chunks(self._answer(messages, {"stop": stop, **kwargs})):
            if run_manager:
                await run_manager.on_llm_new_token(str(chunk.text), chunk=chunk)
            yield chunk


def _call(function: dict[str, Any], text: str) -> ToolCall:
    """Numbers of the text for number fields, the text for others."""
    numbers = re.findall(r"-?\d+", text)
    arguments: dict[str, Any] = {}
    for key, schema in function.get("parameters", {}).get("properties", {}).items():
        if schema.get("type") in ("integer", "number"):
            arguments[key] = int(numbers[0]) if numbers else 0
        elif schema.get("type") == "string":
            arguments[key] = text[:40] or "text"
        elif schema.get("type") == "array":
            arguments[key] = []
        elif schema.get("type") == "boolean":
            arguments[key] = True
        elif "properties" in schema:
            arguments[key] = _call({"name": key, "parameters": schema}, text)["args"]
        else:
            arguments[key] = None
    return ToolCall(name=function["name"], args=arguments, id="call_1", type="tool_call")


def _json(value: Any) -> str:
    import json

    return json.dumps(value)


def human(text: str) -> list[BaseMessage]:
    return [HumanMessage(text)]
