"""A small OpenAI-compatible server whose models are functions, with the whims of today's endpoints."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from replay_server import serve
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

Answers = Callable[[str, Mapping[str, Any]], "str | Mapping[str, Any]"]


@dataclass
class ChatServer:
    """Answers for each of its models; notes what it was sent.

    Attributes:
        models: (prompt, request) → a reply, or fields of the choice (``message``, ``finish_reason``).
        rejects: parameters that it does not support, with the name it would have instead.
        bodies: every request that was let through, in order.
        n_rejected: requests turned away because of a parameter.
    """

    models: Mapping[str, Answers]
    rejects: Mapping[str, str] = field(default_factory=dict)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    n_rejected: int = 0

    @property
    def n_asked(self) -> Counter[str]:
        """Calls answered, by model."""
        return Counter(body["model"] for body in self.bodies)

    async def answer(self, request: Request) -> JSONResponse:
        body = json.loads(await request.body())
        for parameter, instead in self.rejects.items():
            if parameter in body:
                self.n_rejected += 1
                hint = f" Use '{instead}' instead." if instead else " Only the default value is supported."
                error = {"message": f"Unsupported parameter: '{parameter}'.{hint}", "param": parameter, "type": "bad"}
                return JSONResponse({"error": error}, 400)
        if body["model"] not in self.models:
            return JSONResponse({"error": {"message": "no such model"}}, 404)
        self.bodies.append(body)
        prompt = body["messages"][-1]["content"]
        said = self.models[body["model"]](prompt, body)
        fields: Mapping[str, Any] = {"message": {"content": said}} if isinstance(said, str) else said
        text = json.dumps(fields["message"])
        choice = {
            "index": 0,
            "finish_reason": "stop",
            **fields,
            "message": {"role": "assistant", "content": None, **fields["message"]},
        }
        usage = {"prompt_tokens": len(prompt) // 4 + 1, "completion_tokens": len(text) // 4 + 1}
        usage["total_tokens"] = sum(usage.values())
        whole = {"id": "c", "object": "chat.completion", "created": 0, "model": body["model"], "usage": usage}
        return JSONResponse({**whole, "choices": [choice]})

    @contextmanager
    def running(self) -> Iterator[str]:
        """Serve in a thread; yields the base URL."""

        class App:
            asgi = Starlette(routes=[Route("/v1/chat/completions", self.answer, methods=["POST"])])

        with serve(App()) as url:  # type: ignore[arg-type]
            yield url
