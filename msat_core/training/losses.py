"""Losses on logits of M candidates for N instructions; unknown outcomes are NaN and count for nothing."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy


def pointwise_loss(logits: Tensor, outcomes: Tensor) -> Tensor:
    """Mean cross-entropy of all known outcomes: (M, N), (M, N) → ()."""
    known = ~torch.isnan(outcomes)
    return cross_entropy(logits[known], outcomes[known])


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
