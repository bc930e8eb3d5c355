"""The standard suite and failures over real HTTP, with the chat models of OpenAI and Anthropic as candidates."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_tests.integration_tests import ChatModelIntegrationTests
from provider_servers import ProviderServer
from pydantic import SecretStr
from support import profile, table_router

from langchain_msat import ChatMSAT
from msat_core import Candidate

anthropic = pytest.importorskip("langchain_anthropic")
openai = pytest.importorskip("langchain_openai")

pytestmark = [
    pytest.mark.enable_socket,
    pytest.mark.filterwarnings("ignore"),  # the clients' own: unclosed sockets of their pools
]
SERVERS: dict[str, ProviderServer] = {}


@pytest.fixture(scope="module", autouse=True)
def servers() -> Iterator[dict[str, ProviderServer]]:
    with ProviderServer() as one, ProviderServer() as other:
        SERVERS.update(openai=one, anthropic=other)
        yield SERVERS


@pytest.fixture(autouse=True)
def without_faults(servers: dict[str, ProviderServer]) -> None:
    for server in servers.values():
        server.fault = None
        server.seen.clear()


def models(**options: Any) -> dict[str, Any]:
    given = {"max_retries": 0, **{k: v for k, v in options.items() if k in ("temperature", "max_tokens", "stop")}}
    return {
        "openai": openai.ChatOpenAI(
            model="gpt", api_key=SecretStr("x"), base_url=f"{SERVERS['openai'].url}/v1", stream_usage=True, **given
        ),
        "anthropic": anthropic.ChatAnthropic(
            model="claude", api_key=SecretStr("x"), base_url=SERVERS["anthropic"].url, **{"max_tokens": 100, **given}
        ),
    }


def chat(best: str, **options: Any) -> ChatMSAT:
    other = {"openai": "anthropic", "anthropic": "openai"}[best]
    zoo = [Candidate(profile=profile(best, 0.9)), Candidate(profile=profile(other, 0.3))]
    return ChatMSAT(models(**options), router=table_router(candidates=zoo))


class OpenAIFirst(ChatMSAT):
    """As the suite builds it."""

    def __init__(self, **standard: Any) -> None:
        made = chat("openai", **standard)
        super().__init__(candidates=made.candidates, router=made.router)


class AnthropicFirst(ChatMSAT):
    """As the suite builds it."""

    def __init__(self, **standard: Any) -> None:
        made = chat("anthropic", **standard)
        super().__init__(candidates=made.candidates, router=made.router)


class TestOpenAIFirst(ChatModelIntegrationTests):
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return OpenAIFirst

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {}


class TestAnthropicFirst(ChatModelIntegrationTests):
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return AnthropicFirst

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {}


def by(answer: Any) -> str:
    return str(answer.response_metadata["msat"]["candidate"])


@tool
def double(number: int) -> int:
    """Twice the number."""
    return 2 * number


FAULTS: list[tuple[str, int, dict[str, Any], str]] = [
    ("openai", 429, {"error": {"code": "insufficient_quota", "type": "insufficient_quota", "message": "no"}}, "quota"),
    ("openai", 404, {"error": {"code": "model_not_found", "message": "The model does not exist"}}, "not_found"),
    ("openai", 400, {"error": {"code": "context_length_exceeded", "message": "too long"}}, "context_overflow"),
    ("openai", 401, {"error": {"code": "invalid_api_key", "message": "Incorrect: sk-SECRETSECRET"}}, "authentication"),
    (
        "anthropic",
        529,
        {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
        "unavailable",
    ),
    (
        "anthropic",
        400,
        {"type": "error", "error": {"type": "invalid_request_error", "message": "Your credit balance is too low"}},
        "quota",
    ),
    (
        "anthropic",
        400,
        {"type": "error", "error": {"type": "invalid_request_error", "message": "prompt is too long: 9 > 8 tokens"}},
        "context_overflow",
    ),
]


@pytest.mark.parametrize(("best", "status", "body", "kind"), FAULTS)
async def test_faults_with_real_bodies(best: str, status: int, body: dict[str, Any], kind: str) -> None:
    SERVERS[best].fault = (status, body)
    router = chat(best)
    for answer in (router.invoke("hello"), await router.ainvoke("hello")):
        assert by(answer) != best
        step = answer.response_metadata["msat"]["path"][0]
        assert (step["candidate"], step["kind"]) == (best, kind)
        assert "SECRET" not in str(step)
    for server in SERVERS.values():
        server.fault = (status, body)
    with pytest.raises(Exception) as failed:
        router.invoke("hello")
    assert type(failed.value).__module__.split(".")[0] in (
        "openai",
        "anthropic",
        "langchain_openai",
        "langchain_anthropic",
    )


@pytest.mark.parametrize("best", ["openai", "anthropic"])
def test_a_tool_loop_changes_hands(best: str) -> None:
    router = chat(best).bind_tools([double])
    question = HumanMessage("double 21, if you please")
    call = router.invoke([question])
    assert by(call) == best
    assert call.tool_calls[0]["args"] == {"number": 21}
    result = ToolMessage("42", tool_call_id=call.tool_calls[0]["id"])
    SERVERS[best].fault = (503, {"error": {"message": "down"}})
    answer = router.invoke([question, call, result])
    assert by(answer) != best
    assert "42" in answer.text


@pytest.mark.parametrize("choice", ["any", "required", "none"])
def test_a_choice_of_tools_reaches_anthropic_in_its_words(choice: str) -> None:
    chat("anthropic").bind_tools([double], tool_choice=choice).invoke("double 4")
    assert SERVERS["anthropic"].seen[-1]["tool_choice"]["type"] == ("none" if choice == "none" else "any")


def test_usage_and_streams_are_those_of_a_direct_call() -> None:
    for best in ("openai", "anthropic"):
        direct = models()[best]
        assert chat(best).invoke("hello").usage_metadata == direct.invoke("hello").usage_metadata
        ours, theirs = list(chat(best).stream("hello you")), list(direct.stream("hello you"))
        assert "".join(c.text for c in ours) == "".join(c.text for c in theirs)
        assert by(ours[[bool(c.response_metadata.get("msat")) for c in ours].index(True)]) == best
