"""One index, two models behind real HTTP: what a router in LlamaIndex does for you, from first question to last.

Read it from top to bottom. ``small`` and ``large`` are OpenAI-compatible servers' models; small is cheap.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("llama_index.llms.openai_like")

import uvicorn
from llama_index.core import Document, MockEmbedding, PromptTemplate, VectorStoreIndex
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.llms.types import ChatMessage, ImageBlock, TextBlock
from llama_index.core.chat_engine.types import ChatMode
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from support import profile, table_router

from llamaindex_msat import MSATRouterLLM
from msat_core import Candidate, RoutingPolicy

pytestmark = pytest.mark.enable_socket

HARD, EASY = "Which lemma closes the induction step here?", "Which colour does the barn have, again?"
TABLE = {HARD: {"large": 0.9, "small": 0.3}, EASY: {"large": 0.8, "small": 0.85}}
IN_A_MESSAGE = {"role", "content", "tool_calls", "tool_call_id", "name"}  # a strict server knows no more


class Server:
    """Says which model was asked; calls a tool where there is one; refuses fields that it does not know."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []

    async def complete(self, request: Request) -> Response:
        body = await request.json()
        self.requests.append(body)
        if any(set(message) - IN_A_MESSAGE for message in body["messages"]):
            return JSONResponse({"error": {"message": "unknown field"}}, status_code=400)
        message: dict[str, Any] = {"role": "assistant", "content": f"{body['model']} answers"}
        if body.get("tools") and body["messages"][-1]["role"] == "user":
            call = {"name": body["tools"][0]["function"]["name"], "arguments": json.dumps({"number": 21})}
            message = {**message, "content": None, "tool_calls": [{"id": "c1", "type": "function", "function": call}]}
        whole = {"id": "1", "object": "chat.completion", "created": 0, "model": body["model"]}
        if not body.get("stream"):
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            return JSONResponse({**whole, "choices": [choice]})
        whole["object"] = "chat.completion.chunk"
        calls = [{"index": 0, **call} for call in message.get("tool_calls", [])]
        deltas = [{"role": "assistant", "content": ""}, {"tool_calls": calls} if calls else message]

        def events() -> Iterator[str]:
            for delta in deltas:
                yield f"data: {json.dumps({**whole, 'choices': [{'index': 0, 'delta': delta}]})}\n\n"
            yield "data: [DONE]\n\n"

        return StreamingResponse(events(), media_type="text/event-stream")


@pytest.fixture(scope="module")
def url_and_server() -> Iterator[tuple[str, Server]]:
    ours, listening = Server(), socket.create_server(("127.0.0.1", 0))
    app = Starlette(routes=[Route("/v1/chat/completions", ours.complete, methods=["POST"])])
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1", ours
    server.should_exit = True
    thread.join(5)
    listening.close()


@pytest.fixture
def llm(url_and_server: tuple[str, Server]) -> MSATRouterLLM:
    def model(name: str, window: int) -> OpenAILike:
        options = {"is_chat_model": True, "is_function_calling_model": True, "context_window": window}
        return OpenAILike(model=name, api_base=url_and_server[0], api_key="x", max_retries=0, max_tokens=256, **options)

    large = Candidate(
        profile=profile("large", 0.9),
        usd_per_mtok_in=10,
        usd_per_mtok_out=30,
        modalities=frozenset({"text", "image"}),
    )
    small = Candidate(
        profile=profile("small", 0.6), usd_per_mtok_in=0.1, usd_per_mtok_out=0.3, modalities=frozenset({"text"})
    )
    url_and_server[1].requests.clear()
    models = {"large": model("large", 128_000), "small": model("small", 16_000)}
    return MSATRouterLLM(models, table_router(TABLE, candidates=[large, small]))


@pytest.fixture
def index() -> VectorStoreIndex:
    return VectorStoreIndex.from_documents([Document(text="A fact. " * 300)], embed_model=MockEmbedding(embed_dim=4))


def test_the_question_decides(llm: MSATRouterLLM, index: VectorStoreIndex) -> None:
    engine = index.as_query_engine(llm=llm)
    assert str(engine.query(HARD)) == "large answers"
    assert str(engine.query(EASY)) == "small answers"


def test_a_price_cap_binds_what_is_sent(llm: MSATRouterLLM, index: VectorStoreIndex) -> None:
    llm.policy = RoutingPolicy(max_usd=0.012)
    assert str(index.as_query_engine(llm=llm).query(HARD)) == "small answers"


def test_so_do_windows_and_images(llm: MSATRouterLLM) -> None:
    prompt = PromptTemplate("{context_str}\n{query_str}")
    assert llm.predict(prompt, context_str="", query_str=EASY) == "small answers"
    assert llm.predict(prompt, context_str="word " * 20_000, query_str=EASY) == "large answers"
    picture = ImageBlock(image=b"x", image_mimetype="image/png")
    answer = llm.chat([ChatMessage(blocks=[TextBlock(text=EASY), picture])])
    assert answer.message.content == "large answers"


def test_a_follow_up_is_read_with_its_question(llm: MSATRouterLLM, index: VectorStoreIndex) -> None:
    llm.sticky = "conversation"
    memory = ChatMemoryBuffer.from_defaults(token_limit=4000)
    engine = index.as_chat_engine(chat_mode=ChatMode.CONDENSE_PLUS_CONTEXT, llm=llm, memory=memory)
    assert str(engine.chat(HARD)) == "large answers"
    assert str(engine.chat("and the next?")) == "large answers"


async def test_an_agent_calls_a_tool(llm: MSATRouterLLM, url_and_server: tuple[str, Server]) -> None:
    def double(number: int) -> int:
        """Twice the number."""
        return 2 * number

    assert "large answers" in str(await FunctionAgent(tools=[double], llm=llm).run(user_msg=HARD))
    first, second = url_and_server[1].requests
    assert first["model"] == second["model"] == "large"
    assert second["messages"][-1]["content"] == "42"


def test_objects_and_streams(llm: MSATRouterLLM) -> None:
    class Answer(BaseModel):
        number: int

    prompt = PromptTemplate("Context: none. {query_str}")
    assert llm.structured_predict(Answer, prompt, query_str=HARD) == Answer(number=21)
    chunks = list(llm.stream_chat([ChatMessage(HARD)]))
    assert "".join(chunk.delta or "" for chunk in chunks) == "large answers"
    assert chunks[0].additional_kwargs["msat"]["candidate"] == "large"
    assert chunks[0].additional_kwargs["msat"]["scores"] == pytest.approx(TABLE[HARD])
