"""Losses on logits of M candidates for N instructions; unknown outcomes are NaN and count for nothing.

A run of several processes has the loss of one that sees all their rows: ``over`` is the mean of a number over the
processes, and what a process's rows count is divided by the mean of such counts, not by its own.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy
from torch.nn.functional import softplus

Over = Callable[[Tensor], Tensor]


def alone(count: Tensor) -> Tensor:
    """The mean over the processes where there is one."""
    return count


def mean_of(each: Tensor, counts: Tensor, over: Over = alone) -> Tensor:
    """The mean of some losses, each by what it counts, over all processes: (P,), (P,) → ()."""
    return (each * counts).sum() / over(counts.sum()).clamp(min=1e-9)


def pointwise_loss(logits: Tensor, outcomes: Tensor, weights: Tensor | None = None, *, over: Over = alone) -> Tensor:
    """Mean cross-entropy of all known outcomes, each by its weight: (M, N), (M, N), (M, N) → ()."""
    known = ~torch.isnan(outcomes)
    return _mean_cross_entropy(logits[known], outcomes[known], None if weights is None else weights[known], over)


def listwise_loss(logits: Tensor, outcomes: Tensor, weights: Tensor | None = None, *, over: Over = alone) -> Tensor:
    """Cross-entropy of the right instruction among the wrong ones of the same candidate (Model-SAT, AAAI 2025).

    Each right answer i of a column makes a group with all wrong ones of that column:
    −log(exp sᵢ / (exp sᵢ + Σⱼ exp sⱼ)). With one right answer among k this is the paper's loss; equal logits
    cost log k.

    Args:
        logits: (…, k, m), k instructions of m candidates.
        outcomes: the same shape; NaN counts for nothing.
        weights: the same shape, what each right answer counts.
        over: see the module.
    """
    right, wrong = outcomes > 0.5, outcomes <= 0.5  # NaN is neither
    against = logits.masked_fill(~wrong, float("-inf")).logsumexp(dim=-2, keepdim=True)
    decided = right & wrong.any(dim=-2, keepdim=True)
    each = softplus((against - logits)[decided])
    return mean_of(each, torch.ones_like(each) if weights is None else weights[decided], over)


def pairwise_loss(logits: Tensor, outcomes: Tensor, first: Tensor, second: Tensor, *, over: Over = alone) -> Tensor:
    """Mean cross-entropy of "which of the two was right, given that one was".

    P(first right | one right) = σ(logit of first − logit of second): what the instruction's
    difficulty adds to both cancels (Rasch's conditional likelihood), so only the differences that
    routing lives on are trained.

    Args:
        logits: (M, N).
        outcomes: (M, N).
        first, second: (P,), the candidates of each pair.
        over: see the module.
    """
    difference = logits[first] - logits[second]
    ahead = outcomes[first] - outcomes[second]
    decided = ahead.abs() > 0  # NaN compares false
    return _mean_cross_entropy(difference[decided], (ahead[decided] > 0).to(logits.dtype), None, over)


def _mean_cross_entropy(logits: Tensor, truth: Tensor, counts: Tensor | None, over: Over) -> Tensor:
    if counts is None and over is alone and len(truth):
        return cross_entropy(logits, truth)  # what mean_of gives, in one operation
    each = cross_entropy(logits, truth, reduction="none")
    return mean_of(each, torch.ones_like(each) if counts is None else counts, over)
