"""Calling candidates one after the other until one answers, each within its time; once with threads, once with tasks.

``call`` and ``start`` are given an :class:`~msat_core.routing.attempts.Attempt`, which is the candidate's name.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import itertools
import queue
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from msat_core.errors import EmptyAnswerError
from msat_core.routing.attempts import Attempt, Attempts

Out = TypeVar("Out")


def first_answer(attempts: Attempts, call: Callable[[Attempt], Out]) -> Out:
    """The first answer that a candidate gives, each within its time.

    Raises:
        DispatchError: nobody could be tried. Where candidates failed, the first one's own error.
    """
    for _ in attempts:
        try:
            with attempts.calling():
                answer = within(attempts, call)
        except Exception as error:
            attempts.failed(error)
        except BaseException:  # an interrupt
            attempts.ended("left")
            raise
        else:
            attempts.answered(answer, streams=isinstance(answer, Opened))
            return answer
    answer = attempts.last_resort()
    return cast("Out", answer)


async def afirst_answer(attempts: Attempts, call: Callable[[Attempt], Awaitable[Out]]) -> Out:
    """Like :func:`first_answer`."""
    for _ in attempts:
        try:
            with attempts.calling():
                answer = await awithin(attempts, call)
        except Exception as error:
            attempts.failed(error)
        except BaseException:  # a cancelled task
            attempts.ended("left")
            raise
        else:
            attempts.answered(answer, streams=isinstance(answer, Opened))
            return answer
    answer = attempts.last_resort()
    return cast("Out", answer)


def within(attempts: Attempts, call: Callable[[Attempt], Out]) -> Out:
    """The present attempt's answer, or TimeoutError.

    The time is that to the first token: an attempt that has begun has until the deadline. A call that is late
    cannot be interrupted. It is left behind in a daemon thread, which neither holds up the process's exit nor ends
    before the client's own timeout: set that as well.
    """
    attempt, limit_s = attempts.current, attempts.timeout_s()
    if limit_s is None:
        return call(attempt)
    outcome: Future[Out] = Future()
    context = contextvars.copy_context()

    def run() -> None:
        try:
            outcome.set_result(context.run(call, attempt))
        except BaseException as error:  # whatever it is, the waiting thread must learn of it
            outcome.set_exception(error)

    threading.Thread(target=run, name="msat-call", daemon=True).start()
    wait: float | None = limit_s
    while True:
        try:
            return outcome.result(wait)
        except FutureTimeout:
            if outcome.done():
                return outcome.result()  # the call's own error, or an answer that came at the last moment
            late = _late(attempts, limit_s)
            if late is not None and attempt.give_up(late, even_if_begun=attempts.remaining_s() == 0):
                raise late from None
            wait = attempts.remaining_s()


async def awithin(attempts: Attempts, call: Callable[[Attempt], Awaitable[Out]]) -> Out:
    """Like :func:`within`; a call that is late is cancelled."""
    attempt, limit_s = attempts.current, attempts.timeout_s()
    if limit_s is None:  # no task of its own, which would give the call another context
        return await call(attempt)
    return await _atimed(attempts, asyncio.ensure_future(call(attempt)), limit_s)


async def _atimed(attempts: Attempts, task: asyncio.Future[Out], limit_s: float) -> Out:
    """A task's result; where its time is over it is cancelled, and has ended when the TimeoutError is raised."""
    wait: float | None = limit_s
    try:
        while not (await asyncio.wait({task}, timeout=wait))[0]:
            late = _late(attempts, limit_s)
            if late is not None:
                task.cancel()  # its runs end while its callbacks are still heard
                await asyncio.wait({task})
                attempts.current.give_up(late, even_if_begun=True)
                raise late
            wait = attempts.remaining_s()
        return task.result()
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task})


def _late(attempts: Attempts, limit_s: float) -> TimeoutError | None:
    """What to say to an attempt whose time is over; None where a token has gone out and the deadline has not passed."""
    if attempts.remaining_s() == 0:
        return TimeoutError(f"The deadline of {attempts.fallback.deadline_s:.1f} s has passed.")
    return None if attempts.current.begun else TimeoutError(f"No answer within {limit_s:.1f} s.")


@dataclass(frozen=True)
class Opened(Generic[Out]):
    """A candidate's stream whose first token has come; iterating gives all chunks and closes the stream at the end.

    Attributes:
        head: its chunks up to the first token, empty ones included; without a token, all there are.
        rest: what follows.
        attempts: whose deadline holds to the end.
    """

    head: tuple[Out, ...]
    rest: Any
    attempts: Attempts

    def __iter__(self) -> Iterator[Out]:
        rest = self.rest if self.attempts.fallback.deadline_s is None else _pumped(self.rest, self.attempts)
        try:
            for chunk in itertools.chain(self.head, rest):
                self.attempts.heard(chunk)
                yield chunk
            self.attempts.ended("answered")
        except Exception as error:
            self.attempts.broke_off(error)
            raise
        finally:
            self.attempts.ended("left")
            for stream in (rest, self.rest):
                with contextlib.suppress(ValueError):  # a late read still runs inside it, in another thread
                    if hasattr(stream, "close"):
                        stream.close()

    async def __aiter__(self) -> AsyncGenerator[Out, None]:
        rest = aiter(self.rest)
        try:
            for chunk in self.head:
                self.attempts.heard(chunk)
                yield chunk
            while True:
                try:
                    chunk = await self._anext(rest)
                except StopAsyncIteration:
                    self.attempts.ended("answered")
                    return
                self.attempts.heard(chunk)
                yield chunk
        except Exception as error:
            self.attempts.broke_off(error)
            raise
        finally:
            self.attempts.ended("left")
            if hasattr(self.rest, "aclose"):
                await self.rest.aclose()

    async def _anext(self, rest: AsyncIterator[Out]) -> Out:
        remaining = self.attempts.remaining_s()
        if remaining is None:
            return await anext(rest)
        return await _atimed(self.attempts, asyncio.ensure_future(anext(rest)), remaining)


def first_stream(
    attempts: Attempts, start: Callable[[Attempt], Iterator[Out]], is_token: Callable[[Out], bool] = bool
) -> Opened[Out]:
    """The first stream whose first token comes, each within its time; after that, nobody else steps in.

    A stream without a single chunk is no answer; where nobody gives more, it is what comes back.

    Args:
        attempts: who is tried.
        start: opens a candidate's stream.
        is_token: whether a chunk says anything; what comes before such a chunk is kept back with it.
    """

    def open_one(attempt: Attempt) -> Opened[Out]:
        rest, head = iter(start(attempt)), []
        for chunk in rest:
            head.append(chunk)
            if is_token(chunk):
                attempt.begin()
                return Opened(tuple(head), rest, attempts)
        return _without_token(Opened(tuple(head), iter(()), attempts))

    return first_answer(attempts, open_one)


async def afirst_stream(
    attempts: Attempts,
    start: Callable[[Attempt], AsyncIterator[Out] | Awaitable[AsyncIterator[Out]]],
    is_token: Callable[[Out], bool] = bool,
) -> Opened[Out]:
    """Like :func:`first_stream`; a start may have to be awaited."""

    async def open_one(attempt: Attempt) -> Opened[Out]:
        started = start(attempt)
        rest = aiter(await started if inspect.isawaitable(started) else started)
        head: list[Out] = []
        try:
            async for chunk in rest:
                head.append(chunk)
                if is_token(chunk):
                    attempt.begin()
                    return Opened(tuple(head), rest, attempts)
        except BaseException:
            if hasattr(rest, "aclose"):
                await rest.aclose()
            raise
        return _without_token(Opened(tuple(head), _nothing(), attempts))

    return await afirst_answer(attempts, open_one)


def _without_token(opened: Opened[Out]) -> Opened[Out]:
    """A stream that has ended without a token, where such an answer is kept."""
    attempts = opened.attempts
    if not opened.head or attempts.fallback.empty == "next":
        raise EmptyAnswerError(f"{attempts.current} gave an empty answer.", opened)
    return opened


async def _nothing() -> AsyncGenerator[Any, None]:
    return
    yield


def _pumped(stream: Iterator[Out], attempts: Attempts) -> Iterator[Out]:
    """A stream's chunks while the deadline lasts; read in a thread, because a read cannot be interrupted."""
    chunks: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
    left = threading.Event()
    context = contextvars.copy_context()

    def pump() -> None:
        try:
            for chunk in stream:
                chunks.put(("chunk", chunk))
                if left.is_set():
                    break
            chunks.put(("end", None))
        except BaseException as error:  # whatever it is, the reader must learn of it
            chunks.put(("error", error))

    threading.Thread(target=context.run, args=(pump,), name="msat-stream", daemon=True).start()
    try:
        while True:
            remaining = attempts.remaining_s()
            try:
                kind, value = chunks.get(timeout=remaining)
            except queue.Empty:
                late = _late(attempts, 0.0)
                if late is None:
                    continue
                attempts.current.give_up(late, even_if_begun=True)
                raise late from None
            if kind == "chunk":
                yield value
            elif kind == "error":
                raise value
            else:
                return
    finally:
        left.set()
