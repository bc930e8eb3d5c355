from __future__ import annotations

import numpy as np
import pytest

from msat_core.evaluation.cost import CurvePoint, area_under_curve, cost_at_share, pair_metrics, quality_cost_curve

STRONG, WEAK = np.array([1.0, 1, 1, 0]), np.array([1.0, 0, 0, 0])


def test_pair_metrics_by_hand() -> None:
    """Two of four instructions need the strong one; sent first, half of the calls recover all of the gap."""
    found = pair_metrics(STRONG - WEAK, STRONG, WEAK)
    assert found.apgr == pytest.approx(0.75)  # a triangle over the first half, then 1
    assert found.cpt50 == pytest.approx(0.25)
    assert found.cpt80 == pytest.approx(0.4)
    assert pair_metrics(WEAK - STRONG, STRONG, WEAK).apgr == pytest.approx(0.25)
    assert pair_metrics(STRONG, WEAK, STRONG).apgr is None


def test_a_constant_preference_recovers_exactly_half() -> None:
    found = pair_metrics(np.zeros(4), STRONG, WEAK)
    assert (found.apgr, found.cpt50) == (0.5, 0.5)
    assert found.cpt80 == pytest.approx(0.8)
    rng = np.random.default_rng(0)
    many = [pair_metrics(rng.random(4), STRONG, WEAK).apgr for _ in range(2000)]
    assert np.mean([v for v in many if v is not None]) == pytest.approx(0.5, abs=0.02)


def test_curve_runs_from_the_best_to_the_cheapest() -> None:
    scores = np.array([[0.5, 0.9], [0.8, 0.9]])
    costs = np.tile([1.0, 3.0], (2, 1))
    points = quality_cost_curve(scores, np.array([[0.0, 1], [1, 1]]), costs)
    assert (points[0].accuracy, points[0].cost_usd) == (1, 6)
    assert (points[-1].accuracy, points[-1].cost_usd) == (0.5, 2)
    assert any((point.accuracy, point.cost_usd) == (1, 4) for point in points)


def test_area_and_cost_at_share_by_hand() -> None:
    points = [CurvePoint(0, 0.9, 3.0), CurvePoint(1, 0.5, 1.0), CurvePoint(2, 0.4, 2.0)]  # the last lies below the hull
    assert area_under_curve(points, 1.0, 3.0) == pytest.approx(0.7)
    assert area_under_curve(points, 1.0, 5.0) == pytest.approx((0.7 * 2 + 0.9 * 2) / 4)
    assert area_under_curve(points, 1.0, 1.0) is None
    assert cost_at_share(points, 0.9, 3.0, 1.0) == pytest.approx(1)
    assert cost_at_share(points, 0.5, 4.0, 1.0) == pytest.approx(0.25)
    assert cost_at_share(points, 1.0, 3.0, 1.0) is None
