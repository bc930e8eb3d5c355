"""The seam between an exam and whoever sits it: one prompt in, one reply out.

A client translates and nothing else: bounding, retrying, timing out, counting and writing down are
the runner's. ``langchain_msat.exam_client`` and ``llamaindex_msat.exam_client`` wrap the frameworks'
models; :class:`OpenAIClient` speaks to any OpenAI-compatible endpoint.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from msat_core.errors import ConfigurationError

if TYPE_CHECKING:
    from openai import AsyncOpenAI

DEFAULT_MAX_OUTPUT_TOKENS = 2048
DEFAULT_TEMPERATURE = 0.0
OPENAI_HOST = "api.openai.com"
_RETRIED_STATUS = frozenset({408, 409, 425, 429})
_REFUSED_STATUS = frozenset({401, 403, 404})
_RETRIED_NAMES = ("timeout", "connection", "connect", "ratelimit", "overloaded", "unavailable", "internalserver")


@dataclass(frozen=True)
class Reply:
    """What a candidate said.

    Attributes:
        text: the reply, whole; empty if it said nothing.
        input_tokens, output_tokens: as the endpoint counted them; None where it does not.
    """

    text: str
    input_tokens: int | None = None
    output_tokens: int | None = None


class MalformedReply(Exception):
    """The endpoint sent something that is no reply; worth another try."""


class ExamClient(ABC):
    """Whoever sits the exam.

    Attributes:
        candidate: the name that the profile will bear.
        source: who answers, for the profile's provenance; without credentials.
        settings: what else decides its answers (temperature, …), as JSON values.
        max_output_tokens: the most that one reply can have; None if nobody knows. A spending cap needs it.
    """

    candidate: str
    source: str
    settings: Mapping[str, Any] = {}
    max_output_tokens: int | None = None

    @abstractmethod
    async def ask(self, prompt: str) -> Reply:
        """Answer one prompt. Any exception counts as a failure; :func:`is_transient` says which are tried again."""

    async def aclose(self) -> None:  # noqa: B027 - most clients hold nothing open
        """Let go of connections."""


class FunctionClient(ExamClient):
    """Asks an async function: for tests, documentation, and candidates with a client of their own."""

    def __init__(
        self,
        candidate: str,
        answer: Callable[[str], Awaitable[str | Reply]],
        *,
        source: str = "a Python function",
        max_output_tokens: int | None = None,
    ) -> None:
        self.candidate, self.source, self.max_output_tokens = candidate, source, max_output_tokens
        self._answer = answer

    async def ask(self, prompt: str) -> Reply:
        """The function's answer to one prompt."""
        reply = await self._answer(prompt)
        return reply if isinstance(reply, Reply) else Reply(reply)


class OpenAIClient(ExamClient):
    """An OpenAI-compatible chat endpoint, through the ``openai`` package.

    Args:
        model: the endpoint's name of the candidate.
        base_url: the endpoint; None for ``$OPENAI_BASE_URL``, else OpenAI's own.
        api_key: None for ``$OPENAI_API_KEY``; an endpoint of one's own may need none.
        candidate: the name in the profile; None for the model's.
        temperature: None leaves it to the endpoint (reasoning models refuse to be told).
        max_output_tokens: where a reply is cut.
        client: an ``openai`` client of one's own (Azure, say); ``base_url`` and ``api_key`` are then its own.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        candidate: str | None = None,
        temperature: float | None = DEFAULT_TEMPERATURE,
        max_output_tokens: int = DEFAULT_MAX_OUTPUT_TOKENS,
        client: AsyncOpenAI | None = None,
    ) -> None:
        try:
            import openai
        except ImportError:
            raise ConfigurationError(
                'An exam at an OpenAI-compatible endpoint needs `openai`: pip install "model-sat-router[exam]".'
            ) from None
        self._openai = client or openai.AsyncOpenAI(max_retries=0, timeout=None, **_endpoint(base_url, api_key))
        self._unreadable = openai.APIResponseValidationError
        self._model = model
        url = str(self._openai.base_url)
        self.candidate = candidate or model
        self.source = f"openai:{model} at {_without_credentials(url)}"
        self.max_output_tokens = max_output_tokens
        self.settings = {"model": model, "temperature": temperature, "max_output_tokens": max_output_tokens}
        # OpenAI's newer models know only the new name of the limit, many other servers only the old one.
        limit = "max_completion_tokens" if urlsplit(url).hostname == OPENAI_HOST else "max_tokens"
        self._arguments: dict[str, Any] = {limit: max_output_tokens}
        if temperature is not None:
            self._arguments["temperature"] = temperature

    async def ask(self, prompt: str) -> Reply:
        """One chat completion of one user message."""
        messages: Any = [{"role": "user", "content": prompt}]
        try:
            made: Any = await self._openai.chat.completions.create(
                model=self._model, messages=messages, **self._arguments
            )
            choice = made.choices[0]
            text, ended = choice.message.content, choice.finish_reason
        except (self._unreadable, AttributeError, IndexError, TypeError, ValueError) as error:
            raise MalformedReply(f"no chat completion ({type(error).__name__})") from error
        if not isinstance(text, str | None) or (text is None and ended is None):
            raise MalformedReply("a chat completion without content")
        usage = getattr(made, "usage", None)
        return Reply(text or "", getattr(usage, "prompt_tokens", None), getattr(usage, "completion_tokens", None))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._openai.close()


def client_named(name: str, **options: Any) -> ExamClient:  # noqa: ANN401 - OpenAIClient's own
    """A client from ``openai:NAME``. Raises ConfigurationError for another kind."""
    kind, _, model = name.partition(":")
    if kind != "openai" or not model:
        raise ConfigurationError(
            f"{name!r} names no client: expected openai:NAME (any OpenAI-compatible endpoint, with --base-url). For "
            "others use langchain_msat.exam_client or llamaindex_msat.exam_client from Python."
        )
    return OpenAIClient(model, **options)


def status_of(error: BaseException) -> int | None:
    """The HTTP status that an error carries, whichever library raised it."""
    for holder in (error, getattr(error, "response", None)):
        for name in ("status_code", "status", "code"):
            value = getattr(holder, name, None)
            if isinstance(value, int) and 100 <= value < 600:
                return value
    return None


def is_transient(error: BaseException) -> bool:
    """Is it worth another try? Rate limits, server errors, timeouts, broken connections, malformed replies."""
    status = status_of(error)
    if status is not None and status >= 400:
        return status in _RETRIED_STATUS or status >= 500
    if isinstance(error, (TimeoutError, ConnectionError, MalformedReply)):
        return True
    name = type(error).__name__.lower()
    return any(part in name for part in _RETRIED_NAMES)


def retry_after_s(error: BaseException) -> float:
    """Seconds that the endpoint asks to be left alone for; 0 where it does not say."""
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    try:
        return max(0.0, float(headers.get("retry-after", 0)))
    except (TypeError, ValueError):
        return 0.0


def is_refusal(error: BaseException) -> bool:
    """Does it mean that no question at all will be answered (key, permission, no such model)?"""
    return status_of(error) in _REFUSED_STATUS


def _endpoint(base_url: str | None, api_key: str | None) -> dict[str, Any]:
    base_url = base_url or os.environ.get("OPENAI_BASE_URL")
    api_key = api_key or os.environ.get("OPENAI_API_KEY") or ("none" if base_url else None)
    if api_key is None:
        raise ConfigurationError(
            "OpenAI's own endpoint needs a key: set OPENAI_API_KEY, or give the --base-url of another endpoint."
        )
    return {"base_url": base_url, "api_key": api_key}


def _without_credentials(url: str) -> str:
    parts = urlsplit(url)
    host = parts.hostname or ""
    place = f"{host}:{parts.port}" if parts.port else host
    return urlunsplit((parts.scheme, place, parts.path.rstrip("/"), "", ""))
