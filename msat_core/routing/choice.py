"""From scores and facts about the candidates to a choice. Pure: no torch, no clock, no state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from msat_core.candidates import CHARS_PER_TOKEN, DEFAULT_OUTPUT_TOKENS, Candidate
from msat_core.errors import NoCandidateError, some_of
from msat_core.routing import ranking
from msat_core.routing.columns import Column, plain
from msat_core.routing.cost import ExpectedCosts, expected_costs
from msat_core.routing.decision import RoutingRequest
from msat_core.routing.limits import NO_PRICE, OUTPUT_UNKNOWN, Limits
from msat_core.routing.policy import RoutingPolicy
from msat_core.scoring.base import Scores

PASSED = 2  # candidates of whom a decision says why they come after the chosen one
LEAST_LEAD = 0.005  # of a score, that a reason speaks of: half a point
LEAST_SCORE = 1e-6  # and the most is 1 minus it, where a score is read as a logit


@dataclass(frozen=True)
class Choice:
    """What :func:`choose` makes of scores: positions into the candidates it was given.

    Attributes:
        chosen: position of the chosen candidate.
        ranking: positions within the limits, best first; empty if the default stepped in.
        excluded: reason by position.
        costs: expected cost by position.
        why: the rule that decided, in words.
        notes: what else the user should know, each in a few words.
        recommended: whom the policy chooses, where somebody else is served.
        propensities: probability of each to be served; empty where no chance was involved.
    """

    chosen: int
    ranking: tuple[int, ...]
    excluded: dict[int, str]
    costs: ExpectedCosts
    why: str
    notes: tuple[str, ...] = ()
    recommended: int | None = None
    propensities: Mapping[int, float] = field(default_factory=dict)

    @property
    def costs_usd(self) -> tuple[float | None, ...]:
        """Expected price of the call by position; None where unknown."""
        return tuple(plain(self.costs.usd))


@dataclass(frozen=True)
class Uncertainty:
    """How sure the scores of M candidates are.

    Attributes:
        deviations: (M,), standard deviation of each score's logit.
        levels: (M,), each candidate's overall level by its exam, in logits.
    """

    deviations: Column
    levels: Column

    @classmethod
    def of(cls, scores: Scores, n: int) -> Uncertainty | None:
        """That of one instruction's scores; None where the scorer does not say."""
        if scores.deviations is None or scores.levels is None:
            return None
        return cls(scores.deviations[n].astype(np.float64), scores.levels.astype(np.float64))


@dataclass(frozen=True)
class _Ranking:
    """How the policy ranks those whom the limits let through: M scores, and how sure they are."""

    limits: Limits
    scores: Column
    uncertainty: Uncertainty | None

    def of(self, within: Sequence[int]) -> tuple[list[int], str]:
        """Best first, and by which rule; nothing for nobody. ``within`` ascends: of equals the first comes first."""
        if not within:
            return [], ""
        policy, positions = self.limits.policy, np.array(within)
        scores, costs = self.scores[positions], self.limits.costs.ranked_usd[positions]
        if policy.objective == "value":
            order = ranking.by_value(scores, costs, policy.usd_weight)
            return positions[order].tolist(), f"the best value, where {policy.exchange_rate}"
        if policy.objective == "quality":
            return self._unless_unsure(positions[ranking.by_quality(scores, costs)])
        order = ranking.by_target(scores, costs, policy.target)
        first = order[0]
        if scores[first] < policy.target:
            why = f"the highest score, as none reaches {policy.target:g}"
        else:
            why = f"{'' if np.isnan(costs[first]) else 'the cheapest '}with a score of {policy.target:g} or more"
        return positions[order].tolist(), why

    def _unless_unsure(self, by_score: ranking.Order) -> tuple[list[int], str]:
        """The highest score first, unless its lead over the candidate of the best exam is within what is uncertain."""
        unsure, margin, order = self.uncertainty, self.limits.policy.margin, by_score.tolist()
        if unsure is None or not margin:
            return order, "the highest score"
        first, best = order[0], order[unsure.levels[by_score].argmax()]  # of equals that of the higher score
        lead = _logit(self.scores[first]) - _logit(self.scores[best])
        if best == first or lead >= margin * np.hypot(unsure.deviations[first], unsure.deviations[best]):
            return order, "the highest score"
        ahead, leader = self.scores[first] - self.scores[best], self.limits.candidates[first].name
        unsure_lead = f"the best by exam, as {leader}'s lead of {ahead:.2f} is too unsure to leave it for"
        why = f"the best by exam, level with {leader}" if ahead < LEAST_LEAD else unsure_lead
        return [best, *(i for i in order if i != best)], why


def choose(
    policy: RoutingPolicy,
    scores: Sequence[float] | Column,
    candidates: Sequence[Candidate],
    *,
    instruction_chars: int,
    request: RoutingRequest | None = None,
    task_weights: Mapping[str, float] | None = None,
    uncertainty: Uncertainty | None = None,
) -> Choice:
    """Choose among M candidates by their M scores.

    Ties go to the cheaper candidate, then to the earlier one.

    Args:
        policy: how.
        scores: P(correct) of each.
        candidates: of whom.
        instruction_chars: length of the instruction.
        request: what the call needs beside it.
        task_weights: how near the instruction is to each exam task, for the length of the answers.
        uncertainty: how sure the scores are; None where that is unknown, and the highest score decides.

    Raises:
        NoCandidateError: nothing is within the limits and the policy names no default.
    """
    request = request or RoutingRequest()
    chars = max(instruction_chars, request.context_chars)
    near: dict[str, Any] = {"task_weights": task_weights, "warm": request.warm, "at": request.at}
    if policy.calibrated_for is not None:
        near = {}  # its threshold was found with costs of the plain kind, and holds for the choices they make
    costs = expected_costs(candidates, chars=chars, **near)
    tokens = chars / CHARS_PER_TOKEN + DEFAULT_OUTPUT_TOKENS
    rounded = np.asarray(scores, dtype=np.float64).round(ranking.SCORE_DIGITS)
    limits = Limits(policy, request, candidates, costs, tokens)
    ranked = _Ranking(limits, rounded, uncertainty)
    excluded = {i: reason for i in limits.suspects() if (reason := limits.exclusion(i)) is not None}
    within = [i for i in range(len(candidates)) if i not in excluded]
    notes = _left_out(limits, excluded)
    if not within:
        default = _default(policy, candidates, excluded)
        return Choice(default, (), excluded, costs, "the default: nothing else qualifies", tuple(notes))
    doubts = {i: doubts for i in limits.doubtful() if i not in excluded and (doubts := limits.doubts(i))}
    ahead, why = ranked.of([i for i in within if i not in doubts])
    behind, why_behind = ranked.of(list(doubts))
    order = (*ahead, *behind)
    return Choice(order[0], order, excluded, costs, why or why_behind, (*notes, *_said_of(ranked, order, doubts)))


def _logit(score: float) -> float:
    p = min(max(score, LEAST_SCORE), 1 - LEAST_SCORE)
    return float(np.log(p / (1 - p)))


def _left_out(limits: Limits, excluded: Mapping[int, str]) -> list[str]:
    """Who was left out for what nobody has stated."""
    unsure = limits.unsure_of_input
    by_reason = {NO_PRICE: NO_PRICE, OUTPUT_UNKNOWN: "output unknown", unsure: unsure}
    left_out = {r: [limits.candidates[i].name for i, why in excluded.items() if why == r] for r in by_reason}
    return [f"{len(n)} left out: {by_reason[reason]} ({some_of(n)})" for reason, n in left_out.items() if n]


def _said_of(ranked: _Ranking, order: Sequence[int], doubts: Mapping[int, list[str]]) -> list[str]:
    """What is in doubt of the chosen candidate, and of those it was put before."""
    notes = [", ".join(doubts[order[0]])] if order[0] in doubts else []
    if not notes and doubts:
        better, _ = ranked.of(sorted(order))
        passed = [i for i in better[: better.index(order[0])] if i in doubts]
        notes += [f"{ranked.limits.candidates[i].name} comes after: {', '.join(doubts[i])}" for i in passed[:PASSED]]
    if ranked.limits.policy.objective in ("value", "target"):
        lacks_output = ranked.limits.costs.lacks_output
        names = [ranked.limits.candidates[i].name for i in order if lacks_output[i]]
        if names:
            notes.append(f"output unknown, compared by the longest expected ({some_of(names)})")
    return notes


def _default(policy: RoutingPolicy, candidates: Sequence[Candidate], excluded: dict[int, str]) -> int:
    default = policy.default or policy.observe
    for i, candidate in enumerate(candidates):
        if default is not None and default in (candidate.name, *candidate.aliases):
            return i
    by_reason: dict[str, list[str]] = {}
    for i, reason in excluded.items():
        by_reason.setdefault(reason, []).append(candidates[i].name)
    reasons = "; ".join(f"{some_of(names)}: {reason}" for reason, names in by_reason.items())
    named = f"its default {default!r} is not among them" if default else "it names no default"
    how = "Loosen a limit, add a candidate, or set RoutingPolicy(default=…)."
    if NO_PRICE in by_reason:
        how = (
            "Set prices with `msat zoo set NAME --usd-per-mtok-in … --usd-per-mtok-out …` or Zoo.set(…), let "
            "candidates without one through with unpriced='allow', or set RoutingPolicy(default=…)."
        )
    raise NoCandidateError(
        f"No candidate is within the policy's limits, and {named} ({reasons or 'the zoo is empty'}). {how}"
    )
