"""The candidates of one call, ready to be scored: their posteriors side by side."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from msat_core.errors import ConfigurationError
from msat_core.profiles import CapabilityProfile
from msat_core.scoring.base import FAR, Scores
from msat_core.scoring.compact.kernel import Array, CapabilityKernel, TaskClassifier
from msat_core.scoring.compact.posterior import CapabilityPosterior, SharedShift
from msat_core.scoring.compact.support import Support
from msat_core.special_functions import moderation

MIN_REACH = 1e-3  # of an exam whose questions are all alike


@dataclass(frozen=True)
class Reading:
    """The posterior of m candidates at N instructions.

    Attributes:
        capability: (N, m), posterior mean in logits.
        variance: (N, m), how unsure it is.
        attention: (N, K), how much each task has to do with each instruction.
        distance: (N, m), as of :class:`~msat_core.scoring.base.Scores`.
    """

    capability: Array
    variance: Array
    attention: Array
    distance: Array


@dataclass(frozen=True)
class Stack:
    """The m candidates of one call that share one exam, and their posteriors."""

    classifier: TaskClassifier  # which of K tasks an instruction belongs to
    tasks: tuple[str, ...]
    vectors: Array  # (P, D), points of evidence: the exam's, then each candidate's own
    shot_weights: Array  # (P, m), what nearness to each point counts
    feature_weights: Array  # (R, m), what each feature of an instruction counts
    levels: Array  # (m,), the posterior mean far from everything that was asked
    variances: Array  # (m,), how unsure that is at a typical instruction
    centre: Array  # (R,), mean features of the exam
    difficulty_variance: float  # of the exam's questions
    asked: NDArray[np.bool_]  # (U, P), which points are questions that bear on a candidate, where several differ
    asks: NDArray[np.intp]  # (m,), each candidate's row of those
    reach: float  # 1 − cosine to the nearest of those at which an instruction begins to be far; NaN if unknown
    own: bool  # whether its questions are the user's own, whatever they are written in

    @classmethod
    def of(cls, support: Support, posteriors: Sequence[CapabilityPosterior]) -> Stack:
        """The candidates' posteriors side by side."""
        around = support.surroundings
        landmark_weights = np.zeros(
            (sum(len(posterior.landmark_weights) for posterior in posteriors), len(posteriors)), np.float32
        )  # (ΣL, m)
        row = 0
        for column, posterior in enumerate(posteriors):
            landmark_weights[row : row + len(posterior.landmark_weights), column] = posterior.landmark_weights
            row += len(posterior.landmark_weights)
        distinct = {posterior.asked.tobytes(): posterior.asked for posterior in posteriors}
        row_of = {key: i for i, key in enumerate(distinct)}
        asked = np.concatenate([np.stack(list(distinct.values())), np.ones((len(distinct), row), bool)], axis=1)
        return cls(
            support.classifier,
            support.tasks,
            np.concatenate([support.points.vectors, *(posterior.landmarks for posterior in posteriors)]),
            np.concatenate([np.stack([posterior.weights for posterior in posteriors], axis=1), landmark_weights]),
            np.stack([posterior.feature_weights for posterior in posteriors], axis=1),
            np.array(
                [
                    float(around.centre @ posterior.feature_weights) + posterior.mean_nearness
                    for posterior in posteriors
                ],
                np.float32,
            ),
            np.array([posterior.variance for posterior in posteriors], np.float32),
            around.centre,
            around.difficulty_variance,
            asked,
            np.array([row_of[posterior.asked.tobytes()] for posterior in posteriors]),
            around.reach,
            support.own,
        )

    def capability(self, kernel: CapabilityKernel, x: Array, cosines: Array) -> tuple[Array, Array]:
        """Posterior mean of f and the attention over tasks: (N, D), (N, P) → (N, m), (N, K)."""
        attention = self.classifier.membership(x)
        broad = kernel.features(x, attention) @ self.feature_weights
        return broad + kernel.nearness_at(cosines) @ self.shot_weights, attention

    def distance(self, cosines: Array) -> Array:
        """How far instructions are from all that a candidate was asked, in units of the exam's reach: → (N, m)."""
        if math.isnan(self.reach):
            return np.full((len(cosines), len(self.asks)), np.nan, np.float32)
        nearest = np.stack([cosines[:, asked].max(axis=1, initial=-1) for asked in self.asked], axis=1)  # (N, U)
        return np.asarray((1 - nearest) / max(self.reach, MIN_REACH), dtype=np.float32)[:, self.asks]

    def reading(self, kernel: CapabilityKernel, x: Array, foreign: NDArray[np.bool_]) -> Reading:
        """The posterior of the candidates at N instructions, (N, D).

        Far from everything that was asked, differences between candidates beside that of their levels are noise: what
        sets such an instruction apart from the exam adds its prior variance instead, and its difficulty is as unsure
        as that of any question. So it is with what is foreign, (N,), whose embedding says little unless
        the exam's questions are the user's own.
        """
        cosines = x @ self.vectors.T
        capability, attention = self.capability(kernel, x, cosines)
        distance = self.distance(cosines)
        far, variance = distance > FAR, np.repeat(self.variances[None], len(x), axis=0)
        if not self.own:
            far = far | foreign[:, None]
        rows = far.any(axis=1)
        if rows.any():
            capability = np.where(far, self.levels, capability)
            apart = kernel.features(x[rows], attention[rows]) - self.centre
            variance[rows] += np.where(far[rows], self.difficulty_variance + (apart**2).sum(axis=1, keepdims=True), 0)
        return Reading(capability, variance, attention, distance)


@dataclass(frozen=True)
class Lineup:
    """M candidates, ready to be scored.

    Attributes:
        profiles: theirs.
        stacks: those of one exam together.
        order: (M,), where each profile's column is among the stacks' columns.
        slope, intercept: of the calibration.
        shift: what feedback says of the instructions themselves.
    """

    profiles: tuple[CapabilityProfile, ...]
    stacks: tuple[Stack, ...]
    order: NDArray[np.intp]
    slope: float
    intercept: float
    shift: SharedShift | None = None

    @classmethod
    def of(
        cls,
        profiles: Sequence[CapabilityProfile],
        supports: Sequence[Support],
        posteriors: Sequence[CapabilityPosterior],
        *,
        slope: float,
        intercept: float,
        shift: SharedShift | None = None,
    ) -> Lineup:
        """Each profile with its support and its posterior."""
        if not profiles:
            raise ConfigurationError("There is nobody to score: give at least one profile.")
        groups: dict[int, list[int]] = {}
        for column, support in enumerate(supports):
            groups.setdefault(id(support), []).append(column)
        stacks = [Stack.of(supports[columns[0]], [posteriors[c] for c in columns]) for columns in groups.values()]
        order = np.argsort([column for columns in groups.values() for column in columns])
        return cls(tuple(profiles), tuple(stacks), order, slope, intercept, shift)

    def score(
        self,
        kernel: CapabilityKernel,
        vectors: Array,
        truncated_tokens: NDArray[np.int64] | None = None,
        unread: tuple[str, ...] = (),
    ) -> Scores:
        """Scores of N instructions by their embeddings, (N, D); where the script is unread, by levels."""
        unread = () if all(stack.own for stack in self.stacks) else unread
        foreign = np.array([bool(script) for script in unread] or [False] * len(vectors))
        readings = [stack.reading(kernel, vectors, foreign) for stack in self.stacks]
        difficulty = kernel.base(vectors)
        if self.shift is not None:
            difficulty = difficulty + self.shift.at(kernel, vectors)
        logits = (
            difficulty[:, None] + np.concatenate([reading.capability for reading in readings], axis=1)[:, self.order]
        )
        variance = np.concatenate([reading.variance for reading in readings], axis=1)[:, self.order]  # (N, M)
        slope = np.float32(self.slope) * moderation(variance)
        probabilities = 1 / (1 + np.exp(-(slope * logits + np.float32(self.intercept))))
        weights = np.concatenate([reading.attention / len(readings) for reading in readings], axis=1)
        distance = np.concatenate([reading.distance for reading in readings], axis=1)
        return Scores(
            probabilities.astype(np.float32),
            np.zeros(len(vectors), dtype=np.int64) if truncated_tokens is None else truncated_tokens,
            tuple(task for stack in self.stacks for task in stack.tasks),
            weights.astype(np.float32),
            distance[:, self.order].astype(np.float32),
            (slope * np.sqrt((variance - kernel.shot_variance).clip(min=0))).astype(np.float32),
            np.concatenate([stack.levels for stack in self.stacks])[self.order],
            unread,
        )

    def is_of(self, profiles: Sequence[CapabilityProfile]) -> bool:
        """The same candidates in the same order?"""
        theirs, ours = profiles, self.profiles
        return theirs is ours or (len(theirs) == len(ours) and all(map(operator.is_, theirs, ours)))
