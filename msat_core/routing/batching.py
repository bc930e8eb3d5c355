"""Concurrent callers share one scorer call.

Nobody waits for a batch to fill. A caller that finds the scorer free uses it at once, in its own
thread; those who come meanwhile are answered by a worker thread, which runs batches as soon as the
scorer is free again, and ends when nobody waits any more. An event loop's thread never scores.

Short texts have a lane of their own: they are scored beside a batch of long ones, not after it, at the cost of sharing
the processor with it.

Within a lane a batch holds texts of like length, so that none is padded to much more than its own: batches take by
turns the shortest texts, and the one that has waited longest with those most like it. So a short text
seldom waits behind long ones, and one that k others came before is in the 2(k + 1)th batch at the latest.
A batch holds at most ``max_batch`` texts, and at most so many long ones that it takes about as long as
``LONG_TEXTS`` of them, however long they are: the encoder reads no more than its window.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from msat_core.forking import Lock, renew_in_children

Row = TypeVar("Row")
Out = TypeVar("Out")

READ_CHARS = 1024  # about what an encoder reads: texts that are longer cost no more than one of this length
LONG_TEXTS = 8  # of that length, in one batch
ALIKE = 1.25  # texts of one batch differ in length by this factor at most: more padding costs more than more batches…
SHORT_CHARS = 64  # …or are all as short as this
LANE_CHARS = 256  # texts of up to this length are short


@dataclass(eq=False)
class _Waiting(Generic[Row]):
    text: str
    size: int
    finish: Callable[[Row], object]
    future: Future[Any]


class MicroBatcher(Generic[Row]):
    """Turns single submissions into batched calls of one function. A forked child begins with nobody waiting.

    What a caller makes of its row is made where the batch was scored: many threads at once would only wait for each
    other.

    Args:
        run: maps a list of texts to one row each, in order; called from two threads at most.
        max_batch: most texts in one call.
    """

    def __init__(self, run: Callable[[Sequence[str]], Sequence[Row]], *, max_batch: int = 64) -> None:
        self._short, self._long = Lane(run, max_batch), Lane(run, max_batch)

    def call(self, text: str, finish: Callable[[Row], Out]) -> Out:
        """What ``finish`` makes of one text's row; blocks this thread."""
        return self._lane(text).call(text, finish)

    async def acall(self, text: str, finish: Callable[[Row], Out]) -> Out:
        """Like :meth:`call`; the event loop stays free."""
        return await asyncio.wrap_future(self._lane(text).submit(text, finish))

    def _lane(self, text: str) -> Lane[Row]:
        return self._short if len(text) <= LANE_CHARS else self._long


class Lane(Generic[Row]):
    """Texts of which one batch is scored at a time."""

    def __init__(self, run: Callable[[Sequence[str]], Sequence[Row]], max_batch: int) -> None:
        self._run = run
        self._max_batch = max_batch
        self._scoring = Lock()  # held by whoever runs
        self._state = Lock()  # held for a moment to look at or change what follows
        self.renew()
        renew_in_children(self)

    def renew(self) -> None:
        """Forget who waits: in a forked child, the parent's callers."""
        self._waiting: list[_Waiting[Row]] = []  # the one that came first is first
        self._working = False  # whether a worker thread is at it
        self._oldest_next = False

    def call(self, text: str, finish: Callable[[Row], Out]) -> Out:
        """What ``finish`` makes of one text's row; blocks this thread."""
        with self._state:
            alone = not self._waiting and not self._working and self._scoring.acquire(blocking=False)
        if not alone:
            future = self.submit(text, finish)
            try:
                return future.result()
            except BaseException:  # an interrupt, say: nobody wants it any more
                future.cancel()
                raise
        try:
            row = self._run([text])[0]
        finally:
            self._scoring.release()
        return finish(row)

    def submit(self, text: str, finish: Callable[[Row], Out]) -> Future[Out]:
        """What ``finish`` makes of one text's row, when it is there."""
        future: Future[Out] = Future()
        size = max(min(len(text), READ_CHARS), SHORT_CHARS)
        with self._state:
            self._waiting.append(_Waiting(text, size, finish, future))
            if self._working:
                return future
            self._working = True
        try:
            # A daemon: it must not keep an interpreter from ending.
            threading.Thread(target=self._work, name="msat-scorer", daemon=True).start()
        except RuntimeError:  # no thread starts any more while the interpreter ends
            self._work()
        return future

    def _work(self) -> None:
        """Run batches until nobody waits."""
        while True:
            with self._state:
                batch = self._next_batch()
                if not batch:
                    self._working = False
                    return
            self._answer(batch)

    def _next_batch(self) -> list[_Waiting[Row]]:
        by_size = sorted(self._waiting, key=lambda waiting: waiting.size)  # of one size, the first to come first
        if not by_size:
            return []
        first = self._waiting[0] if self._oldest_next else by_size[0]
        self._oldest_next = not self._oldest_next
        batch, longest = [first], first.size
        by_likeness = (
            sorted(by_size, key=lambda waiting: abs(waiting.size - first.size)) if first is not by_size[0] else by_size
        )
        for waiting in by_likeness:
            shortest, new = min(batch, key=lambda member: member.size).size, max(longest, waiting.size)
            if len(batch) == self._max_batch or (len(batch) + 1) * new > LONG_TEXTS * READ_CHARS:
                break
            if waiting is not first and new <= ALIKE * min(shortest, waiting.size):
                batch.append(waiting)
                longest = new
        taken = set(map(id, batch))
        self._waiting = [waiting for waiting in self._waiting if id(waiting) not in taken]
        return batch

    def _answer(self, batch: Sequence[_Waiting[Row]]) -> None:
        with self._scoring:
            wanted = [waiting for waiting in batch if waiting.future.set_running_or_notify_cancel()]
            try:
                rows = self._run([waiting.text for waiting in wanted]) if wanted else ()
            except BaseException as error:  # every waiter must learn of it
                if len(wanted) == 1:
                    wanted[0].future.set_exception(error)
                    return
                for waiting in wanted:  # one text's error is nobody else's
                    _settle(waiting, lambda text=waiting.text: self._run([text])[0])  # type: ignore[misc]  # bound by its default
                return
        for waiting, row in zip(wanted, rows, strict=True):
            _settle(waiting, lambda row=row: row)  # type: ignore[misc]  # bound by its default


def _settle(waiting: _Waiting[Row], row: Callable[[], Row]) -> None:
    try:
        waiting.future.set_result(waiting.finish(row()))
    except BaseException as error:  # it is the waiter's, whoever meets it
        waiting.future.set_exception(error)
