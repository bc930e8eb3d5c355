"""msat for LlamaIndex: a selector that shows its scores, and a router that is an LLM.

Each name is loaded on first use, so that importing the package needs nothing but msat_core.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msat_core import load_name

if TYPE_CHECKING:
    from llamaindex_msat.events import MSATRouteEvent
    from llamaindex_msat.exam import exam_client
    from llamaindex_msat.router_llm import MSATRouterLLM
    from llamaindex_msat.selector import MSATSelection, MSATSelector, MSATSelectorResult
    from llamaindex_msat.tools import candidate_query_engines

_HOME = {
    "MSATRouteEvent": "events",
    "MSATRouterLLM": "router_llm",
    "MSATSelection": "selector",
    "MSATSelector": "selector",
    "MSATSelectorResult": "selector",
    "candidate_query_engines": "tools",
    "exam_client": "exam",
}

__all__ = [
    "MSATRouteEvent",
    "MSATRouterLLM",
    "MSATSelection",
    "MSATSelector",
    "MSATSelectorResult",
    "candidate_query_engines",
    "exam_client",
]


def _public(name: str) -> Any:
    value = load_name(__name__, _HOME, name)
    globals()[name] = value
    return value


if not TYPE_CHECKING:  # a type checker would take any name for a public one
    __getattr__ = _public
