"""Any OpenAI-compatible chat endpoint as whoever sits the exam."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from msat_core.aptitude.bounded_http import bounded_client
from msat_core.aptitude.clients import ExamClient, MalformedReply, Reply
from msat_core.aptitude.rejected_settings import adaptation
from msat_core.errors import ConfigurationError
from msat_core.reading import parse_json
from msat_core.scrubbing import kept_text

if TYPE_CHECKING:
    from openai import AsyncOpenAI

DEFAULT_TEMPERATURE = 0.0  # chosen: greedy, so that a sitting can be repeated
DEFAULT_MAX_OUTPUT_TOKENS = 2048  # chosen: room for a chain of thought
THINKING_MAX_OUTPUT_TOKENS = 16384  # where a reply of a candidate that thinks is cut, its thinking included
# Hidden thinking to reckon with before a run, by effort; chosen, and soon replaced by what the endpoint counts.
THINKING_TOKENS = {"none": 0, "minimal": 200, "low": 800, "medium": 2000, "high": 5000, "xhigh": 10000, "max": 10000}
CONNECT_TIMEOUT_S = 10.0  # chosen: a host that takes longer is down
OPENAI_HOST = "api.openai.com"
# Names by which models that think before they answer are sold. For estimates and limits alone.
_THINKS = re.compile(
    r"(?:^|[/:_.-])(?:o[134](?:-|$)|gpt-5(?!.*chat)|gpt-[6-9]|gpt-oss|r1\b|qwq|magistral|grok-[34]|gemini-(?:2\.5|[3-9]))"
    r"|deepseek-r1|thinking|reason(?:er|ing)",
    re.IGNORECASE,
)


class OpenAIClient(ExamClient):
    """An OpenAI-compatible chat endpoint, through the ``openai`` package.

    A temperature, a limit's name or an effort that the endpoint rejects is adapted once, with a notice.

    Args:
        model: the endpoint's name of the candidate.
        base_url: the endpoint; None for ``$OPENAI_BASE_URL``, else OpenAI's own.
        api_key: None for ``$OPENAI_API_KEY``; an endpoint of one's own may need none.
        candidate: the name in the profile; None for the model's, with its effort where one is set.
        temperature: None leaves it to the endpoint.
        max_output_tokens: where a reply is cut; None for a limit that leaves room for thinking where the model thinks.
        effort: reasoning effort; a model at another effort is another candidate. None leaves it to the endpoint.
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
        max_output_tokens: int | None = None,
        effort: str | None = None,
        client: AsyncOpenAI | None = None,
    ) -> None:
        try:
            import openai
        except ImportError:
            raise ConfigurationError(
                'An exam at an OpenAI-compatible endpoint needs `openai`: pip install "model-sat-router[exam]".'
            ) from None
        waits = openai.Timeout(None, connect=CONNECT_TIMEOUT_S)  # a call's own time is the runner's
        endpoint = {} if client is not None else _endpoint(base_url, api_key)
        try:
            self._openai = client or bounded_client(max_retries=0, timeout=waits, **endpoint)
        except Exception as error:
            raise ConfigurationError(
                f"The endpoint's address cannot be read ({kept_text(error)}): expected one such as http://host:8000/v1."
            ) from None
        self._unreadable = openai.APIResponseValidationError
        self._model = model
        url = str(self._openai.base_url)
        self.candidate = candidate or (f"{model}:{effort}" if effort else model)
        self.source = f"openai:{model} at {_without_credentials(url)}"
        self.thinking_tokens = thinking_tokens(model, effort)
        if max_output_tokens is None:
            max_output_tokens = THINKING_MAX_OUTPUT_TOKENS if self.thinking_tokens else DEFAULT_MAX_OUTPUT_TOKENS
        self.max_output_tokens = max_output_tokens
        self.settings = {"model": model, "temperature": temperature, "max_output_tokens": max_output_tokens}
        # OpenAI's newer models know only the new name of the limit, many other servers only the old one.
        limit = "max_completion_tokens" if urlsplit(url).hostname == OPENAI_HOST else "max_tokens"
        self._arguments: dict[str, Any] = {limit: max_output_tokens}
        if temperature is not None:
            self._arguments["temperature"] = temperature
        if effort is not None:
            self.settings["reasoning_effort"] = effort
            self._arguments["reasoning_effort"] = effort
        self._adapted: set[str] = set()
        self.notices: list[str] = []

    async def ask(self, prompt: str) -> Reply:
        """One chat completion of one user message."""
        return await self._ask(prompt)

    async def ask_with_tools(self, prompt: str, tools: Sequence[Mapping[str, Any]]) -> Reply:
        """The same, with tools on offer."""
        return await self._ask(prompt, tools=list(tools))

    async def _ask(self, prompt: str, **more: Any) -> Reply:  # noqa: ANN401 - of the endpoint's own
        try:
            return _reply_of(await self._completion([{"role": "user", "content": prompt}], more))
        except (self._unreadable, AttributeError, IndexError, TypeError, ValueError, RecursionError) as error:
            raise MalformedReply(f"no chat completion ({type(error).__name__})") from error
        except Exception as error:  # the library takes what it meets while it reads for a lost connection
            if isinstance(error.__cause__, MalformedReply):
                raise error.__cause__ from None
            raise

    async def _completion(self, messages: Any, more: Mapping[str, Any]) -> Any:  # noqa: ANN401 - the library's own
        while True:
            sent = self._arguments
            try:
                return await self._openai.chat.completions.create(model=self._model, messages=messages, **sent, **more)
            except Exception as error:
                if self._arguments is sent and not self._adapt(error):
                    raise

    def _adapt(self, error: Exception) -> bool:
        """Change what is sent, each setting at most once; False if the error is about something else."""
        change = adaptation(error, self._arguments)
        if change is None or change.parameter in self._adapted:
            return False
        self._adapted.add(change.parameter)
        self._arguments = dict(change.arguments)
        self.notices.append(f"{self._model}: {change.notice}.")
        return True

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


def thinking_tokens(model: str, effort: str | None) -> int:
    """Hidden output tokens to reckon with for one answer, by effort or model name; 0 where it does not think."""
    if effort is None:
        return THINKING_TOKENS["medium"] if _THINKS.search(model) else 0
    return THINKING_TOKENS.get(effort, THINKING_TOKENS["medium"])


def _reply_of(completion: Any) -> Reply:  # noqa: ANN401 - the library's own
    """A completion's one message, its calls of tools, or its refusal."""
    choice = completion.choices[0]
    text, ended = choice.message.content, choice.finish_reason
    calls = getattr(choice.message, "tool_calls", None)
    refusal = getattr(choice.message, "refusal", None)
    if not isinstance(text, str | None) or (text is None and ended is None and not calls):
        raise MalformedReply("a chat completion without content")
    if calls:
        written = [{"name": call.function.name, "arguments": _arguments(call.function.arguments)} for call in calls]
        text = json.dumps(written)
    elif refusal and not text:
        text, ended = str(refusal), "refusal"
    usage = getattr(completion, "usage", None)
    tokens = getattr(usage, "prompt_tokens", None), getattr(usage, "completion_tokens", None)
    return Reply(text or "", *tokens, ended=ended if isinstance(ended, str) else None)


def _arguments(text: str) -> Any:  # noqa: ANN401 - any JSON value
    try:
        return parse_json(text or "{}")
    except ValueError:
        return text


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
