"""msat for LangChain: a router that is a chat model, a router chain, agent middleware.

Each name is loaded on first use, so that importing the package needs langchain-core at most.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msat_core import load_name

if TYPE_CHECKING:
    from langchain_msat.chat_model import ChatMSAT
    from langchain_msat.decision_model import MSATDecisionModel
    from langchain_msat.exam import exam_client
    from langchain_msat.middleware import MSATMiddleware
    from langchain_msat.router_chain import MSATRouterChain
    from langchain_msat.selector import candidate_selector

_HOME = {
    "ChatMSAT": "chat_model",
    "MSATDecisionModel": "decision_model",
    "MSATMiddleware": "middleware",
    "MSATRouterChain": "router_chain",
    "candidate_selector": "selector",
    "exam_client": "exam",
}

__all__ = [
    "ChatMSAT",
    "MSATDecisionModel",
    "MSATMiddleware",
    "MSATRouterChain",
    "candidate_selector",
    "exam_client",
]


def _public(name: str) -> Any:
    value = load_name(__name__, _HOME, name)
    globals()[name] = value
    return value


if not TYPE_CHECKING:  # a type checker would take any name for a public one
    __getattr__ = _public
