"""Many calls of `ChatMSAT` with one scorer call."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import as_completed
from typing import TYPE_CHECKING, Any, cast

from langchain_core.callbacks import Callbacks
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import get_config_list, get_executor_for_config

from langchain_msat.routed_call import DECISION, asks_of
from msat_core import decide_all

if TYPE_CHECKING:
    from langchain_msat.chat_model import ChatMSAT

Configs = RunnableConfig | Sequence[RunnableConfig] | None


class BatchedCalls:
    """The part of `ChatMSAT` that answers many inputs: they are routed together and called concurrently."""

    def batch(
        self, inputs: list[Any], config: Any = None, *, return_exceptions: bool = False, **kwargs: Any
    ) -> list[AIMessage]:
        """Route all inputs with one scorer call, then call the chosen candidates concurrently."""
        found = dict(self.batch_as_completed(inputs, config, return_exceptions=return_exceptions, **kwargs))
        return [cast("AIMessage", found[i]) for i in range(len(inputs))]

    async def abatch(
        self, inputs: list[Any], config: Any = None, *, return_exceptions: bool = False, **kwargs: Any
    ) -> list[AIMessage]:
        """Like :meth:`batch`."""
        answers = self.abatch_as_completed(inputs, config, return_exceptions=return_exceptions, **kwargs)
        found = {i: answer async for i, answer in answers}
        return [cast("AIMessage", found[i]) for i in range(len(inputs))]

    def batch_as_completed(
        self, inputs: Sequence[Any], config: Configs = None, *, return_exceptions: bool = False, **kwargs: Any
    ) -> Iterator[tuple[int, AIMessage | Exception]]:
        """Like :meth:`batch`, each answer as it comes."""
        if not inputs:
            return
        chat, configs = cast("ChatMSAT", self), get_config_list(config, len(inputs))
        decisions = decide_all(asks_of(chat, inputs, configs, kwargs))

        def one(i: int) -> tuple[int, AIMessage | Exception]:
            try:
                return i, chat.invoke(inputs[i], configs[i], **kwargs, **{DECISION: decisions[i]})
            except Exception as error:
                if not return_exceptions:
                    raise
                return i, error

        with get_executor_for_config(configs[0]) as executor:
            futures = [executor.submit(one, i) for i in range(len(inputs))]
            try:
                for done in as_completed(futures):
                    yield done.result()
            finally:
                for future in futures:
                    future.cancel()

    async def abatch_as_completed(
        self, inputs: Sequence[Any], config: Configs = None, *, return_exceptions: bool = False, **kwargs: Any
    ) -> AsyncIterator[tuple[int, AIMessage | Exception]]:
        """Like :meth:`batch_as_completed`."""
        if not inputs:
            return
        chat, configs = cast("ChatMSAT", self), get_config_list(config, len(inputs))
        decisions = await asyncio.to_thread(lambda: decide_all(asks_of(chat, inputs, configs, kwargs)))
        gate = asyncio.Semaphore(configs[0].get("max_concurrency") or len(inputs))

        async def one(i: int) -> tuple[int, AIMessage | Exception]:
            async with gate:
                try:
                    return i, await chat.ainvoke(inputs[i], configs[i], **kwargs, **{DECISION: decisions[i]})
                except Exception as error:
                    if not return_exceptions:
                        raise
                    return i, error

        tasks = [asyncio.ensure_future(one(i)) for i in range(len(inputs))]
        try:
            for done in asyncio.as_completed(tasks):
                yield await done
        finally:  # after an error, or when nobody reads on
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def generate(
        self,
        messages: list[list[BaseMessage]],
        stop: list[str] | None = None,
        callbacks: Callbacks = None,
        **kwargs: Any,
    ) -> LLMResult:
        """One generation for each list of messages, routed with one scorer call."""
        configs, options = _configs(len(messages), callbacks, kwargs)
        return _result(self.batch(cast("list[Any]", messages), configs, stop=stop, **options))

    async def agenerate(
        self,
        messages: list[list[BaseMessage]],
        stop: list[str] | None = None,
        callbacks: Callbacks = None,
        **kwargs: Any,
    ) -> LLMResult:
        """Like :meth:`generate`."""
        configs, options = _configs(len(messages), callbacks, kwargs)
        return _result(await self.abatch(cast("list[Any]", messages), configs, stop=stop, **options))


def _configs(n: int, callbacks: Callbacks, options: dict[str, Any]) -> tuple[list[RunnableConfig], dict[str, Any]]:
    """A configuration for each of ``generate``'s inputs, and what is left of its keywords."""
    given = {key: options.pop(key, None) for key in ("tags", "metadata", "run_name")}
    run_id: uuid.UUID | None = options.pop("run_id", None)
    shared = {key: value for key, value in {"callbacks": callbacks, **given}.items() if value is not None}
    first = {**shared, "run_id": run_id} if run_id else shared
    return [cast("RunnableConfig", dict(first if i == 0 else shared)) for i in range(n)], options


def _result(messages: list[AIMessage]) -> LLMResult:
    return LLMResult(generations=[[ChatGeneration(message=message)] for message in messages], llm_output={})
