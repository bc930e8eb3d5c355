"""What a call is given: the router it goes through, and what its caller says outright."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.llms.llm import LLM

from llamaindex_msat.authors import Authors
from llamaindex_msat.candidates import CandidateLLMs
from msat_core import Fallback, Observer, Router, RoutingPolicy, Sticky


@dataclass(frozen=True)
class Wishes:
    """What a caller says outright, for one call.

    Attributes:
        instruction: the text to score (``msat_instruction``).
        policy: in place of the router's, within its limits (``msat_policy``); a mapping is read as a policy's fields.
        candidate: who must answer, within the policy's limits (``msat_candidate``).
    """

    instruction: str | None = None
    policy: RoutingPolicy | Mapping[str, Any] | None = None
    candidate: str | None = None

    @classmethod
    def taken_from(cls, *options: dict[str, Any] | None) -> Wishes:
        """Take the wishes out of keyword arguments, so that they never reach a candidate."""
        wishes: dict[str, Any] = {}
        for holder in options:
            for name in ("instruction", "policy", "candidate"):
                if holder and f"msat_{name}" in holder:
                    wishes[name] = holder.pop(f"msat_{name}") or wishes.get(name)
        return cls(**wishes)


@dataclass(frozen=True)
class Setup:
    """What a call needs to know of the router it goes through; the fields are those of MSATRouterLLM."""

    llm: LLM
    router: Router
    candidates: CandidateLLMs
    key_of: Mapping[str, str]
    authors: Authors
    policy: RoutingPolicy | None = None
    sticky: Sticky = "turn"
    fallback: Fallback = field(default_factory=Fallback)
    instruction_of: Callable[[list[ChatMessage]], str | None] | None = None
    top_scores: int | None = None
    observers: Sequence[Observer] = ()

    def name_of(self, candidate: str) -> str:
        """The caller's name for a candidate of the zoo."""
        return self.key_of.get(candidate, candidate)
