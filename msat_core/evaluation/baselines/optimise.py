"""Gradient descent shared by the baselines: AdamW on batches of rows, stopped on left-out rows."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

HELD_OUT = 0.15  # of the rows
LOOK_EVERY = 10  # steps between looks at the left-out rows
PATIENCE = 6  # looks without a new best
BATCH = 2048  # rows a step, at most


def known_cross_entropy(logits: Tensor, outcomes: Tensor) -> Tensor:
    """Mean cross-entropy over the outcomes that are known (not NaN)."""
    known = ~torch.isnan(outcomes)
    return binary_cross_entropy_with_logits(logits[known], outcomes[known])


def fit_with_early_stopping(
    module: nn.Module, loss: Callable[[Tensor], Tensor], n_rows: int, *, rate: float, decay: float, steps: int
) -> None:
    """Fit in place and leave the module, in evaluation mode, as it was best on the left-out rows.

    Args:
        module: whose parameters to fit.
        loss: mean loss over the rows at the given positions.
        n_rows: how many rows there are; drawn from torch's global generator, so seed that first.
        rate, decay: of AdamW.
        steps: at most.
    """
    order = torch.randperm(n_rows)
    n_held = int(HELD_OUT * n_rows)
    held, kept = (order[:n_held], order[n_held:]) if n_held else (order, order)
    optimiser = torch.optim.AdamW(module.parameters(), lr=rate, weight_decay=decay)
    best, best_loss, since = copy.deepcopy(module.state_dict()), float("inf"), 0
    for step in range(steps):
        module.train()
        optimiser.zero_grad()
        batch = kept if len(kept) <= BATCH else kept[torch.randint(len(kept), (BATCH,))]
        loss(batch).backward()
        optimiser.step()
        if (step + 1) % LOOK_EVERY:
            continue
        module.eval()
        with torch.no_grad():
            held_loss = float(loss(held))
        if held_loss < best_loss:
            best, best_loss, since = copy.deepcopy(module.state_dict()), held_loss, 0
        elif (since := since + 1) >= PATIENCE:
            break
    module.load_state_dict(best)
    module.eval()
