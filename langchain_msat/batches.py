"""Many calls to a router at once: routed with one scorer call, answered concurrently, each as it is done."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import as_completed
from typing import Any, TypeVar, cast

from langchain_core.callbacks import Callbacks
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import LLMResult
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import get_config_list, get_executor_for_config

from langchain_msat.generations import Collected, configs_of
from langchain_msat.prepared_call import DECISION
from langchain_msat.routed_call import Setup, decisions_of

Out = TypeVar("Out")
Configs = RunnableConfig | Sequence[RunnableConfig] | None


class RoutedBatches(BaseChatModel):
    """What takes many inputs, each of which becomes one call of ``invoke``."""

    @property
    def _setup(self) -> Setup:
        raise NotImplementedError

    def batch(
        self, inputs: list[Any], config: Any = None, *, return_exceptions: bool = False, **kwargs: Any
    ) -> list[AIMessage]:
        """Route all inputs with one scorer call, then call the chosen candidates concurrently."""
        answers = dict(self.batch_as_completed(inputs, config, return_exceptions=return_exceptions, **kwargs))
        return [cast("AIMessage", answers[i]) for i in range(len(inputs))]

    async def abatch(
        self, inputs: list[Any], config: Any = None, *, return_exceptions: bool = False, **kwargs: Any
    ) -> list[AIMessage]:
        """Like :meth:`batch`."""
        answers = self.abatch_as_completed(inputs, config, return_exceptions=return_exceptions, **kwargs)
        by_position = {i: answer async for i, answer in answers}
        return [cast("AIMessage", by_position[i]) for i in range(len(inputs))]

    def batch_as_completed(  # type: ignore[override]  # a Runnable's is typed for every input
        self, inputs: Sequence[Any], config: Configs = None, *, return_exceptions: bool = False, **kwargs: Any
    ) -> Iterator[tuple[int, AIMessage | Exception]]:
        """Like :meth:`batch`, each answer as it comes."""
        if not inputs:
            return
        configs = get_config_list(config, len(inputs))
        decisions = decisions_of(self._setup, inputs, configs, kwargs)

        def call(i: int) -> AIMessage:
            options: dict[str, Any] = {**kwargs, DECISION: decisions[i]}
            return self.invoke(inputs[i], configs[i], **options)

        yield from each_done(call, len(inputs), configs[0], return_exceptions)

    async def abatch_as_completed(  # type: ignore[override]  # a Runnable's is typed for every input
        self, inputs: Sequence[Any], config: Configs = None, *, return_exceptions: bool = False, **kwargs: Any
    ) -> AsyncIterator[tuple[int, AIMessage | Exception]]:
        """Like :meth:`batch_as_completed`."""
        if not inputs:
            return
        configs = get_config_list(config, len(inputs))
        decisions = await asyncio.to_thread(decisions_of, self._setup, inputs, configs, kwargs)

        async def call(i: int) -> AIMessage:
            options: dict[str, Any] = {**kwargs, DECISION: decisions[i]}
            return await self.ainvoke(inputs[i], configs[i], **options)

        async with contextlib.aclosing(aeach_done(call, len(inputs), configs[0], return_exceptions)) as answers:
            async for answer in answers:
                yield answer

    def generate(
        self,
        messages: list[list[BaseMessage]],
        stop: list[str] | None = None,
        callbacks: Callbacks = None,
        **kwargs: Any,
    ) -> LLMResult:
        """The chosen candidate's generations for each list of messages, routed with one scorer call."""
        collected = Collected(len(messages))
        configs, options = configs_of(collected, callbacks, kwargs)
        return collected.result(self.batch(cast("list[Any]", messages), configs, stop=stop, **options))

    async def agenerate(
        self,
        messages: list[list[BaseMessage]],
        stop: list[str] | None = None,
        callbacks: Callbacks = None,
        **kwargs: Any,
    ) -> LLMResult:
        """Like :meth:`generate`."""
        collected = Collected(len(messages))
        configs, options = configs_of(collected, callbacks, kwargs)
        return collected.result(await self.abatch(cast("list[Any]", messages), configs, stop=stop, **options))


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
