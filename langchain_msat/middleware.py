"""`MSATMiddleware`: an agent of langchain's ``create_agent`` calls the candidate that the router chooses."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from langchain.agents.middleware import AgentMiddleware, ModelRequest, ModelResponse

from langchain_msat.chat_model import ChatMSAT


class MSATMiddleware(AgentMiddleware[Any, Any]):
    """Sends each model call of an agent through a :class:`ChatMSAT` over the candidates.

    Tools, structured output, stickiness within the turn and fallback are the router's; the agent's own
    model is not called.

    Args:
        candidates: as of :class:`ChatMSAT`.
        **fields: of :class:`ChatMSAT`.
    """

    def __init__(self, candidates: Mapping[str, Any], **fields: Any) -> None:
        super().__init__()
        self.chat = ChatMSAT(candidates=candidates, **fields)

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ModelResponse[Any]:
        """Replace the request's model by the router."""
        return handler(request.override(model=self.chat))

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
    ) -> ModelResponse[Any]:
        """Like :meth:`wrap_model_call`."""
        return await handler(request.override(model=self.chat))
