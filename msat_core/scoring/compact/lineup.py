"""The candidates of one call, ready to be scored: their beliefs side by side."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from msat_core.errors import ConfigurationError
from msat_core.profiles import CapabilityProfile
from msat_core.scoring.base import Scores
from msat_core.scoring.compact.kernel import Array, CapabilityKernel
from msat_core.scoring.compact.posterior import Belief, Place, SharedShift


@dataclass(frozen=True)
class Stack:
    """The m candidates of one call that share one exam, and what is believed of them."""

    centroids: Array  # (K, D)
    tasks: tuple[str, ...]
    vectors: Array  # (P, D), points of evidence: the exam's, then each candidate's own
    shot_weights: Array  # (P, m), what nearness to each point counts
    feature_weights: Array  # (1 + F + K, m), what each feature of an instruction counts

    @classmethod
    def of(cls, place: Place, beliefs: Sequence[Belief]) -> Stack:
        """The candidates' beliefs side by side."""
        own = np.zeros((sum(len(belief.own_weights) for belief in beliefs), len(beliefs)), np.float32)  # (ΣF, m)
        row = 0
        for column, belief in enumerate(beliefs):
            own[row : row + len(belief.own_weights), column] = belief.own_weights
            row += len(belief.own_weights)
        return cls(
            place.points.centroids,
            place.tasks,
            np.concatenate([place.points.vectors, *(belief.own_vectors for belief in beliefs)]),
            np.concatenate([np.stack([belief.weights for belief in beliefs], axis=1), own]),
            np.stack([belief.feature_weights for belief in beliefs], axis=1),
        )

    def capability(self, kernel: CapabilityKernel, x: Array) -> tuple[Array, Array]:
        """Posterior mean of f and the attention over tasks: (N, D) → (N, m), (N, K)."""
        attention = kernel.attention(x, self.centroids)
        broad = kernel.features(x, attention) @ self.feature_weights
        return broad + kernel.nearness(x, self.vectors) @ self.shot_weights, attention


@dataclass(frozen=True)
class Lineup:
    """M candidates, ready to be scored.

    Attributes:
        profiles: theirs.
        stacks: those of one exam together.
        order: (M,), where each profile's column is among the stacks' columns.
        slope: (M,), calibration × shrinkage by each posterior's variance.
        intercept: of the calibration.
        shift: what feedback says of the instructions themselves.
    """

    profiles: tuple[CapabilityProfile, ...]
    stacks: tuple[Stack, ...]
    order: NDArray[np.intp]
    slope: Array
    intercept: float
    shift: SharedShift | None = None

    @classmethod
    def of(
        cls,
        profiles: Sequence[CapabilityProfile],
        places: Sequence[Place],
        beliefs: Sequence[Belief],
        *,
        slope: float,
        intercept: float,
        shift: SharedShift | None = None,
    ) -> Lineup:
        """Each profile with its place and what is believed of it."""
        if not profiles:
            raise ConfigurationError("There is nobody to score: give at least one profile.")
        groups: dict[int, list[int]] = {}
        for column, place in enumerate(places):
            groups.setdefault(id(place), []).append(column)
        stacks = [Stack.of(places[columns[0]], [beliefs[c] for c in columns]) for columns in groups.values()]
        order = np.argsort([column for columns in groups.values() for column in columns])
        # A logistic of a Gaussian is nearly a logistic of its shrunken mean (MacKay 1992).
        shrink = 1 / np.sqrt(1 + math.pi / 8 * np.array([belief.variance for belief in beliefs], np.float32))
        return cls(tuple(profiles), tuple(stacks), order, np.float32(slope) * shrink, intercept, shift)

    def score(
        self, kernel: CapabilityKernel, vectors: Array, truncated_tokens: NDArray[np.int64] | None = None
    ) -> Scores:
        """Scores of N instructions by their embeddings, (N, D)."""
        found = [stack.capability(kernel, vectors) for stack in self.stacks]
        difficulty = kernel.base(vectors)
        if self.shift is not None:
            difficulty = difficulty + self.shift.at(kernel, vectors)
        logits = difficulty[:, None] + np.concatenate([f for f, _ in found], axis=1)[:, self.order]  # (N, M)
        probabilities = 1 / (1 + np.exp(-(self.slope * logits + np.float32(self.intercept))))
        weights = np.concatenate([attention / len(found) for _, attention in found], axis=1)
        return Scores(
            probabilities.astype(np.float32),
            np.zeros(len(vectors), dtype=np.int64) if truncated_tokens is None else truncated_tokens,
            tuple(task for stack in self.stacks for task in stack.tasks),
            weights.astype(np.float32),
        )

    def is_of(self, profiles: Sequence[CapabilityProfile]) -> bool:
        """The same candidates in the same order?"""
        return len(profiles) == len(self.profiles) and all(map(operator.is_, profiles, self.profiles))
