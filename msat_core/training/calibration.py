"""Calibration: a logistic fit of outcomes on logits that training has not seen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEAST_SLOPE = 1e-3  # a scorer that ranks backwards is flattened, not turned round


@dataclass(frozen=True)
class Calibration:
    """P(correct) = σ(slope · logit + intercept)."""

    slope: float = 1.0
    intercept: float = 0.0


def fit_calibration(logits: NDArray[np.floating], outcomes: NDArray[np.floating]) -> Calibration:
    """Fit on pairs, both of the same shape; NaN outcomes are left out, soft ones count as right and wrong by weight."""
    from sklearn.linear_model import LogisticRegression

    known = ~np.isnan(outcomes)
    features, truth = logits[known][:, None], outcomes[known]
    if not len(truth) or truth.min() == truth.max():
        return Calibration()
    fit = LogisticRegression(C=1e6).fit(
        np.concatenate([features, features]),
        np.repeat([1, 0], len(truth)),
        sample_weight=np.concatenate([truth, 1 - truth]),
    )
    return Calibration(max(LEAST_SLOPE, round(float(fit.coef_[0, 0]), 6)), round(float(fit.intercept_[0]), 6))
