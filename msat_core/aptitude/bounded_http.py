"""HTTP answers of a bounded size: an endpoint is somebody else's, and what it sends is read into memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from msat_core.aptitude.clients import MalformedReply

if TYPE_CHECKING:
    from openai import AsyncOpenAI

MOST_BODY = 64 << 20  # bytes; a reply of 100,000 tokens has less than one million


def bounded_client(**options: Any) -> AsyncOpenAI:  # noqa: ANN401 - the library's own
    """An ``openai`` client that gives an answer up once it is larger than ``MOST_BODY``.

    Nor does it take packed answers, of which a few bytes can be more than memory holds.
    """
    import httpx
    import openai

    class Bounded(httpx.AsyncByteStream):
        def __init__(self, stream: httpx.AsyncByteStream) -> None:
            self._stream = stream

        async def __aiter__(self) -> AsyncIterator[bytes]:
            size = 0
            async for chunk in self._stream:
                size += len(chunk)
                if size > MOST_BODY:
                    raise MalformedReply(f"more than {MOST_BODY:,} bytes")
                yield chunk

        async def aclose(self) -> None:
            await self._stream.aclose()

    async def bound(response: httpx.Response) -> None:
        if response.headers.get("content-encoding", "identity") != "identity":
            raise MalformedReply("a packed answer, which was not asked for")
        if isinstance(response.stream, httpx.AsyncByteStream):
            response.stream = Bounded(response.stream)

    http = openai.DefaultAsyncHttpxClient(event_hooks={"response": [bound]})
    return openai.AsyncOpenAI(http_client=http, default_headers={"Accept-Encoding": "identity"}, **options)
