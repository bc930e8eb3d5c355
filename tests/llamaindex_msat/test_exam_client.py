from __future__ import annotations

from pathlib import Path
from typing import Any

import exam_world
import pytest
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, MessageRole
from llama_index.core.llms import MockLLM
from rule_llm import RuleLLM

from llamaindex_msat import exam_client
from msat_core.errors import ConfigurationError


class KnowingLLM(RuleLLM):
    """Sits the toy exam, with usage in the raw reply."""

    async def achat(self, messages: Any, **kwargs: Any) -> ChatResponse:
        text = exam_world.answer_to(messages[-1].content or "")
        message = ChatMessage(role=MessageRole.ASSISTANT, content=text)
        return ChatResponse(message=message, raw={"usage": {"prompt_tokens": 7, "completion_tokens": 3}})


async def test_an_llm_sits_the_exam(tmp_path: Path) -> None:
    client = exam_client(KnowingLLM(name="toy-1"))
    sat = await exam_world.aptitude_test().sit(exam_world.paper(), client, tmp_path / "j")
    assert sat.profile.shots == exam_world.truth()
    assert sat.profile.candidate == "toy-1"
    assert sat.profile.provenance.source == "llamaindex:KnowingLLM toy-1"
    sitting = sat.profile.provenance.sitting
    assert sitting is not None
    assert (sitting.input_tokens, sitting.output_tokens) == (12 * 7, 12 * 3)


async def test_a_nameless_llm_needs_a_name() -> None:
    with pytest.raises(ConfigurationError, match="candidate=NAME"):
        exam_client(MockLLM())
    reply = await exam_client(MockLLM(), candidate="mine").ask("What?")
    assert "What?" in reply.text
    assert reply.input_tokens is None


async def test_how_a_reply_ended_is_told() -> None:
    class Cut(KnowingLLM):
        async def achat(self, messages: Any, **kwargs: Any) -> ChatResponse:
            message = ChatMessage(role=MessageRole.ASSISTANT, content="half an ans")
            return ChatResponse(message=message, raw={"choices": [{"finish_reason": "length"}]})

    assert (await exam_client(Cut(name="toy-1")).ask("?")).ended == "length"
    reply = await exam_client(KnowingLLM(name="toy-1")).ask(exam_world.paper().prompt("q0"))
    assert reply.ended is None
