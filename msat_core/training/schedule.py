"""The learning rate over a run: up, then down to nothing."""

from __future__ import annotations

import torch
from torch.optim.lr_scheduler import OneCycleLR

WARM_UP = 0.1  # of the steps


def one_cycle(optimiser: torch.optim.Optimizer, peak: float | list[float], steps: int) -> OneCycleLR:
    """One cycle over the steps, for each group of parameters to its peak."""
    total = steps + 1
    # torch divides by zero where the rise would be exactly one step long.
    return OneCycleLR(optimiser, peak, total_steps=total, pct_start=2 / total if WARM_UP * total == 1 else WARM_UP)
