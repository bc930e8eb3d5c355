"""The exam's runner and today's endpoints: what they refuse to be told, how they end a reply, what they charge for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import exam_world
import httpx
import pytest
from chat_server import ChatServer
from exam_world import KnowingClient, aptitude_test, paper, truth

from msat_core.aptitude.clients import FunctionClient, Reply
from msat_core.aptitude.journal import Answer, Journal
from msat_core.aptitude.openai_client import OpenAIClient, thinking_tokens
from msat_core.aptitude.paper import Prices
from msat_core.aptitude.sitting import RunSettings
from msat_core.errors import ExamError

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])

FAST = RunSettings(concurrency=3, retry_for_s=5)


@pytest.fixture(autouse=True)
def quick_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("msat_core.aptitude.paid_calls.FIRST_BACKOFF_S", 0.001)


def answers(prompt: str, request: Mapping[str, Any]) -> str:
    return exam_world.answer_to(prompt)


@pytest.mark.parametrize(
    ("rejects", "sent", "unsent"),
    [
        ({"temperature": ""}, {"max_tokens", "reasoning_effort"}, {"temperature"}),
        ({"max_tokens": "max_completion_tokens"}, {"max_completion_tokens", "temperature"}, {"max_tokens"}),
        ({"reasoning_effort": ""}, {"max_tokens", "temperature"}, {"reasoning_effort"}),
        (
            {"temperature": "", "max_tokens": "max_completion_tokens", "reasoning_effort": ""},
            {"max_completion_tokens"},
            {"temperature", "max_tokens", "reasoning_effort"},
        ),
    ],
)
async def test_what_an_endpoint_will_not_be_told_is_adapted_once(
    tmp_path: Path, socket_enabled: None, rejects: dict[str, str], sent: set[str], unsent: set[str]
) -> None:
    server = ChatServer({"toy-1": answers}, rejects)
    with server.running() as url:
        client = OpenAIClient("toy-1", base_url=url, effort="low", candidate="toy-1")
        sat = await aptitude_test().sit(paper(), client, tmp_path / "j", settings=RunSettings(concurrency=1))
        await client.aclose()
        assert sat.profile.shots == truth()
        assert server.n_rejected == len(rejects)
        assert all(sent <= body.keys() and not unsent & body.keys() for body in server.bodies)
        sitting = sat.profile.provenance.sitting
        assert sitting is not None and len(sitting.warnings) == len(rejects)
        # the journal keeps its identity: a new client, which would have to adapt again, has nothing to ask
        again = OpenAIClient("toy-1", base_url=url, effort="low", candidate="toy-1")
        await aptitude_test().sit(paper(), again, tmp_path / "j", settings=FAST)
        await again.aclose()
        assert len(server.bodies) == 12


async def test_another_error_is_no_rejection(tmp_path: Path, socket_enabled: None) -> None:
    def too_long(prompt: str, request: Mapping[str, Any]) -> str:
        raise AssertionError

    server = ChatServer({"toy-1": too_long}, {"messages": "fewer"})
    with server.running() as url:
        client = OpenAIClient("toy-1", base_url=url)
        with pytest.raises(ExamError, match="failed 10 questions in a row"):
            await aptitude_test().sit(paper(), client, tmp_path / "j", settings=RunSettings(concurrency=1))
        await client.aclose()
    assert server.n_rejected == 10


async def test_an_empty_journal_belongs_to_nobody(tmp_path: Path) -> None:
    with Journal(tmp_path / "j", {"candidate": "a", "settings": {"temperature": 0.0}}):
        pass
    with Journal(tmp_path / "j", {"candidate": "a", "settings": {"temperature": None}}) as journal:
        await journal.append([Answer("q", 0, "x")])
    with pytest.raises(ExamError, match="another sitting"), Journal(tmp_path / "j", {"candidate": "b"}):
        pass


async def test_a_cut_answer_is_no_answer_and_a_higher_limit_asks_it_again(tmp_path: Path) -> None:
    asked: list[str] = []

    def limited(limit: int) -> FunctionClient:
        async def think(prompt: str) -> Reply:
            asked.append(prompt)
            if "algebra" in prompt and limit < 500:
                return Reply("<think>The answer is (C)? Hmm, maybe (B)", 10, limit, "length")
            return Reply(f"<think>Hmm (A).</think>{exam_world.answer_to(prompt)}", 10, 20, "stop")

        return FunctionClient("toy-1", think, max_output_tokens=limit)

    first = await aptitude_test().sit(paper(), limited(100), tmp_path / "j", settings=FAST)
    sitting = first.profile.provenance.sitting
    assert sitting is not None
    assert (sitting.n_cut, sitting.n_unreadable) == (4, 0)
    assert "4 of 12 questions got answers that were cut short at 100 tokens" in sitting.warnings[0]
    assert "--max-tokens" in sitting.warnings[0]
    assert {r.task: r.n_correct for r in first.profile.results}["algebra"] == 0
    raised = await aptitude_test().sit(paper(), limited(1000), tmp_path / "j", settings=FAST)
    assert len(asked) == 12 + 4  # only what was cut
    assert raised.profile.shots == truth()
    await aptitude_test().sit(paper(), limited(100), tmp_path / "j", settings=FAST)
    assert len(asked) == 16


async def test_empty_and_refused_answers_are_counted_apart(tmp_path: Path) -> None:
    async def moody(prompt: str) -> Reply:
        if "algebra" in prompt:
            return Reply("", ended="stop")
        return Reply("I won't.", ended="content_filter") if "law" in prompt else Reply(exam_world.answer_to(prompt))

    sat = await aptitude_test().sit(paper(), FunctionClient("t", moody), tmp_path / "j", settings=FAST)
    sitting = sat.profile.provenance.sitting
    assert sitting is not None
    assert (sitting.n_empty, sitting.n_refused, sitting.n_cut, sitting.n_unreadable) == (4, 4, 0, 0)
    assert "without a word" in sitting.warnings[0] and "--max-tokens" in sitting.warnings[0]


async def test_finish_reasons_and_tool_calls_are_read_over_http(socket_enabled: None) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    server = ChatServer(
        {
            "cut": lambda prompt, request: {"message": {"content": "half an ans"}, "finish_reason": "length"},
            "calls": lambda prompt, request: {"message": {"tool_calls": [call]}, "finish_reason": "tool_calls"},
            "declines": lambda prompt, request: {"message": {"refusal": "I can't."}},
        }
    )
    tools = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]
    with server.running() as url:
        clients = {name: OpenAIClient(name, base_url=url) for name in server.models}
        assert (await clients["cut"].ask("?")).ended == "length"
        reply = await clients["calls"].ask_with_tools("?", tools)
        assert reply.text == '[{"name": "add", "arguments": {"a": 1}}]'
        assert server.bodies[-1]["tools"] == tools
        declined = await clients["declines"].ask("?")
        assert (declined.text, declined.ended) == ("I can't.", "refusal")
        for client in clients.values():
            await client.aclose()


def test_an_effort_makes_another_candidate_and_thinking_costs() -> None:
    client = OpenAIClient("gpt-5-mini", base_url="http://127.0.0.1:1/v1", effort="high")
    assert client.candidate == "gpt-5-mini:high"
    assert client.settings["reasoning_effort"] == "high"
    plain = paper().estimate(Prices(1, 1))
    thinking = paper().estimate(Prices(1, 1), thinking_tokens=client.thinking_tokens)
    assert thinking.output_tokens == plain.output_tokens + 12 * client.thinking_tokens
    thinks = {
        "o3-mini",
        "gpt-5.2",
        "openai/gpt-5",
        "deepseek-reasoner",
        "qwen3-30b-a3b-thinking-2507",
        "gemini-2.5-pro",
    }
    does_not = {
        "gpt-4o",
        "gpt-5-chat-latest",
        "claude-sonnet-4.5",
        "llama-3.1-70b",
        "mistral-large",
        "qwen3-30b-instruct",
    }
    assert all(thinking_tokens(name, None) for name in thinks)
    assert not any(thinking_tokens(name, None) for name in does_not)
    assert client.max_output_tokens is not None and client.max_output_tokens > 2048


@pytest.mark.parametrize(
    "error",
    [httpx.ConnectError("All connection attempts failed"), httpx.ConnectTimeout("no route"), ConnectionRefusedError()],
)
async def test_a_wrong_host_is_given_up_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    monkeypatch.setattr("msat_core.aptitude.paid_calls.UNREACHABLE_FOR_S", 0.05)
    client = KnowingClient([error] * 100_000)
    with pytest.raises(ExamError, match=r"cannot be reached .*--base-url"):
        await aptitude_test().sit(paper(), client, tmp_path / "j", settings=RunSettings(retry_for_s=3600))


async def test_a_host_that_was_reached_before_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("msat_core.aptitude.paid_calls.UNREACHABLE_FOR_S", 0.0)
    n_calls = 0

    async def restarts(prompt: str) -> str:
        nonlocal n_calls
        n_calls += 1
        if 3 < n_calls < 10:
            raise httpx.ConnectError("restarting")
        return exam_world.answer_to(prompt)

    settings = RunSettings(concurrency=1, retry_for_s=60)
    sat = await aptitude_test().sit(paper(), FunctionClient("toy-1", restarts), tmp_path / "j", settings=settings)
    assert sat.profile.shots == truth()


@pytest.mark.parametrize("fault", ["hangs", "500"])
async def test_calls_that_failed_count_against_the_cap(tmp_path: Path, fault: str) -> None:
    n_calls = 0

    class Broken(Exception):
        status_code = 500

    async def never(prompt: str) -> str:
        nonlocal n_calls
        n_calls += 1
        if fault == "500":
            raise Broken
        await asyncio.sleep(60)
        return ""

    client = FunctionClient("toy-1", never, max_output_tokens=1000)
    dollar = Prices(usd_per_mtok_in=0, usd_per_mtok_out=1000)  # a call may cost one dollar
    settings = RunSettings(concurrency=2, timeout_s=0.01, retry_for_s=60, prices=dollar, max_usd=5.5)
    with pytest.raises(ExamError, match="spending cap"):
        await aptitude_test().sit(paper(), client, tmp_path / "j", settings=settings)
    assert n_calls == 5
    with pytest.raises(ExamError, match="spending cap"):  # the journal remembers
        await aptitude_test().sit(paper(), client, tmp_path / "j", settings=settings)
    assert n_calls == 5


async def test_what_was_declined_costs_nothing(tmp_path: Path) -> None:
    class Throttled(Exception):
        status_code = 429

    client = KnowingClient([Throttled()] * 8)
    prices = Prices(usd_per_mtok_in=10, usd_per_mtok_out=10)
    settings = RunSettings(concurrency=1, prices=prices, max_usd=1.0)
    sat = await aptitude_test().sit(paper(), client, tmp_path / "j", settings=settings)
    assert sat.result.usd == pytest.approx(12 * 0.0011)
    assert sat.result.usd_lost == 0


def test_reading_takes_time_in_proportion() -> None:
    from msat_core.aptitude.answers import read_choice, read_text

    def seconds(text: str) -> float:
        best = float("inf")
        for _ in range(3):
            began = time.perf_counter()
            read_choice(text, ["a", "b", "c"])
            read_text(text)
            best = min(best, time.perf_counter() - began)
        return best

    for unit in ("**", "answer is (", "<think>", "</think>", "\n", "the answer ", "\\boxed{", "Question: ", "A) "):
        short, long = ((unit * n)[:n] for n in (20_000, 160_000))
        assert seconds(long) < 40 * seconds(short) + 0.001, unit  # 8 where linear, 64 where quadratic


def test_brackets_a_thousand_deep_are_no_answer() -> None:
    from msat_core.aptitude.answers import read_choice

    assert read_choice('{"answer":' + "[" * 100_000 + "}", ["a", "b"]) is None
