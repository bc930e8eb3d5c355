from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from llama_index_instrumentation import get_dispatcher
from llama_index_instrumentation.event_handlers import BaseEventHandler
from pydantic import Field

from llamaindex_msat import MSATRouteEvent


class Kept(BaseEventHandler):
    """Keeps the events of a kind."""

    kind: type = object
    events: list[Any] = Field(default_factory=list)

    def handle(self, event: Any, **kwargs: Any) -> None:
        if isinstance(event, self.kind):
            self.events.append(event)


@contextmanager
def kept(kind: type) -> Iterator[list[Any]]:
    handler, root = Kept(kind=kind), get_dispatcher()
    before, root.event_handlers = root.event_handlers, [*root.event_handlers, handler]
    yield handler.events
    root.event_handlers = before


@pytest.fixture
def events() -> Iterator[list[Any]]:
    """All events."""
    with kept(object) as found:
        yield found


@pytest.fixture
def routes() -> Iterator[list[Any]]:
    """The route events."""
    with kept(MSATRouteEvent) as found:
        yield found


@pytest.fixture(autouse=True)
def loop_of_a_test(request: Any) -> Iterator[None]:
    """LlamaIndex's synchronous functions make an event loop where there is none, and leave it open."""
    if inspect.iscoroutinefunction(request.function):
        yield
        return
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    loop.close()
    asyncio.set_event_loop(None)
