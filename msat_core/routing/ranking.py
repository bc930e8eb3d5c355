"""The order of candidates by each objective, for one instruction or for many at once.

Scores, costs and orders are (…, M): an order holds positions, best first. Of equals the cheaper candidate comes first,
then the earlier one. A cost that is unknown (NaN) is never cheap, and weighs nothing against a score.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SCORE_DIGITS = 6  # scores that agree to this many decimals are a tie: batching may move the seventh

Floats = NDArray[np.floating]
Order = NDArray[np.intp]


def by_quality(scores: Floats, costs: Floats) -> Order:
    """The highest score first."""
    return np.lexsort((_never_cheap(costs), _loss(scores)), axis=-1)


def by_cost(scores: Floats, costs: Floats) -> Order:
    """The cheapest first, and of one price the highest score."""
    return np.lexsort((_loss(scores), _never_cheap(costs)), axis=-1)


def by_value(scores: Floats, costs: Floats, usd_weight: float) -> Order:
    """The highest score − usd_weight × cost first."""
    values = scores - usd_weight * np.where(np.isnan(costs), 0.0, costs)
    return np.lexsort((_never_cheap(costs), _loss(scores), _loss(values)), axis=-1)


def by_target(scores: Floats, costs: Floats, target: float) -> Order:
    """Those whose score reaches the target, the cheapest first; then the others, the highest score first."""
    enough, cost, loss = scores >= target, _never_cheap(costs), _loss(scores)
    return np.lexsort((np.where(enough, loss, cost), np.where(enough, cost, loss), ~enough), axis=-1)


def _loss(scores: Floats) -> Floats:
    return -np.round(scores, SCORE_DIGITS)


def _never_cheap(costs: Floats) -> Floats:
    return np.where(np.isnan(costs), np.inf, costs)
