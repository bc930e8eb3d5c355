"""Calibration: a logistic fit of outcomes on logits that training has not seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEAST_SLOPE = 1e-3  # a scorer that ranks backwards is flattened, not turned round


@dataclass(frozen=True)
class Calibration:
    """P(correct) = σ(slope · logit + level · the candidate's exam in log odds + intercept)."""

    slope: float = 1.0
    level: float = 0.0
    intercept: float = 0.0


def fit_calibration(
    logits: NDArray[np.floating],
    levels: NDArray[np.floating],
    outcomes: NDArray[np.floating],
    candidates: NDArray[np.integer],
    *,
    level: float = 0.0,
) -> Calibration:
    """Fit on pairs, all of the same shape, no further than it holds for candidates left out.

    A level's weight read off a handful of candidates may be far off for the next one. So three fits compete (none at
    all; slope and intercept; the level's weight too), each judged by its log loss on every candidate in turn, fitted
    on the others; the simplest of the best is kept. NaN outcomes are left out; soft ones count as right and as wrong,
    by weight. Neither the logit nor the exam may count against a candidate.

    Args:
        logits: of the scorer.
        levels: smoothed log odds of each pair's candidate in its exam.
        outcomes: in [0, 1].
        candidates: whose pair it is.
        level: what the level counted in training.
    """
    known = ~np.isnan(outcomes)
    x, truth, whose = np.stack([logits[known], levels[known]], axis=1), outcomes[known], candidates[known]
    names = np.unique(whose)
    if not len(names):
        return Calibration(level=level)
    if len(names) == 1:  # nobody to judge the fits by
        return _rescaled(x, truth, level)

    def loss(fit: _Fit) -> float:
        each = [_log_loss(fit(x[whose != one], truth[whose != one], level), x, truth, whose == one) for one in names]
        return float(np.mean(each))

    return min((_as_trained, _rescaled, _free), key=loss)(x, truth, level)


_Fit = Callable[[NDArray[np.floating], NDArray[np.floating], float], Calibration]


def _as_trained(x: NDArray[np.floating], truth: NDArray[np.floating], level: float) -> Calibration:
    return Calibration(level=level)


def _rescaled(x: NDArray[np.floating], truth: NDArray[np.floating], level: float) -> Calibration:
    if truth.min() == truth.max():
        return Calibration(level=level)
    slope, intercept = logistic_fit((x @ np.array([1.0, level]))[:, None], truth)
    slope = max(LEAST_SLOPE, slope)
    return Calibration(slope, slope * level, intercept)


def _free(x: NDArray[np.floating], truth: NDArray[np.floating], level: float) -> Calibration:
    if truth.min() == truth.max():
        return Calibration(level=level)
    slope, found, intercept = logistic_fit(x, truth)
    return Calibration(slope, found, intercept) if slope > 0 and found >= 0 else _rescaled(x, truth, level)


def _log_loss(fit: Calibration, x: NDArray[np.floating], truth: NDArray[np.floating], rows: NDArray[np.bool_]) -> float:
    logits = fit.slope * x[rows, 0] + fit.level * x[rows, 1] + fit.intercept
    return float((np.logaddexp(0, logits) - truth[rows] * logits).mean())


def logistic_fit(features: NDArray[np.floating], truth: NDArray[np.floating]) -> list[float]:
    """Weights of the features (P, F), then the intercept; soft outcomes count as right and as wrong, by weight."""
    from sklearn.linear_model import LogisticRegression

    fit = LogisticRegression(C=1e6).fit(
        np.concatenate([features, features]),
        np.repeat([1, 0], len(truth)),
        sample_weight=np.concatenate([truth, 1 - truth]),
    )
    return [round(float(value), 6) for value in (*fit.coef_[0], fit.intercept_[0])]
