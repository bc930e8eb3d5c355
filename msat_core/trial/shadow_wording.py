"""The result of a log of decisions in sentences."""

from __future__ import annotations

from msat_core.evaluation.off_policy import MIN_SERVED
from msat_core.trial.shadow import ShadowResult
from msat_core.trial.wording import less, points

ESTIMATES_PROSE = (
    "What would have been right had each choice been served, from the answers that were: by inverse propensity (IPS), "
    "self-normalised (SNIPS) and doubly robust (DR, the one to go by), each with its 95% interval. The effective "
    "sample size says how many answers of its own each figure is worth."
)
DIFFER_PROSE = "Where the policy would have chosen somebody else than was served, by whom it would have chosen."


def advice_text(result: ShadowResult) -> str:
    """The result in a few sentences, for people."""
    decisions, way, facts = result.decisions, result.recommended, f"{len(result.decisions)} routes were served."
    if result.incumbent is not None:
        by_it = float((decisions.served == result.incumbent).mean())
        agreed = float((decisions.recommended == result.incumbent).mean())
        who = result.names[result.incumbent]
        facts = (
            f"{len(decisions)} routes were served, {by_it:.0%} by {who}; the policy would choose it on {agreed:.0%}."
        )
    if way.saving is not None:
        facts += f" The policy's choices are expected to cost {less(way.saving)} than {reference_name(result)}."
    if way.gain is None and result.advice == "alone":
        return f"Use {reference_name(result)} alone. {facts} The policy never chooses anybody else."
    if way.gain is None or result.advice == "unknown":
        return f"Not known yet whether routing pays. {facts} {_why_unknown(result)}"
    gain = f"right on {points(way.gain)} points more of the calls than {reference_name(result)} (doubly robust, 95%)"
    if result.advice == "alone":
        return f"Use {reference_name(result)} alone. {facts} Routing would be {gain}."
    return f"Route. {facts} Routing would be {gain}."


def _why_unknown(result: ShadowResult) -> str:
    """The honest sentence."""
    believed = believed_gain(result)
    thinks = (
        "" if believed is None else f" The scorer believes in {100 * believed:+.1f} points, which nothing here proves."
    )
    n_marked = int(result.decisions.marked.sum())
    if not n_marked:
        return f"No outcome is known, so nothing is measured: give --outcomes.{thinks}"
    if not result.explored:
        return (
            "Exploration was off: whoever was not served was never asked, and what it would have got right is not "
            f"measured. Set explore, for example to 0.02, to measure it.{thinks}"
        )
    gain = result.recommended.gain
    if gain is None:
        return f"Fewer than {MIN_SERVED} of the choices to be compared were served: too few to say anything.{thinks}"
    return (
        f"Routing would be right on {points(gain)} points more of the calls than {reference_name(result)}: an "
        f"interval that holds both a gain and a loss. Explore longer, or more.{thinks}"
    )


def shadow_notes(result: ShadowResult) -> list[str]:
    """What a reader should know of the log."""
    decisions = result.decisions
    notes = []
    if decisions.n_strangers:
        notes.append(f"{decisions.n_strangers} outcomes are of decisions that are not in the log.")
    for what, digests in (
        ("policies", {record.policy for record in decisions.records}),
        ("zoos", {record.zoo for record in decisions.records}),
        ("scorers", {record.scorer for record in decisions.records}),
    ):
        if len(digests) > 1:
            notes.append(f"The log holds decisions by {len(digests)} {what}: the figures are of all of them together.")
    n_marked = int(decisions.marked.sum())
    if 0 < n_marked < len(decisions):
        notes.append(
            f"Outcomes are known of {n_marked} of {len(decisions)} routes: measured figures speak of such routes alone."
        )
    return notes


def promise_prose() -> str:
    """What a log can promise."""
    return (
        "Nothing: a log says what happened. A trial of questions asked of every candidate proves an accuracy; "
        "`msat trial QUESTIONS` makes one."
    )


def routing_prose(result: ShadowResult) -> str:
    """How to read the figures of routing."""
    over = "" if result.reference is None else f" Gains and savings are over {reference_name(result)} alone."
    return (
        "“Believed” is what the scorer predicted; “right” is measured, or estimated from the answers that exploration "
        f"brought; costs are those expected before each call.{over}"
    )


def believed_gain(result: ShadowResult) -> float | None:
    """Of the policy's choices over the reference, by the scores; None where one of the two has none."""
    if result.reference is None or result.recommended.believed is None:
        return None
    believed = result.alone[result.reference].believed
    return None if believed is None else result.recommended.believed - believed


def reference_name(result: ShadowResult) -> str:
    """Whom gains and savings are over."""
    return "nobody" if result.reference is None else result.names[result.reference]
