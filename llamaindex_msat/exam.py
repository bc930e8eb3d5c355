"""A LlamaIndex LLM as whoever sits the exam."""

from __future__ import annotations

from typing import Any

from llama_index.core.base.llms.types import ChatMessage, MessageRole
from llama_index.core.llms import LLM

from msat_core import ConfigurationError, ExamClient, Reply

_ENDED = ("finish_reason", "stop_reason", "done_reason")  # as OpenAI, Anthropic and Ollama call it
_SETTINGS = ("temperature", "max_tokens", "num_output")
_UNNAMED = "unknown"  # what LLMMetadata says where nobody set a name
_INPUT_KEYS, _OUTPUT_KEYS = ("prompt_tokens", "input_tokens"), ("completion_tokens", "output_tokens")


class LlamaIndexExamClient(ExamClient):
    """See :func:`exam_client`."""

    def __init__(self, llm: LLM, candidate: str) -> None:
        self._llm = llm
        self.candidate = candidate
        self.source = f"llamaindex:{type(llm).__name__} {llm.metadata.model_name}"
        fields = {name: getattr(llm, name, None) for name in _SETTINGS}
        self.settings = {name: value for name, value in fields.items() if isinstance(value, (int, float))}
        limit = fields["max_tokens"]
        self.max_output_tokens = limit if isinstance(limit, int) else None

    async def ask(self, prompt: str) -> Reply:
        """One chat call with one user message."""
        response = await self._llm.achat([ChatMessage(role=MessageRole.USER, content=prompt)])
        usage = [response.additional_kwargs, _field(response.raw, "usage")]
        tokens = _count(usage, _INPUT_KEYS), _count(usage, _OUTPUT_KEYS)
        return Reply(response.message.content or "", *tokens, _ended(response.raw))


def exam_client(llm: LLM, *, candidate: str | None = None) -> ExamClient:
    """A client with which an LLM sits the exam.

    The exam's runner retries: give the LLM ``max_retries=0`` where it has such a setting.

    Args:
        llm: any LlamaIndex LLM.
        candidate: the name in the profile; None for the LLM's own.

    Raises:
        ConfigurationError: no name was given and the LLM has none.
    """
    name = candidate or llm.metadata.model_name
    if not name or name == _UNNAMED:
        raise ConfigurationError(
            f"A {type(llm).__name__} does not say which model it is: give exam_client(…, candidate=NAME)."
        )
    return LlamaIndexExamClient(llm, name)


def _field(holder: Any, name: str) -> Any:
    return holder.get(name) if isinstance(holder, dict) else getattr(holder, name, None)


def _ended(raw: Any) -> str | None:
    """The provider's reason for ending the reply, where its raw answer states one."""
    choices = _field(raw, "choices")
    holders = [raw, *(choices if isinstance(choices, list) else ())]
    values = [_field(holder, name) for holder in holders for name in _ENDED]
    return next((value for value in values if isinstance(value, str)), None)


def _count(holders: list[Any], names: tuple[str, ...]) -> int | None:
    """Providers keep token counts in the response's extras or in the raw reply, under two sets of names."""
    values = [_field(holder, name) for holder in holders if holder is not None for name in names]
    return next((value for value in values if isinstance(value, int)), None)
