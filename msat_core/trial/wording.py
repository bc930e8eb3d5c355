"""The result of a trial in sentences."""

from __future__ import annotations

from msat_core.evaluation.off_policy import Estimate
from msat_core.trial.trial import TrialResult
from msat_core.trial.verdict import Verdict


def verdict_text(result: TrialResult) -> str:
    """The result in two sentences, for people."""
    verdict, names = result.verdict, result.zoo.names
    best = verdict.alone[verdict.best]
    alone = f"On {len(result.questions)} questions, {best.name} alone is right in {best.accuracy:.1%}"
    advised = verdict.advised
    if advised is None:
        return f"Use {best.name} alone. {alone}. {_why_alone(verdict, len(names))}"
    money = "" if advised.saving is None else f", and costs {less(advised.saving)} than it"
    return (
        f"Route: {advised.label}. {alone}; routing is right in {advised.accuracy:.1%}, {points(advised.gain)} points "
        f"over that{money}."
    )


def _why_alone(verdict: Verdict, n_candidates: int) -> str:
    lead, gain = verdict.believed_lead, verdict.quality.gain
    if lead == 0:
        return f"Of {n_candidates} candidates no other is believed to be better on any of these questions."
    why = "is no more than chance alone explains" if gain.high > 0 else "the questions left out contradict"
    return (
        f"Where another of {n_candidates} candidates is believed to be better, it is by {100 * lead:.1f} points on "
        f"average, which {why}."
    )


def promise_text(verdict: Verdict) -> str:
    """What the promise says, and what it does not say."""
    promise = verdict.promise
    asked = ""
    if promise.target is not None and promise.threshold is None:
        asked = f"No threshold reaches the accuracy of {promise.target:.1%} that was asked for. "
    if promise.threshold is not None:
        asked = f"The threshold is {promise.threshold:g}. "
    return (
        f"{asked}With {promise.confidence:.0%} confidence, answers of {promise.of} are right on at least "
        f"{promise.accuracy:.1%} of further questions like these, on average. {promise.n_questions} questions prove it "
        "that were kept out of the exam of whom it speaks. It says nothing of a single answer, of questions of another "
        "kind, of candidates or prices that have changed, or of marks that are wrong."
    )


def points(gain: Estimate) -> str:
    """A gain in points with its interval."""
    return f"{100 * gain.value:+.1f} [{100 * gain.low:+.1f}, {100 * gain.high:+.1f}]"


def less(saving: Estimate) -> str:
    """A saving in words, with its interval."""
    word = "less" if saving.value >= 0 else "more"
    low, high = (
        sorted((abs(saving.low), abs(saving.high))) if saving.low * saving.high > 0 else (saving.low, saving.high)
    )
    return f"{abs(saving.value):.0%} [{low:.0%}, {high:.0%}] {word}"
