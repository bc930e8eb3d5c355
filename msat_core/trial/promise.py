"""What can be promised of what a trial advises, by the questions that are in no exam of whom it speaks."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from msat_core.errors import ConfigurationError
from msat_core.evaluation.guarantee import Guarantee, below_target_p_value, calibrate_target
from msat_core.trial.table import CONFIDENCE, Array, TrialTable


@dataclass(frozen=True)
class Promise:
    """What can be promised on further questions of the same kind.

    Attributes:
        accuracy: at least so many are right on average, at this confidence.
        confidence: shared among everything that could have been chosen by looking at these questions.
        n_questions: that prove it: of the calibration part, and in no exam.
        of: whom it speaks of, in words.
        target: the accuracy that was asked for; None where none was.
        threshold: that reaches the target at this confidence; None without a target, or where none does.
    """

    accuracy: float
    confidence: float
    n_questions: int
    of: str = ""
    target: float | None = None
    threshold: float | None = None


def promise(
    table: TrialTable, alone: int | None, weight: float | None, target: float | None
) -> tuple[Promise, Guarantee | None]:
    """What the calibration part proves of a candidate alone, or of the router that knows the exam part.

    Args:
        table: every mark, cost and score.
        alone: position of the candidate that is advised for everything; None where routing is.
        weight: of money, where the routing that is advised weighs it.
        target: the accuracy that shall be guaranteed; None where none is asked for.
    """
    rows = table.calibration
    outcomes = table.outcomes[rows]
    costs = table.expected_usd[rows]  # of whom no price is known, the policy never asks
    highest, positions = table.highest(table.apart)[rows], np.arange(len(rows))
    if target is not None:
        try:
            guarantee = calibrate_target(table.apart[rows], outcomes, costs, target=target, confidence=CONFIDENCE)
        except ConfigurationError:
            proven = promised(outcomes[positions, highest])
            return replace(proven, of="the highest score", target=target), None
        return Promise(target, CONFIDENCE, len(rows), "routing by it", target, guarantee.threshold), guarantee
    # Whoever is advised was chosen by looking at these questions too: confidence is shared among all there was.
    n_choices = len(table.names) + 2
    if alone is not None:
        proven = promised(outcomes[:, alone], n_choices=n_choices)
        return replace(proven, of=f"{table.names[alone]} alone"), None
    chosen = highest if weight is None else table.by_value(table.apart, weight)[rows]
    proven = promised(outcomes[positions, chosen], n_choices=n_choices)
    return replace(proven, of="a router that knows the exam part alone"), None


def promised(outcomes: Array, *, n_choices: int = 1, confidence: float = CONFIDENCE) -> Promise:
    """The highest accuracy that these (K,) outcomes prove, whichever of some choices was made by looking at them."""
    if not len(outcomes):
        return Promise(0.0, confidence, 0)
    alpha = (1 - confidence) / n_choices
    low, high = 0.0, float(outcomes.mean())
    for _ in range(30):
        middle = (low + high) / 2
        if 0 < middle < 1 and below_target_p_value(outcomes, middle) <= alpha:
            low = middle
        else:
            high = middle
    return Promise(low, confidence, len(outcomes))
