from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator
from typing import Any

import pytest


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
