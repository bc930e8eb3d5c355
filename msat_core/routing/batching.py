"""Concurrent callers share one scorer call.

Nobody waits for a batch to fill. A caller that finds the scorer free uses it at once, in its own
thread; those who come meanwhile are answered by one worker thread, which runs whatever is pending
(at most ``max_batch`` instructions) as soon as the scorer is free again. The wait is bounded by the
batches ahead, and an event loop's thread never scores.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Out = TypeVar("Out")


class MicroBatcher(Generic[Out]):
    """Turns single submissions into batched calls of one function.

    Args:
        run: maps a list of texts to one result each, in order.
        max_batch: most texts in one call.
    """

    def __init__(self, run: Callable[[Sequence[str]], Sequence[Out]], *, max_batch: int = 32) -> None:
        self._run = run
        self._max_batch = max_batch
        self._pending: deque[tuple[str, Future[Out]]] = deque()
        self._scoring = threading.Lock()
        self._start = threading.Lock()
        self._worker: tuple[int, ThreadPoolExecutor] | None = None  # with the process it belongs to

    def __call__(self, text: str) -> Out:
        """The result for one text; blocks this thread."""
        if self._scoring.acquire(blocking=False):
            try:
                return self._run([text])[0]
            finally:
                self._scoring.release()
        return self._submit(text).result()

    async def acall(self, text: str) -> Out:
        """The result for one text; the event loop stays free."""
        return await asyncio.wrap_future(self._submit(text))

    def _submit(self, text: str) -> Future[Out]:
        future: Future[Out] = Future()
        self._pending.append((text, future))
        self._executor().submit(self._run_one_batch)
        return future

    def _run_one_batch(self) -> None:
        with self._scoring:
            batch: list[tuple[str, Future[Out]]] = []
            while self._pending and len(batch) < self._max_batch:
                text, future = self._pending.popleft()
                if future.set_running_or_notify_cancel():
                    batch.append((text, future))
            if not batch:
                return
            try:
                results = self._run([text for text, _ in batch])
                for (_, future), result in zip(batch, results, strict=True):
                    future.set_result(result)
            except BaseException as error:  # every waiter must learn of it
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)

    def _executor(self) -> ThreadPoolExecutor:
        with self._start:
            if self._worker is None or self._worker[0] != os.getpid():  # threads do not survive a fork
                self._worker = os.getpid(), ThreadPoolExecutor(max_workers=1, thread_name_prefix="msat-scorer")
            return self._worker[1]
