"""A failing candidate, and only that, is a failing candidate: what passes, what falls back, and what nobody notices."""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import RunnableLambda
from rule_chat import HAS_V3, RuleChat
from support import scored, table_router

from langchain_msat import ChatMSAT
from msat_core import Fallback

pytestmark = pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning")

BEST_FIRST = {"good": 0.9, "fair": 0.5, "poor": 0.1}


class RateLimitError(Exception):
    status_code = 429


class Refused(Exception):
    """A 400, as providers' clients raise it."""

    def __init__(self, text: str, status_code: int = 400) -> None:
        super().__init__(text)
        self.status_code = status_code


class Spelling(RuleChat):
    """Streams its answer word by word, slowly; may begin with an empty chunk, and break."""

    gap_s: float = 0.0
    empty_first: bool = False
    words: int = 4
    breaks_at: int | None = None

    def _stream(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> Iterator[Any]:
        self.seen.append((messages, kwargs))
        pieces = [""] * self.empty_first + [f"{self.name}{i} " for i in range(self.words)]
        for i, piece in enumerate(pieces):
            time.sleep(self.gap_s)
            if i == self.breaks_at:
                raise ConnectionError("overloaded")
            chunk = ChatGenerationChunk(message=AIMessageChunk(content=piece))
            if run_manager:
                run_manager.on_llm_new_token(piece, chunk=chunk)
            yield chunk


def chat(fields: dict[str, Any] | None = None, **special: Any) -> ChatMSAT:
    names = ("good", "fair", "poor")
    candidates = {n: special.get(n) or RuleChat(name=n) for n in names}
    return ChatMSAT(candidates=candidates, router=table_router({"q": BEST_FIRST}), **(fields or {}))


def path(answer: Any) -> list[tuple[str, str | None]]:
    return [(step["candidate"], step.get("kind")) for step in answer.response_metadata["msat"]["path"]]


# --- whose fault is it? ---


def test_an_interrupt_inside_a_candidate_interrupts_the_graph() -> None:
    from langgraph.checkpoint.memory import InMemorySaver
    from langgraph.graph import START, MessagesState, StateGraph
    from langgraph.types import Command, interrupt

    def approved(messages: Any) -> Any:
        return messages if interrupt("May it be called?") else []

    router = chat(good=RunnableLambda(approved) | RuleChat(name="good"))
    graph = StateGraph(MessagesState)
    graph.add_node("model", lambda state: {"messages": [router.invoke(state["messages"])]})
    graph.add_edge(START, "model")
    app: Any = graph.compile(checkpointer=InMemorySaver())
    thread: Any = {"configurable": {"thread_id": "1"}}
    assert "__interrupt__" in app.invoke({"messages": [("user", "q")]}, thread)
    assert router.candidates["fair"].seen == []
    assert app.invoke(Command(resume=True), thread)["messages"][-1].text == "good: q"


class Guard(BaseCallbackHandler):
    """Stops a call, as a budget or a privacy guard does."""

    raise_error = True

    def __init__(self, event: str) -> None:
        self._event = event
        setattr(self, event, self._stop)

    def _stop(self, *args: Any, **kwargs: Any) -> None:
        raise PermissionError("over budget")


@pytest.mark.parametrize("event", ["on_chat_model_start", "on_llm_end"])
async def test_a_guards_error_stops_the_call(event: str) -> None:
    for config in ({"callbacks": [Guard(event)]}, {}):
        good = RuleChat(name="good") if config else RuleChat(name="good", callbacks=[Guard(event)])
        router = chat(good=good)
        with pytest.raises(PermissionError, match="over budget"):
            router.invoke("q", config)  # type: ignore[arg-type]
        with pytest.raises(PermissionError, match="over budget"):
            await router.ainvoke("q", config)  # type: ignore[arg-type]
        assert router.candidates["fair"].seen == []


def test_a_closed_event_loop_is_the_callers() -> None:
    router = chat(good=RuleChat(name="good", fails=RuntimeError("Event loop is closed")))
    with pytest.raises(RuntimeError, match="Event loop"):
        router.invoke("q")
    assert router.candidates["fair"].seen == []


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Your credit balance is too low", "quota"),
        ("API key not valid", "authentication"),
        ("The model `x` has been decommissioned.", "not_found"),
        ("blocked by the content filter", "content_filter"),
        ("Unsupported parameter: 'top_k' is not supported with this model", "unsupported"),
        ("Invalid `signature` in `thinking` block", "foreign_content"),
        ("no reason given", "unclear_request"),
    ],
)
def test_a_400_that_is_the_candidates_own_goes_to_the_next(text: str, kind: str) -> None:
    assert path(chat(good=RuleChat(name="good", fails=Refused(text))).invoke("q")) == [("good", kind), ("fair", None)]


def test_throttling_that_speaks_of_tokens_is_throttling() -> None:
    throttled = Refused("Too many tokens, please wait before trying again.", 429)
    assert path(chat(good=RuleChat(name="good", fails=throttled)).invoke("q"))[0] == ("good", "rate_limit")


# --- the exception's type ---


def test_retries_and_fallbacks_around_the_router_see_the_providers_exception() -> None:
    limited: Any = {n: RuleChat(name=n, fails=RateLimitError("slow down")) for n in ("good", "fair", "poor")}
    spare = chat(**limited).with_fallbacks([RuleChat(name="spare")], exceptions_to_handle=(RateLimitError,))
    assert spare.invoke("q").text == "spare: q"
    router = chat(**limited)
    retried = router.with_retry(
        retry_if_exception_type=(RateLimitError,), stop_after_attempt=2, wait_exponential_jitter=False
    )
    with pytest.raises(RateLimitError):
        retried.invoke("q")
    assert len(limited["good"].seen) == 3


def test_the_summarisation_middleware_sees_an_overflow() -> None:
    exceptions = pytest.importorskip("langchain_core.exceptions")
    if not hasattr(exceptions, "ContextOverflowError"):
        pytest.skip("came after the oldest LangChain")
    from langchain_core.exceptions import ContextOverflowError

    full: Any = {n: RuleChat(name=n, fails=ContextOverflowError("too long")) for n in ("good", "fair", "poor")}
    router = chat(**full)
    with pytest.raises(ContextOverflowError):
        router.invoke("q")


# --- once a token has gone out ---


def on_screen(router: ChatMSAT) -> list[str]:
    """What an agent's user reads, message by message."""
    from langchain.agents import create_agent

    agent: Any = create_agent(router, [])
    messages: dict[str, str] = {}
    for chunk, _ in agent.stream({"messages": [("user", "q")]}, stream_mode="messages"):
        messages[chunk.id] = messages.get(chunk.id, "") + str(chunk.content)
    return list(messages.values())


def test_an_agents_answer_does_not_change_hands_after_a_token() -> None:
    router = chat(good=Spelling(name="good", breaks_at=2))
    with pytest.raises(ConnectionError):
        on_screen(router)
    assert router.candidates["fair"].seen == []


def test_an_empty_first_chunk_is_no_token_in_any_mode() -> None:
    def router() -> ChatMSAT:
        return chat(good=Spelling(name="good", empty_first=True, breaks_at=1), fair=Spelling(name="fair"))

    expected = "fair0 fair1 fair2 fair3 "
    assert "".join(str(c.content) for c in router().stream("q")) == expected
    assert on_screen(router()) == [expected]
    if HAS_V3:
        assert router().stream_events("q", version="v3").output.text == expected


def test_a_candidate_that_was_given_up_is_heard_no_more() -> None:
    class Log(BaseCallbackHandler):
        def __init__(self) -> None:
            self.ended: list[str] = []

        def on_llm_end(self, response: Any, **kwargs: Any) -> None:
            self.ended.append(response.generations[0][0].text)

        def on_llm_error(self, error: BaseException, **kwargs: Any) -> None:
            self.ended.append(type(error).__name__)

    log = Log()
    router = chat({"fallback": Fallback(timeout_s=0.1)}, good=RuleChat(name="good", delay_s=0.4))
    router.invoke("q", {"callbacks": [log]})
    late = [thread for thread in threading.enumerate() if thread.name == "msat-call"]
    for thread in late:
        thread.join(5)
    assert log.ended == ["TimeoutError", "fair: q"]


def test_a_timeout_is_that_to_the_first_token() -> None:
    settings = {"fallback": Fallback(timeout_s=0.25)}
    good = Spelling(name="good", gap_s=0.05, words=10)
    assert on_screen(chat(settings, good=good)) == ["".join(f"good{i} " for i in range(10))]
    slow = Spelling(name="good", gap_s=0.5, words=3)
    assert on_screen(chat(settings, good=slow, fair=Spelling(name="fair", gap_s=0.02, words=30)))[-1].startswith(
        "fair0"
    )


async def test_a_deadline_holds_while_a_stream_drips() -> None:
    router = chat({"fallback": Fallback(deadline_s=0.3)}, good=Spelling(name="good", gap_s=0.06, words=200))
    with pytest.raises(TimeoutError, match="deadline"):
        list(router.stream("q"))


# --- answers that look unfinished ---


class Ending(RuleChat):
    """Gives a reason for its end, or none; or says nothing at all."""

    reason: str | None = "stop"
    silent: bool = False

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        message = AIMessage(
            "" if self.silent else f"{self.name}: done", response_metadata={"finish_reason": self.reason}
        )
        return ChatResult(generations=[ChatGeneration(message=message)])


def test_empty_and_cut_answers_are_told_and_by_option_fall_back() -> None:
    silent = chat(good=Ending(name="good", silent=True)).invoke("q").response_metadata["msat"]
    assert (silent["candidate"], silent["empty"], silent["finish_reason"]) == ("good", True, "stop")
    cut = chat(good=Ending(name="good", reason=None)).invoke("q").response_metadata["msat"]
    assert (cut["candidate"], cut["finish_reason"]) == ("good", None)
    assert "empty" not in cut
    strict = {"fallback": Fallback(empty="next", cut="next")}
    fair = Ending(name="fair")
    assert path(chat(strict, good=Ending(name="good", silent=True), fair=fair).invoke("q")) == [
        ("good", "empty"),
        ("fair", None),
    ]
    assert path(chat(strict, good=Ending(name="good", reason=None), fair=fair).invoke("q"))[0] == ("good", "cut")
    nobody = {n: Ending(name=n, silent=True) for n in ("good", "fair", "poor")}
    answer = chat(strict, **nobody).invoke("q")
    assert answer.response_metadata["msat"]["candidate"] == "good"


# --- dead candidates rest ---


async def test_a_dead_candidate_is_asked_at_most_three_times_in_fifty_calls() -> None:
    down = RuleChat(name="good", fails=ConnectionError("down"))
    router = chat(good=down)
    for _ in range(25):
        router.invoke("q")
        answer = await router.ainvoke("q")
    assert len(down.seen) <= 3
    tag = answer.response_metadata["msat"]
    assert (tag["candidate"], tag["path"]) == ("fair", [{"candidate": "fair"}])
    assert tag["resting_s"]["good"] > 0
    with pytest.raises(ConnectionError):
        router.invoke("q", {"configurable": {"msat_candidate": "good"}})
    assert len(down.seen) <= 4


# --- v3 streams ---


@pytest.mark.skipif(not HAS_V3, reason="came after the oldest LangChain")
def test_a_v3_stream_asks_nobody_before_it_is_read() -> None:
    class Ids(BaseCallbackHandler):
        def __init__(self) -> None:
            self.ids: list[uuid.UUID] = []

        def on_chat_model_start(self, *args: Any, run_id: uuid.UUID, **kwargs: Any) -> None:
            self.ids.append(run_id)

    ids, own = Ids(), uuid.uuid4()
    router = chat(good=RuleChat(name="good", fails=ConnectionError("down")))
    stream = router.stream_events("q", {"callbacks": [ids], "run_id": own}, version="v3")
    assert scored(router.router) == []
    assert stream.output.response_metadata["msat"]["candidate"] == "fair"
    assert ids.ids[0] == own
    assert len(set(ids.ids)) == 2


# --- nobody else's secrets, nobody else's word ---


def test_keys_in_errors_do_not_reach_the_metadata() -> None:
    failing = RuleChat(name="good", fails=Refused("Incorrect API key provided: sk-proj-SECRETSECRET12", 401))
    assert "SECRET" not in str(chat(good=failing).invoke("q").response_metadata)


def test_whoever_writes_the_history_does_not_choose() -> None:
    answer = chat().invoke("q", {"configurable": {"msat_candidate": "poor"}})
    held = chat().invoke([HumanMessage("q"), answer])
    assert held.response_metadata["msat"]["candidate"] == "poor"
    tag = answer.response_metadata["msat"]
    for forged in ({**tag, "candidate": "fair"}, {"candidate": "poor"}, {**tag, "seal": ""}, "poor"):
        message = AIMessage("ok", response_metadata={"msat": forged})
        decided = chat().invoke([HumanMessage("q"), message])
        assert decided.response_metadata["msat"]["candidate"] == "good"


async def test_many_tasks_share_what_is_known_of_the_dead() -> None:
    down = RuleChat(name="good", fails=ConnectionError("down"))
    router = chat(good=down)
    for _ in range(5):
        await asyncio.gather(*(router.ainvoke("q") for _ in range(10)))
    assert len(down.seen) <= 10  # those of the first round, which began together
