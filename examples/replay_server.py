"""A local OpenAI-compatible server that replays recorded answers, with faults on request.

It serves any number of models at once on ``/v1/chat/completions`` (plain and streaming, with usage) and
``/v1/models``; ``/stats`` tells how often each model was asked and which faults were given. The question
is found inside the prompt by its text, so any prompt that contains it will do.

```
python examples/replay_server.py --records RECORDS/mmlu_pro --outputs RECORDS/mmlu_pro/outputs_sample.parquet
python examples/replay_server.py --records RECORDS/mmlu_pro --model gemini-1.5-pro-002 --rate-429 0.1 --rate-500 0.05
```

With ``--outputs`` (columns model, item_id, output) the models say what they really said; without, each says a
right or a wrong letter as its recorded outcome has it. From Python: ``with serve(app) as url: ...``.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from msat_core import normalised

_NON_WORD = re.compile(r"[\W_]+")
_KEY_WORDS = 6  # the first words of a question by which it is looked up; then all of it is compared
_CHARS_PER_TOKEN = 4


@dataclass(frozen=True)
class Faults:
    """What goes wrong: shares of the requests, and a window in which all are refused.

    Attributes:
        rate_429, rate_500, rate_timeout, rate_garbage: shares in [0, 1] of the requests.
        hang_s: how long a request that times out is left waiting.
        refuse_after: requests before the refusal window opens; None for no window.
        refuse_s: how long the window stays open (503, connection closed).
        latency_s: how long every answer takes.
        seed: of the draw.
    """

    rate_429: float = 0.0
    rate_500: float = 0.0
    rate_timeout: float = 0.0
    rate_garbage: float = 0.0
    hang_s: float = 5.0
    refuse_after: int | None = None
    refuse_s: float = 60.0
    latency_s: float = 0.0
    seed: int = 0


@dataclass
class AnswerBook:
    """What each model answers to each question.

    Attributes:
        instructions: the questions' texts by item id.
        answers: by model, then by item id, the answer's text.
    """

    instructions: Mapping[str, str]
    answers: Mapping[str, Mapping[str, str]]
    _by_start: dict[str, list[tuple[str, str, str]]] = field(default_factory=dict, repr=False)
    _lengths: tuple[int, ...] = field(default=(), repr=False)
    _whole: dict[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        lengths = set()
        for item_id, text in self.instructions.items():
            self._whole[text.strip()] = item_id
            stem = normalised(text)
            start = stem.split()[:_KEY_WORDS]
            lengths.add(len(start))
            self._by_start.setdefault(" ".join(start), []).append((stem, _folded(text), item_id))
        self._lengths = tuple(sorted(lengths))

    @classmethod
    def from_records(cls, folder: str | Path, models: Iterable[str] | None = None) -> AnswerBook:
        """Answers that are right or wrong as the recorded outcomes are; unreadable where none was stated."""
        folder = Path(folder)
        items = pq.read_table(folder / "items.parquet", columns=["item_id", "instruction", "answer"]).to_pylist()
        gold = {row["item_id"]: row["answer"] for row in items}
        answers: dict[str, dict[str, str]] = {}
        filters = [("model", "in", list(models))] if models is not None else None
        for row in pq.read_table(folder / "outcomes.parquet", filters=filters).to_pylist():
            right = gold[row["item_id"]]
            if not row.get("answered", 1):
                text = "I am unable to decide between these."
            elif row["score"] > 0.5:
                text = f"Let us think. The answer is ({right})."
            else:
                text = f"Let us think. The answer is ({'B' if right == 'A' else 'A'})."
            answers.setdefault(row["model"], {})[row["item_id"]] = text
        return cls({row["item_id"]: row["instruction"] for row in items}, answers)

    @classmethod
    def from_outputs(cls, items: str | Path, outputs: str | Path) -> AnswerBook:
        """What models really said: a table with the columns model, item_id and output."""
        answers: dict[str, dict[str, str]] = {}
        for row in pq.read_table(outputs, columns=["model", "item_id", "output"]).to_pylist():
            answers.setdefault(row["model"], {})[row["item_id"]] = row["output"]
        known = {item_id for by_item in answers.values() for item_id in by_item}
        rows = pq.read_table(items, columns=["item_id", "instruction"]).to_pylist()
        return cls({row["item_id"]: row["instruction"] for row in rows if row["item_id"] in known}, answers)

    def find(self, prompt: str) -> str | None:
        """Item id of the known question that stands last in the prompt; None if there is none.

        A prompt that is a question to the letter is that question. One that stands there with its options goes before
        one whose few words also occur elsewhere.
        """
        if (exact := self._whole.get(prompt.strip())) is not None:
            return exact
        folded = _folded(prompt)
        words = folded.split()
        best: tuple[bool, int, str] | None = None
        offset = 0
        for position, word in enumerate(words):
            for length in self._lengths:
                for stem, whole, item_id in self._by_start.get(" ".join(words[position : position + length]), ()):
                    if folded.startswith(stem, offset):
                        # twins share the stem: the one whose options stand there too is meant
                        found = (folded.startswith(whole, offset), offset + len(stem), item_id)
                        best = found if best is None or found[:2] > best[:2] else best
            offset += len(word) + 1
        return best[2] if best else None


def _folded(text: str) -> str:
    return _NON_WORD.sub(" ", text.lower()).strip()


@dataclass
class Stats:
    """What the server has done so far."""

    requests: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    answered: dict[str, Counter[str]] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Counts by model and by fault, and the most often one question was answered."""
        return {
            "requests": dict(self.requests),
            "faults": dict(self.faults),
            "answered": {model: sum(items.values()) for model, items in self.answered.items()},
            "distinct": {model: len(items) for model, items in self.answered.items()},
        }


class ReplayApp:
    """The server's two endpoints over an answer book. ``unknown_text`` answers questions that are not in it."""

    def __init__(self, book: AnswerBook, faults: Faults | None = None, unknown_text: str | None = None) -> None:
        self.book = book
        self.faults = faults or Faults()
        self.stats = Stats()
        self._unknown_text = unknown_text
        self._random = random.Random(self.faults.seed)
        self._refused_since: float | None = None
        self.asgi = Starlette(
            routes=[
                Route("/v1/chat/completions", self._complete, methods=["POST"]),
                Route("/v1/models", self._models),
                Route("/stats", self._stats),
            ]
        )

    async def _models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [{"id": name, "object": "model"} for name in self.book.answers]})

    async def _stats(self, request: Request) -> Response:
        return JSONResponse(self.stats.as_json())

    async def _complete(self, request: Request) -> Response:
        try:
            body = await request.json()
        except ClientDisconnect:  # who asked has been killed
            return Response(status_code=499)
        model = body.get("model", "")
        self.stats.requests[model] += 1
        if (fault := await self._fault()) is not None:
            return fault
        if model not in self.book.answers:
            return _error(404, f"The model {model!r} does not exist here.")
        prompt = _text_of(body["messages"])
        item_id = self.book.find(prompt)
        text = self.book.answers[model].get(item_id or "", self._unknown_text)
        if text is None:
            return _error(422, f"No recorded answer of {model!r} to this question.")
        if self.faults.latency_s:
            await asyncio.sleep(self.faults.latency_s)
        self.stats.answered.setdefault(model, Counter())[item_id or "?"] += 1
        usage = _usage(prompt, text)
        if body.get("stream"):
            with_usage = (body.get("stream_options") or {}).get("include_usage", False)
            return StreamingResponse(
                _events(model, text, usage if with_usage else None), media_type="text/event-stream"
            )
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        return JSONResponse(_envelope(model, "chat.completion", choices=[choice], usage=usage))

    async def _fault(self) -> Response | None:
        faults = self.faults
        if faults.refuse_after is not None and self.stats.requests.total() > faults.refuse_after:
            self._refused_since = self._refused_since or time.monotonic()
            if time.monotonic() - self._refused_since < faults.refuse_s:
                self.stats.faults["refused"] += 1
                return _error(503, "Not serving.", connection="close")
        draw = self._random.random()
        if (draw := draw - faults.rate_429) < 0:
            self.stats.faults["429"] += 1
            return _error(429, "Too many requests.")
        if (draw := draw - faults.rate_500) < 0:
            self.stats.faults["500"] += 1
            return _error(500, "Internal error.")
        if (draw := draw - faults.rate_timeout) < 0:
            self.stats.faults["timeout"] += 1
            await asyncio.sleep(faults.hang_s)
            return _error(504, "Too late.")
        if draw - faults.rate_garbage < 0:
            self.stats.faults["garbage"] += 1
            return self._garbage()
        return None

    def _garbage(self) -> Response:
        kind = self._random.randrange(4)
        if kind == 0:
            return Response("<html><body>Welcome!</body></html>", media_type="text/html")
        if kind == 1:
            return Response('{"id": "x", "choices": [{"index": 0, "mess', media_type="application/json")
        if kind == 2:
            return JSONResponse({"ok": True})
        message = {"role": "assistant", "content": None}
        return JSONResponse(_envelope("?", "chat.completion", choices=[{"index": 0, "message": message}]))


def _text_of(messages: list[dict[str, Any]]) -> str:
    """The last user message's text; a message may be a text or a list of parts."""
    content = next((m["content"] for m in reversed(messages) if m.get("role") == "user"), "")
    return content if isinstance(content, str) else "\n".join(part.get("text", "") for part in content)


def _usage(prompt: str, text: str) -> dict[str, int]:
    used = {
        "prompt_tokens": len(prompt) // _CHARS_PER_TOKEN + 1,
        "completion_tokens": len(text) // _CHARS_PER_TOKEN + 1,
    }
    return {**used, "total_tokens": sum(used.values())}


def _envelope(model: str, kind: str, **fields: Any) -> dict[str, Any]:
    return {"id": "chatcmpl-replay", "object": kind, "created": 0, "model": model, **fields}


def _error(status: int, message: str, **headers: str) -> Response:
    return JSONResponse({"error": {"message": message, "code": status}}, status_code=status, headers=headers)


async def _events(model: str, text: str, usage: dict[str, int] | None) -> AsyncIterator[str]:
    def event(delta: dict[str, str], finish: str | None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return f"data: {json.dumps(_envelope(model, 'chat.completion.chunk', choices=[choice]))}\n\n"

    yield event({"role": "assistant", "content": ""}, None)
    for piece in re.findall(r"\s*\S+\s*$|\s*\S+", text):
        yield event({"content": piece}, None)
    yield event({}, "stop")
    if usage is not None:
        yield f"data: {json.dumps(_envelope(model, 'chat.completion.chunk', choices=[], usage=usage))}\n\n"
    yield "data: [DONE]\n\n"


@contextlib.contextmanager
def serve(app: ReplayApp, *, host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """Serve in a thread; yields the base URL (``http://…/v1``) and stops on leaving the block."""
    listening = socket.create_server((host, port))
    server = uvicorn.Server(uvicorn.Config(app.asgi, log_level="error", lifespan="off", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://{host}:{listening.getsockname()[1]}/v1"
    finally:
        server.should_exit = True
        thread.join(timeout=10)
        listening.close()


def main() -> None:
    """Serve until interrupted; the first line printed is the base URL."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", required=True, help="a records folder with items.parquet and outcomes.parquet")
    parser.add_argument("--outputs", help="a table of real outputs: model, item_id, output")
    parser.add_argument("--model", action="append", help="serve only this model (may be repeated)")
    parser.add_argument("--unknown-text", help="what to answer to a question that is not recorded (default: 422)")
    parser.add_argument("--port", type=int, default=0)
    for name, default in Faults().__dict__.items():
        kind = int if name in ("seed", "refuse_after") else float
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, default=default)
    args = parser.parse_args()
    if args.outputs:
        book = AnswerBook.from_outputs(Path(args.records) / "items.parquet", args.outputs)
    else:
        book = AnswerBook.from_records(args.records, args.model)
    app = ReplayApp(book, Faults(**{name: getattr(args, name) for name in Faults().__dict__}), args.unknown_text)
    with serve(app, port=args.port) as url, contextlib.suppress(KeyboardInterrupt):
        print(url, flush=True)
        while True:
            time.sleep(3600)


if __name__ == "__main__":
    main()
