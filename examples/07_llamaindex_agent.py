"""An agent with tools over the router LLM; a child that cannot call functions is never given tools.

python examples/07_llamaindex_agent.py
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, LLMMetadata
from llama_index.core.llms import MockLLM
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.llms.mock import MockFunctionCallingLLM

from llamaindex_msat import MSATRouterLLM


def population(city: str) -> int:
    """Inhabitants of a city."""
    return {"Lyon": 522_250, "Turin": 841_600}[city]


class _Scripted(MockFunctionCallingLLM):
    """Stands in for a provider's LLM: it asks for the tool, then reads its result."""

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(is_function_calling_model=True, is_chat_model=True)

    async def achat_with_tools(  # type: ignore[override]  # agents call it by keyword
        self, tools: Any, chat_history: Any = None, **kwargs: Any
    ) -> ChatResponse:
        history: Sequence[ChatMessage] = chat_history or []
        results = [message for message in history if message.role.value == "tool"]
        text = f"{results[-1].content} people." if results else json.dumps({"city": "Turin"})
        return ChatResponse(message=ChatMessage(role="assistant", content=text))

    def get_tool_calls_from_response(
        self, response: ChatResponse, error_on_no_tool_call: bool = True, **kwargs: Any
    ) -> list[ToolSelection]:
        text = response.message.content or ""
        if not text.startswith("{"):
            return []
        return [ToolSelection(tool_id="1", tool_name="population", tool_kwargs=json.loads(text))]


async def main() -> None:
    """One question, one tool call, one answer."""
    llm = MSATRouterLLM({"deepseek-v4-flash": _Scripted(), "gemini-4-argon": MockLLM()})
    agent = FunctionAgent(tools=[population], llm=llm, streaming=False)
    print(await agent.run(user_msg="How many people live in Turin?"))


if __name__ == "__main__":
    asyncio.run(main())
