"""The seam between an exam and whoever sits it: one prompt in, one reply out.

A client translates and nothing else: bounding, retrying, timing out, counting and writing down are
the runner's. ``langchain_msat.exam_client`` and ``llamaindex_msat.exam_client`` wrap the frameworks'
models; ``openai_client.OpenAIClient`` speaks to any OpenAI-compatible endpoint.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from msat_core.errors import ConfigurationError
from msat_core.http_errors import status_of

_RETRIED_STATUS = frozenset({408, 409, 425, 429})
_REFUSED_STATUS = frozenset({401, 403, 404})
_UNREACHABLE = frozenset(
    {"ConnectError", "ConnectTimeout", "ConnectionRefusedError", "gaierror", "UnsupportedProtocol"}
)
_RETRIED_NAMES = ("timeout", "connection", "connect", "ratelimit", "overloaded", "unavailable", "internalserver")


@dataclass(frozen=True)
class Reply:
    """What a candidate said.

    Attributes:
        text: the reply, whole; empty if it said nothing. Calls of tools are JSON: ``[{"name", "arguments"}]``.
        input_tokens, output_tokens: as the endpoint counted them, hidden thinking included; None where it does not.
        ended: the endpoint's reason for ending it ("stop", "length", …); None where it gives none.
    """

    text: str
    input_tokens: int | None = None
    output_tokens: int | None = None
    ended: str | None = None


class MalformedReply(Exception):
    """The endpoint sent something that is no reply; worth another try."""


class ExamClient(ABC):
    """Whoever sits the exam.

    Attributes:
        candidate: the name that the profile will bear.
        source: who answers, for the profile's provenance; without credentials.
        settings: what else decides its answers (temperature, …), as JSON values.
        max_output_tokens: the most that one reply can have; None if nobody knows. A spending cap needs it.
        thinking_tokens: output tokens of hidden thinking to reckon with in an estimate; 0 where it does not think.
        notices: what a reader of its profile should know of the asking: settings that the endpoint refused.
    """

    candidate: str
    source: str
    settings: Mapping[str, Any] = {}
    max_output_tokens: int | None = None
    thinking_tokens: int = 0
    notices: Sequence[str] = ()

    @abstractmethod
    async def ask(self, prompt: str) -> Reply:
        """Answer one prompt. Any exception counts as a failure; :func:`is_transient` says which are tried again."""

    async def ask_with_tools(self, prompt: str, tools: Sequence[Mapping[str, Any]]) -> Reply:
        """Answer one prompt with tools on offer, as OpenAI's API describes them; a call comes back as JSON text."""
        raise ConfigurationError(f"{self.source} cannot be offered tools: leave `tools` out of the questions.")

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


def is_transient(error: BaseException) -> bool:
    """Is it worth another try? Rate limits, server errors, timeouts, broken connections, malformed replies."""
    status = status_of(error)
    if status is not None and status >= 400:
        return status in _RETRIED_STATUS or status >= 500
    if isinstance(error, (TimeoutError, ConnectionError, MalformedReply)):
        return True
    name = type(error).__name__.lower()
    return any(part in name for part in _RETRIED_NAMES)


def is_unreachable(error: BaseException) -> bool:
    """Could the endpoint not be reached at all (no such host, nobody listening)? Then nothing was sent."""
    return status_of(error) is None and any(type(cause).__name__ in _UNREACHABLE for cause in _causes(error))


def may_have_cost(error: BaseException) -> bool:
    """Might the endpoint charge for a call that ended so? Not where it was never sent, or declined with a 4xx."""
    status = status_of(error)
    return not is_unreachable(error) if status is None else status >= 500


def is_refusal(error: BaseException) -> bool:
    """Does it mean that no question at all will be answered (key, permission, no such model)?"""
    return status_of(error) in _REFUSED_STATUS


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what led to it."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
