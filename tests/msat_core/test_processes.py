"""Forks, threads that end, interpreters that end: a router works in each or says what to do, and never hangs."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from multiprocessing import get_context

import pytest
from support import table_router

from msat_core import Router
from msat_core.forking import Lock
from msat_core.routing.batching import LANE_CHARS, LONG_TEXTS, READ_CHARS, Lane, MicroBatcher

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


def in_child(action: Callable[[], object], seconds: int = 60) -> int:
    """The exit code of a forked child that does this, or minus the signal that ended it."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(seconds)
        try:
            action()
        except BaseException:
            os._exit(3)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@needs_fork
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_forked_while_another_thread_scores_routes() -> None:
    router = table_router(delay_s=0.3)
    router.route("warm")
    others = [threading.Thread(target=router.route, args=(f"question {i}",)) for i in range(4)]
    for thread in others:
        thread.start()
    time.sleep(0.1)
    assert in_child(lambda: (router.route("x"), asyncio.run(router.aroute("y")))) == 0
    for thread in others:
        thread.join()


@needs_fork
def test_a_child_routes_after_its_parent_used_several_torch_threads() -> None:
    code = """
import os, signal, torch
from msat_core import Router
router = Router.from_pretrained()
torch.set_num_threads(2)
router.route_batch(["some text " * 30] * 8)
pid = os.fork()
if pid == 0:
    signal.alarm(60)
    router.route("Which enzyme unwinds the DNA double helix?")
    os._exit(0)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


@needs_fork
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_lock_that_another_thread_holds_is_open_in_a_child() -> None:
    lock = Lock()
    lock.acquire()
    assert in_child(lambda: os._exit(0 if lock.acquire(blocking=False) else 4)) == 0
    assert not lock.acquire(blocking=False)
    lock.release()


def routed_there(router: Router) -> str:
    return router.route("a question").candidate


def test_a_spawned_process_routes() -> None:
    with get_context("spawn").Pool(1) as pool:
        router = table_router()
        assert pool.apply(routed_there, (router,)) == router.route("a question").candidate


def test_loops_may_come_and_go() -> None:
    router = table_router(delay_s=0.01)

    async def several() -> None:
        await asyncio.gather(*(router.aroute(f"question {i}") for i in range(5)))

    for _ in range(5):
        asyncio.run(several())


def test_calls_given_up_do_not_block_others() -> None:
    router = table_router(delay_s=0.2)

    async def impatient() -> None:
        tasks = [asyncio.create_task(router.aroute(f"question {i}")) for i in range(50)]
        await asyncio.sleep(0.05)
        for task in tasks:
            task.cancel()

    asyncio.run(impatient())
    assert router.route("after that").candidate


@pytest.mark.parametrize("ending", ["", "raise KeyboardInterrupt", "sys.exit(0)"])
def test_an_interpreter_ends_with_calls_in_flight(ending: str) -> None:
    code = f"""
import sys, threading, time
sys.path.insert(0, {os.path.dirname(os.path.dirname(__file__))!r})
from support import table_router
router = table_router(delay_s=30)
for i in range(3):
    threading.Thread(target=router.route, args=(f"question {{i}}",), daemon=True).start()
time.sleep(.2)
{ending}
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=25)
    assert "Fatal" not in done.stderr


def test_an_interpreter_ends_while_threads_encode() -> None:
    """In the middle of ONNX Runtime's work, which does not bear it."""
    code = """
import threading, time
from msat_core.encoders.loading import load_encoder
encoder = load_encoder()
encoder.encode(["warm"])
def busy():
    while True:
        encoder.encode(["text " * 60] * 3)
for _ in range(6):
    threading.Thread(target=busy, daemon=True).start()
time.sleep(0.3)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "RuntimeError: The interpreter is ending" in done.stderr or not done.stderr


def test_a_dropped_router_leaves_no_thread_and_no_memory() -> None:
    before = threading.active_count()
    for _ in range(5):
        router = table_router(delay_s=0.005)
        asyncio.run(router.aroute("a question"))
    batcher = weakref.ref(router._rows.batcher)
    del router
    deadline = time.monotonic() + 20
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before
    gc.collect()
    assert batcher() is None


class Recorder:
    """Keeps the batches that it was given; the first takes until it is let go."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.free = threading.Event()

    def __call__(self, texts: Sequence[str]) -> list[str]:
        self.batches.append(list(texts))
        self.free.wait(20)
        return list(texts)


def queued(texts: Sequence[str], max_batch: int = 32) -> list[list[str]]:
    """The batches in which these texts are answered that came, in this order, while another one was scored."""
    run = Recorder()
    lane: Lane[str] = Lane(run, max_batch)
    first = threading.Thread(target=lane.call, args=("first", str))
    first.start()
    while not run.batches:
        time.sleep(0.001)
    # The worker takes its first batch at once; a text of its own keeps it busy until all others are there.
    blocker = lane.submit("blocker", str)
    while lane._waiting:
        time.sleep(0.001)
    futures = [lane.submit(text, str) for text in texts]
    run.free.set()
    assert [future.result(20) for future in [blocker, *futures]] == ["blocker", *texts]
    first.join()
    return run.batches[2:]


def test_a_short_text_does_not_wait_behind_long_ones() -> None:
    long = [f"{i} {'word ' * 400}" for i in range(40)]
    batches = queued([*long, "short"])
    place = next(i for i, batch in enumerate(batches) if "short" in batch)
    assert place <= 1
    assert batches[place] == ["short"]
    assert all(len(batch) <= LONG_TEXTS for batch in batches if batch != ["short"])


def test_texts_of_like_length_share_a_batch() -> None:
    texts = [f"a short question {i}" for i in range(20)]
    assert len(queued(texts)) == 1
    assert [len(batch) for batch in queued(texts, max_batch=8)] == [8, 8, 4]


def test_whoever_waits_is_answered_within_the_bound() -> None:
    texts = [f"{i} {'x' * (READ_CHARS if i % 2 else 10)}" for i in range(60)]
    batches = queued(texts, max_batch=4)
    for k, text in enumerate(texts):
        assert next(i for i, batch in enumerate(batches) if text in batch) < 2 * (k + 1)


async def test_short_texts_are_scored_beside_a_long_one() -> None:
    """Threads and tasks alike; a further long one waits."""
    release, running, most = threading.Event(), [0, 0], [0, 0]

    def run(texts: Sequence[str]) -> list[str]:
        lane = int(max(map(len, texts)) > LANE_CHARS)
        running[lane] += 1
        most[lane] = max(running[lane], most[lane])
        if lane:
            release.wait(20)
        running[lane] -= 1
        return list(texts)

    batcher: MicroBatcher[str] = MicroBatcher(run)
    long = ["x" * (LANE_CHARS + 1), "y" * 4000]
    waiting = [asyncio.ensure_future(batcher.acall(text, str)) for text in long]
    for text in ("short", "x" * LANE_CHARS):
        assert await asyncio.wait_for(batcher.acall(text, str), 20) == text
        assert await asyncio.wait_for(asyncio.to_thread(batcher.call, text, str), 20) == text
    assert not any(one.done() for one in waiting)
    release.set()
    assert await asyncio.gather(*waiting) == long and most == [1, 1]


def test_an_error_of_one_text_is_nobody_elses() -> None:
    release = threading.Event()

    def run(texts: Sequence[str]) -> list[str]:
        release.wait(20)
        if "bad" in texts:
            raise ValueError("a bad text")
        return list(texts)

    lane: Lane[str] = Lane(run, max_batch=32)
    futures = {text: lane.submit(text, str) for text in ("first", "good", "bad", "better")}
    release.set()
    assert [futures[text].result(20) for text in ("first", "good", "better")] == ["first", "good", "better"]
    with pytest.raises(ValueError, match="a bad text"):
        futures["bad"].result(20)


def test_what_one_caller_makes_of_its_row_harms_nobody_else() -> None:
    lane: Lane[str] = Lane(list, max_batch=32)
    futures = [lane.submit(text, int) for text in ("1", "two", "3")]
    assert [futures[i].result(20) for i in (0, 2)] == [1, 3]
    with pytest.raises(ValueError, match="two"):
        futures[1].result(20)
