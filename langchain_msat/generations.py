"""What ``generate`` gives beside messages: every generation of the candidate's call, and what it says of the call."""

from __future__ import annotations

import uuid
from typing import Any, cast

from langchain_core.callbacks import BaseCallbackHandler, BaseCallbackManager, Callbacks
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from langchain_core.runnables import RunnableConfig


class _Last(BaseCallbackHandler):
    """Keeps the result of the last LLM run."""

    run_inline = True

    def __init__(self) -> None:
        self.result: LLMResult | None = None

    def on_llm_end(self, response: LLMResult, **kwargs: Any) -> None:
        """Keep it."""
        self.result = response


class Collected:
    """Listens to n calls."""

    def __init__(self, n: int) -> None:
        self.listeners = [_Last() for _ in range(n)]

    def result(self, messages: list[AIMessage]) -> LLMResult:
        """The generations of all calls; the first of each is the message that the router gave."""
        generations, outputs = [], []
        for listener, message in zip(self.listeners, messages, strict=True):
            heard = listener.result
            rest = heard.generations[0][1:] if heard is not None else []
            info = heard.generations[0][0].generation_info if heard is not None and heard.generations[0] else None
            generations.append([ChatGeneration(message=message, generation_info=info), *rest])
            outputs.append((heard.llm_output if heard is not None else None) or {})
        return LLMResult(generations=cast("Any", generations), llm_output=_combined(outputs))


def _combined(outputs: list[dict[str, Any]]) -> dict[str, Any]:
    """What all calls say: token counts are added, other facts kept where they agree."""
    combined: dict[str, Any] = {}
    for output in outputs:
        for key, value in output.items():
            earlier = combined.get(key)
            if isinstance(earlier, dict) and isinstance(value, dict):
                numbers = {k: v for k, v in value.items() if isinstance(v, (int, float))}
                combined[key] = {**earlier, **{k: earlier.get(k, 0) + v for k, v in numbers.items()}}
            elif earlier is None:
                combined[key] = value
    return combined


def configs_of(
    collected: Collected, callbacks: Callbacks, options: dict[str, Any]
) -> tuple[list[RunnableConfig], dict[str, Any]]:
    """A configuration for each of ``generate``'s inputs, and what is left of its keywords."""
    rest = dict(options)
    settings = {key: rest.pop(key, None) for key in ("tags", "metadata", "run_name")}
    run_id: uuid.UUID | None = rest.pop("run_id", None)
    shared = {key: value for key, value in settings.items() if value is not None}
    configs = []
    for i, listener in enumerate(collected.listeners):
        first = {"run_id": run_id} if run_id and i == 0 else {}
        configs.append(cast("RunnableConfig", {**shared, **first, "callbacks": _joined(callbacks, listener)}))
    return configs, rest


def _joined(callbacks: Callbacks, listener: BaseCallbackHandler) -> Callbacks:
    if isinstance(callbacks, BaseCallbackManager):
        joined = callbacks.copy()
        joined.add_handler(listener)
        return joined
    return [*(callbacks or []), listener]
