"""How far outcomes have moved the posterior of a function of the instruction: a Gaussian of bounded size.

The function is a sum of the kernel's features and of a part that is its own near each instruction. The latter is
carried by *landmarks*, the first distinct instructions that came (Nyström's approximation in the order of a Cholesky
factor: a further landmark leaves the features of all earlier instructions as they are).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from msat_core.scoring.compact.kernel import Array, CapabilityKernel

MAX_LANDMARKS = 256
MIN_NEWS = 0.05  # share of its own part that an instruction must not have in common with the landmarks to become one

Wide = NDArray[np.float64]


class Field:
    """A posterior of d(x) = w·φ(x) + n(x), whose prior mean is 0. T = R + L features.

    Args:
        kernel: whose nearness n has.
        covariance: (R, R), prior of w.
        local: n's prior variance, as a share of the kernel's.

    Attributes:
        vectors: (L, D), the landmarks.
    """

    def __init__(self, kernel: CapabilityKernel, covariance: NDArray[np.floating], local: float = 1.0) -> None:
        self._kernel, self._local = kernel, local
        self._width = len(covariance)
        self._covariance: Wide = np.array(covariance, dtype=np.float64)  # (T, T)
        self._linear: Wide = np.zeros(self._width)  # (T,), precision × mean of the sites
        self._unmix: Wide = np.zeros((0, 0))  # (L, L), inverse Cholesky factor of the landmarks' nearness
        self.vectors: Array = np.zeros((0, kernel.dim), np.float32)

    def features(self, broad: Array, x: Array) -> tuple[Wide, float]:
        """Features (T,) of an instruction and the variance they leave out; it becomes a landmark if there is room.

        Args:
            broad: (R,), φ(x).
            x: (D,), unit vector.
        """
        near = self._local * self._kernel.nearness(x[None], self.vectors)[0].astype(np.float64)  # (L,)
        local = self._unmix @ near
        total = self._local * float(self._kernel.shot_variance)
        rest = max(total - float(local @ local), 0.0)
        if len(local) < MAX_LANDMARKS and rest > MIN_NEWS * total:
            self._grow(x, local, rest)
            local, rest = np.append(local, np.sqrt(rest)), 0.0
        return np.concatenate([broad, local]), rest

    def moments(self, features: Wide) -> tuple[float, float]:
        """Mean and variance of what these features, (≤ T,), carry."""
        cross = self._covariance[:, : len(features)] @ features
        return float(cross @ self._linear), float(cross[: len(features)] @ features)

    def add(self, features: Wide, precision: float, linear: float) -> None:
        """Add to (or, negative, take from) what is known at these features: a Gaussian in natural parameters."""
        cross = self._covariance[:, : len(features)] @ features
        variance = float(cross[: len(features)] @ features)
        self._covariance -= np.outer(cross * (precision / (1 + precision * variance)), cross)
        self._linear[: len(features)] += linear * features

    def weights(self) -> tuple[Array, Array]:
        """Posterior mean: what the features count, (R,), and what nearness to each landmark counts, (L,)."""
        mean = self._covariance @ self._linear
        local = self._local * (self._unmix.T @ mean[self._width :])
        return mean[: self._width].astype(np.float32), local.astype(np.float32)

    def covariance(self) -> Wide:
        """(R, R), of what the features count."""
        return self._covariance[: self._width, : self._width]

    def _grow(self, x: Array, local: Wide, rest: float) -> None:
        scale = 1 / np.sqrt(rest)
        self._unmix = np.pad(self._unmix, ((0, 1), (0, 1)))
        self._unmix[-1, :-1] = -scale * (local @ self._unmix[:-1, :-1])
        self._unmix[-1, -1] = scale
        self._covariance = np.pad(self._covariance, ((0, 1), (0, 1)))
        self._covariance[-1, -1] = 1.0
        self._linear = np.append(self._linear, 0.0)
        self.vectors = np.concatenate([self.vectors, x[None]], dtype=np.float32)
