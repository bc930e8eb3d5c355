"""What the marks amount to: who is best alone, whether routing pays, what it saves, and what can be promised.

Three rules keep it honest. Every figure of routing is got by leaving questions out: a fifth at a time is routed by a
router that knows the other four. Leaving the best candidate needs evidence. The highest of several noisy scores is
somewhat ahead by chance alone, so routing is advised only where the scorer, knowing every mark, believes in a lead that
chance does not give, on average over the questions on which it leaves the best, and the questions left out do not
contradict it; or where those show that routing is better; or that as good answers are got for less. Else the result is
to use the best candidate alone. And the promise rests on a part of the questions that is in no exam of the router it
speaks of.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from msat_core.evaluation.cost import cost_range
from msat_core.evaluation.guarantee import Guarantee, TargetRouting
from msat_core.evaluation.off_policy import Estimate
from msat_core.profiles import Interval, wilson_interval
from msat_core.trial.promise import Promise, promise
from msat_core.trial.table import CONFIDENCE, Array, TrialTable

MIN_LEAD = 0.06  # believed, in score, on average where routing leaves the best candidate; chosen: LOG, "The trial"
MAX_LOSS = 0.01  # of accuracy that must be ruled out before saving money is advised; chosen
N_RESAMPLES = 2000  # of the bootstrap, shared by all ways of routing; chosen
N_RATES = 5  # exchange rates shown
WEIGHTS = np.geomspace(1e-3, 1e2, 101)  # of money, tried for equal quality; in units of the range of mean costs
PER_CALLS = 1000  # calls that prices are told for


@dataclass(frozen=True)
class Alone:
    """One candidate used for everything.

    Attributes:
        name: whose.
        accuracy: mean mark over all questions that every candidate has a mark of.
        interval: of it, 95%.
        usd_per_1000: what 1,000 such questions cost; None where its price is unknown.
    """

    name: str
    accuracy: float
    interval: Interval
    usd_per_1000: float | None


@dataclass(frozen=True)
class Routed:
    """One way of routing, measured on questions that the router did not know.

    Attributes:
        label: what it does, in words.
        objective: of the policy.
        knob: the policy's weight or target; None where it has none.
        accuracy: of the chosen candidates.
        gain: accuracy over the best candidate alone, on the same questions.
        usd_per_1000: None where a price is unknown.
        saving: share of the best candidate's cost that is saved; None where a price is unknown.
        shares: how often each candidate is chosen.
    """

    label: str
    objective: str
    knob: float | None
    accuracy: float
    gain: Estimate
    usd_per_1000: float | None
    saving: Estimate | None
    shares: tuple[float, ...]


@dataclass(frozen=True)
class Verdict:
    """See the module.

    Attributes:
        alone: of each candidate, in order.
        best: position of the best of them.
        believed_gain: of routing for quality over the best, by every mark.
        believed_lead: the same on the questions where routing leaves the best; 0 where it never does.
        quality: routing to the highest score.
        saving: the cheapest routing that is believed to be as good as the best; None where a price is unknown.
        rates: routing at several exchange rates, dearest first; empty where a price is unknown.
        advised: the way of routing that is advised; None where the best candidate alone is.
        promise: what is proven of what is advised, or of the threshold for a stated target.
        guarantee: of that threshold; None without a target, or if none reaches it.
        guaranteed: routing by that threshold.
    """

    alone: tuple[Alone, ...]
    best: int
    believed_gain: float
    believed_lead: float
    quality: Routed
    saving: Routed | None
    rates: tuple[Routed, ...]
    advised: Routed | None
    promise: Promise
    guarantee: Guarantee | None
    guaranteed: Routed | None

    @property
    def use_alone(self) -> int | None:
        """Position of the candidate to use for everything; None where routing pays."""
        return self.best if self.advised is None else None


def verdict_of(table: TrialTable, *, target: float | None = None, seed: int = 0) -> Verdict:
    """Weigh what was seen.

    Args:
        table: every mark, cost and score.
        target: the accuracy that shall be guaranteed; None where none is asked for.
        seed: of the resamples behind intervals.
    """
    alone = tuple(_alone(table, m) for m in range(len(table.names)))
    best = max(range(len(alone)), key=lambda m: (alone[m].accuracy, -_usd_or_inf(alone[m]), -m))
    sure = table.highest(table.informed)
    leads = np.take_along_axis(table.informed, sure[:, None], axis=1)[:, 0] - table.informed[:, best]
    measured = _Measured(table, best, np.random.default_rng(seed))
    quality = measured.routed("the highest score", "quality", None, table.highest(table.scores))
    saving: Routed | None = None
    rates: tuple[Routed, ...] = ()
    if not np.isnan(table.near_usd).any():
        weight = _equal_quality(table, best)
        saving = measured.at_rate(weight, "as good as the best alone, for less")
        rates = tuple(measured.at_rate(*rate) for rate in exchange_rates(table.near_usd).items())
    lead = float(leads[sure != best].mean()) if (sure != best).any() else 0.0
    advised = quality if _pays(quality, lead) else saving if saving is not None and _saves(saving) else None
    proven, guarantee = promise(
        table, best if advised is None else None, None if advised is None else advised.knob, target
    )
    guaranteed = None
    if guarantee is not None:
        label = f"the guaranteed threshold, {guarantee.threshold:g}"
        priced = TargetRouting(table.scores, table.expected_usd)  # the policy never asks whose price is unknown
        guaranteed = measured.routed(label, "target", guarantee.threshold, priced.choose(guarantee.threshold))
    return Verdict(
        alone, best, float(leads.mean()), lead, quality, saving, rates, advised, proven, guarantee, guaranteed
    )


def _usd_or_inf(alone: Alone) -> float:
    return np.inf if alone.usd_per_1000 is None else alone.usd_per_1000


def _pays(quality: Routed, believed_lead: float) -> bool:
    """Whether routing for quality is better than the best alone: shown, or believed and not contradicted."""
    return quality.gain.low > 0 or (believed_lead >= MIN_LEAD and quality.gain.high > 0)


def _saves(saving: Routed) -> bool:
    """Whether as good answers are got for less than the best alone costs."""
    return saving.saving is not None and saving.saving.low > 0 and saving.gain.low >= -MAX_LOSS


def _alone(table: TrialTable, m: int) -> Alone:
    outcomes, usd = table.outcomes[:, m], table.usd[:, m]
    cost = None if np.isnan(usd).any() else float(usd.mean()) * PER_CALLS
    return Alone(table.names[m], float(outcomes.mean()), wilson_interval(float(outcomes.sum()), len(outcomes)), cost)


def _equal_quality(table: TrialTable, best: int) -> float:
    """The greatest weight of money at which the scorer, knowing every mark, expects no less than of the best alone.

    Of all ways of choosing that expect so much, those that weigh score against cost cost least (Lagrange).
    """
    scores, enough = table.informed, float(table.informed[:, best].mean())
    weights = WEIGHTS / (cost_range(table.near_usd) or 1.0)
    rows = np.arange(len(scores))
    good_weights = [w for w in weights.tolist() if scores[rows, table.by_value(scores, w)].mean() >= enough]
    return float(max(good_weights, default=weights[0]))


def exchange_rates(usd: Array) -> dict[float, str]:
    """Weights of money from "only quality counts" to "only money does", for these costs (N, M), and each in words."""
    usd_range = cost_range(usd)
    weights = [] if usd_range <= 0 else (np.geomspace(0.01, 1.0, N_RATES) / usd_range).tolist()
    return {w: f"one point of accuracy is worth {PER_CALLS * 0.01 / w:.2g} USD per 1,000 calls" for w in weights}


class _Measured:
    """Ways of routing, all measured on the same resamples of the questions."""

    def __init__(self, table: TrialTable, best: int, rng: np.random.Generator) -> None:
        self._table, self._best = table, best
        n = len(table.outcomes)
        self._draws = rng.integers(0, n, (N_RESAMPLES, n))

    def routed(self, label: str, objective: str, knob: float | None, chosen: NDArray[np.intp]) -> Routed:
        """Measure choices, (N,)."""
        table, rows = self._table, np.arange(len(chosen))
        outcomes, usd = table.outcomes[rows, chosen], table.usd[rows, chosen]
        alone_outcomes, alone_usd = table.outcomes[:, self._best], table.usd[:, self._best]
        comparable = not (np.isnan(usd).any() or np.isnan(alone_usd).any()) and float(alone_usd.sum()) > 0
        gains = outcomes - alone_outcomes
        saving = None
        if comparable:
            resampled = 1 - usd[self._draws].sum(axis=1) / alone_usd[self._draws].sum(axis=1)
            saving = _interval(float(1 - usd.sum() / alone_usd.sum()), resampled)
        return Routed(
            label,
            objective,
            knob,
            float(outcomes.mean()),
            _interval(float(gains.mean()), gains[self._draws].mean(axis=1)),
            None if np.isnan(usd).any() else float(usd.mean()) * PER_CALLS,
            saving,
            tuple(float((chosen == m).mean()) for m in range(len(table.names))),
        )

    def at_rate(self, weight: float, label: str) -> Routed:
        """Measure routing that gives up score to save money."""
        return self.routed(label, "value", weight, self._table.by_value(self._table.scores, weight))


def _interval(value: float, resampled: Array) -> Estimate:
    low, high = np.quantile(resampled, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Estimate(value, float(low), float(high))
