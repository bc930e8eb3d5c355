"""Which parameters a stage trains, and how fast."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from msat_core.errors import ConfigurationError
from msat_core.scoring.model_sat.module import ModelSAT
from msat_core.training.model_sat.settings import StageSettings

CONNECTOR = ("connector.", "head.")  # what the paper's first stage trains


@dataclass(frozen=True)
class Position:
    """Where a run stands: ``stage`` counts from 0, ``within`` is the step inside it."""

    stage: int
    within: int
    settings: StageSettings


def position_of(step: int, stages: Sequence[StageSettings]) -> Position:
    """The stage that an optimiser step, counted from 0 over the whole run, belongs to."""
    for number, stage in enumerate(stages):
        if step < stage.steps:
            return Position(number, step, stage)
        step -= stage.steps
    raise ConfigurationError(f"The run ends {step + 1} steps before that: it has {sum(s.steps for s in stages)}.")


def tuned_parameters(module: ModelSAT) -> dict[str, nn.Parameter]:
    """What may be trained at all: everything but frozen backbones and weights under adapters."""
    return {name: p for name, p in module.named_parameters() if p.requires_grad}


def trained_names(tuned: Sequence[str], train: str) -> list[str]:
    """Which of the tuned parameters a stage trains."""
    names = [name for name in tuned if train == "all" or name.startswith(CONNECTOR)]
    if not names:
        raise ConfigurationError(f"A stage that trains {train!r} has nothing to train: leave it out (steps: 0).")
    return names


def make_optimiser(tuned: dict[str, nn.Parameter], weight_decay: float) -> torch.optim.AdamW:
    """One AdamW for the whole run: first ψ, connector and head, then φ, each with and without weight decay.

    A stage turns parameters off by ``requires_grad``: AdamW passes over those without a gradient.
    """
    groups = []
    for of_llm in (False, True):
        members = [p for name, p in tuned.items() if name.startswith("llm.") == of_llm]
        for parameters, decay in (
            ([p for p in members if p.ndim > 1], weight_decay),
            ([p for p in members if p.ndim <= 1], 0.0),
        ):
            if parameters:
                groups.append({"params": parameters, "weight_decay": decay, "of_llm": of_llm})
    return torch.optim.AdamW(groups, lr=1e-4)


def set_rates(optimiser: torch.optim.Optimizer, position: Position) -> None:
    """This step's learning rates: a linear rise, then a cosine to zero."""
    stage = position.settings
    rising = max(1, round(stage.warm_up * stage.steps))
    if position.within < rising:
        share = (position.within + 1) / rising
    else:
        share = 0.5 * (1 + math.cos(math.pi * (position.within - rising) / max(1, stage.steps - rising)))
    for group in optimiser.param_groups:
        group["lr"] = share * (stage.learning_rate if group["of_llm"] else stage.connector_learning_rate)
