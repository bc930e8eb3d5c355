"""One candidate made ready for one call: its reading of the messages, its bindings, the parameters that it knows."""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from langchain_core.messages import AIMessage
from langchain_core.runnables.config import merge_configs

from langchain_msat.callbacks import gated
from langchain_msat.candidates import ChatRunnable, leaves, rewrapped
from langchain_msat.messages import finish_reason, is_empty
from langchain_msat.readable_messages import readable, tool_choice_for
from msat_core import TAG, Attempt, Attempts, EmptyAnswerError

if TYPE_CHECKING:
    from langchain_msat.routed_call import RoutedCall

STRUCTURED = "msat_structured"  # a bound key: (schema, options) for the candidate's own with_structured_output
DECISION = "msat_decision"  # a keyword of ChatMSAT's own calls: a decision already made
_CALLERS = frozenset({"tools", "tool_choice", "response_format"})  # in a candidate's binding they yield to the caller's
_UNKNOWN = re.compile(r"unexpected keyword argument '(\w+)'")
_log = logging.getLogger(__name__)


class BoundTool(dict[str, Any]):
    """A tool as plain data, as whoever looks at a binding expects it; candidates bind the tool itself."""

    def __init__(self, data: Mapping[str, Any], tool: Any) -> None:
        super().__init__(data)
        self.tool = tool


class PreparedCall:
    """One candidate made ready for a call, in its own way."""

    def __init__(self, call: RoutedCall, attempts: Attempts, attempt: Attempt) -> None:
        self._call, self._attempts, self._attempt = call, attempts, attempt
        self._step = attempts.path[-1]
        setup = call.setup
        self._key = setup.name_of(str(attempt))
        self._reader = setup.models.reader(self._key)
        config = gated(call.config, attempt)
        if len(attempts.path) > 1:
            config.pop("run_id", None)  # the caller's own id for a run; there is more than one
        self._config = config
        self._messages = readable(call.messages, self._reader)
        options = {key: value for key, value in call.bound.items() if key not in (STRUCTURED, DECISION)}
        if "cache_control" in options and not self._reader.takes_cache_markers:
            del options["cache_control"]
        if "tool_choice" in options:
            options["tool_choice"] = tool_choice_for(options["tool_choice"], self._reader)
        self._options = options
        self._structured = dict(call.bound[STRUCTURED][1]) if STRUCTURED in call.bound else {}

    def start(self, method: str, **fixed: Any) -> Any:
        """Call a method of the candidate."""
        model = self._call.setup.models[self._key]
        options, config = {**self._options, **fixed}, self._config
        if method in ("stream_events", "astream_events"):  # no run of the router's stands above the candidate's
            config = merge_configs(config, {"metadata": {TAG: self._call.tag(self._attempts)}})
        if "tools" in options:
            binding, options = _split(model, options)
            model = self._bound(model, lambda leaf: leaf.bind_tools(**binding))
        elif STRUCTURED in self._call.bound:
            schema = self._call.bound[STRUCTURED][0]
            model = self._bound(model, lambda leaf: leaf.with_structured_output(schema, **self._structured))
        return getattr(model, method)(self._messages, config, **options)

    def checked(self, output: Any) -> Any:
        """The answer, unless it is empty or cut off and the settings send such to the next candidate."""
        fallback = self._attempts.fallback
        if fallback.empty == "next" and is_empty(output):
            raise EmptyAnswerError(f"{self._key} gave an empty answer.", output)
        if fallback.cut == "next" and isinstance(output, AIMessage) and finish_reason(output) is None:
            raise EmptyAnswerError(f"{self._key} gave no finish reason.", output, "cut")
        return output

    def drop_unknown(self, error: TypeError) -> None:
        """Leave out the parameter that the candidate does not know, and say so; the error, if it is another one."""
        match = _UNKNOWN.search(str(error))
        name = match[1] if match else ""
        options = self._structured if name in self._structured else self._options
        if name not in options or name in (*_CALLERS, "include_raw") or self._attempt.begun:
            raise error
        del options[name]
        self._step.setdefault("dropped", []).append(name)
        _log.warning("%s does not know the parameter %s: it is called without.", self._key, name)

    def _bound(self, model: ChatRunnable, change: Callable[[Any], ChatRunnable]) -> ChatRunnable:
        return rewrapped(model, change, self._config, _CALLERS | self._options.keys())


def _split(model: ChatRunnable, options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What ``bind_tools`` takes by name, and what goes with the call."""
    taken = [set(inspect.signature(leaf.bind_tools).parameters) for leaf in leaves(model)]
    named = set.intersection(*taken) & options.keys() | {"tools"}
    binding = {key: value for key, value in options.items() if key in named}
    if "tool_choice" in options:
        binding["tool_choice"] = options["tool_choice"]
    binding["tools"] = [tool.tool if isinstance(tool, BoundTool) else tool for tool in options["tools"]]
    return binding, {key: value for key, value in options.items() if key not in binding}
