"""Special functions, for numpy alone: routing loads no SciPy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

_erf = np.vectorize(math.erf, otypes=[np.float64])


def normal_cdf(x: NDArray[np.floating]) -> NDArray[np.floating]:
    """P(Z ≤ x) of a standard normal Z, in x's precision."""
    cdf = 0.5 * (1 + _erf(x / math.sqrt(2)))
    return np.asarray(cdf, dtype=np.asarray(x).dtype)


def moderation(variance: Any) -> Any:  # noqa: ANN401 - a number, an array or a tensor, and the same again
    """What a Gaussian logit's mean is multiplied by, so that its logistic is the expected one (MacKay 1992, eq. 10)."""
    return (1 + math.pi / 8 * variance) ** -0.5
