r"""Baselines that give every candidate a few numbers and every instruction as many, and take their product.

The instruction's side (a linear map of its embedding) is learnt from others where there are others. Then
the candidates' numbers alone are fitted to their table, by maximum a posteriori under a Gaussian fitted
to the others' numbers: so each of these methods serves a new candidate from its exam. Without others both
sides are learnt from the outcomes together.

The four differ in logit and loss:

==========  ==================================================  ============================================
factors     h(x)·e + d(x) + a                                   cross-entropy (EmbedLLM)
irt         softplus(h(x))·θ − b(x)                             cross-entropy (multidimensional IRT)
pairwise    h(x)·e + a, P(m beats m′) = σ(z_m − z_m′)           of who was right where one was (RouteLLM)
contrast    cos(h(x), e) / temperature                          right against all wrong (RouterDC)
==========  ==================================================  ============================================

The last two are ranks, not probabilities: a logistic curve over the logit, fitted to the table, makes
them comparable in calibration and changes no ranking.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, softplus

from msat_core.evaluation.baselines.base import Array, OutcomeTable, Predict
from msat_core.evaluation.baselines.optimise import fit_with_early_stopping, known_cross_entropy

RATE, DECAY, STEPS = 1e-2, 1e-2, 600  # of the instruction's side
ABILITY_STEPS = 60  # of L-BFGS, on the candidates' side
MIN_DEVIATION = 0.05  # of the Gaussian over candidates' numbers, in each of them
TEMPERATURE = 1.0  # of the contrast; 0.1 and 0.3 route new candidates worse


class Tower(nn.Module):
    """The instruction's side: (N, D) → d numbers and a difficulty.

    Args:
        width: D.
        n_factors: d.
    """

    def __init__(self, width: int, n_factors: int) -> None:
        super().__init__()
        self.factors = nn.Linear(width, n_factors)
        self.difficulty = nn.Linear(width, 1)
        nn.init.normal_(self.factors.weight, std=1.0)
        nn.init.zeros_(self.difficulty.weight)

    def factors_of(self, x: Tensor) -> Tensor:
        """(N, D) → (N, d)."""
        factors: Tensor = self.factors(x)
        return factors

    def hardness(self, x: Tensor) -> Tensor:
        """(N, D) → (N, 1)."""
        hardness: Tensor = self.difficulty(x)
        return hardness


class _Both(nn.Module):
    """The instruction's and the candidates' side, to be learnt together."""

    def __init__(self, width: int, n_factors: int, n_candidates: int) -> None:
        super().__init__()
        self.tower = Tower(width, n_factors)
        self.numbers = nn.Parameter(0.1 * torch.randn(n_candidates, n_factors + 1))


@dataclass(frozen=True)
class Family:
    """One of the four.

    Attributes:
        n_factors: d.
        logit: tower, embeddings (N, D), candidates' numbers (M, d + 1) → (N, M).
        loss: logits, outcomes, both (N, M) → mean over what was decided.
        probability: whether the sigmoid of a logit is one.
    """

    n_factors: int
    logit: Callable[[Tower, Tensor, Tensor], Tensor]
    loss: Callable[[Tensor, Tensor], Tensor]
    probability: bool = True


def bradley_terry_loss(logits: Tensor, outcomes: Tensor) -> Tensor:
    """Bradley–Terry cross-entropy over all pairs of which one did better: (N, M), (N, M) → ()."""
    first, second = torch.triu_indices(logits.shape[1], logits.shape[1], offset=1)
    ahead = torch.nan_to_num(outcomes[:, first] - outcomes[:, second])
    decided = ahead.abs()
    losses = softplus(-ahead.sign() * (logits[:, first] - logits[:, second]))
    return (decided * losses).sum() / decided.sum().clamp_min(1)


def contrastive_loss(logits: Tensor, outcomes: Tensor) -> Tensor:
    """−log of each right candidate's share against itself and all wrong ones (RouterDC's first loss)."""
    right, wrong = outcomes > 0.5, outcomes <= 0.5  # NaN is neither
    against = torch.logsumexp(logits.masked_fill(~wrong, -1e9), dim=1, keepdim=True)
    return softplus(against - logits)[right].sum() / right.sum().clamp_min(1)


def _factors(tower: Tower, x: Tensor, numbers: Tensor) -> Tensor:
    return _utility(tower, x, numbers) + tower.hardness(x)


def _irt(tower: Tower, x: Tensor, numbers: Tensor) -> Tensor:
    return softplus(tower.factors_of(x)) @ numbers[:, :-1].T - tower.hardness(x)


def _utility(tower: Tower, x: Tensor, numbers: Tensor) -> Tensor:
    return tower.factors_of(x) @ numbers[:, :-1].T + numbers[:, -1]


def _cosine(tower: Tower, x: Tensor, numbers: Tensor) -> Tensor:
    return normalize(tower.factors_of(x), dim=1) @ normalize(numbers[:, :-1], dim=1).T / TEMPERATURE


FACTORS = Family(8, _factors, known_cross_entropy)
IRT = Family(4, _irt, known_cross_entropy)
PAIRWISE = Family(8, _utility, bradley_terry_loss, probability=False)
CONTRAST = Family(16, _cosine, contrastive_loss, probability=False)


def fit_family(family: Family, table: OutcomeTable, others: OutcomeTable | None, seed: int) -> Predict:
    """See the module."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        tower, numbers = _learn_both(family, table if others is None else others)
    if others is not None:
        numbers = _abilities(family, tower, table, numbers)
    curve = None if family.probability else _logistic_curve(_logits(family, tower, numbers, table.vectors), table)

    def predict(vectors: Array) -> Array:
        logits = _logits(family, tower, numbers, vectors)
        slope, intercept = curve or (1.0, 0.0)
        return np.asarray(1 / (1 + np.exp(-np.clip(slope * logits + intercept, -50, 50))))

    return predict


def _learn_both(family: Family, table: OutcomeTable) -> tuple[Tower, Tensor]:
    x, outcomes = _tensors(table)
    module = _Both(x.shape[1], family.n_factors, outcomes.shape[1])

    def loss(rows: Tensor) -> Tensor:
        return family.loss(family.logit(module.tower, x[rows], module.numbers), outcomes[rows])

    fit_with_early_stopping(module, loss, len(x), rate=RATE, decay=DECAY, steps=STEPS)
    return module.tower.requires_grad_(False), module.numbers.detach()


def _abilities(family: Family, tower: Tower, table: OutcomeTable, abilities: Tensor) -> Tensor:
    """The candidates' numbers, (M, d + 1), by maximum a posteriori; ``abilities`` are the others' numbers."""
    x, outcomes = _tensors(table)
    mean, deviation = abilities.mean(dim=0), abilities.std(dim=0, correction=0).clamp_min(MIN_DEVIATION)
    # One candidate's outcomes count once each: the loss is a mean over known outcomes.
    n_known = (~torch.isnan(outcomes)).sum()
    standard = torch.zeros(outcomes.shape[1], len(mean), requires_grad=True)
    optimiser = torch.optim.LBFGS([standard], max_iter=ABILITY_STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        fit = family.loss(family.logit(tower, x, mean + deviation * standard), outcomes)
        total = fit + 0.5 * standard.square().sum() / n_known
        total.backward()
        return total

    optimiser.step(closure)
    return (mean + deviation * standard).detach()


def _logits(family: Family, tower: Tower, numbers: Tensor, vectors: Array) -> Array:
    with torch.inference_mode():
        logits = family.logit(tower, torch.from_numpy(np.asarray(vectors, dtype=np.float32)), numbers)
    return np.asarray(logits.numpy(), dtype=float)


def _logistic_curve(logits: Array, table: OutcomeTable) -> tuple[float, float]:
    """Slope and intercept of P(right) over the logit, on the outcomes (Platt 1999); a falling curve is flat."""
    from sklearn.linear_model import LogisticRegression

    known = ~np.isnan(table.outcomes)
    right = table.outcomes[known] > 0.5
    if right.all() or not right.any():
        return 1.0, 0.0
    fit = LogisticRegression(C=1e6).fit(logits[known][:, None], right)
    return max(float(fit.coef_[0, 0]), 1e-6), float(fit.intercept_[0])


def _tensors(table: OutcomeTable) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(table.vectors.astype(np.float32)), torch.from_numpy(table.outcomes.astype(np.float32))
