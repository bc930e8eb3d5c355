"""What a call needs beside its instruction, and what was decided: data only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from msat_core.candidates import Modality, ModelFacts

Basis = Literal["scores", "accuracy", "turn", "caller"]


@dataclass(frozen=True)
class RoutingRequest:
    """What one call needs beside its instruction.

    Attributes:
        context_chars: characters of everything that will be sent (history, system text); the
            instruction's own length where it is longer.
        modalities: what the input holds beside text.
        tools: whether tools will be offered.
        among: names that can be dispatched to; None for the whole zoo.
        at: the instant of the call, for prices that change; None for now (in :func:`~msat_core.routing.choice.choose`:
            for when the prices were read).
        warm: input tokens that are still in a candidate's cache, by name.
        facts: what the wrapped models say of themselves.
        conversation: names the conversation, for records of decisions.
        draw: number in [0, 1) by which exploration goes; None for that of the instruction and the policy's seed.
    """

    context_chars: int = 0
    modalities: frozenset[Modality] = frozenset()
    tools: bool = False
    among: frozenset[str] | None = None
    at: datetime | None = None
    warm: Mapping[str, int] = field(default_factory=dict)
    facts: ModelFacts | None = None
    conversation: str | None = None
    draw: float | None = None


class RoutingDecision(BaseModel):
    """A choice and what led to it.

    Attributes:
        candidate: who is to be asked.
        score: its calibrated P(correct); None where there was no text to score.
        scores: of every candidate considered.
        costs_usd: expected price of this call by candidate; None where its price, or how much it writes, is unknown.
        list_usd: this call at list price, with the same length of answer for everybody; None where unknown.
        ranking: the names within the limits, best first: the order of fallback.
        excluded: why each other candidate was left out.
        reason: one sentence for people.
        truncated_tokens: tokens of the instruction that the scorer could not read.
        recommended: whom the policy chooses; somebody else than ``candidate`` where the policy observes or explores.
        propensities: probability with which each candidate was to be served; empty where no chance was involved.
        basis: what decided: ``scores``; exam ``accuracy`` where there is no text; the ``turn`` on which the candidate
            was at work already; the ``caller`` who insists.
        id: of the decision's record; None where none is kept.
        distance: how far the instruction is from what the chosen candidate was tested on, as
            :class:`~msat_core.scoring.base.Scores` has it: above 1 it is far, and its score says no more than its
            level; None where that is unknown.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    candidate: str
    score: float | None
    scores: dict[str, float]
    costs_usd: dict[str, float | None]
    list_usd: dict[str, float | None] = Field(default_factory=dict)
    ranking: tuple[str, ...]
    excluded: dict[str, str]
    reason: str
    truncated_tokens: int = 0
    recommended: str | None = None
    propensities: dict[str, float] = Field(default_factory=dict)
    basis: Basis = "scores"
    id: str | None = None
    distance: float | None = None

    @property
    def chances(self) -> dict[str, float]:
        """Probability with which each candidate was to be served, where no chance was involved too."""
        return self.propensities or {self.candidate: 1.0}

    def list_price_ratio(self, name: str) -> float | None:
        """A candidate's list price as a multiple of the lowest one, for this call; None where it is unknown."""
        own, lowest = self.list_usd.get(name), min((usd for usd in self.list_usd.values() if usd), default=None)
        return None if own is None or lowest is None else own / lowest
