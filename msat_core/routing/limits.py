"""Who is within a call's limits, and of whom something that matters to it is unknown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf

import numpy as np

from msat_core.candidates import Candidate
from msat_core.routing.columns import Column, columns_of
from msat_core.routing.cost import ExpectedCost, ExpectedCosts
from msat_core.routing.decision import RoutingRequest
from msat_core.routing.policy import RoutingPolicy

NO_PRICE = "no price"
OUTPUT_UNKNOWN = "its output is unknown, so that no price cap can be kept"
SURE_WINDOW = 32_768  # tokens that a candidate of unknown window is trusted with as readily as others; chosen


@dataclass(frozen=True)
class Limits:
    """One call: who could take it, and what is known of that.

    Attributes:
        policy: whose limits bind.
        request: what the call needs.
        candidates: M.
        costs: expected, of each.
        tokens: of what is sent, and of a usual answer.
    """

    policy: RoutingPolicy
    request: RoutingRequest
    candidates: Sequence[Candidate]
    costs: ExpectedCosts
    tokens: float

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
