"""From scores and facts about the candidates to a choice. Pure: no torch, no clock, no state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import inf
from typing import Any

import numpy as np

from msat_core.candidates import CHARS_PER_TOKEN, DEFAULT_OUTPUT_TOKENS, Candidate
from msat_core.errors import NoCandidateError, some_of
from msat_core.routing import ranking
from msat_core.routing.columns import Column, columns_of, plain
from msat_core.routing.cost import ExpectedCost, ExpectedCosts, expected_costs
from msat_core.routing.decision import RoutingRequest
from msat_core.routing.policy import RoutingPolicy
from msat_core.scoring.base import Scores

NO_PRICE = "no price"
OUTPUT_UNKNOWN = "its output is unknown, so that no price cap can be kept"
PASSED = 2  # candidates of whom a decision says why they come after the chosen one
LEAST_LEAD = 0.005  # of a score, that a reason speaks of: half a point
LEAST_SCORE = 1e-6  # and the most is 1 minus it, where a score is read as a logit
SURE_WINDOW = 32_768  # tokens that a candidate of unknown window is trusted with as readily as others; chosen


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
class _Call:
    """One call: who could take it, and what is known of that."""

    policy: RoutingPolicy
    request: RoutingRequest
    scores: Column
    candidates: Sequence[Candidate]
    costs: ExpectedCosts
    tokens: float  # of what is sent, and of a usual answer
    uncertainty: Uncertainty | None

    @cached_property
    def windows(self) -> Column:
        """(M,), tokens; NaN where unknown."""
        return columns_of(self.candidates).window

    def suspects(self) -> Sequence[int]:
        """Who could be excluded: everybody, or where windows and prices alone can, those whose own may."""
        policy, request, costs = self.policy, self.request, self.costs
        if policy.allow is not None or policy.deny or request.modalities or request.tools:
            return range(len(self.candidates))
        suspect = self.windows < self.tokens
        if policy.needs_prices:
            cap = inf if policy.max_usd is None else policy.max_usd
            suspect = suspect | np.isnan(costs.usd) | (costs.usd > cap)
        return np.flatnonzero(suspect).tolist()

    def doubtful(self) -> Sequence[int]:
        """Who could be in doubt: whoever lacks something that matters here."""
        doubtful = np.zeros(len(self.candidates), bool)
        if self.request.modalities:
            return range(len(self.candidates))
        if self.tokens > SURE_WINDOW:
            doubtful |= np.isnan(self.windows)
        if self.policy.needs_prices:
            doubtful |= np.isnan(self.costs.usd)
        return np.flatnonzero(doubtful).tolist()

    def exclusion(self, i: int) -> str | None:
        """Why a candidate cannot be chosen; None if it can."""
        candidate, policy, request = self.candidates[i], self.policy, self.request
        if policy.allow is not None or policy.deny:
            names = {candidate.name, *candidate.aliases}
            if policy.allow is not None and not names & policy.allow:
                return "not on the allow list"
            if names & policy.deny:
                return "on the deny list"
        if candidate.modalities is None:
            if request.modalities and policy.unknown_modalities == "exclude":
                return self.unsure_of_input
        elif missing := request.modalities - candidate.modalities:
            return f"does not take {', '.join(sorted(missing))} input"
        if request.tools and candidate.tools is False:
            return "cannot call tools"
        if candidate.context_window is not None and self.tokens > candidate.context_window:
            return f"needs about {self.tokens:.0f} tokens, its window has {candidate.context_window}"
        return self._price_exclusion(self.costs[i]) if policy.needs_prices else None

    def _price_exclusion(self, cost: ExpectedCost) -> str | None:
        policy, cap = self.policy, self.policy.max_usd
        if not cost.has_price:
            return NO_PRICE if policy.unpriced == "exclude" else None
        if cap is None or cap == inf:
            return None
        if cost.usd is None:
            return None if self._surely_within(cost) or policy.unpriced == "allow" else OUTPUT_UNKNOWN
        return f"costs {cost.usd:.6f} USD, above the cap of {cap:.6f}" if cost.usd > cap else None

    def _surely_within(self, cost: ExpectedCost) -> bool:
        cap = inf if self.policy.max_usd is None else self.policy.max_usd
        return cap == inf or (cost.worst_usd is not None and cost.worst_usd <= cap)

    def doubts(self, i: int) -> list[str]:
        """What puts a candidate behind those of whom it is known."""
        candidate, cost, doubts = self.candidates[i], self.costs[i], list[str]()
        if self.request.modalities and candidate.modalities is None:
            doubts.append(self.unsure_of_input)
        if candidate.context_window is None and self.tokens > SURE_WINDOW:
            doubts.append("its window is unknown")
        if self.policy.needs_prices and not cost.has_price:
            doubts.append("it has no price")
        elif self.policy.max_usd is not None and cost.lacks_output and not self._surely_within(cost):
            doubts.append("its output is unknown")
        return doubts

    @property
    def unsure_of_input(self) -> str:
        """Said of a candidate of unknown modalities."""
        return f"whether it takes {', '.join(sorted(self.request.modalities))} input is unknown"


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
    call = _Call(policy, request, rounded, candidates, costs, tokens, uncertainty)
    excluded = {i: reason for i in call.suspects() if (reason := call.exclusion(i)) is not None}
    within = [i for i in range(len(candidates)) if i not in excluded]
    notes = _left_out(call, excluded)
    if not within:
        default = _default(policy, candidates, excluded)
        return Choice(default, (), excluded, costs, "the default: nothing else qualifies", tuple(notes))
    doubts = {i: doubts for i in call.doubtful() if i not in excluded and (doubts := call.doubts(i))}
    ahead, why = _rank(call, [i for i in within if i not in doubts])
    behind, why_behind = _rank(call, list(doubts))
    order = (*ahead, *behind)
    return Choice(order[0], order, excluded, costs, why or why_behind, (*notes, *_said_of(call, order, doubts)))


def _rank(call: _Call, within: Sequence[int]) -> tuple[list[int], str]:
    """Best first, and by which rule; nothing for nobody. ``within`` ascends: of equals the first comes first."""
    if not within:
        return [], ""
    policy, positions = call.policy, np.array(within)
    scores, costs = call.scores[positions], call.costs.ranked_usd[positions]
    if policy.objective == "value":
        order = ranking.by_value(scores, costs, policy.usd_weight)
        return positions[order].tolist(), f"the best value, where {policy.exchange_rate}"
    if policy.objective == "quality":
        return _unless_unsure(call, positions[ranking.by_quality(scores, costs)])
    order = ranking.by_target(scores, costs, policy.target)
    first = order[0]
    if scores[first] < policy.target:
        why = f"the highest score, as none reaches {policy.target:g}"
    else:
        why = f"{'' if np.isnan(costs[first]) else 'the cheapest '}with a score of {policy.target:g} or more"
    return positions[order].tolist(), why


def _unless_unsure(call: _Call, by_score: ranking.Order) -> tuple[list[int], str]:
    """The highest score first, unless its lead over the candidate of the best exam is within what is uncertain."""
    unsure, margin, order = call.uncertainty, call.policy.margin, by_score.tolist()
    if unsure is None or not margin:
        return order, "the highest score"
    first, best = order[0], order[unsure.levels[by_score].argmax()]  # of equals that of the higher score
    lead = _logit(call.scores[first]) - _logit(call.scores[best])
    if best == first or lead >= margin * np.hypot(unsure.deviations[first], unsure.deviations[best]):
        return order, "the highest score"
    ahead, leader = call.scores[first] - call.scores[best], call.candidates[first].name
    unsure_lead = f"the best by exam, as {leader}'s lead of {ahead:.2f} is too unsure to leave it for"
    why = f"the best by exam, level with {leader}" if ahead < LEAST_LEAD else unsure_lead
    return [best, *(i for i in order if i != best)], why


def _logit(score: float) -> float:
    p = min(max(score, LEAST_SCORE), 1 - LEAST_SCORE)
    return float(np.log(p / (1 - p)))


def _left_out(call: _Call, excluded: Mapping[int, str]) -> list[str]:
    """Who was left out for what nobody has stated."""
    unsure = call.unsure_of_input
    by_reason = {NO_PRICE: NO_PRICE, OUTPUT_UNKNOWN: "output unknown", unsure: unsure}
    left_out = {r: [call.candidates[i].name for i, why in excluded.items() if why == r] for r in by_reason}
    return [f"{len(n)} left out: {by_reason[reason]} ({some_of(n)})" for reason, n in left_out.items() if n]


def _said_of(call: _Call, order: Sequence[int], doubts: Mapping[int, list[str]]) -> list[str]:
    """What is in doubt of the chosen candidate, and of those it was put before."""
    notes = [", ".join(doubts[order[0]])] if order[0] in doubts else []
    if not notes and doubts:
        better, _ = _rank(call, sorted(order))
        passed = [i for i in better[: better.index(order[0])] if i in doubts]
        notes += [f"{call.candidates[i].name} comes after: {', '.join(doubts[i])}" for i in passed[:PASSED]]
    if call.policy.objective in ("value", "target"):
        lacks_output = call.costs.lacks_output
        names = [call.candidates[i].name for i in order if lacks_output[i]]
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
