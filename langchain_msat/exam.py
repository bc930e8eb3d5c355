"""A LangChain chat model as whoever sits the exam."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import Runnable
from langchain_core.runnables.base import RunnableBindingBase

from msat_core import ConfigurationError, ExamClient, Reply

_NAME_FIELDS = ("model_name", "model", "model_id", "deployment_name")
_ENDED = ("finish_reason", "stop_reason", "done_reason")  # as OpenAI and Google, Anthropic, Ollama call it
_SETTINGS = ("temperature", "max_tokens", "top_p", "seed")


class LangChainExamClient(ExamClient):
    """See :func:`exam_client`."""

    def __init__(self, chat_model: Runnable[Any, Any], candidate: str) -> None:
        self._model = chat_model
        self.candidate = candidate
        self.source = f"langchain:{type(chat_model).__name__} {_name(chat_model) or ''}".strip()
        fields = {name: getattr(_unbound(chat_model), name, None) for name in _SETTINGS}
        self.settings = {name: value for name, value in fields.items() if isinstance(value, (int, float))}
        limit = fields["max_tokens"]
        self.max_output_tokens = limit if isinstance(limit, int) else None

    async def ask(self, prompt: str) -> Reply:
        """One call of the chat model with one human message."""
        message = await self._model.ainvoke([HumanMessage(prompt)])
        usage: Mapping[str, Any] = (message.usage_metadata if isinstance(message, AIMessage) else None) or {}
        ended = next((v for k in _ENDED if isinstance(v := message.response_metadata.get(k), str)), None)
        return Reply(str(message.text), usage.get("input_tokens"), usage.get("output_tokens"), ended)


def exam_client(chat_model: Runnable[Any, Any], *, candidate: str | None = None) -> ExamClient:
    """A client with which a chat model, or a binding of one, sits the exam.

    The exam's runner retries: give the model ``max_retries=0`` where it has such a setting.

    Args:
        chat_model: any LangChain chat model.
        candidate: the name in the profile; None for the model's own.

    Raises:
        ConfigurationError: no name was given and the model has none.
    """
    name = candidate or _name(chat_model)
    if not name:
        raise ConfigurationError(
            f"A {type(chat_model).__name__} does not say which model it is: give exam_client(…, candidate=NAME)."
        )
    return LangChainExamClient(chat_model, name)


def _name(chat_model: Any) -> str | None:
    holder = _unbound(chat_model)
    return next((v for field in _NAME_FIELDS if isinstance(v := getattr(holder, field, None), str) and v), None)


def _unbound(chat_model: Any) -> Any:
    """The model inside a binding, or the model itself."""
    return chat_model.bound if isinstance(chat_model, RunnableBindingBase) else chat_model
