"""What a policy would have got, from a log of what another one served with known probabilities.

For the chosen candidate a of route i, the weight is w = 1 / propensity where a was served, else 0. Estimators: inverse
propensity scoring (Horvitz & Thompson 1952), mean(w·r); its self-normalised form (Swaminathan & Joachims 2015),
Σw·r / Σw; and the doubly robust one (Dudík, Langford & Li 2011), mean(q(a) + w·(r − q(served))), where q is what the
scorer predicted. The first and the last have no bias, however wrong q is; a good q makes the last one sharp. The
effective sample size is (Σw)² / Σw² (Kish 1965). Intervals are of 95%: the standard error of the estimator's influence
function, over groups of routes that are one experience, times Student's t. What limits an estimate are the rare
choices, those less likely than not to be served: their effective sample size gives the degrees of freedom, one right
and one wrong answer to them are added to the variance (after Agresti & Caffo 2000: thirty right answers in a row do
not prove a variance of 0), and where fewer than ``MIN_SERVED`` of them were served, nothing is estimated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msat_core.errors import extras

CONFIDENCE = 0.95  # of intervals, two-sided; usual
RARE = 0.5  # propensity below which a choice is rare
MIN_SERVED = 5  # chosen: with fewer, intervals hold too seldom (LOG, "Off-policy estimates")

Array = NDArray[np.floating]
Positions = NDArray[np.intp]


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95% interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class LoggedRoutes:
    """N routes of which an outcome is known, M candidates.

    Attributes:
        served: (N,), position of who answered.
        outcomes: (N,), how right the answer was, in [0, 1].
        propensities: (N, M), the probability with which each was served; each row sums to 1.
        scores: (N, M), what the scorer predicted; NaN of whom it was not asked about.
        groups: (N,), routes of one group (of the same instruction, say) are one experience.
    """

    served: Positions
    outcomes: Array
    propensities: Array
    scores: Array
    groups: Positions

    def __len__(self) -> int:
        return len(self.served)

    def take(self, rows: NDArray[np.bool_]) -> LoggedRoutes:
        """Some of the routes."""
        return LoggedRoutes(
            self.served[rows], self.outcomes[rows], self.propensities[rows], self.scores[rows], self.groups[rows]
        )


@dataclass(frozen=True)
class OffPolicy:
    """What a policy would have got on the routes on which its choice had a chance.

    Attributes:
        ips, snips, dr: see the module.
        direct: what the scorer predicts, without any outcome.
        effective_sample_size: of the outcomes that speak of the policy.
        n: routes on which its choice had a chance.
        n_matching: of them, those on which its choice was served.
    """

    ips: Estimate
    snips: Estimate
    dr: Estimate
    direct: float
    effective_sample_size: float
    n: int
    n_matching: int


def off_policy(routes: LoggedRoutes, chosen: Positions) -> OffPolicy | None:
    """What a policy would have got by its choices, (N,); None where too few of them were served."""
    routes, chosen = _supported(routes, chosen)
    telling = _telling(routes, chosen)
    if telling is None:
        return None
    weights, outcomes, groups = _weights(routes, chosen), routes.outcomes, routes.groups
    snips = float(weights @ outcomes / weights.sum())
    influence = weights * (outcomes - snips) / weights.mean()
    return OffPolicy(
        _mean(weights * outcomes, groups, telling),
        interval(snips, influence, groups, telling.freedom, telling.squares),
        _mean(_doubly_robust(routes, chosen), groups, telling),
        float(_predicted(routes, chosen).mean()),
        _effective(weights),
        len(routes),
        int((weights > 0).sum()),
    )


def off_policy_gain(routes: LoggedRoutes, chosen: Positions, reference: Positions) -> Estimate | None:
    """Doubly robust gain of choices over those of another policy, (N,) each, on the same routes.

    Where both choose alike they get alike, and no outcome is needed. None where too few of the choices in which they
    differ were served.
    """
    routes, chosen, reference = _supported(routes, chosen, reference)
    differ = chosen != reference
    if not differ.any():
        return Estimate(0.0, 0.0, 0.0) if len(routes) else None
    there = routes.take(differ)
    sides = [_telling(there, choices[differ]) for choices in (chosen, reference)]
    measured = [side for side in sides if side is not None]
    if len(measured) < len(sides):
        return None
    terms = _doubly_robust(routes, chosen) - _doubly_robust(routes, reference)
    both = _Telling(min(side.freedom for side in measured), sum(side.squares for side in measured))
    return _mean(terms, routes.groups, both)


def _supported(routes: LoggedRoutes, *choices: Positions) -> tuple[Any, ...]:
    """The routes on which every one of some choices, (N,) each, had a chance, and those choices there."""
    at = np.arange(len(routes))
    rows = np.logical_and.reduce([routes.propensities[at, chosen] > 0 for chosen in choices])
    return (routes.take(rows), *(chosen[rows] for chosen in choices))


@dataclass(frozen=True)
class _Telling:
    """What the rarest choices tell: degrees of freedom, and what is added to the sum of squared influences."""

    freedom: float
    squares: float


def _telling(routes: LoggedRoutes, chosen: Positions) -> _Telling | None:
    """None where too few routes speak of the choices."""
    weights = _weights(routes, chosen)
    rare = routes.propensities[np.arange(len(routes)), chosen] < RARE
    rows = (weights > 0) & (rare if rare.any() else True)
    if rows.sum() < MIN_SERVED:
        return None
    served_weights = weights[rows]
    right = float(served_weights @ routes.outcomes[rows] / served_weights.sum())
    squares = float(served_weights.mean()) ** 2 * ((1 - right) ** 2 + right**2)
    return _Telling(max(_effective(served_weights) - 1, 1.0), squares)


def _weights(routes: LoggedRoutes, chosen: Positions) -> Array:
    at = np.arange(len(routes))
    return np.where(routes.served == chosen, 1 / routes.propensities[at, chosen], 0.0)


def _predicted(routes: LoggedRoutes, chosen: Positions) -> Array:
    """(N,); any number serves for what was not predicted: it changes the variance, not the mean."""
    scores = routes.scores[np.arange(len(routes)), chosen]
    return np.where(np.isnan(scores), 0.5, scores)


def _doubly_robust(routes: LoggedRoutes, chosen: Positions) -> Array:
    weights = _weights(routes, chosen)
    return _predicted(routes, chosen) + weights * (routes.outcomes - _predicted(routes, routes.served))


def _effective(weights: Array) -> float:
    squares = float(weights @ weights)
    return float(weights.sum()) ** 2 / squares if squares > 0 else 0.0


def _mean(terms: Array, groups: Positions, telling: _Telling) -> Estimate:
    value = float(terms.mean())
    return interval(value, terms - value, groups, telling.freedom, telling.squares)


def interval(
    value: float, influence: Array, groups: Positions, freedom: float = np.inf, squares: float = 0.0
) -> Estimate:
    """A figure with its interval, from each route's influence on it.

    Args:
        value: the figure, a function of means over N routes.
        influence: (N,), each route's; their mean is 0.
        groups: (N,), of the routes.
        freedom: degrees of freedom of Student's t; infinity for the normal distribution.
        squares: added to the sum of squared influences.
    """
    with extras():
        from scipy import stats

    sums = np.bincount(np.unique(groups, return_inverse=True)[1], weights=influence)
    n_groups = len(sums)
    if n_groups < 2:
        return Estimate(value, float("-inf"), float("inf"))
    error = float(np.sqrt(sums @ sums * n_groups / (n_groups - 1) + squares)) / len(influence)
    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom)) * error
    return Estimate(value, value - reach, value + reach)
