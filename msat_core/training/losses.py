"""Losses on logits of M candidates for N instructions; unknown outcomes are NaN and count for nothing."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy
from torch.nn.functional import softplus


def pointwise_loss(logits: Tensor, outcomes: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean cross-entropy of all known outcomes, each by its weight: (M, N), (M, N), (M, N) → ()."""
    known = ~torch.isnan(outcomes)
    if weights is None:
        return cross_entropy(logits[known], outcomes[known])
    each = cross_entropy(logits[known], outcomes[known], reduction="none")
    return (each * weights[known]).sum() / weights[known].sum().clamp(min=1e-9)


def listwise_loss(logits: Tensor, outcomes: Tensor, weights: Tensor | None = None) -> Tensor:
    """Cross-entropy of the right instruction among the wrong ones of the same candidate (Model-SAT, AAAI 2025).

    Each right answer i of a column makes a group with all wrong ones of that column:
    −log(exp sᵢ / (exp sᵢ + Σⱼ exp sⱼ)). With one right answer among k this is the paper's loss; equal logits
    cost log k.

    Args:
        logits: (…, k, m), k instructions of m candidates.
        outcomes: the same shape; NaN counts for nothing.
        weights: the same shape, what each right answer counts.
    """
    right, wrong = outcomes > 0.5, outcomes <= 0.5  # NaN is neither
    against = logits.masked_fill(~wrong, float("-inf")).logsumexp(dim=-2, keepdim=True)
    decided = right & wrong.any(dim=-2, keepdim=True)
    if not bool(decided.any()):
        return logits.sum() * 0
    each = softplus((against - logits)[decided])
    counts = torch.ones_like(each) if weights is None else weights[decided]
    return (each * counts).sum() / counts.sum().clamp(min=1e-9)


def pairwise_loss(logits: Tensor, outcomes: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Mean cross-entropy of "which of the two was right, given that one was".

    P(first right | one right) = σ(logit of first − logit of second): what the instruction's
    difficulty adds to both cancels (Rasch's conditional likelihood), so only the differences that
    routing lives on are trained.

    Args:
        logits: (M, N).
        outcomes: (M, N).
        first, second: (P,), the candidates of each pair.
    """
    difference = logits[first] - logits[second]
    ahead = outcomes[first] - outcomes[second]
    decided = ahead.abs() > 0  # NaN compares false
    if not bool(decided.any()):
        return logits.sum() * 0
    return cross_entropy(difference[decided], (ahead[decided] > 0).to(logits.dtype))
