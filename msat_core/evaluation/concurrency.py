"""What many callers at once get of a router: beside one batch, and short instructions beside long ones."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from msat_core.routing.router import Router

CALLERS = 64
LATENCY_PERCENTILE = 99


@dataclass(frozen=True)
class Throughput:
    """Instructions routed per second, all of the same texts in one run.

    Attributes:
        batch: by one call of ``route_batch``.
        threads: by so many threads that each route one after the other.
        tasks: by so many tasks of an event loop.
    """

    batch: float
    threads: float
    tasks: float


@dataclass(frozen=True)
class Latency:
    """99th percentile of a short instruction's route, in seconds.

    Attributes:
        alone: nothing else is routed.
        beside_long: while one caller routes long instructions without a pause.
    """

    alone: float
    beside_long: float


def throughput_of(router: Router, texts: Sequence[str], *, callers: int = CALLERS, rounds: int = 3) -> Throughput:
    """The best of some rounds of each kind, which take turns."""
    kinds: tuple[Callable[[], object], ...] = (
        lambda: router.route_batch(texts),
        lambda: _threads(router, texts, callers),
        lambda: asyncio.run(_tasks(router, texts, callers)),
    )
    best = [0.0] * len(kinds)
    router.route_batch(texts[:callers])
    for _ in range(rounds):
        for i, run in enumerate(kinds):
            start = time.perf_counter()
            run()
            best[i] = max(best[i], len(texts) / (time.perf_counter() - start))
    return Throughput(*best)


def _threads(router: Router, texts: Sequence[str], callers: int) -> None:
    with ThreadPoolExecutor(callers) as pool:
        list(pool.map(router.route, texts))


async def _tasks(router: Router, texts: Sequence[str], callers: int) -> None:
    async def caller(own: Sequence[str]) -> None:
        for text in own:
            await router.aroute(text)

    await asyncio.gather(*(caller(texts[i::callers]) for i in range(callers)))


def latency_of(router: Router, short: str, long: str, *, repeats: int = 200) -> Latency:
    """Routes the short one so many times, first alone, then beside a stream of the long one."""
    router.route_batch([short, long])
    alone = _p99(router, short, repeats)
    stop = threading.Event()

    def stream() -> None:
        while not stop.is_set():
            router.route(long)

    thread = threading.Thread(target=stream)
    thread.start()
    try:
        beside = _p99(router, short, repeats)
    finally:
        stop.set()
        thread.join()
    return Latency(alone, beside)


def _p99(router: Router, text: str, repeats: int) -> float:
    times = []
    for i in range(repeats):
        start = time.perf_counter()
        router.route(f"{text} {i}")
        times.append(time.perf_counter() - start)
    return float(np.percentile(times, LATENCY_PERCENTILE))
