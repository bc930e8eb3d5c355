"""Small servers that speak the protocols of OpenAI and Anthropic, and answer by rule."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Fault = tuple[int, dict[str, Any]]


def _arguments(schema: dict[str, Any], text: str) -> dict[str, Any]:
    """Numbers of the text for number fields, the text for others."""
    numbers = re.findall(r"-?\d+", text) or ["0"]
    made: dict[str, Any] = {}
    for key, field in schema.get("properties", {}).items():
        kind = field.get("type")
        made[key] = {"integer": int(numbers[0]), "number": int(numbers[0]), "boolean": True, "array": []}.get(
            kind, text
        )
    return made


class Handler(BaseHTTPRequestHandler):
    """One request; the server holds the faults to give and what it has seen."""

    server: ProviderServer

    def log_message(self, format: str, *args: Any) -> None:
        """Tests are quiet."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append(body)
        if self.server.fault is not None:
            status, error = self.server.fault
            self._send(status, json.dumps(error).encode(), "application/json")
            return
        openai = self.path.endswith("/chat/completions")
        answer = _OpenAI(body) if openai else _Anthropic(body)
        if body.get("stream"):
            events = "".join(answer.events())
            self._send(200, events.encode(), "text/event-stream")
        else:
            self._send(200, json.dumps(answer.whole()).encode(), "application/json")

    def _send(self, status: int, data: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


class _OpenAI:
    def __init__(self, body: dict[str, Any]) -> None:
        last = body["messages"][-1]
        content = last.get("content") or ""
        self.text = content if isinstance(content, str) else " ".join(part.get("text", "") for part in content)
        tools = body.get("tools") if last["role"] != "tool" and body.get("tool_choice") != "none" else None
        self.call = tools[0]["function"] if tools else None
        self.model = body["model"]
        schema = (body.get("response_format") or {}).get("json_schema", {}).get("schema")
        self.said = json.dumps(_arguments(schema, self.text)) if schema else f"{self.model}: {self.text}"
        for stop in [body["stop"]] if isinstance(body.get("stop"), str) else body.get("stop") or []:
            self.said = self.said.split(stop)[0]
        self.usage = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
        self.usage_in_stream = (body.get("stream_options") or {}).get("include_usage")

    def whole(self) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": self.said}
        if self.call:
            function = {
                "name": self.call["name"],
                "arguments": json.dumps(_arguments(self.call["parameters"], self.text)),
            }
            message = {"role": "assistant", "content": None}
            message["tool_calls"] = [{"id": "call_1", "type": "function", "function": function}]
        choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if self.call else "stop"}
        return self._envelope("chat.completion", [choice], self.usage)

    def events(self) -> Iterator[str]:
        yield self._chunk({"role": "assistant", "content": ""})
        if self.call:
            arguments = json.dumps(_arguments(self.call["parameters"], self.text))
            start = {
                "index": 0,
                "id": "call_1",
                "type": "function",
                "function": {"name": self.call["name"], "arguments": ""},
            }
            yield self._chunk({"tool_calls": [start]})
            yield self._chunk({"tool_calls": [{"index": 0, "function": {"arguments": arguments}}]})
        else:
            for word in re.findall(r"\s*\S+", self.said):
                yield self._chunk({"content": word})
        yield self._chunk({}, "tool_calls" if self.call else "stop")
        if self.usage_in_stream:
            yield f"data: {json.dumps(self._envelope('chat.completion.chunk', [], self.usage))}\n\n"
        yield "data: [DONE]\n\n"

    def _chunk(self, delta: dict[str, Any], reason: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        return f"data: {json.dumps(self._envelope('chat.completion.chunk', [choice], None))}\n\n"

    def _envelope(self, kind: str, choices: list[Any], usage: Any) -> dict[str, Any]:
        return {"id": "c1", "object": kind, "created": 1, "model": self.model, "choices": choices, "usage": usage}


class _Anthropic:
    def __init__(self, body: dict[str, Any]) -> None:
        content = body["messages"][-1]["content"]
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        results = [block for block in blocks if block["type"] == "tool_result"]
        self.text = " ".join(str(b.get("text") or b.get("content") or "") for b in blocks)
        tools = body.get("tools") if not results and (body.get("tool_choice") or {}).get("type") != "none" else None
        self.call = tools[0] if tools else None
        self.model = body["model"]
        self.said = f"{self.model}: {self.text}"
        for stop in body.get("stop_sequences") or []:
            self.said = self.said.split(stop)[0]

    def _block(self) -> dict[str, Any]:
        if self.call:
            given = _arguments(self.call["input_schema"], self.text)
            return {"type": "tool_use", "id": "toolu_1", "name": self.call["name"], "input": given}
        return {"type": "text", "text": self.said}

    def whole(self) -> dict[str, Any]:
        return self._message([self._block()], "tool_use" if self.call else "end_turn", 5)

    def events(self) -> Iterator[str]:
        block = self._block()
        empty = {**block, "input": {}} if self.call else {**block, "text": ""}
        if self.call:
            deltas = [{"type": "input_json_delta", "partial_json": json.dumps(block["input"])}]
        else:
            deltas = [{"type": "text_delta", "text": word} for word in re.findall(r"\s*\S+", self.said)]
        reason = {"stop_reason": "tool_use" if self.call else "end_turn", "stop_sequence": None}
        yield self._event("message_start", message=self._message([], None, 1))
        yield self._event("content_block_start", index=0, content_block=empty)
        for delta in deltas:
            yield self._event("content_block_delta", index=0, delta=delta)
        yield self._event("content_block_stop", index=0)
        yield self._event("message_delta", delta=reason, usage={"output_tokens": 5})
        yield self._event("message_stop")

    def _event(self, kind: str, **data: Any) -> str:
        return f"event: {kind}\ndata: {json.dumps({'type': kind, **data})}\n\n"

    def _message(self, content: list[Any], reason: str | None, n_out: int) -> dict[str, Any]:
        usage = {"input_tokens": 7, "output_tokens": n_out}
        message = {"id": "msg_1", "type": "message", "role": "assistant", "model": self.model, "content": content}
        return {**message, "stop_reason": reason, "stop_sequence": None, "usage": usage}


class ProviderServer(ThreadingHTTPServer):
    """Speaks both protocols at one address.

    Attributes:
        fault: status and body to answer with instead.
        seen: the bodies of all requests.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.daemon_threads = True
        self.fault: Fault | None = None
        self.seen: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> ProviderServer:
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.shutdown()
        self.server_close()
