"""Many calls at once, bounded and in the order in which they are done, with threads and with tasks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from concurrent.futures import as_completed
from typing import TypeVar

from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import get_executor_for_config

Out = TypeVar("Out")


def each_done(
    call: Callable[[int], Out], n: int, config: RunnableConfig, return_exceptions: bool
) -> Iterator[tuple[int, Out | Exception]]:
    """``call(i)`` for each i below n, as they are done; the first error ends it, unless errors are to be returned."""

    def outcome(i: int) -> tuple[int, Out | Exception]:
        try:
            return i, call(i)
        except Exception as error:
            if not return_exceptions:
                raise
            return i, error

    with get_executor_for_config(config) as executor:
        futures = [executor.submit(outcome, i) for i in range(n)]
        try:
            for done in as_completed(futures):
                yield done.result()
        finally:
            for future in futures:
                future.cancel()


async def aeach_done(
    call: Callable[[int], Awaitable[Out]], n: int, config: RunnableConfig, return_exceptions: bool
) -> AsyncGenerator[tuple[int, Out | Exception], None]:
    """Like :func:`each_done`."""
    gate = asyncio.Semaphore(config.get("max_concurrency") or n)

    async def outcome(i: int) -> tuple[int, Out | Exception]:
        async with gate:
            try:
                return i, await call(i)
            except Exception as error:
                if not return_exceptions:
                    raise
                return i, error

    tasks = [asyncio.ensure_future(outcome(i)) for i in range(n)]
    try:
        for done in asyncio.as_completed(tasks):
            yield await done
    finally:  # after an error, or when nobody reads on
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
