"""What quality costs: curves over a policy's knob, the area under them, and pairs of a strong and a weak candidate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from msat_core.routing.ranking import by_value

N_CURVE_POINTS = 15  # weights of money, beside 0; chosen: enough for a smooth line

Array = NDArray[np.floating]


@dataclass(frozen=True)
class CurvePoint:
    """Where one setting of the ``value`` objective lands.

    Attributes:
        usd_weight: the score given up to save one USD a call.
        accuracy: mean outcome.
        cost_usd: of all calls together.
    """

    usd_weight: float
    accuracy: float
    cost_usd: float


@dataclass(frozen=True)
class PairMetrics:
    """How well a strong and a weak candidate share the work (RouteLLM, Ong et al. 2024).

    Attributes:
        apgr: average performance gap recovered, over all shares of calls to the strong one; 0.5 for a
            router that knows nothing.
        cpt50, cpt80: share of calls to the strong one that recovers 50% and 80% of the gap; None if the
            strong one is not the better one.
    """

    apgr: float | None
    cpt50: float | None
    cpt80: float | None


def quality_cost_curve(scores: Array, outcomes: Array, costs: Array) -> list[CurvePoint]:
    """Accuracy and cost of ``value`` routing from a weight of 0 to one where only cost counts.

    Args:
        scores, outcomes: (N, M).
        costs: (N, M), USD of each call.
    """
    rows, usd_range = np.arange(len(scores)), cost_range(costs) or 1.0
    points = []
    for weight in [0.0, *(np.geomspace(0.01, 10, N_CURVE_POINTS) / usd_range)]:
        chosen = by_value(scores, costs, float(weight))[:, 0]
        points.append(CurvePoint(float(weight), float(outcomes[rows, chosen].mean()), float(costs[rows, chosen].sum())))
    return points


def cost_range(usd: Array) -> float:
    """Between the dearest candidate and the cheapest, USD a question, by what each costs for each: (N, M)."""
    return float(np.ptp(usd.mean(axis=0)))


def area_under_curve(points: Sequence[CurvePoint], cheapest: float, dearest: float) -> float | None:
    """Mean accuracy at a budget drawn evenly between the cheapest and the dearest candidate's cost.

    Taken on the non-decreasing convex hull of the points, which mixing neighbouring settings reaches (AIQ of
    RouterBench, Hu et al. 2024). Below the cheapest point the accuracy counts as that point's. None where all
    candidates cost the same.
    """
    if dearest <= cheapest:
        return None
    hull: list[tuple[float, float]] = []
    for cost, accuracy in sorted((p.cost_usd, p.accuracy) for p in points):
        if hull and accuracy <= hull[-1][1]:
            continue
        while len(hull) > 1 and _slope(hull[-2], hull[-1]) <= _slope(hull[-1], (cost, accuracy)):
            hull.pop()
        if hull and cost == hull[-1][0]:
            hull.pop()
        hull.append((cost, accuracy))
    at, height = np.array(hull).T
    grid = np.unique(np.concatenate([[cheapest, dearest], at[(at > cheapest) & (at < dearest)]]))
    return _area(np.interp(grid, at, height), grid) / (dearest - cheapest)


def cost_at_share(points: Sequence[CurvePoint], accuracy: float, cost: float, share: float) -> float | None:
    """Least cost that reaches a share of a candidate's accuracy, as a fraction of its cost; None if none does.

    Args:
        points: of the curve.
        accuracy, cost: of the candidate to be matched, the best single one as a rule.
        share: of its accuracy.
    """
    enough = [p.cost_usd for p in points if p.accuracy >= share * accuracy - 1e-12]
    return min(enough) / cost if enough and cost > 0 else None


def pair_metrics(preference: Array, strong: Array, weak: Array) -> PairMetrics:
    """APGR and CPT of sending the instructions of highest preference to the strong candidate.

    Instructions of equal preference are sent in random order (in expectation), so a constant preference has
    an APGR of exactly 0.5.

    Args:
        preference: (N,), for the strong candidate, as a rule its score minus the weak one's.
        strong, weak: (N,), their outcomes.
    """
    gap = float(strong.mean() - weak.mean())
    if gap <= 0:
        return PairMetrics(None, None, None)
    order = np.argsort(-preference, kind="stable")
    gains = np.concatenate([[0.0], np.cumsum((strong - weak)[order])]) / (len(order) * gap)
    ends = np.flatnonzero(np.append(np.diff(preference[order]) != 0, True)) + 1
    at = np.concatenate([[0], ends])  # calls to the strong one where a group of equals is complete
    shares, recovered = at / len(order), gains[at]  # straight lines in between
    cpt50, cpt80 = (_first_share(shares, recovered, part) for part in (0.5, 0.8))
    return PairMetrics(_area(recovered, shares), cpt50, cpt80)


def _first_share(shares: Array, recovered: Array, wanted: float) -> float:
    after = int(np.argmax(recovered >= wanted - 1e-12))
    low, high = recovered[after - 1], recovered[after]
    part = 0.0 if high == low else (wanted - low) / (high - low)
    return float(shares[after - 1] + part * (shares[after] - shares[after - 1]))


def _area(height: Array, at: Array) -> float:
    """Under straight lines between points; NumPy gave its own rule another name in 2.0."""
    return float(np.sum((height[1:] + height[:-1]) / 2 * np.diff(at)))


def _slope(left: tuple[float, float], right: tuple[float, float]) -> float:
    return (right[1] - left[1]) / (right[0] - left[0]) if right[0] > left[0] else np.inf
