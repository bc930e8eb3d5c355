"""The compact scorer's kernel as it is learnt.

It is :class:`msat_core.scoring.compact.kernel.CapabilityKernel` on torch, with gradients, for many candidates at once.

Shapes: N instructions, M candidates, E points of evidence, K tasks, D embedding width, F features.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from msat_core.scoring.compact import kernel as serving
from msat_core.scoring.compact.kernel import JITTER, MIN_CURVATURE, SKILL_SCALE

NEWTON_STEPS = 3


@dataclass(frozen=True)
class EvidencePoints:
    """Where an exam looked.

    Attributes:
        vectors: (E, D), unit embeddings of the shots (or of task descriptions).
        membership: (E, K), which task each point belongs to, rows one-hot.
        centroids: (K, D), unit mean embedding of each task.
    """

    vectors: Tensor
    membership: Tensor
    centroids: Tensor


class TrainableKernel(nn.Module):
    """The prior: difficulty b and kernel k, learnt from many candidates.

    Args:
        dim: D, width of the embeddings.
        hidden: width of the two small networks.
        n_skills: F, learnt skill features.
        dropout: in the networks' hidden layer.
    """

    def __init__(self, dim: int, *, hidden: int = 96, n_skills: int = 12, dropout: float = 0.1) -> None:
        super().__init__()
        self.difficulty = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, 1))
        self.difficulty_linear = nn.Linear(dim, 1)
        self.skills = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, n_skills))
        self.skills_linear = nn.Linear(dim, n_skills, bias=False)
        nn.init.normal_(self.skills_linear.weight, std=dim**-0.5)
        # log standard deviations of: ability, skills, tasks, single shots
        self.log_scale = nn.Parameter(torch.tensor([0.0, -0.5, -0.7, -0.7]))
        self.log_reach = nn.Parameter(torch.tensor(math.log(0.25)))  # of a shot, in units of 1 − cosine
        self.log_temperature = nn.Parameter(torch.tensor(math.log(0.06)))  # of the attention over tasks

    def frozen(self) -> serving.CapabilityKernel:
        """The kernel as it serves."""
        tensors = {name: tensor.detach().cpu().numpy().copy() for name, tensor in self.state_dict().items()}
        return serving.CapabilityKernel(tensors)

    def base(self, x: Tensor) -> Tensor:
        """Logit of the average candidate: (N, D) → (N,)."""
        logit: Tensor = self.difficulty(x) + self.difficulty_linear(x)  # (N, 1)
        return logit.squeeze(-1)

    def attention(self, x: Tensor, centroids: Tensor) -> Tensor:
        """How much each task has to do with each instruction: (N, D), (K, D) → (N, K), rows sum to 1."""
        return torch.softmax(x @ centroids.T / self.log_temperature.exp(), dim=-1)

    def prior_covariance(self, points: EvidencePoints) -> tuple[Tensor, Tensor]:
        """Covariance of f between points of evidence: of all four parts, and of all but single shots; (E, E) each."""
        features = self.features(points.vectors, self.own_tasks(points))
        broad = features @ features.T
        return broad + self.nearness(points.vectors, points.vectors), broad

    def cross_covariance(self, x: Tensor, points: EvidencePoints) -> Tensor:
        """Covariance of f between instructions and points of evidence: (N, D) → (N, E)."""
        ours = self.features(x, self.attention(x, points.centroids))
        theirs = self.features(points.vectors, self.own_tasks(points))
        return ours @ theirs.T + self.nearness(x, points.vectors)

    def own_tasks(self, points: EvidencePoints) -> Tensor:
        """(E, K): a shot belongs half to its own task and half to the tasks that it resembles."""
        return 0.5 * points.membership + 0.5 * self.attention(points.vectors, points.centroids)

    def features(self, x: Tensor, tasks: Tensor) -> Tensor:
        """(N, 1 + F + K): features whose inner product is the kernel without nearness."""
        scale = self.log_scale.exp()
        skills = SKILL_SCALE * self.skills_linear(x) + self.skills(x)
        ones = torch.ones(len(x), 1)
        return torch.cat([scale[0] * ones, scale[1] * skills / math.sqrt(skills.shape[1]), scale[2] * tasks], dim=1)

    def nearness(self, x: Tensor, y: Tensor) -> Tensor:
        """The single-shot part of the kernel: (N, D), (E, D) → (N, E)."""
        return self.log_scale[3].exp() ** 2 * torch.exp((x @ y.T - 1) / self.log_reach.exp())


@dataclass(frozen=True)
class Posterior:
    """What M candidates' evidence says.

    Attributes:
        weights: (M, E); the posterior mean of f at x is ``cross_covariance(x) @ weights.T``.
        variance: (M,), mean posterior variance of f over the points of evidence, single-shot part
            at its prior: how unsure f is at a typical instruction.
    """

    weights: Tensor
    variance: Tensor


def posterior_weights(covariance: Tensor, offset: Tensor, outcomes: Tensor, counts: Tensor) -> Tensor:
    """Posterior mean weights, differentiable in the covariance and the offset.

    The iterations run without gradient; at the fixed point the derivative of one more Newton step
    is the whole derivative.

    Args:
        covariance: (E, E).
        offset: (E,), b at the points.
        outcomes: (M, E), in [0, 1]; anything where ``counts`` is 0.
        counts: (M, E), how many answers each outcome stands for; 0 where unknown.

    Returns:
        (M, E).
    """
    f = torch.zeros_like(outcomes)
    with torch.no_grad():
        for _ in range(NEWTON_STEPS):
            f = _newton_step(covariance, offset, outcomes, counts, f) @ covariance
    return _newton_step(covariance, offset, outcomes, counts, f)


def posterior(
    covariance: Tensor, broad: Tensor, offset: Tensor, outcomes: Tensor, counts: Tensor, shot_variance: Tensor
) -> Posterior:
    """Posterior of M candidates with its variance.

    Args:
        covariance, offset, outcomes, counts: as in :func:`posterior_weights`.
        broad: (E, E), the covariance without single shots.
        shot_variance: (), prior variance of the single-shot part.
    """
    weights = posterior_weights(covariance, offset, outcomes, counts)
    root, factor = _curvature_and_factor(covariance, offset, counts, weights @ covariance)
    explained = torch.linalg.solve_triangular(factor, root[:, :, None] * broad[None], upper=False)  # (M, E, E)
    left = (torch.diagonal(broad)[None] - explained.square().sum(dim=1)).clamp_min(0)  # (M, E)
    return Posterior(weights, left.mean(dim=1) + shot_variance)


def _newton_step(covariance: Tensor, offset: Tensor, outcomes: Tensor, counts: Tensor, f: Tensor) -> Tensor:
    p = torch.sigmoid(f + offset)
    curvature = counts * (p * (1 - p)).clamp_min(MIN_CURVATURE)
    target = curvature * f + counts * (outcomes - p)  # (M, E)
    root, factor = _curvature_and_factor(covariance, offset, counts, f)
    right = (root * (target @ covariance)).unsqueeze(-1)
    return target - root * torch.cholesky_solve(right, factor).squeeze(-1)


def _curvature_and_factor(covariance: Tensor, offset: Tensor, counts: Tensor, f: Tensor) -> tuple[Tensor, Tensor]:
    p = torch.sigmoid(f + offset)
    root = (counts * (p * (1 - p)).clamp_min(MIN_CURVATURE) + JITTER).sqrt()  # (M, E)
    system = torch.eye(len(covariance)) + root[:, :, None] * covariance * root[:, None, :]
    return root, torch.linalg.cholesky(system)
