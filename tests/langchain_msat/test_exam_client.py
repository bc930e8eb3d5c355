from __future__ import annotations

from pathlib import Path
from typing import Any

import exam_world
import pytest
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from rule_chat import RuleChat

from langchain_msat import exam_client
from msat_core.errors import ConfigurationError


class KnowingChat(RuleChat):
    """Sits the toy exam, with usage."""

    model_name: str = "toy-1"

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        self.seen.append(messages)
        usage: Any = {"input_tokens": 7, "output_tokens": 3, "total_tokens": 10}
        message = AIMessage(exam_world.answer_to(str(messages[-1].content)), usage_metadata=usage)
        return ChatResult(generations=[ChatGeneration(message=message)])

    async def _agenerate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        return self._generate(messages)


async def test_a_chat_model_sits_the_exam(tmp_path: Path) -> None:
    chat = KnowingChat(temperature=0.5, max_tokens=64)
    client = exam_client(chat)
    assert (client.candidate, client.max_output_tokens) == ("toy-1", 64)
    sat = await exam_world.aptitude_test().sit(exam_world.paper(), client, tmp_path / "j")
    assert sat.profile.shots == exam_world.truth()
    assert sat.profile.provenance.source == "langchain:KnowingChat toy-1"
    sitting = sat.profile.provenance.sitting
    assert sitting is not None
    assert (sitting.input_tokens, sitting.output_tokens) == (12 * 7, 12 * 3)
    assert sitting.settings == {"temperature": 0.5, "max_tokens": 64}
    assert [len(messages) for messages in chat.seen] == [1] * 12


async def test_a_binding_sits_the_exam_under_the_name_of_its_model(tmp_path: Path) -> None:
    client = exam_client(KnowingChat().bind(stop=["x"]))
    assert client.candidate == "toy-1"
    assert (await client.ask(exam_world.paper().prompt("q0"))).input_tokens == 7


def test_a_nameless_model_needs_a_name() -> None:
    chat = FakeListChatModel(responses=["A"])
    with pytest.raises(ConfigurationError, match="candidate=NAME"):
        exam_client(chat)
    assert exam_client(chat, candidate="mine").candidate == "mine"


async def test_how_a_reply_ended_is_told() -> None:
    class Cut(KnowingChat):
        def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
            message = AIMessage("half an ans", response_metadata={"stop_reason": "max_tokens"})
            return ChatResult(generations=[ChatGeneration(message=message)])

    assert (await exam_client(Cut()).ask("?")).ended == "max_tokens"
    assert (await exam_client(KnowingChat()).ask(exam_world.paper().prompt("q0"))).ended is None
