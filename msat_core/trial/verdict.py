"""What the marks amount to: who is best alone, whether routing pays, what it saves, and what can be promised.

Three rules keep it honest. Every figure of routing is got by leaving questions out: a fifth at a time is routed by a
router that knows the other four. Leaving the best candidate needs evidence: routing is advised only where the scorer,
knowing every mark, believes that its choices are better than the best candidate's answers, or where as good answers
are got for less with 95% confidence; else the result is to use that candidate alone. And the promise rests on a part
of the questions that is in no exam of the router it speaks of.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from msat_core.errors import ConfigurationError
from msat_core.evaluation.guarantee import THRESHOLDS, Guarantee, TargetRouting, below_target_p_value, calibrate_target
from msat_core.evaluation.off_policy import Estimate
from msat_core.profiles import Interval, wilson_interval

MIN_GAIN = 0.0005  # believed gain in accuracy from which routing is advised; measured: LOG, "The trial"
CONFIDENCE = 0.95
N_RESAMPLES = 2000
N_RATES = 5  # exchange rates shown
PER_CALLS = 1000
NEVER = 2.0  # a threshold that no score reaches: the highest score is chosen

Array = NDArray[np.floating]


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


@dataclass(frozen=True)
class Judgement:
    """See the module.

    Attributes:
        alone: of each candidate, in order.
        best: position of the best of them.
        believed_gain: of routing for quality over the best, by every mark.
        quality: routing to the highest score.
        saving: the cheapest routing that is believed to be as good as the best; None where a price is unknown.
        rates: routing at several exchange rates, dearest first; empty where a price is unknown.
        use_alone: position of the candidate to use for everything; None where routing pays.
        promise: what is proven of what is advised, or of the threshold for a stated target.
        guarantee: of that threshold; None without a target, or if none reaches it.
    """

    alone: tuple[Alone, ...]
    best: int
    believed_gain: float
    quality: Routed
    saving: Routed | None
    rates: tuple[Routed, ...]
    use_alone: int | None
    promise: Promise
    guarantee: Guarantee | None

    @property
    def advised(self) -> Routed | None:
        """The way of routing that is advised; None where a candidate alone is."""
        if self.use_alone is not None:
            return None
        return self.quality if self.believed_gain > MIN_GAIN else self.saving


@dataclass(frozen=True)
class Evidence:
    """All that a judgement rests on. N questions, M candidates.

    Attributes:
        names: of the candidates.
        outcomes: (N, M), no NaN.
        usd: (N, M), what each answer cost; NaN where unknown.
        expected_usd: (N, M), what a router expects before asking; NaN where unknown.
        scores: (N, M), of each question by a router that does not know it.
        informed: (N, M), by one that knows every mark.
        apart: (N, M), by one that knows the exam part alone.
        calibration: positions of the questions that are not in that part.
    """

    names: Sequence[str]
    outcomes: Array
    usd: Array
    expected_usd: Array
    scores: Array
    informed: Array
    apart: Array
    calibration: NDArray[np.intp]

    def routing(self, scores: Array) -> TargetRouting:
        """Choices by these scores at any threshold; without prices the highest score is chosen."""
        return TargetRouting(scores, np.where(np.isnan(self.expected_usd), 0.0, self.expected_usd))


def judge(evidence: Evidence, *, target: float | None = None, seed: int = 0) -> Judgement:
    """Weigh the evidence.

    Args:
        evidence: all there is.
        target: the accuracy that shall be guaranteed; None where none is asked for.
        seed: of the resamples behind intervals.
    """
    alone = tuple(_alone(evidence, m) for m in range(len(evidence.names)))
    best = max(range(len(alone)), key=lambda m: (alone[m].accuracy, -(alone[m].usd_per_1000 or 0.0), -m))
    routing, rows = evidence.routing(evidence.scores), np.arange(len(evidence.outcomes))
    sure = evidence.routing(evidence.informed).choose(NEVER)
    believed = float((evidence.informed[rows, sure] - evidence.informed[:, best]).mean())
    measured = _Measured(evidence, best, np.random.default_rng(seed))
    quality = measured.routed("the highest score", "quality", None, routing.choose(NEVER))
    saving: Routed | None = None
    rates: tuple[Routed, ...] = ()
    if not np.isnan(evidence.expected_usd).any():
        threshold = _equal_quality(evidence, routing, best)
        chosen = routing.choose(threshold)
        saving = measured.routed("as good as the best alone, for less", "target", threshold, chosen)
        rates = tuple(measured.at_rate(weight) for weight in _weights(evidence))
    saves = saving is not None and saving.saving is not None and saving.saving.low > 0 and saving.gain.high >= 0
    use_alone = None if believed > MIN_GAIN or saves else best
    knob = None if believed > MIN_GAIN or saving is None else saving.knob
    promise, guarantee = _promise(evidence, use_alone, knob, target)
    return Judgement(alone, best, believed, quality, saving, rates, use_alone, promise, guarantee)


def _promise(
    evidence: Evidence, use_alone: int | None, knob: float | None, target: float | None
) -> tuple[Promise, Guarantee | None]:
    """What the calibration part proves of a candidate alone, or of the router that knows the exam part."""
    rows = evidence.calibration
    outcomes = evidence.outcomes[rows]
    routing = TargetRouting(evidence.apart[rows], np.nan_to_num(evidence.expected_usd[rows]))
    positions = np.arange(len(rows))
    if target is not None:
        costs = np.nan_to_num(evidence.expected_usd[rows])
        try:
            found = calibrate_target(evidence.apart[rows], outcomes, costs, target=target, confidence=CONFIDENCE)
        except ConfigurationError:
            proven = promised(outcomes[positions, routing.choose(NEVER)])
            return replace(proven, of="the highest score", target=target), None
        return Promise(target, CONFIDENCE, len(rows), "the threshold", target, found.threshold), found
    # Whoever is advised was chosen by looking at these questions too: confidence is shared among all there was.
    n_choices = len(evidence.names) + 2
    if use_alone is not None:
        proven = promised(outcomes[:, use_alone], n_choices=n_choices)
        return replace(proven, of=f"{evidence.names[use_alone]} alone"), None
    chosen = routing.choose(NEVER if knob is None else knob)
    proven = promised(outcomes[positions, chosen], n_choices=n_choices)
    return replace(proven, of="a router that knows the exam part alone"), None


def promised(outcomes: Array, *, n_choices: int = 1, confidence: float = CONFIDENCE) -> Promise:
    """The highest accuracy that these (K,) outcomes prove, whichever of some choices was made by looking at them."""
    if not len(outcomes):
        return Promise(0.0, confidence, 0)
    level = (1 - confidence) / n_choices
    low, high = 0.0, float(outcomes.mean())
    for _ in range(30):
        middle = (low + high) / 2
        if 0 < middle < 1 and below_target_p_value(outcomes, middle) <= level:
            low = middle
        else:
            high = middle
    return Promise(low, confidence, len(outcomes))


def _alone(evidence: Evidence, m: int) -> Alone:
    right, usd = evidence.outcomes[:, m], evidence.usd[:, m]
    cost = None if np.isnan(usd).any() else float(usd.mean()) * PER_CALLS
    return Alone(evidence.names[m], float(right.mean()), wilson_interval(float(right.sum()), len(right)), cost)


def _equal_quality(evidence: Evidence, routing: TargetRouting, best: int) -> float:
    """The threshold of least expected cost at which the scorer expects no less than of the best alone."""
    rows = np.arange(len(evidence.scores))
    enough = float(evidence.scores[:, best].mean())
    found = []
    for threshold in THRESHOLDS.tolist():
        chosen = routing.choose(threshold)
        if float(evidence.scores[rows, chosen].mean()) >= enough:
            found.append((float(evidence.expected_usd[rows, chosen].mean()), -threshold))
    return float(
        -min(found)[1]
    )  # the strictest threshold routes to the highest score, which is never expected to be less


def _weights(evidence: Evidence) -> list[float]:
    """Exchange rates from "only quality counts" to "only money does", for these costs."""
    spread = float(np.ptp(evidence.expected_usd.mean(axis=0)))
    return [] if spread <= 0 else [float(weight) for weight in np.geomspace(0.01, 1.0, N_RATES) / spread]


class _Measured:
    """Ways of routing, all measured on the same resamples of the questions."""

    def __init__(self, evidence: Evidence, best: int, rng: np.random.Generator) -> None:
        self._evidence, self._best = evidence, best
        n = len(evidence.outcomes)
        self._draws = rng.integers(0, n, (N_RESAMPLES, n))

    def routed(self, label: str, objective: str, knob: float | None, chosen: NDArray[np.intp]) -> Routed:
        """Measure choices, (N,)."""
        e, rows = self._evidence, np.arange(len(chosen))
        right, usd = e.outcomes[rows, chosen], e.usd[rows, chosen]
        alone, alone_usd = e.outcomes[:, self._best], e.usd[:, self._best]
        known = not (np.isnan(usd).any() or np.isnan(alone_usd).any()) and float(alone_usd.sum()) > 0
        saving = None
        if known:
            resampled = 1 - usd[self._draws].sum(axis=1) / alone_usd[self._draws].sum(axis=1)
            saving = _interval(float(1 - usd.sum() / alone_usd.sum()), resampled)
        return Routed(
            label,
            objective,
            knob,
            float(right.mean()),
            _interval(float((right - alone).mean()), (right - alone)[self._draws].mean(axis=1)),
            None if np.isnan(usd).any() else float(usd.mean()) * PER_CALLS,
            saving,
            tuple(float((chosen == m).mean()) for m in range(len(e.names))),
        )

    def at_rate(self, weight: float) -> Routed:
        """Measure routing that gives up score to save money."""
        e = self._evidence
        chosen = (e.scores - weight * e.expected_usd).argmax(axis=1)
        point = PER_CALLS * 0.01 / weight
        return self.routed(f"one point of accuracy is worth {point:.2g} USD per 1,000 calls", "value", weight, chosen)


def _interval(value: float, resampled: Array) -> Estimate:
    low, high = np.quantile(resampled, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Estimate(value, float(low), float(high))
