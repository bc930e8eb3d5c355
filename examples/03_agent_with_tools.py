"""An agent with tools over the router: the route holds through the tool loop.

python examples/03_agent_with_tools.py
"""

from __future__ import annotations

from typing import Any

from langchain.agents import create_agent
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.tools import tool

from langchain_msat import ChatMSAT


@tool
def population(city: str) -> int:
    """Inhabitants of a city."""
    return {"Lyon": 522_250, "Turin": 841_600}[city]


class Scripted(GenericFakeChatModel):
    """Stands in for a provider's model: it asks for the tool, then reads its result."""

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        """Accept any tools."""
        return self


def scripted(name: str) -> Scripted:
    """Two answers: a tool call, then a sentence."""
    call = {"name": "population", "args": {"city": "Turin"}, "id": "1"}
    said = [AIMessage("", tool_calls=[call]), AIMessage(f"841,600 people live in Turin (says {name}).")]
    return Scripted(messages=iter(said))


def main() -> None:
    """One question, one tool call, one answer."""
    names = ("claude-sonnet-5.5", "qwen3-8b")
    router = ChatMSAT.from_pretrained({name: scripted(name) for name in names})
    agent = create_agent(router, [population])
    result = agent.invoke({"messages": [HumanMessage("How many people live in Turin?")]})
    for message in result["messages"]:
        who = message.response_metadata.get("msat", {}).get("candidate", message.type)
        print(f"{who}: {message.content or message.tool_calls}")


if __name__ == "__main__":
    main()
