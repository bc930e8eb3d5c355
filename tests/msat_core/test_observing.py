"""Decision records: what is told of a route, in a file and to OpenTelemetry."""

from __future__ import annotations

import asyncio
import importlib
import json
import pickle
import stat
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from support import profile, table_router

from msat_core import (
    Candidate,
    ConfigurationError,
    DecisionLog,
    DecisionTelemetry,
    Fallback,
    RecordsError,
    Router,
    RoutingAsk,
    RoutingPolicy,
    RoutingRequest,
    TableScorer,
    TokenUsage,
    Turn,
    Zoo,
    afirst_answer,
    afirst_stream,
    first_answer,
    first_stream,
    read_decisions,
    tag_of,
)
from msat_core.errors import FileError
from msat_core.routing.observing import Route


def priced(decisions: Any, policy: RoutingPolicy | None = None) -> Router:
    """Good (5 and 10 USD a million tokens) and fair (1 and 2)."""
    zoo = Zoo(
        candidates=(
            Candidate(profile=profile("good", 0.8), usd_per_mtok_in=5, usd_per_mtok_out=10),
            Candidate(profile=profile("fair", 0.6), usd_per_mtok_in=1, usd_per_mtok_out=2),
        )
    )
    return Router(TableScorer(), zoo, policy, decisions=decisions)


def counted(known: TokenUsage, output: object) -> TokenUsage:
    """100 tokens in; every call of this is five tokens out."""
    return TokenUsage("provider-name", 100, (known.output_tokens or 0) + 5)


def attempts_of(router: Router, text: str = "q", fallback: Fallback | None = None, **more: Any) -> Any:
    ask = RoutingAsk.of(router, [Turn("user", text)], **more)
    return ask.attempts(ask.decide(), fallback, usage_of=counted)


# --- the file ---


def test_every_way_to_route_leaves_one_record(tmp_path: Path) -> None:
    router = priced(tmp_path / "log.jsonl")
    routed = [
        router.route("one"),
        asyncio.run(router.aroute("two")),
        *router.route_batch(["three", "four"]),
        *asyncio.run(router.aroute_batch(["five"])),
        *router.route_each(["six", ""])[:1],
        RoutingAsk.of(router, [Turn("user", "seven")]).route(),
        asyncio.run(RoutingAsk.of(router, [Turn("user", "eight")]).aroute()),
    ]
    records = read_decisions(tmp_path / "log.jsonl")
    assert [record.id for record in records] == [one.id for one in routed]  # type: ignore[union-attr]
    assert len({record.instruction for record in records}) == len(records) == 8
    assert {record.status for record in records} == {"decided"}


def test_a_record_holds_what_was_decided_and_by_what(tmp_path: Path) -> None:
    policy = RoutingPolicy(observe="fair", explore=0.1)
    router = priced(tmp_path / "log.jsonl", policy)
    decision = router.route("q", request=RoutingRequest(draw=0.5, conversation="c-7"))
    [record] = read_decisions(tmp_path / "log.jsonl")
    assert (record.policy, record.zoo, record.scorer) == (policy.digest, router.zoo.digest, router.scorer.digest)
    assert (record.candidate, record.recommended) == ("fair", "good")
    assert record.propensities == pytest.approx({"good": 0.1, "fair": 0.9})
    assert record.scores == decision.scores and record.costs_usd == decision.costs_usd
    assert (record.conversation, record.text, record.answered_by, record.path) == ("c-7", None, None, ())
    assert record.reason == decision.reason


def test_no_text_is_kept_unless_it_is_asked_for(tmp_path: Path) -> None:
    def fail(attempt: object) -> None:
        raise RuntimeError("secret prompt")

    for text in (False, True):
        log = DecisionLog(tmp_path / f"{text}.jsonl", text=text)
        attempts = attempts_of(priced(log), "my secret question")
        with pytest.raises(RuntimeError):
            first_answer(attempts, fail)
        assert ("secret" in (tmp_path / f"{text}.jsonl").read_text()) is text
    [record] = read_decisions(tmp_path / "True.jsonl")
    assert record.text == "my secret question" and record.path[0].error == "secret prompt"


def test_the_file_is_its_owners_alone_and_several_may_write_to_it(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    routers = [priced(path) for _ in range(3)]
    threads = [threading.Thread(target=lambda r=r: [r.route(f"q{i}") for i in range(30)]) for r in routers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len({record.id for record in read_decisions(path)}) == 90


def test_a_log_is_gone_on_with_without_being_read(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    priced(path).route("q")
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"id": "damaged"}\n' + whole.splitlines(keepends=True)[1][:50])  # a crash cut the last
    priced(path).route("again")
    lines = path.read_bytes().splitlines()
    assert len(lines) == 4 and json.loads(lines[-1])["status"] == "decided"
    with pytest.raises(RecordsError, match="line 3 is damaged"):
        read_decisions(path)


def test_what_is_no_log_is_refused_untouched(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("mine\nand mine\n")
    with pytest.raises(FileError, match="is not a decision log of msat"):
        priced(path)
    with pytest.raises(RecordsError, match="is not a decision log of msat"):
        read_decisions(path)
    assert path.read_text() == "mine\nand mine\n"
    with pytest.raises(RecordsError, match="does not exist"):
        read_decisions(tmp_path / "none.jsonl")
    with pytest.raises(ConfigurationError, match="a file, a DecisionLog or a DecisionTelemetry, got int"):
        priced(3)


def test_a_router_with_a_log_can_be_sent_to_another_process(tmp_path: Path) -> None:
    router = priced([DecisionLog(tmp_path / "log.jsonl"), DecisionTelemetry()])
    router.route("here")
    pickle.loads(pickle.dumps(router)).route("there")
    assert len(read_decisions(tmp_path / "log.jsonl")) == 2


# --- what became of it ---


def test_an_answer_with_its_tokens_cost_and_time(tmp_path: Path) -> None:
    router = priced(tmp_path / "log.jsonl")
    attempts = attempts_of(router)
    assert first_answer(attempts, lambda attempt: f"{attempt} says") == "good says"
    [record] = read_decisions(tmp_path / "log.jsonl")
    assert (record.status, record.answered_by) == ("answered", "good")
    assert record.cost_usd == pytest.approx((100 * 5 + 5 * 10) / 1e6)
    [call] = record.path
    assert (call.model, call.input_tokens, call.output_tokens, call.failure) == ("provider-name", 100, 5, "")
    assert call.ended_s is not None and 0 <= call.begun_s <= call.ended_s <= record.latency_s
    ask = RoutingAsk.of(router, [Turn("user", "q")])
    assert tag_of(attempts, ask)["id"] == record.id


def test_a_fallback_is_told_call_by_call(tmp_path: Path) -> None:
    def call(attempt: str) -> str:
        if attempt == "good":
            raise TimeoutError("late")
        return "words"

    first_answer(attempts_of(priced(tmp_path / "log.jsonl")), call)
    [record] = read_decisions(tmp_path / "log.jsonl")
    assert (record.candidate, record.answered_by, record.status) == ("good", "fair", "answered")
    assert [(one.candidate, bool(one.failure)) for one in record.path] == [("good", True), ("fair", False)]
    assert record.path[0].model is None and record.cost_usd == pytest.approx((100 + 10) / 1e6)


async def test_asynchronous_calls_and_those_who_do_not_wait(tmp_path: Path) -> None:
    router = priced(tmp_path / "log.jsonl")

    async def call(attempt: str) -> str:
        return "words"

    async def forever(attempt: str) -> str:
        await asyncio.sleep(600)
        return ""

    assert await afirst_answer(attempts_of(router), call) == "words"
    task = asyncio.create_task(afirst_answer(attempts_of(router), forever))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [record.status for record in read_decisions(tmp_path / "log.jsonl")] == ["answered", "left"]


def test_where_nobody_answers(tmp_path: Path) -> None:
    def fail(attempt: str) -> str:
        raise ConnectionError("down")

    with pytest.raises(ConnectionError):
        first_answer(attempts_of(priced(tmp_path / "log.jsonl")), fail)
    [record] = read_decisions(tmp_path / "log.jsonl")
    assert (record.status, record.answered_by, len(record.path)) == ("failed", None, 2)


def chunks(attempt: str, breaks: bool = False) -> Iterator[str]:
    yield ""
    yield from ("a", "b")
    if breaks:
        raise ConnectionError("cut")
    yield "c"


@pytest.mark.parametrize("how", ["whole", "left", "broken"])
def test_streams_are_told_to_their_end(tmp_path: Path, how: str) -> None:
    attempts = attempts_of(priced(tmp_path / "log.jsonl"))
    stream = iter(first_stream(attempts, lambda attempt: chunks(attempt, how == "broken")))
    if how == "left":
        next(stream), next(stream)
        stream.close()  # type: ignore[attr-defined]
    elif how == "broken":
        with pytest.raises(ConnectionError):
            list(stream)
    else:
        assert "".join(stream) == "abc"
    [record] = read_decisions(tmp_path / "log.jsonl")
    assert record.status == {"whole": "answered"}.get(how, how)
    [call] = record.path
    assert record.answered_by == "good" and call.first_token_s is not None
    assert call.output_tokens == 5 * {"whole": 4, "left": 2, "broken": 3}[how]


async def test_asynchronous_streams_too(tmp_path: Path) -> None:
    async def start(attempt: str) -> Any:
        for chunk in chunks(attempt):
            yield chunk

    opened = await afirst_stream(attempts_of(priced(tmp_path / "log.jsonl")), start)
    assert [chunk async for chunk in opened] == ["", "a", "b", "c"]
    [record] = read_decisions(tmp_path / "log.jsonl")
    assert record.status == "answered" and record.path[0].output_tokens == 20


def test_an_empty_answer_that_is_kept_after_all(tmp_path: Path) -> None:
    attempts = attempts_of(priced(tmp_path / "log.jsonl"), fallback=Fallback(empty="next"))
    assert list(first_stream(attempts, lambda attempt: iter([""]))) == [""]
    [record] = read_decisions(tmp_path / "log.jsonl")
    assert (record.status, record.answered_by) == ("answered", "good")
    assert [one.failure for one in record.path] == ["empty", "empty"]


class Broken:
    """An observer with faults of its own."""

    def begin(self, route: Route) -> None:
        raise OSError("disk full")

    def attempt(self, route: Route) -> AbstractContextManager[object]:
        raise OSError("disk full")

    def end(self, route: Route) -> None:
        raise OSError("disk full")


def test_an_answer_is_worth_more_than_its_record(caplog: pytest.LogCaptureFixture) -> None:
    router = priced(Broken())
    assert router.route("q").candidate == "good"
    assert first_answer(attempts_of(router), str) == "good"
    assert "could not be recorded (disk full)" in caplog.text


def test_nothing_is_told_where_nobody_listens() -> None:
    router = table_router()
    assert router.route("q").id is None
    attempts = attempts_of(router)
    assert attempts.route is None and attempts.calling() is attempts.calling()
    assert isinstance(attempts.calling(), nullcontext)
    assert "id" not in tag_of(Answered(attempts), RoutingAsk.of(router, [Turn("user", "q")]))


def Answered(attempts: Any) -> Any:
    first_answer(attempts, str)
    return attempts


# --- OpenTelemetry ---


class Heard:
    """What an application's SDK exports."""

    def __init__(self) -> None:
        self._spans, self._reader = InMemorySpanExporter(), InMemoryMetricReader()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self._spans))
        self.tracer = provider.get_tracer("application")
        self.telemetry = DecisionTelemetry(provider, MeterProvider([self._reader]))

    @property
    def spans(self) -> list[Any]:
        return sorted(self._spans.get_finished_spans(), key=lambda span: span.start_time)

    def metric(self, name: str) -> list[Any]:
        data = self._reader.get_metrics_data()
        assert data is not None
        found = data.resource_metrics[0].scope_metrics[0].metrics
        return [point for one in found if one.name == name for point in one.data.data_points]


def test_one_span_a_route_and_one_child_a_call() -> None:
    heard = Heard()
    router = priced(heard.telemetry)

    def call(attempt: str) -> str:
        if attempt == "good":
            raise TimeoutError("late")
        with heard.tracer.start_as_current_span("client"):
            return "words"

    with heard.tracer.start_as_current_span("request"):
        first_answer(attempts_of(router, conversation="c-1"), call)
    request, route, first, second, client = heard.spans
    assert [span.name for span in (route, first, second)] == ["msat.route", "msat.call", "msat.call"]
    assert route.parent.span_id == request.context.span_id
    assert {first.parent.span_id, second.parent.span_id} == {route.context.span_id}
    assert client.parent.span_id == second.context.span_id  # an instrumented client stands below the call
    assert first.attributes["gen_ai.request.model"] == "good" and first.attributes["error.type"] == "TimeoutError"
    assert first.status.status_code is trace.StatusCode.ERROR and first.attributes["msat.failure"]
    assert second.attributes["gen_ai.request.model"] == "fair"
    assert second.attributes["gen_ai.response.model"] == "provider-name"
    assert (
        second.attributes["gen_ai.usage.input_tokens"] == 100 and second.attributes["gen_ai.usage.output_tokens"] == 5
    )
    assert route.attributes["gen_ai.conversation.id"] == "c-1"
    assert route.attributes["msat.candidate"] == "good" and route.attributes["msat.answered_by"] == "fair"
    assert route.attributes["msat.candidates"] == ("good", "fair") and route.attributes["msat.scores"] == (0.8, 0.6)
    assert route.attributes["msat.cost_usd"] == pytest.approx(110 / 1e6)
    assert first.start_time <= first.end_time <= second.start_time <= second.end_time <= route.end_time
    assert route.status.status_code is trace.StatusCode.UNSET


def test_a_streams_call_lasts_to_its_end() -> None:
    heard = Heard()
    opened = first_stream(attempts_of(priced(heard.telemetry)), chunks)
    assert heard.spans == []
    assert trace.get_current_span() is trace.INVALID_SPAN  # the caller's own context is as it was
    list(opened)
    route, call = heard.spans
    assert call.attributes["msat.time_to_first_token_s"] >= 0 and call.attributes["gen_ai.usage.output_tokens"] == 20
    assert call.end_time <= route.end_time


def test_a_decision_alone_is_a_span_too() -> None:
    heard = Heard()
    decision = priced(heard.telemetry).route("my secret question")
    [span] = heard.spans
    assert span.attributes["msat.decision.id"] == decision.id and span.attributes["msat.status"] == "decided"
    assert "secret" not in str(dict(span.attributes))


def test_a_route_that_fails_is_marked_so() -> None:
    heard = Heard()

    def fail(attempt: str) -> str:
        raise ConnectionError("down")

    with pytest.raises(ConnectionError):
        first_answer(attempts_of(priced(heard.telemetry)), fail)
    assert [span.status.status_code for span in heard.spans] == [trace.StatusCode.ERROR] * 3


def test_without_the_api_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    monkeypatch.delitem(sys.modules, "msat_core.routing.telemetry")
    with pytest.raises(ConfigurationError, match=r"pip install \"model-sat-router\[otel\]\""):
        importlib.import_module("msat_core.routing.telemetry")


def test_counters_and_histograms() -> None:
    heard = Heard()
    router = priced(heard.telemetry, RoutingPolicy(observe="fair"))
    for _ in range(3):
        first_answer(attempts_of(router), str)
    [routes] = heard.metric("msat.routes")
    assert routes.value == 3
    assert {"msat.candidate": "fair", "msat.recommended": "good"}.items() <= dict(routes.attributes).items()
    assert {point.attributes["gen_ai.token.type"]: point.value for point in heard.metric("msat.tokens")} == {
        "input": 300,
        "output": 15,
    }
    [cost] = heard.metric("msat.cost")
    assert cost.value == pytest.approx(3 * 110 / 1e6)
    [calls] = heard.metric("msat.calls")
    assert calls.value == 3 and calls.attributes["msat.failure"] == "none"
    for name in ("msat.route.duration", "msat.call.duration", "msat.score"):
        assert heard.metric(name)[0].count == 3


def test_a_file_and_telemetry_together_tell_of_the_same_decision(tmp_path: Path) -> None:
    heard = Heard()
    priced([tmp_path / "log.jsonl", heard.telemetry]).route("q")
    assert heard.spans[0].attributes["msat.decision.id"] == read_decisions(tmp_path / "log.jsonl")[0].id
