from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from support import profile, scored, table_router, zoo_of

from msat_core import Candidate, Router, RoutingPolicy, RoutingRequest, TableScorer, TaskResult, Zoo
from msat_core.errors import ConfigurationError, InstructionError, ZooError
from msat_core.routing.batching import MicroBatcher


def test_decision_says_who_and_why() -> None:
    decision = table_router({"q": {"good": 0.3, "fair": 0.7, "poor": 0.1}}).route("q")
    assert decision.candidate == "fair"
    assert decision.score == pytest.approx(0.7)
    assert decision.ranking == ("fair", "good", "poor")
    assert decision.reason == "fair: P(correct) 0.70, the highest score."


@pytest.mark.parametrize("bad", ["", "  \n"])
def test_empty_instruction_is_one_sentence(bad: str) -> None:
    with pytest.raises(InstructionError, match="is empty"):
        table_router().route(bad)
    with pytest.raises(InstructionError, match="Instruction 1 is empty"):
        table_router().route_batch(["ok", bad])


def test_wrong_types_are_refused() -> None:
    with pytest.raises(InstructionError, match="is a int"):
        table_router().route(3)  # type: ignore[arg-type]
    with pytest.raises(InstructionError, match="one string"):
        table_router().route_batch("abc")


def test_empty_zoo_and_zoo_of_one() -> None:
    with pytest.raises(ZooError, match="The zoo is empty"):
        Router(TableScorer(), Zoo()).route("q")
    assert Router(TableScorer(), zoo_of(only=0.1)).route("q").candidate == "only"


def test_batch_is_one_scorer_call_and_equals_single_calls() -> None:
    router = table_router({f"q{i}": {"good": i / 10, "fair": 0.45, "poor": 0.2} for i in range(10)})
    texts = [f"q{i}" for i in range(10)]
    batch = router.route_batch(texts)
    assert len(scored(router)) == 1
    assert batch == [router.route(text) for text in texts]
    assert router.route_batch([]) == []


def test_candidates_come_and_go_while_others_route() -> None:
    router = table_router()
    stop = threading.Event()

    def churn() -> None:
        while not stop.is_set():
            router.zoo.add(profile("new", 0.9))
            router.zoo.remove("new")

    worker = threading.Thread(target=churn)
    worker.start()
    try:
        with ThreadPoolExecutor(8) as pool:
            found = {d.candidate for d in pool.map(router.route, ["q"] * 300)}
    finally:
        stop.set()
        worker.join()
    assert found <= {"good", "new"}


def test_only_those_that_can_be_dispatched_to() -> None:
    router = table_router(
        candidates=[Candidate(profile=profile("a", 0.9)), Candidate(profile=profile("b"), aliases=("bb",))]
    )
    assert router.route("q", request=RoutingRequest(among=frozenset({"bb"}))).candidate == "b"
    with pytest.raises(ZooError, match="None of zz is in the zoo"):
        router.route("q", request=RoutingRequest(among=frozenset({"zz"})))


def test_no_text_goes_to_the_default_else_by_exam() -> None:
    router = table_router()
    assert router.decide_unscored().candidate == "good"
    decision = router.decide_unscored(policy=RoutingPolicy(default="poor"))
    assert decision.candidate == "poor"
    assert decision.score is None


async def test_concurrent_calls_share_scorer_calls() -> None:
    router = table_router({f"q{i}": {"good": 0.5, "fair": i / 100, "poor": 0.1} for i in range(100)}, delay_s=0.01)
    decisions = await asyncio.gather(*(router.aroute(f"q{i}") for i in range(100)))
    assert [d.candidate for d in decisions] == ["good" if i <= 50 else "fair" for i in range(100)]
    assert len(scored(router)) <= 10
    assert max(map(len, scored(router))) <= 32


async def test_scoring_leaves_the_event_loop_free() -> None:
    router = table_router(delay_s=0.4)
    started = time.perf_counter()
    route = asyncio.create_task(router.aroute("q"))
    longest = 0.0
    while not route.done():
        before = time.perf_counter()
        await asyncio.sleep(0.005)
        longest = max(longest, time.perf_counter() - before)
    assert longest <= (time.perf_counter() - started) / 2


def test_threads_share_scorer_calls() -> None:
    router = table_router(delay_s=0.02)
    with ThreadPoolExecutor(40) as pool:
        list(pool.map(router.route, [f"q{i}" for i in range(80)]))
    assert len(scored(router)) < 40


def test_an_error_reaches_every_caller_of_the_batch() -> None:
    def fail(texts: Sequence[str]) -> list[str]:
        time.sleep(0.01)
        raise ValueError(f"bad batch of {len(texts)}")

    batcher: MicroBatcher[str] = MicroBatcher(fail)
    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(batcher.call, str(i), str) for i in range(8)]
    assert all(isinstance(future.exception(), ValueError) for future in futures)


async def test_a_cancelled_caller_does_not_harm_the_others() -> None:
    router = table_router(delay_s=0.05)
    tasks = [asyncio.create_task(router.aroute(f"q{i}")) for i in range(6)]
    await asyncio.sleep(0.01)
    tasks[3].cancel()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(done[3], asyncio.CancelledError)
    assert all(d.candidate == "good" for i, d in enumerate(done) if i != 3)  # type: ignore[union-attr]


def test_settings_are_checked() -> None:
    with pytest.raises(ConfigurationError, match="max_batch must be a whole number from 1"):
        table_router(max_batch=0)
    with pytest.raises(ConfigurationError, match="2 requests for 1 instructions"):
        table_router().route_batch(["q"], requests=[None, None])


def test_a_reason_names_what_a_task_is_about() -> None:
    named = TaskResult(task="mmlu/anatomy", keywords=("nerve", "bone", "skin", "eye"), n_shots=4, n_correct=3)
    bare = TaskResult(task="gsm8k/word_problems", n_shots=4, n_correct=3)
    assert (named.about, bare.about) == ("nerve, bone, skin", "word problems")


def test_the_shipped_reasons_say_no_task_by_its_number(shipped: Router) -> None:
    reason = shipped.route("Which nerve supplies the muscles of the jaw?").reason
    assert "in what is nearest: " in reason or "nearest in its exam: " in reason
    assert "/" not in reason
