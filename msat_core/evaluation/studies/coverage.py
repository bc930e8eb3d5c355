"""How much of a strong candidate's right answers weaker ones have between them (Model-SAT, Fig. 1)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from msat_core.evaluation.metrics import POSITIVE_ABOVE

Array = NDArray[np.floating]


def coverage(outcomes: Array, reference: Array) -> Array:
    """Share of the reference's right answers that the first k candidates' union has right, for k = 1 … M.

    Args:
        outcomes: (N, M), candidates in the order in which they join; NaN counts as not right.
        reference: (N,), the strong candidate's outcomes.

    Returns:
        (M,), NaN throughout where the reference has nothing right.
    """
    asked = reference > POSITIVE_ABOVE
    if not asked.any():
        return np.full(outcomes.shape[1], np.nan)
    union = np.maximum.accumulate(outcomes[asked] > POSITIVE_ABOVE, axis=1)
    return np.asarray(union.mean(axis=0))
