"""A run on several processes, as ``accelerate launch`` or ``torchrun`` start them; without those, on this one alone."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from msat_core.training.losses import Over, alone

if TYPE_CHECKING:
    from accelerate import Accelerator


def is_main() -> bool:
    """Whether this process is the one that saves and speaks."""
    return int(os.environ.get("RANK", "0")) == 0


def over_all(accelerator: Accelerator) -> Over:
    """The mean of a number over an accelerator's processes, as the losses take it."""
    if accelerator.num_processes == 1:
        return alone

    def mean(value: Tensor) -> Tensor:
        reduced: Tensor = accelerator.reduce(value, "mean")
        return reduced

    return mean


class Processes:
    """The processes that train one small network on shares of the same batches.

    Args:
        device: where one process alone computes; of several on GPUs, each has its own.

    Attributes:
        count, index: how many there are, and which this is.
        device: where this one computes.
        over: the mean of a number over all of them, as the losses take it.
    """

    def __init__(self, device: torch.device) -> None:
        self.count, self.index = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
        self.device = device
        self.over: Over = alone
        if self.count > 1:
            from accelerate import Accelerator

            accelerator = Accelerator(cpu=device.type == "cpu")
            self.device, self.over = accelerator.device, over_all(accelerator)

    def share(self, rows: NDArray[np.intp]) -> NDArray[np.intp]:
        """This process's rows of a batch: every so many-th."""
        return rows[self.index :: self.count]

    def seed(self, seed: int) -> None:
        """Draw otherwise in each process from here on (dropout); one process alone goes on as it was."""
        if self.count > 1:
            torch.manual_seed(seed + 1 + self.index)

    def average_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Give every process the mean of all processes' gradients."""
        if self.count == 1:
            return
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        mean = self.over(torch.cat([gradient.flatten() for gradient in gradients]))
        for parameter, part in zip(parameters, torch.split(mean, [p.numel() for p in parameters]), strict=True):
            parameter.grad = part.view_as(parameter).clone()
