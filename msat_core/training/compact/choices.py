"""What outcomes teach about choosing: pairs and pools of candidates, drawn anew for each instruction.

Only candidates whose outcomes are known meet each other: over many benchmarks most pairs of candidates never answered
the same question.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from msat_core.training.losses import Over, alone, pairwise_loss, regret_loss

POOLS = (3, 8)  # candidates of a pool, from and to; the zoos that users have
TEMPERATURE = 0.5  # of a choice, in logits; chosen


def choice_losses(
    logits: Tensor, outcomes: Tensor, draws: NDArray[np.floating], pool: int, *, over: Over = alone
) -> tuple[Tensor, Tensor]:
    """The pairwise loss of candidates that meet at random, and the regret of choosing in a pool of them.

    Args:
        logits: (M, N).
        outcomes: (M, N), NaN where unknown.
        draws: (M, N), random numbers in [0, 1): who meets whom, and who is in the pool.
        pool: candidates in each instruction's pool, where so many are known.
        over: see :mod:`msat_core.training.losses`.
    """
    order = (torch.from_numpy(draws).to(outcomes.device) + torch.isnan(outcomes)).argsort(dim=0)  # the known ones first
    logits, outcomes = logits.gather(0, order), outcomes.gather(0, order)
    first = torch.arange(0, len(outcomes) - 1, 2, device=outcomes.device)
    pairs = pairwise_loss(logits, outcomes, first, first + 1, over=over)
    return pairs, regret_loss(logits[:pool], outcomes[:pool], TEMPERATURE, over=over)


def pool_size(rng: np.random.Generator) -> int:
    """How many candidates the next pools have."""
    return int(rng.integers(POOLS[0], POOLS[1] + 1))
