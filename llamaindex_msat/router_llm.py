"""`MSATRouterLLM`: an LLM that hands each call, whole, to the candidate most likely to answer it well.

The router adds one :class:`~llamaindex_msat.events.MSATRouteEvent` to what the chosen candidate reports.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Mapping
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, LLMMetadata
from llama_index.core.llms.llm import LLM
from pydantic import Field, PrivateAttr, SerializeAsAny

from llamaindex_msat.authors import Authors
from llamaindex_msat.candidates import CandidateLLMs, check_fields, loaded, warn_of_retries
from llamaindex_msat.events import MSATRouteEvent
from llamaindex_msat.messages import tag_in
from llamaindex_msat.predictions import RoutedPredictions
from llamaindex_msat.setup import Setup
from msat_core import (
    TOP_SCORES,
    ConfigurationError,
    Fallback,
    FeedbackSource,
    Observer,
    Router,
    RoutingPolicy,
    Sticky,
    learn_from,
    names_in_zoo,
    observers_of,
)

__all__ = ["MSATRouteEvent", "MSATRouterLLM"]


class MSATRouterLLM(RoutedPredictions):
    """An LLM over candidates; see the module.

    Args:
        llms: the LLM of each candidate, by a name or alias in the router's zoo; may get further ones later.
        router: scores and chooses; default: the shipped one.
        policy: in place of the router's.
        sticky: how long a candidate keeps a conversation: ``turn``, ``conversation`` or ``never``.
        fallback: who comes next when a candidate fails, and how far to go.
        instruction_of: maps the messages to the text to score; None, or a result of None, for the user's question.
        top_scores: how many scores an answer lists, best first; None for all.
        decisions: where every call is recorded, beside where the router records: a file, or as of
            :class:`msat_core.Router`.

    The decision is in ``additional_kwargs["msat"]`` of each response (of each chunk, when streaming), and its
    candidate in ``additional_kwargs["msat_candidate"]``. The message answers to both names too, but does not hold
    them: what is sent, stored or printed of it has nothing of ours.

    Every call takes ``msat_instruction`` (the text to score), ``msat_policy`` and ``msat_candidate`` (who must
    answer, within the policy's limits). ``system_prompt``, ``query_wrapper_prompt``, ``output_parser``,
    ``pydantic_program_mode``, ``rate_limiter``, ``messages_to_prompt``, ``completion_to_prompt`` and the callback
    manager hold for each candidate that has not set its own; other settings are the candidates'.

    Raises:
        ZooError: a name is not in the zoo.
        ConfigurationError: no candidate, or a setting that does not exist.
    """

    llms: dict[str, SerializeAsAny[LLM]]
    policy: RoutingPolicy | None = None
    sticky: Sticky = "turn"
    fallback: Fallback = Field(default_factory=Fallback)
    instruction_of: Callable[[list[ChatMessage]], str | None] | None = Field(default=None, exclude=True)
    top_scores: int | None = TOP_SCORES
    decisions: Any = Field(default=None, exclude=True)

    _router: Router = PrivateAttr()
    _candidates: CandidateLLMs = PrivateAttr()
    _authors: Authors = PrivateAttr()
    _observers: tuple[Observer, ...] = PrivateAttr()
    _key_of: dict[str, str] = PrivateAttr()  # the caller's name for each candidate of the zoo

    def __init__(self, llms: Mapping[str, LLM], router: Router | None = None, **fields: Any) -> None:
        if not llms:
            raise ConfigurationError("MSATRouterLLM needs at least one candidate: {name: LLM}.")
        check_fields(type(self), fields)
        if router is None:
            router = Router.from_pretrained()
        super().__init__(llms=dict(llms), **fields)
        self._router, self._authors = router, Authors()
        self._key_of = names_in_zoo(router.zoo, self.llms)
        self._candidates = CandidateLLMs(self.llms)
        self._observers = observers_of(self.decisions)
        if self.policy is not None:
            router.check_names(self.policy)
        if len(self.llms) > 1 and self.fallback.max_attempts > 1:
            warn_of_retries(self.llms)

    @property
    def _setup(self) -> Setup:
        if len(self._key_of) != len(self.llms) or any(name not in self.llms for name in self._key_of.values()):
            self._key_of = names_in_zoo(self._router.zoo, self.llms)
        if self._candidates.llms is not self.llms:
            self._candidates = CandidateLLMs(self.llms)
        return Setup(
            self,
            self._router,
            self._candidates,
            self._key_of,
            self._authors,
            self.policy,
            self.sticky,
            self.fallback,
            self.instruction_of,
            self.top_scores,
            self._observers,
        )

    @classmethod
    def class_name(cls) -> str:
        """The component's name."""
        return "MSATRouterLLM"

    @property
    def metadata(self) -> LLMMetadata:
        """What every candidate can take; see :meth:`llamaindex_msat.candidates.CandidateLLMs.common`."""
        return self._setup.candidates.common()

    def record(self, response: Any, outcome: float, *, source: FeedbackSource = "user") -> None:
        """Learn from how right an answer was: evidence about who gave it, without training.

        Args:
            response: an answer of this router, or what an engine or an agent made of it; where that holds no
                decision, the answer's text says whose it is.
            outcome: in [0, 1]: a test's verdict, a judge's grade, a thumb (0 or 1).
            source: see :meth:`msat_core.Router.record`.

        Raises:
            ConfigurationError: no answer of this router, or there was no text to score.
        """
        tag = tag_in(response)
        if tag is None:
            message = getattr(response, "message", response)
            author = self._authors.of(message) if isinstance(message, ChatMessage) else None
            tag = author or self._authors.of_text(str(response))
        learn_from(self._router, tag, outcome, source=source)

    # --- copies: for another process, and as plain data ---

    def __reduce__(self) -> tuple[Any, ...]:
        """For another process: the candidates, the router with its policy and limits, and the settings."""
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        kept = {}
        for name, value in fields.items():
            try:
                pickle.dumps(value)
            except Exception as error:
                if name == "callback_manager":  # handlers belong to their process
                    continue
                raise pickle.PicklingError(f"{type(self).__name__}.{name} cannot be pickled: {error}") from error
            kept[name] = value
        return _restored, (type(self), self._router, kept)

    def to_dict(self, **kwargs: Any) -> dict[str, Any]:
        """Candidates and settings as plain data that JSON can hold. The router itself is not part of it."""
        return super().to_dict(**{"mode": "json", **kwargs})

    @classmethod
    def from_dict(cls, data: dict[str, Any], **kwargs: Any) -> MSATRouterLLM:
        """A router LLM from :meth:`to_dict`.

        Args:
            data: as `to_dict` gave it.
            **kwargs: fields that take the place of those in the data; ``router`` unless it was the shipped one, and
                ``llms`` where their classes cannot be found by name.
        """
        fields = {**data, **kwargs}
        fields.pop("class_name", None)
        fields["llms"] = {name: loaded(candidate) for name, candidate in fields.get("llms", {}).items()}
        return cls(**fields)

    @classmethod
    def from_json(cls, data_str: str, **kwargs: Any) -> MSATRouterLLM:
        """Like :meth:`from_dict`."""
        return cls.from_dict(json.loads(data_str), **kwargs)


def _restored(cls: type[MSATRouterLLM], router: Router, fields: dict[str, Any]) -> MSATRouterLLM:
    return cls(router=router, **fields)
