"""The sites of expectation propagation: outcomes by instruction and candidate, and the messages that they send.

Nearly the same instructions are one experience; the outcomes of one candidate on it are one site.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from msat_core.errors import ConfigurationError
from msat_core.scoring.base import WeightedOutcome
from msat_core.scoring.compact.field import Wide
from msat_core.scoring.compact.kernel import Array

SAME_COSINE = 0.95  # from here on two instructions are one experience
MIN_CURVATURE = 1e-4
MAX_STEP = 4.0  # of Newton's method, in logits


@dataclass
class Site:
    """One candidate's outcomes of one experience, and what they say to the two fields.

    Attributes:
        weight, right: sums of the outcomes' weights, and of weight × outcome.
        n: outcomes.
        message: precision and target (of d_m + prior logit) told to the candidate's field; None before the first time.
        shared_message: the same told to s, undivided.
    """

    weight: float = 0.0
    right: float = 0.0
    n: int = 0
    message: tuple[float, float] | None = None
    shared_message: tuple[float, float] = (0.0, 0.0)

    def add(self, outcome: WeightedOutcome, times: int) -> None:
        """One more outcome, or with −1 one less."""
        self.weight += times * outcome.weight
        self.right += times * outcome.weight * outcome.outcome
        self.n += times


@dataclass
class Experience:
    """One instruction (and those nearly the same), and who answered it.

    Attributes:
        vector: (D,), its embedding.
        base: the kernel's difficulty.
        features: of s's field.
        rest: variance that the features leave out.
        sites: by candidate.
        message: precision and linear term in s: the sites' mean.
    """

    vector: Array
    base: float
    features: Wide
    rest: float
    sites: dict[str, Site] = field(default_factory=dict)
    message: tuple[float, float] = (0.0, 0.0)


class Experiences:
    """The experiences by row; the row of one that is dropped is used again.

    Args:
        width: D.
    """

    def __init__(self, width: int) -> None:
        self._vectors: Array = np.zeros((0, width), np.float32)  # zero where there is no experience
        self._free: list[int] = []
        self._by_row: dict[int, Experience] = {}

    def __getitem__(self, row: int) -> Experience:
        return self._by_row[row]

    def row_of(self, vector: Array, make: Callable[[Array], Experience]) -> int:
        """Of the experience that an instruction belongs to, by its unit vector, (D,); a new one is made."""
        near = self._vectors @ vector
        if len(near) and near[best := int(near.argmax())] >= SAME_COSINE:
            return best
        if not self._free:
            first = len(self._vectors)
            self._vectors = np.concatenate([self._vectors, np.zeros((max(64, first), len(vector)), np.float32)])
            self._free = list(range(len(self._vectors) - 1, first - 1, -1))
        row = self._free.pop()
        self._vectors[row] = vector
        self._by_row[row] = make(vector)
        return row

    def drop(self, row: int) -> None:
        """Forget an experience."""
        del self._by_row[row]
        self._vectors[row] = 0
        self._free.append(row)


def unit_vector(outcome: WeightedOutcome, width: int) -> Array:
    """The outcome's vector, (width,), at length 1. Raises ConfigurationError if it, or a number, cannot be."""
    vector = np.asarray(outcome.vector, dtype=np.float32)
    size = float(np.linalg.norm(vector)) if vector.shape == (width,) else 0.0
    if not (0.5 < size < 2):  # also where it is NaN
        raise ConfigurationError(
            f"An outcome's vector must be a unit vector of {width} numbers, got one of shape {vector.shape} "
            f"and length {size:g}: use the vectors of this scorer's encoder."
        )
    if not (0 <= outcome.outcome <= 1 and 0 <= outcome.weight <= 1):
        raise ConfigurationError(
            f"An outcome and its weight lie in [0, 1], got the outcome {outcome.outcome!r} "
            f"of weight {outcome.weight!r}."
        )
    return vector / np.float32(size)


def cavity(mean: float, variance: float, precision: float, linear: float) -> tuple[float, float]:
    """Moments of a Gaussian after a message in natural parameters is taken out of it."""
    left = max(1 - precision * variance, 1e-9)
    return (mean - variance * linear) / left, variance / left


def laplace(mean: float, variance: float, outcome: float, weight: float) -> tuple[float, float]:
    """The Gaussian, as variance and mean, that does what a weighted outcome does to a logit of these moments."""
    u = mean
    for _ in range(50):
        p = 1 / (1 + math.exp(-max(min(u, 500.0), -500.0)))
        curvature = weight * max(p * (1 - p), MIN_CURVATURE)
        step = (weight * (outcome - p) - (u - mean) / variance) / (curvature + 1 / variance)
        u += max(-MAX_STEP, min(MAX_STEP, step))
        if abs(step) < 1e-6:
            break
    p = 1 / (1 + math.exp(-max(min(u, 500.0), -500.0)))
    curvature = weight * max(p * (1 - p), MIN_CURVATURE)
    return 1 / curvature, u + weight * (outcome - p) / curvature
