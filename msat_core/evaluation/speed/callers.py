"""Many callers of one router at once: their throughput, and what a short text waits beside long ones."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from msat_core.evaluation.speed.timing import Row, rows_of
from msat_core.routing.router import Router

N_CALLERS = 64  # threads, or tasks, at once; chosen: a full batch


def throughput_rows(router: Router, texts: Sequence[str], repeats: int) -> list[Row]:
    """One big batch beside threads and beside tasks that route the same texts one by one."""

    def tasks() -> None:
        async def all_of_them() -> None:
            waiting = iter(texts)

            async def caller() -> None:
                for text in waiting:
                    await router.aroute(text)

            await asyncio.gather(*(caller() for _ in range(N_CALLERS)))

        asyncio.run(all_of_them())

    with ThreadPoolExecutor(N_CALLERS) as pool:
        calls = {
            "one batch": lambda: router.route_batch(texts),
            f"{N_CALLERS} threads": lambda: list(pool.map(router.route, texts)),
            f"{N_CALLERS} tasks": tasks,
        }
        return rows_of("callers", f"{len(texts)} texts", calls, repeats)


def waiting_rows(router: Router, short: str, long: str, repeats: int) -> list[Row]:
    """A short text alone, and beside one thread that routes long ones without pause; the ratio is of the p99s."""
    alone = _times(router, short, repeats)
    stop = threading.Event()

    def stream() -> None:
        while not stop.is_set():
            router.route(long)

    thread = threading.Thread(target=stream, daemon=True)
    thread.start()
    try:
        beside = _times(router, short, repeats)
    finally:
        stop.set()
        thread.join()
    rows = []
    for what, times in (("alone", alone), ("beside long texts", beside)):
        p50, p99 = np.percentile(times, [50, 99])
        ratio = float(p99 / np.percentile(alone, 99))
        rows.append(Row("waiting (ratio of p99)", f"route, {what}", "1 short text", float(p50), float(p99), ratio))
    return rows


def _times(router: Router, text: str, repeats: int) -> list[float]:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        router.route(text)
        times.append(1000 * (time.perf_counter() - start))
    return times
