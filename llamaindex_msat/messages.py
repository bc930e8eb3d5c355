"""LlamaIndex messages as the turns that msat_core reads, and the candidate as a tag on responses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, ChatResponse, CompletionResponse
from llama_index.core.prompts import BasePromptTemplate

from msat_core import Turn, modalities_of, role_of

TAG = "msat_candidate"
_QUESTION_KEYS = ("query_str", "query", "question")


def turns_of(messages: Sequence[ChatMessage]) -> list[Turn]:
    """One turn a message."""
    return [
        Turn(
            role=role_of(message.role.value),
            text=message.content or "",
            modalities=modalities_of(block.block_type for block in message.blocks),
            candidate=message.additional_kwargs.get(TAG),
        )
        for message in messages
    ]


def turns_of_prompt(prompt: BasePromptTemplate, arguments: dict[str, Any]) -> list[Turn]:
    """The user's question inside a template, where it has one; else the formatted messages.

    A synthesizer wraps the question in its context: what has to be scored is the question.
    """
    for key in _QUESTION_KEYS:
        question = arguments.get(key, prompt.kwargs.get(key))
        if isinstance(question, str) and question.strip():
            return [Turn("user", question)]
    return turns_of(prompt.format_messages(**arguments))


def tagged(output: Any, candidate: str) -> Any:
    """A copy of a response that says which candidate gave it; anything else comes back as it is."""
    if isinstance(output, ChatResponse):
        kwargs = {**output.message.additional_kwargs, TAG: candidate}
        return output.model_copy(update={"message": output.message.model_copy(update={"additional_kwargs": kwargs})})
    if isinstance(output, CompletionResponse):
        return output.model_copy(update={"additional_kwargs": {**output.additional_kwargs, TAG: candidate}})
    return output
