"""Streams of version 3: objects that their readers pump, over whichever candidate opens first.

Nothing is asked before somebody reads. There is no chain run around such a stream, so the candidate's run carries
the decision in its metadata, and so does the finished message.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from langchain_msat.messages import says_something
from msat_core import TAG, Attempts, afirst_stream, first_stream

if TYPE_CHECKING:
    from langchain_core.language_models.chat_model_stream import AsyncChatModelStream, ChatModelStream

    from langchain_msat.routed_call import RoutedCall


def routed_events(call: RoutedCall) -> ChatModelStream:
    """The events of the candidate that is chosen when the first of them is asked for."""
    from langchain_core.language_models.chat_model_stream import ChatModelStream

    def events() -> Iterator[Any]:
        attempts = call.attempts()
        for event in first_stream(attempts, call.stream(attempts, "stream_events", version="v3"), says_something):
            yield _tagged(event, call, attempts)

    stream, source = ChatModelStream(), events()

    def pump() -> bool:
        try:
            _put(stream, next(source))
            if stream.done:
                next(source, None)  # nothing follows a message's end, but the source must learn that it was heard
        except StopIteration:
            _finish(stream)
            return False
        except BaseException as error:  # whatever it is, the stream's readers must learn of it
            stream.fail(error)
            return False
        return True

    stream.bind_pump(pump)
    return stream


async def arouted_events(call: RoutedCall) -> AsyncChatModelStream:
    """Like :func:`routed_events`."""
    from langchain_core.language_models.chat_model_stream import AsyncChatModelStream

    stream = AsyncChatModelStream()

    async def events() -> AsyncIterator[Any]:
        attempts = await call.aattempts()
        start = call.astream(attempts, "astream_events", version="v3")
        async for event in await afirst_stream(attempts, start, says_something):
            yield _tagged(event, call, attempts)

    async def produce() -> None:
        try:
            async for event in events():
                _put(stream, event)
            _finish(stream)
        except asyncio.CancelledError as error:
            stream.fail(error)
            raise
        except BaseException as error:  # whatever it is, the stream's readers must learn of it
            stream.fail(error)

    async def start() -> None:
        if stream._producer_task is None:
            stream._producer_task = asyncio.get_running_loop().create_task(produce())

    stream.set_start(start)
    return stream


def _put(stream: Any, event: Mapping[str, Any]) -> None:
    if not stream.done:
        stream.dispatch(event)


def _finish(stream: Any) -> None:
    if not stream.done:
        stream.dispatch({"event": "message-finish"})


def _tagged(event: Mapping[str, Any], call: RoutedCall, attempts: Attempts) -> Mapping[str, Any]:
    """The last event with the decision in its metadata."""
    if event.get("event") != "message-finish":
        return event
    metadata, tag = dict(event.get("metadata") or {}), call.tag(attempts)
    if isinstance(metadata.get(TAG), Mapping):  # of a router inside this one
        tag["inner"] = dict(metadata[TAG])
    return {**event, "metadata": {**metadata, TAG: tag}}
