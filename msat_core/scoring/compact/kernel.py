r"""What the compact scorer computes: a Gaussian process over instructions, one draw per candidate.

For an instruction with embedding :math:`x` and a candidate :math:`m`,

.. math:: \mathrm{logit}\,P(\text{correct}) = b(x) + f_m(x), \qquad f_m \sim \mathrm{GP}(0, k),

where b is how hard the instruction is for candidates at large, and k says how what a candidate got
right in one place bears on another. The kernel is a sum of four parts: a constant (overall ability),
learnt skill features, membership in the exam's tasks (soft, by nearness to each task's centroid), and
nearness of the embeddings (single shots). A candidate's exam fixes the posterior mean of f_m by
Newton's method (Rasmussen & Williams 2006, algorithm 3.1). Little evidence, or evidence far away,
leaves the posterior near zero by itself, so no weight for "how far to trust the exam" has to be set.

This is the kernel as it serves, in numpy; :mod:`msat_core.training.compact.kernel` is the same one as it is learnt.

Shapes: N instructions, E points of evidence, K tasks, D embedding width, F learnt skills, R = 1 + F + K features.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from msat_core.special_functions import normal_cdf

SKILL_SCALE = 3.0  # brings the linear features of unit vectors to the size of the others at the start
JITTER = 1e-8
MIN_CURVATURE = 1e-4
MAX_NEWTON_STEPS = 50
CONVERGED = 1e-4  # change of a logit below which Newton's method stops

Array = NDArray[np.float32]


@dataclass(frozen=True)
class EvidencePoints:
    """Where an exam looked.

    Attributes:
        vectors: (E, D), unit embeddings of the shots (or of task descriptions).
        membership: (E, K), which task each point belongs to, rows one-hot.
        centroids: (K, D), unit mean embedding of each task.
    """

    vectors: Array
    membership: Array
    centroids: Array


@dataclass(frozen=True)
class TaskClassifier:
    """Tells K tasks apart.

    Attributes:
        directions: (K, D).
        temperature: what products with them are divided by.
        offset: (K,), added to that.
    """

    directions: Array
    temperature: np.float32
    offset: Array

    def membership(self, x: Array) -> Array:
        """How much each task has to do with each instruction: (N, D) → (N, K), rows sum to 1."""
        logits = x @ self.directions.T / self.temperature + self.offset
        weights = np.exp(logits - logits.max(axis=1, keepdims=True, initial=-np.inf))
        return np.asarray(weights / weights.sum(axis=1, keepdims=True), dtype=np.float32)


class CapabilityKernel:
    """The prior: difficulty b and kernel k.

    Args:
        tensors: as training names them.

    Attributes:
        tensors: the same, float32.
        dim: D.
        hidden: width of the two small networks.
        n_skills: F.
        temperature: of the attention over tasks.
    """

    def __init__(self, tensors: Mapping[str, Array]) -> None:
        self.tensors = dict(tensors)
        self.hidden, self.dim = self.tensors["difficulty.0.weight"].shape
        self.n_skills = len(self.tensors["skills_linear.weight"])
        # standard deviations of: ability, skills, tasks, single shots
        self._scale = np.exp(self.tensors["log_scale"])
        self._reach = np.exp(self.tensors["log_reach"])  # of a shot, in units of 1 − cosine
        self.temperature = np.float32(np.exp(self.tensors["log_temperature"]))

    @property
    def shot_variance(self) -> np.float32:
        """Prior variance of the single-shot part."""
        return np.float32(self._scale[3] ** 2)

    def base(self, x: Array) -> Array:
        """Logit of the average candidate: (N, D) → (N,)."""
        return (self._network("difficulty", x) + self._linear("difficulty_linear", x))[:, 0]

    def attention(self, x: Array, centroids: Array) -> Array:
        """How much each task has to do with each instruction: (N, D), (K, D) → (N, K), rows sum to 1."""
        return self.classifier(centroids).membership(x)

    def classifier(self, centroids: Array) -> TaskClassifier:
        """Tells tasks apart by nearness to their mean embeddings, (K, D)."""
        return TaskClassifier(centroids, self.temperature, np.zeros(len(centroids), np.float32))

    def cross_covariance(self, x: Array, points: EvidencePoints) -> Array:
        """Covariance of f between instructions and points of evidence: (N, D) → (N, E)."""
        ours = self.features(x, self.attention(x, points.centroids))
        return ours @ self.features(points.vectors, self.own_tasks(points)).T + self.nearness(x, points.vectors)

    def own_tasks(self, points: EvidencePoints) -> Array:
        """(E, K): a shot belongs half to its own task and half to the tasks that it resembles."""
        return 0.5 * points.membership + 0.5 * self.attention(points.vectors, points.centroids)

    def features(self, x: Array, tasks: Array) -> Array:
        """(N, R): features whose inner product is the kernel without nearness."""
        skills = SKILL_SCALE * self._linear("skills_linear", x) + self._network("skills", x)
        ones = np.ones((len(x), 1), dtype=np.float32)
        ability, skill, task, _ = self._scale
        scaled = [ability * ones, skill * skills / np.float32(math.sqrt(self.n_skills)), task * tasks]
        return np.concatenate(scaled, axis=1, dtype=np.float32)

    def nearness(self, x: Array, y: Array) -> Array:
        """The single-shot part of the kernel: (N, D), (E, D) → (N, E)."""
        return self.nearness_at(x @ y.T)

    def nearness_at(self, cosines: Array) -> Array:
        """The same from the cosines of x and y, (N, E)."""
        return np.asarray(self.shot_variance * np.exp((cosines - 1) / self._reach), dtype=np.float32)

    def _linear(self, name: str, x: Array) -> Array:
        return x @ self.tensors[f"{name}.weight"].T + self.tensors.get(f"{name}.bias", np.float32(0))

    def _network(self, name: str, x: Array) -> Array:
        return self._linear(f"{name}.3", _gelu(self._linear(f"{name}.0", x)))


def _gelu(x: Array) -> Array:
    return np.asarray(x * normal_cdf(x), dtype=np.float32)


@dataclass(frozen=True)
class Posterior:
    """What one candidate's evidence says.

    Attributes:
        weights: (E,); the posterior mean of f at x is ``cross_covariance(x) @ weights``.
        covariance: (R, R), of what the features count.
        variance: mean posterior variance of f over the points of evidence, single-shot part
            at its prior: how unsure f is at a typical instruction.
    """

    weights: Array
    covariance: Array
    variance: float


def posterior(
    features: Array, nearness: Array, offset: Array, outcomes: Array, counts: Array, *, shot_variance: float
) -> Posterior:
    """A candidate's posterior with its variance.

    Args:
        features: (E, R), of the points; their inner products are the covariance without single shots.
        nearness: (E, E), the single-shot part of the covariance.
        offset: (E,), b at the points.
        outcomes: (E,), in [0, 1].
        counts: (E,), how many answers each outcome stands for.
        shot_variance: prior variance of the single-shot part.
    """
    covariance: Array = features @ features.T + nearness
    weights = posterior_weights(covariance, offset, outcomes, counts)
    root, system = _curvature_and_system(covariance, offset, counts, covariance @ weights)
    # var = φ (I − Φᵀ R S⁻¹ R Φ) φᵀ, in the R dimensions of the features
    right = root[:, None] * features
    left = np.eye(features.shape[1], dtype=np.float32) - right.T @ np.linalg.solve(system, right)
    variance = np.einsum("er,rs,es->e", features, left, features, optimize=True).clip(min=0)
    return Posterior(weights, left, float(variance.mean() + shot_variance))


def posterior_weights(covariance: Array, offset: Array, outcomes: Array, counts: Array) -> Array:
    """Posterior mean weights, (E,), by Newton's method; arguments as of :func:`posterior`, ``covariance`` (E, E)."""
    f = np.zeros_like(offset)
    for _ in range(MAX_NEWTON_STEPS):
        p = _sigmoid(f + offset)
        root, system = _curvature_and_system(covariance, offset, counts, f)
        target = counts * np.maximum(p * (1 - p), MIN_CURVATURE) * f + counts * (outcomes - p)
        weights = target - root * np.linalg.solve(system, root * (covariance @ target))
        f, before = covariance @ weights, f
        if np.abs(f - before).max(initial=0) < CONVERGED:
            break
    return np.asarray(weights, dtype=np.float32)


def _curvature_and_system(covariance: Array, offset: Array, counts: Array, f: Array) -> tuple[Array, Array]:
    p = _sigmoid(f + offset)
    root = np.sqrt(counts * np.maximum(p * (1 - p), MIN_CURVATURE) + JITTER)  # (E,)
    system = root[:, None] * covariance * root[None, :]
    system[np.diag_indices_from(system)] += 1
    return root, system


def _sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)), dtype=np.float32)
