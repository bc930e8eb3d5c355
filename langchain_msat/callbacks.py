"""What a candidate's call tells the caller's callbacks: everything, until the candidate is given up.

A candidate that is given up may go on in a thread of its own. From that moment its events reach nobody: no token
between those of the candidate that answers, no late end of a run. And where a token has gone out to somebody who
shows it, the answer is that candidate's, so the attempt learns of it here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, cast
from uuid import UUID

from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler, BaseCallbackManager
from langchain_core.callbacks.manager import handle_event
from langchain_core.runnables import RunnableConfig
from langchain_core.tracers._streaming import _StreamingCallbackHandler
from langchain_core.tracers.base import AsyncBaseTracer, BaseTracer

from langchain_msat.messages import says_something
from msat_core import Attempt

_TOKENS = ("on_llm_new_token", "on_stream_event")
_ENDS = {  # of what has started: the event that ends it with an error, and what a handler ignores it by
    "on_chat_model_start": ("on_llm_error", "ignore_llm"),
    "on_llm_start": ("on_llm_error", "ignore_llm"),
    "on_chain_start": ("on_chain_error", "ignore_chain"),
    "on_tool_start": ("on_tool_error", "ignore_agent"),
    "on_retriever_start": ("on_retriever_error", "ignore_retriever"),
}

Call = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]


def gated(config: RunnableConfig, attempt: Attempt) -> RunnableConfig:
    """A configuration for one attempt's call, whose callbacks hear of it while the attempt lasts."""
    callbacks = config.get("callbacks")
    if not callbacks:
        return config
    gate = Gate(attempt)
    if isinstance(callbacks, BaseCallbackManager):
        if not callbacks.handlers:
            return config
        manager = callbacks.copy()
        manager.handlers = [gate.around(handler) for handler in callbacks.handlers]
        manager.inheritable_handlers = [gate.around(handler) for handler in callbacks.inheritable_handlers]
        return {**config, "callbacks": manager}
    return {**config, "callbacks": [gate.around(handler) for handler in callbacks]}


class Gate:
    """Stands between one attempt and the caller's handlers; see the module."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self._kept_back: list[tuple[BaseCallbackHandler, Call]] = []  # empty chunks before the first token
        self._running: dict[tuple[int, UUID], tuple[BaseCallbackHandler, str, dict[str, Any]]] = {}
        attempt.when_given_up(self._close)

    def around(self, handler: BaseCallbackHandler) -> BaseCallbackHandler:
        """The handler as the candidate's call sees it."""
        return cast("BaseCallbackHandler", _Gated(handler, self))

    def event(self, handler: BaseCallbackHandler, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        """A handler's method, called where the gate lets the event through."""
        if inspect.iscoroutinefunction(method):

            async def apassed(*args: Any, **kwargs: Any) -> None:
                for act, arguments, keywords in self._due(handler, name, (method, args, kwargs)):
                    await act(*arguments, **keywords)

            return apassed

        def passed(*args: Any, **kwargs: Any) -> Any:
            result = None
            for act, arguments, keywords in self._due(handler, name, (method, args, kwargs)):
                result = act(*arguments, **keywords)
            return result

        return passed

    def _due(self, handler: BaseCallbackHandler, name: str, call: Call) -> list[Call]:
        """The calls to make now: none after the end; before the first token, empty chunks wait."""
        if self._attempt.given_up:
            return []
        if name in _TOKENS:
            return self._token(handler, name, call)
        run_id = call[2].get("run_id")
        if name in _ENDS and run_id is not None:
            self._running[id(handler), run_id] = (handler, name, call[2])
        elif name.endswith(("_end", "_error")) and run_id is not None:
            self._running.pop((id(handler), run_id), None)
        if name == "on_llm_error":
            self._kept_back = [kept for kept in self._kept_back if kept[0] is not handler]
        return [*(self._released(handler) if name == "on_llm_end" else ()), call]

    def _token(self, handler: BaseCallbackHandler, name: str, call: Call) -> list[Call]:
        if not _shows(handler, name):
            return [call]
        chunk = call[2].get("chunk") or (call[1][0] if call[1] else None)
        if not self._attempt.begun and not says_something(chunk):
            self._kept_back.append((handler, call))
            return []
        return [*self._released(handler), call] if self._attempt.begin() else []

    def _released(self, handler: BaseCallbackHandler) -> list[Call]:
        kept = [call for of, call in self._kept_back if of is handler]
        self._kept_back = [(of, call) for of, call in self._kept_back if of is not handler]
        return kept

    def _close(self, error: BaseException) -> None:
        """End the runs that the call has begun: nothing of it will be heard again."""
        for handler, name, keywords in list(self._running.values()):
            ending, ignored = _ENDS[name]
            kept = {key: keywords[key] for key in ("run_id", "parent_run_id", "tags") if key in keywords}
            handle_event([handler], ending, ignored, error, **kept)
        self._running.clear()


class _Gated:
    """A handler behind a gate. To whoever asks, it is of the handler's own class, and equal to it."""

    def __init__(self, handler: BaseCallbackHandler, gate: Gate) -> None:
        object.__setattr__(self, "_behind", handler)
        object.__setattr__(self, "_gate", gate)

    @property  # type: ignore[misc]  # a type, for isinstance alone
    def __class__(self) -> type:
        return type(object.__getattribute__(self, "_behind"))

    def __getattr__(self, name: str) -> Any:
        handler = object.__getattribute__(self, "_behind")
        attribute = getattr(handler, name)
        if name.startswith("on_") and callable(attribute):
            return object.__getattribute__(self, "_gate").event(handler, name, attribute)
        return attribute

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(object.__getattribute__(self, "_behind"), name, value)

    def __eq__(self, other: object) -> bool:
        mine = object.__getattribute__(self, "_behind")
        theirs = object.__getattribute__(other, "_behind") if type(other) is _Gated else other
        return bool(mine == theirs)

    def __hash__(self) -> int:
        return hash(object.__getattribute__(self, "_behind"))


def _shows(handler: BaseCallbackHandler, name: str) -> bool:
    """Whether somebody sees this handler's tokens as they come. A tracer writes them down for later."""
    if isinstance(handler, _StreamingCallbackHandler):
        return True
    if isinstance(handler, (BaseTracer, AsyncBaseTracer)):
        return False
    return getattr(type(handler), name, None) not in (
        getattr(BaseCallbackHandler, name, None),
        getattr(AsyncCallbackHandler, name, None),
    )


def from_callbacks(error: BaseException) -> bool:
    """Whether an error was raised by a callback handler, and so says nothing about the candidate."""
    traceback = error.__traceback__
    while traceback is not None:
        code = traceback.tb_frame.f_code
        if code.co_name in ("handle_event", "_ahandle_event_for_handler"):
            return bool(traceback.tb_frame.f_globals.get("__name__") == "langchain_core.callbacks.manager")
        traceback = traceback.tb_next
    return False
