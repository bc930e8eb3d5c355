"""The LLMs behind the candidates: what they say of themselves, and what the router hands on to them."""

from __future__ import annotations

import difflib
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from llama_index.core.base.llms.generic_utils import messages_to_prompt
from llama_index.core.base.llms.types import LLMMetadata
from llama_index.core.constants import DEFAULT_CONTEXT_WINDOW, DEFAULT_NUM_OUTPUTS
from llama_index.core.llms.llm import LLM, default_completion_to_prompt
from llama_index.core.types import PydanticProgramMode
from llama_index.core.utils import get_tokenizer

from llamaindex_msat.callbacks import gated
from msat_core import Attempt, ConfigurationError, ModelFacts, common_abilities

SILENT_S = 30.0  # how long a candidate whose metadata fails is not asked for it again
LONG_RETRIES = 2  # retries of a candidate's own that are worth a warning: its client waits longer after each
_CHARS_PER_TOKEN = 3  # at least so many in almost every text; below, tokens are counted
_HANDED_ON: dict[str, tuple[Any, ...]] = {  # settings, with the values that mean "not set"
    "system_prompt": (None, ""),
    "query_wrapper_prompt": (None,),
    "output_parser": (None,),
    "rate_limiter": (None,),
    "messages_to_prompt": (None, messages_to_prompt),
    "completion_to_prompt": (None, default_completion_to_prompt),
    "pydantic_program_mode": (None, PydanticProgramMode.DEFAULT),
}
_log = logging.getLogger(__name__)


def check_fields(of: type[LLM], fields: Mapping[str, Any]) -> None:
    """Refuse settings that a router does not have.

    Raises:
        ConfigurationError: with what may have been meant.
    """
    for name in fields:
        if name not in of.model_fields:
            near = difflib.get_close_matches(name, of.model_fields, n=2)
            hint = f"did you mean {' or '.join(near)}?" if near else "give settings of a model to the LLMs in llms."
            raise ConfigurationError(f"{of.__name__} has no setting {name!r}; {hint}")


def with_settings_of(router: LLM, candidate: LLM, attempt: Attempt | None = None) -> LLM:
    """A candidate with the router's settings and handlers where it has none of its own.

    Where an attempt is named, which may be given up before it has ended, the handlers hear of the candidate until then.

    It is a copy for one call, because other routers may share the candidate, or the candidate itself where nothing is
    handed on. The copy shares the candidate's connections.
    """
    update: dict[str, Any] = {}
    manager = candidate.callback_manager
    for name, unset in _HANDED_ON.items():
        ours, theirs = getattr(router, name, None), getattr(candidate, name, None)
        if not _among(ours, unset) and _among(theirs, unset):
            update[name] = ours
    if router.callback_manager.handlers and not manager.handlers:
        update["callback_manager"] = manager = router.callback_manager
    if attempt is not None and manager.handlers:
        update["callback_manager"] = gated(manager, attempt)
    if not update:
        return candidate
    copy = candidate.model_copy(update=update)
    object.__setattr__(copy, "__pydantic_private__", candidate.__pydantic_private__)  # a client made by one serves both
    return copy


def _among(value: Any, unset: Iterable[Any]) -> bool:
    return any(value is item or (isinstance(value, str) and value == item) for item in unset)


def warn_of_retries(llms: Mapping[str, LLM]) -> None:
    """Say which candidates retry for long by themselves: until they give up, nobody else is asked."""
    for name, llm in llms.items():
        retries = getattr(llm, "max_retries", None)
        if isinstance(retries, int) and retries >= LONG_RETRIES:
            _log.warning(
                "%s retries %d times by itself before another candidate is asked, which can take long: give its LLM "
                "max_retries=0, and leave it to the router's fallback.",
                name,
                retries,
            )


class CandidateLLMs:
    """The LLMs of a router by the caller's names, and what is known of each.

    Args:
        llms: may change while routing.
        clock: seconds that only grow.
    """

    def __init__(self, llms: Mapping[str, LLM], clock: Callable[[], float] = time.monotonic) -> None:
        self.llms = llms
        self._clock = clock
        self._silent: dict[str, float] = {}  # candidates whose metadata failed, and until when they are not asked
        self._facts: dict[bool, tuple[dict[str, dict[str, Any]], ModelFacts]] = {}  # with windows, and without

    def __reduce__(self) -> tuple[type[CandidateLLMs], tuple[Mapping[str, LLM]]]:
        return CandidateLLMs, (self.llms,)

    def metadata_of(self, name: str) -> LLMMetadata | None:
        """What a candidate says of itself; None where it cannot say (its server is down, say)."""
        if self._silent.get(name, 0.0) > self._clock():
            return None
        try:
            return self.llms[name].metadata
        except Exception as error:
            self._silent[name] = self._clock() + SILENT_S
            _log.warning("%s does not say what it can do (%s): it counts as unknown.", name, type(error).__name__)
            return None

    def known(self) -> dict[str, LLMMetadata]:
        """The metadata of the candidates that say something."""
        by_name = {name: self.metadata_of(name) for name in list(self.llms)}
        return {name: metadata for name, metadata in by_name.items() if metadata is not None}

    def facts(self, *, windows: bool = True) -> ModelFacts:
        """What the candidates state of themselves, for the policy's limits: windows, and whether they call functions.

        A window at LlamaIndex's default, and a False that every class begins with, are not statements.

        Args:
            windows: whether windows are among them.
        """
        facts: dict[str, dict[str, Any]] = {}
        for name, metadata in self.known().items():
            window, room = self.window_of(name) if windows else None, metadata.num_output
            facts[name] = {
                **({} if window is None else {"context_window": window}),
                **({"max_output_tokens": room} if room > 0 and room != DEFAULT_NUM_OUTPUTS else {}),
                **({"tools": True} if metadata.is_function_calling_model else {}),
            }
        pair = self._facts.get(windows)
        if pair is None or pair[0] != facts:
            pair = self._facts[windows] = (facts, ModelFacts(facts, note="the LLM's metadata"))
        return pair[1]

    def window_of(self, name: str) -> int | None:
        """A candidate's own window in tokens; None where it does not state one."""
        metadata = self.metadata_of(name)
        window = None if metadata is None else metadata.context_window
        return None if window is None or window <= 0 or window == DEFAULT_CONTEXT_WINDOW else window

    def with_tools(self) -> list[str]:
        """Names of the candidates that can call functions; where none says so, of those that do not say."""
        by_name = self.known()
        able = [name for name, metadata in by_name.items() if metadata.is_function_calling_model]
        return able or [name for name in self.llms if name not in by_name]

    def that_hold(self, names: Iterable[str], texts: Iterable[str], extra_chars: int) -> list[str]:
        """Those whose own window holds what is sent.

        Texts are counted in tokens, as LlamaIndex's prompt helper counts them when it fills a window.
        """
        listed, windows = list(names), {name: self.window_of(name) for name in names}
        texts = list(texts)
        chars = sum(map(len, texts)) + extra_chars
        smallest = min((window for window in windows.values() if window is not None), default=None)
        if smallest is None or chars <= _CHARS_PER_TOKEN * smallest / 2:
            return listed
        tokenizer = get_tokenizer()
        tokens = sum(len(tokenizer(text)) for text in texts) + extra_chars / _CHARS_PER_TOKEN
        return [name for name in listed if (window := windows[name]) is None or tokens <= window]

    def common(self) -> LLMMetadata:
        """What every candidate can take; function calling if any candidate can (tools go to those alone).

        The window is the smallest, and the room for output is such that a prompt that fills the rest fits into every
        candidate beside its own output. One that does not state its output (−1) counts with LlamaIndex's default.
        """
        every_metadata = list(self.known().values())
        stated = [metadata for metadata in every_metadata if metadata.context_window > 0]
        window = min((metadata.context_window for metadata in stated), default=DEFAULT_CONTEXT_WINDOW)
        room = min(
            (metadata.context_window - _output(metadata) for metadata in stated), default=window - DEFAULT_NUM_OUTPUTS
        )
        common = common_abilities([metadata.model_dump() for metadata in every_metadata]) if every_metadata else {}
        return LLMMetadata(
            **{
                **common,
                "context_window": window,
                "num_output": max(1, window - room) if every_metadata else DEFAULT_NUM_OUTPUTS,
                "is_function_calling_model": any(metadata.is_function_calling_model for metadata in every_metadata),
                "model_name": "msat",
            }
        )


def _output(metadata: LLMMetadata) -> int:
    return metadata.num_output if metadata.num_output > 0 else DEFAULT_NUM_OUTPUTS


def loaded(data: Mapping[str, Any]) -> LLM:
    """A candidate from its `to_dict`, by the name of its class, which must have been imported.

    Raises:
        ConfigurationError: no class or several are called so, or it cannot be made from a dictionary.
    """
    if isinstance(data, LLM):
        return data
    name = data.get("class_name")
    classes = [cls for cls in _subclasses(LLM) if cls.__dict__.get("class_name") and cls.class_name() == name]
    if len(classes) != 1:
        raise ConfigurationError(
            f"{len(classes)} imported LLM classes are called {name!r}, so the candidate cannot be made from a "
            "dictionary: give the LLMs themselves, MSATRouterLLM.from_dict(data, llms={…})."
        )
    return classes[0].from_dict(dict(data))


def _subclasses(cls: Any) -> list[type[LLM]]:
    return [kind for child in cls.__subclasses__() for kind in (child, *_subclasses(child))]
