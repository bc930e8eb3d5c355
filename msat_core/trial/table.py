"""All that the verdict of a trial rests on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from msat_core.routing.ranking import by_quality, by_value

CONFIDENCE = 0.95  # of the guarantee; usual

Array = NDArray[np.floating]


@dataclass(frozen=True)
class TrialTable:
    """What was seen and what a scorer makes of it. N questions, M candidates.

    Attributes:
        names: of the candidates.
        outcomes: (N, M), no NaN.
        usd: (N, M), what each answer cost; NaN where unknown.
        expected_usd: (N, M), what a router with a target expects before asking; NaN where unknown.
        near_usd: (N, M), what one without expects: answers as long as in the tasks nearby; NaN where unknown.
        scores: (N, M), of each question by a router that does not know it.
        informed: (N, M), by one that knows every mark.
        apart: (N, M), by one that knows the exam part alone.
        calibration: positions of the questions that are not in that part.
    """

    names: Sequence[str]
    outcomes: Array
    usd: Array
    expected_usd: Array
    near_usd: Array
    scores: Array
    informed: Array
    apart: Array
    calibration: NDArray[np.intp]

    def highest(self, scores: Array) -> NDArray[np.intp]:
        """(N,), choices of the highest of these scores; of equals the cheaper, which an unknown price never is."""
        return by_quality(scores, self.near_usd)[:, 0]

    def by_value(self, scores: Array, weight: float) -> NDArray[np.intp]:
        """(N,), choices that give up score to save money, at so much score a USD."""
        return by_value(scores, self.near_usd, weight)[:, 0]
