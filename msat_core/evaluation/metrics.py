"""Metrics of scores against outcomes. Outcomes may be soft, in [0, 1]."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from msat_core.errors import extras

N_BINS = 15  # usual for the ECE (Guo et al. 2017)
N_RESAMPLES = 1000  # of the bootstrap; chosen: p-values to about .001
POSITIVE_ABOVE = 0.5  # an outcome above it counts as right, where a metric needs right or wrong

Array = NDArray[np.floating]


@dataclass(frozen=True)
class CalibrationError:
    """Expected calibration error over equal-mass bins, plain and debiased."""

    plain: float
    debiased: float


@dataclass(frozen=True)
class ReliabilityBin:
    """One bin of pairs of like score.

    Attributes:
        score, outcome: means over the bin.
        variance: sampling variance of the mean outcome.
        n: pairs in the bin.
    """

    score: float
    outcome: float
    variance: float
    n: int


def auc(scores: Array, outcomes: Array) -> float | None:
    """Area under the ROC curve of one candidate; None if it has one class only."""
    with extras():
        from sklearn.metrics import roc_auc_score

    positive = outcomes > POSITIVE_ABOVE
    return None if positive.all() or not positive.any() else float(roc_auc_score(positive, scores))


def mean_auc(scores: Array, outcomes: Array) -> float | None:
    """Mean of the candidates' AUCs: (N, M), (N, M); candidates with one class only are left out."""
    areas = [auc(scores[:, m], outcomes[:, m]) for m in range(scores.shape[1])]
    defined = [value for value in areas if value is not None]
    return float(np.mean(defined)) if defined else None


def brier(scores: Array, outcomes: Array) -> float:
    """Mean squared difference of score and outcome."""
    return float(np.mean((scores - outcomes) ** 2))


def calibration_error(scores: Array, outcomes: Array, n_bins: int = N_BINS) -> CalibrationError:
    """ECE over equal-mass bins of all pairs.

    The plain ECE is above zero even for perfect scores, by sampling noise. The debiased one takes
    each bin's sampling variance off its squared gap before the root (after Kumar et al. 2019).
    """
    plain = debiased = 0.0
    for group in reliability(scores, outcomes, n_bins):
        gap = abs(group.score - group.outcome)
        plain += group.n / scores.size * gap
        debiased += group.n / scores.size * np.sqrt(max(0.0, gap**2 - group.variance))
    return CalibrationError(float(plain), float(debiased))


def reliability(scores: Array, outcomes: Array, n_bins: int = N_BINS) -> list[ReliabilityBin]:
    """The equal-mass bins of all pairs, by rising score: the points of a reliability diagram."""
    order = np.argsort(scores.ravel(), kind="stable")
    p, y = scores.ravel()[order], outcomes.ravel()[order]
    return [
        ReliabilityBin(
            float(p[rows].mean()),
            float(y[rows].mean()),
            float(y[rows].var(ddof=1) / len(rows)) if len(rows) > 1 else 0.0,
            len(rows),
        )
        for rows in np.array_split(np.arange(len(p)), min(n_bins, len(p)))
    ]


def bootstrap_interval(values: Array, *, n_resamples: int = N_RESAMPLES, seed: int = 0) -> tuple[float, float]:
    """95% percentile interval of the mean of per-item values, (N,), over resampled items."""
    low, high = np.quantile(_bootstrap_means(values, n_resamples, seed), [0.025, 0.975])
    return float(low), float(high)


def paired_p_value(differences: Array, *, n_resamples: int = N_RESAMPLES, seed: int = 0) -> float:
    """Two-sided p-value of "the mean of the paired differences, (N,), is zero", by the bootstrap over items.

    Twice the smaller share of resampled means on either side of zero (Efron & Tibshirani 1993, chapter 16);
    never below 2 / (n_resamples + 1), and 1 where all differences are zero.
    """
    means = _bootstrap_means(differences, n_resamples, seed)
    below, above = int((means <= 0).sum()), int((means >= 0).sum())
    return min(1.0, 2 * (min(below, above) + 1) / (n_resamples + 1))


def _bootstrap_means(values: Array, n_resamples: int, seed: int) -> Array:
    rng = np.random.default_rng(seed)
    means = np.empty(n_resamples)
    for i in range(n_resamples):
        means[i] = values[rng.integers(0, len(values), len(values))].mean()
    return means
