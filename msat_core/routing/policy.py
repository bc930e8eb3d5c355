"""From scores and facts about the candidates to a choice. Pure: no torch, no clock, no state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from msat_core.documents import Document, StringSet
from msat_core.errors import MsatError, NoCandidateError, PolicyError
from msat_core.zoo import CHARS_PER_TOKEN, DEFAULT_OUTPUT_TOKENS, Candidate, Modality

Objective = Literal["quality", "value", "target"]

TIE_DIGITS = 6  # scores that agree to this many decimals are a tie: batching may move the seventh


class RoutingPolicy(Document):
    """What the user wants of a choice.

    Attributes:
        objective: ``quality`` takes the highest score; ``value`` the highest score − usd_weight ×
            expected cost; ``target`` the cheapest candidate whose score reaches ``target``, or the
            highest score where none does.
        usd_weight: λ, the score given up to save one USD per call; 100 means that 1 cent a call
            must buy one point of P(correct).
        target: the score that is good enough, in [0, 1].
        max_usd: price cap on the expected cost of one call, in USD; candidates of unknown price
            are excluded while it is set.
        allow: names that may be chosen; None for all.
        deny: names that may not.
        default: chosen where no candidate is within the limits. It is the user's own exception: the
            limits do not bind it. Without it such a call raises NoCandidateError.
    """

    kind: ClassVar[str] = "routing-policy"
    error: ClassVar[type[MsatError]] = PolicyError

    objective: Objective = "quality"
    usd_weight: float = Field(default=0.0, ge=0)
    target: float = Field(default=0.8, ge=0, le=1)
    max_usd: float | None = Field(default=None, ge=0)
    allow: StringSet[str] | None = None
    deny: StringSet[str] = frozenset()
    default: str | None = None

    @model_validator(mode="after")
    def _weight_has_effect(self) -> RoutingPolicy:
        if self.usd_weight and self.objective != "value":
            raise ValueError(
                f"usd_weight {self.usd_weight} has no effect on objective {self.objective!r}: "
                "use objective='value', or leave it out"
            )
        return self


@dataclass(frozen=True)
class RoutingRequest:
    """What one call needs beside its instruction.

    Attributes:
        context_chars: characters of everything that will be sent (history, system text); the
            instruction's own length where it is longer.
        modalities: what the input holds beside text.
        tools: whether tools will be offered.
        among: names that can be dispatched to; None for the whole zoo.
    """

    context_chars: int = 0
    modalities: frozenset[Modality] = frozenset()
    tools: bool = False
    among: frozenset[str] | None = None


class RoutingDecision(BaseModel):
    """A choice and what led to it.

    Attributes:
        candidate: who was chosen.
        score: its calibrated P(correct); None where there was no text to score.
        scores: of every candidate considered.
        costs_usd: expected price of this call by candidate; None where unknown.
        ranking: the names within the limits, best first: the order of fallback.
        excluded: why each other candidate was left out.
        reason: one sentence for people.
        truncated_tokens: tokens of the instruction that the scorer could not read.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    candidate: str
    score: float | None
    scores: dict[str, float]
    costs_usd: dict[str, float | None]
    ranking: tuple[str, ...]
    excluded: dict[str, str]
    reason: str
    truncated_tokens: int = 0


@dataclass(frozen=True)
class Choice:
    """What :func:`choose` found: positions into the candidates it was given.

    Attributes:
        chosen: position of the chosen candidate.
        ranking: positions within the limits, best first; empty if the default stepped in.
        excluded: reason by position.
        costs_usd: expected price by position.
        why: the rule that decided, in words.
    """

    chosen: int
    ranking: tuple[int, ...]
    excluded: dict[int, str]
    costs_usd: tuple[float | None, ...]
    why: str


@dataclass(frozen=True)
class _Facts:
    scores: Sequence[float]
    costs: Sequence[float | None]
    dearest: float = field(default=0.0)

    def cost(self, i: int) -> float:
        """Cost of candidate i; an unknown price counts as the dearest known one."""
        cost = self.costs[i]
        return self.dearest if cost is None else cost

    def by_quality(self, i: int) -> tuple[float, float, int]:
        return -round(self.scores[i], TIE_DIGITS), self.cost(i), i


def choose(
    policy: RoutingPolicy,
    scores: Sequence[float],
    candidates: Sequence[Candidate],
    *,
    instruction_chars: int,
    request: RoutingRequest | None = None,
) -> Choice:
    """Choose among M candidates by their M scores.

    Ties go to the cheaper candidate, then to the earlier one.

    Raises:
        NoCandidateError: nothing is within the limits and the policy names no default.
    """
    request = request or RoutingRequest()
    chars = max(instruction_chars, request.context_chars)
    costs = tuple(candidate.cost_usd(chars) for candidate in candidates)
    excluded = {}
    for i, candidate in enumerate(candidates):
        if (reason := _exclusion(policy, request, candidate, costs[i], chars)) is not None:
            excluded[i] = reason
    facts = _Facts(scores, costs, max((c for c in costs if c is not None), default=0.0))
    within = sorted((i for i in range(len(candidates)) if i not in excluded), key=facts.by_quality)
    if not within:
        return Choice(
            _default(policy, candidates, excluded), (), excluded, costs, "the default: nothing else qualifies"
        )
    ranking, why = _rank(policy, facts, within)
    return Choice(ranking[0], tuple(ranking), excluded, costs, why)


def _rank(policy: RoutingPolicy, facts: _Facts, within: list[int]) -> tuple[list[int], str]:
    if policy.objective == "value":
        value = {i: round(facts.scores[i] - policy.usd_weight * facts.cost(i), TIE_DIGITS) for i in within}
        return sorted(within, key=lambda i: (-value[i], *facts.by_quality(i))), (
            f"the highest score − {policy.usd_weight:g} × cost in USD"
        )
    if policy.objective == "target":
        enough = sorted(
            (i for i in within if facts.scores[i] >= policy.target), key=lambda i: (facts.cost(i), *facts.by_quality(i))
        )
        if enough:
            others = [i for i in within if i not in enough]
            return [*enough, *others], f"the cheapest with a score of {policy.target:g} or more"
        return within, f"the highest score, as none reaches {policy.target:g}"
    return within, "the highest score"


def _exclusion(
    policy: RoutingPolicy, request: RoutingRequest, candidate: Candidate, cost: float | None, chars: int
) -> str | None:
    names = {candidate.name, *candidate.aliases}
    if policy.allow is not None and not names & policy.allow:
        return "not on the allow list"
    if names & policy.deny:
        return "on the deny list"
    if missing := request.modalities - candidate.modalities:
        return f"does not take {', '.join(sorted(missing))} input"
    if request.tools and candidate.tools is False:
        return "cannot call tools"
    if policy.max_usd is not None:
        if cost is None:
            return "its price is unknown and a price cap is set"
        if cost > policy.max_usd:
            return f"costs {cost:.6f} USD, above the cap of {policy.max_usd:.6f}"
    tokens = chars / CHARS_PER_TOKEN + DEFAULT_OUTPUT_TOKENS
    if candidate.context_window is not None and tokens > candidate.context_window:
        return f"needs about {tokens:.0f} tokens, its window has {candidate.context_window}"
    return None


def _default(policy: RoutingPolicy, candidates: Sequence[Candidate], excluded: dict[int, str]) -> int:
    for i, candidate in enumerate(candidates):
        if policy.default is not None and policy.default in (candidate.name, *candidate.aliases):
            return i
    reasons = "; ".join(f"{candidates[i].name}: {reason}" for i, reason in excluded.items())
    named = f"its default {policy.default!r} is not among them" if policy.default else "it names no default"
    raise NoCandidateError(
        f"No candidate is within the policy's limits, and {named} ({reasons or 'the zoo is empty'}). "
        "Loosen a limit, add a candidate, or set RoutingPolicy(default=…)."
    )
