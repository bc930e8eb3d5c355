"""Platt scaling: a logistic fit of outcomes on logits that training has not seen (Platt 1999)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from msat_core.errors import extras

LEAST_SLOPE = 1e-3  # a scorer that ranks backwards is flattened, not turned round


@dataclass(frozen=True)
class PlattScaling:
    """P(correct) = σ(slope · logit + level · the candidate's exam in log odds + intercept)."""

    slope: float = 1.0
    level: float = 0.0
    intercept: float = 0.0


def fit_platt(
    logits: NDArray[np.floating], levels: NDArray[np.floating], outcomes: NDArray[np.floating]
) -> PlattScaling:
    """Fit on pairs, all of the same shape.

    NaN outcomes are left out; soft ones count as right and as wrong, by weight. Neither the logit nor the exam may
    count against a candidate: where the free fit says so, that part is left out.

    Args:
        logits: of the scorer.
        levels: smoothed log odds of each pair's candidate in its exam.
        outcomes: in [0, 1].
    """
    known = ~np.isnan(outcomes)
    truth = outcomes[known]
    if not len(truth) or truth.min() == truth.max():
        return PlattScaling()
    slope, level, intercept = logistic_fit(np.stack([logits[known], levels[known]], axis=1), truth)
    if slope < LEAST_SLOPE or level < 0:
        slope, intercept = slope_fit(logits[known], truth)
        level = 0.0
    return PlattScaling(slope, level, intercept)


def slope_fit(logits: NDArray[np.floating], truth: NDArray[np.floating]) -> tuple[float, float]:
    """Slope and intercept of outcomes (P,) on logits (P,).

    Where the logits rank backwards the slope is ``LEAST_SLOPE`` and the intercept that of the mean outcome; where all
    outcomes are alike they say nothing, and the logits stay as they are.
    """
    if not len(truth) or truth.min() == truth.max():
        return 1.0, 0.0
    slope, intercept = logistic_fit(logits[:, None], truth)
    if slope >= LEAST_SLOPE:
        return slope, intercept
    mean = float(truth.mean())
    return LEAST_SLOPE, round(float(np.log(mean / (1 - mean)) - LEAST_SLOPE * logits.mean()), 6)


def logistic_fit(features: NDArray[np.floating], truth: NDArray[np.floating]) -> list[float]:
    """Weights of the features (P, F), then the intercept; soft outcomes count as right and as wrong, by weight."""
    with extras():
        from sklearn.linear_model import LogisticRegression

    fit = LogisticRegression(C=1e6).fit(
        np.concatenate([features, features]),
        np.repeat([1, 0], len(truth)),
        sample_weight=np.concatenate([truth, 1 - truth]),
    )
    return [round(float(value), 6) for value in (*fit.coef_[0], fit.intercept_[0])]
