r"""A threshold for "the cheapest candidate that is good enough", with a guarantee on held-out records.

What is guaranteed: with probability of at least ``confidence`` over the draw of the calibration items, the
expected outcome of the routed candidate, over new instructions of the same distribution, is at least
``target``. It speaks of the routed answers as a whole, not of each answer, and of instructions like the
calibration items, for the same candidates, scorer and prices.

How: Learn then Test (Angelopoulos et al. 2021). For each threshold of a fixed grid the hypothesis "accuracy
below target" gets a valid p-value; thresholds are tested from the highest (the strictest) down, each at significance
1 − confidence, until the first that cannot be rejected (fixed sequence testing). All thresholds before it are
valid at once, so the cheapest of them may be taken. The p-value is the exact binomial tail where outcomes are
0 or 1, and Hoeffding's and Bentkus' bound (Bates et al. 2021) where they are soft.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from msat_core.candidates import Candidate
from msat_core.checks import check_number
from msat_core.errors import ConfigurationError, extras
from msat_core.routing.policy import CalibratedFor, RoutingPolicy, prices_of
from msat_core.routing.ranking import SCORE_DIGITS, by_cost, by_quality

DEFAULT_CONFIDENCE = 0.95  # over the draw of the calibration items; usual
THRESHOLDS = np.round(np.linspace(1.0, 0.0, 201), 3)  # tested in this order, fixed before any outcome is seen

Array = NDArray[np.floating]


@dataclass(frozen=True)
class Guarantee:
    """A threshold and what it was seen to do on the calibration items.

    Attributes:
        threshold: for ``RoutingPolicy(objective="target", target=threshold)``.
        target, confidence: what is guaranteed; see the module.
        n_items: calibration items.
        p_value: of "accuracy below target" at this threshold.
        accuracy: mean outcome of the routed candidates on the calibration items.
        cost_usd: mean expected cost of a call, in the unit of the given costs.
        n_valid: thresholds that are valid, of which this one is the cheapest.
    """

    threshold: float
    target: float
    confidence: float
    n_items: int
    p_value: float
    accuracy: float
    cost_usd: float
    n_valid: int

    def policy(self, candidates: Sequence[Candidate], scorer: str) -> RoutingPolicy:
        """The policy that keeps this guarantee, bound to what it was found with.

        Args:
            candidates: of the score columns.
            scorer: its digest.
        """
        bound = CalibratedFor(
            threshold=self.threshold,
            accuracy=self.target,
            confidence=self.confidence,
            n_items=self.n_items,
            profiles={candidate.name: candidate.profile.digest for candidate in candidates},
            prices={candidate.name: prices_of(candidate) for candidate in candidates},
            scorer=scorer,
        )
        return RoutingPolicy(objective="target", target=self.threshold, calibrated_for=bound)


class TargetRouting:
    """Choices of the ``target`` objective at any threshold, for all items at once.

    The same choices as :func:`msat_core.routing.choice.choose` makes without limits.

    Args:
        scores: (N, M).
        costs: (N, M), expected cost of each call; NaN where the price is unknown: never chosen.

    Raises:
        ConfigurationError: an instruction for which nobody has a price.
    """

    def __init__(self, scores: Array, costs: Array) -> None:
        scores = np.asarray(scores, dtype=float).round(SCORE_DIGITS)
        unpriced = np.isnan(costs)
        if unpriced.all(axis=1).any():
            raise ConfigurationError("The cheapest candidate cannot be found without prices: give --prices.")
        scores = np.where(unpriced, -1.0, scores)
        self._best = by_quality(scores, costs)[:, 0]
        self._by_cost = by_cost(scores, costs)
        self._scores = np.take_along_axis(scores, self._by_cost, axis=1)

    def choose(self, threshold: float) -> NDArray[np.intp]:
        """(N,), the cheapest candidate whose score reaches the threshold, or the best where none does."""
        enough = self._scores >= threshold
        first = np.take_along_axis(self._by_cost, enough.argmax(axis=1)[:, None], axis=1)[:, 0]
        return np.asarray(np.where(enough.any(axis=1), first, self._best))


def calibrate_target(
    scores: Array, outcomes: Array, costs: Array, *, target: float, confidence: float = DEFAULT_CONFIDENCE
) -> Guarantee:
    """The cheapest threshold under which accuracy is at least ``target``, guaranteed as the module says.

    Args:
        scores: (N, M), of items that neither trained the scorer nor are in an exam; independent draws.
        outcomes: (N, M), in [0, 1], no NaN.
        costs: (N, M), expected cost of each call; NaN where the price is unknown: never chosen.
        target: accuracy of the routed answers, in (0, 1).
        confidence: in (0, 1).

    Raises:
        ConfigurationError: no threshold reaches the target at this confidence.
    """
    check_number("The target", target, below=1)
    check_number("The confidence", confidence, below=1)
    routing, rows = TargetRouting(scores, costs), np.arange(len(scores))
    known_costs = np.nan_to_num(costs)
    valid: list[Guarantee] = []
    for threshold in THRESHOLDS.tolist():
        chosen = routing.choose(threshold)
        routed = outcomes[rows, chosen]
        p_value = below_target_p_value(routed, target)
        if p_value > 1 - confidence:
            break
        cost = float(known_costs[rows, chosen].mean())
        valid.append(
            Guarantee(threshold, target, confidence, len(rows), p_value, float(routed.mean()), cost, len(valid) + 1)
        )
    if not valid:
        best = outcomes[rows, routing.choose(1.0)]
        raise ConfigurationError(
            f"No threshold guarantees an accuracy of {target:g} at confidence {confidence:g}: the highest score "
            f"of each item is right on {best.mean():.3f} of {len(best)} items, and that leaves p = "
            f"{below_target_p_value(best, target):.2g}. Lower --target, give more records, or add a stronger candidate."
        )
    cheapest = min(valid, key=lambda guarantee: guarantee.cost_usd)
    return Guarantee(**{**vars(cheapest), "n_valid": len(valid)})


def below_target_p_value(outcomes: Array, target: float) -> float:
    """P-value of "the mean is below the target" from (N,) independent outcomes in [0, 1]."""
    with extras():
        from scipy.stats import binom

    n, loss, allowed = len(outcomes), float(1 - outcomes.mean()), 1 - target
    wrong = n * loss
    if np.isin(outcomes, (0, 1)).all():
        return float(binom.cdf(round(wrong), n, allowed))
    bentkus = math.e * float(binom.cdf(math.ceil(round(wrong, 9)), n, allowed))
    hoeffding = 1.0 if loss >= allowed else math.exp(-n * _relative_entropy(loss, allowed))
    return min(1.0, bentkus, hoeffding)


def _relative_entropy(a: float, b: float) -> float:
    """Of two coins, in nats."""
    first = 0.0 if a == 0 else a * math.log(a / b)
    second = 0.0 if a == 1 else (1 - a) * math.log((1 - a) / (1 - b))
    return first + second
