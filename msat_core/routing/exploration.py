"""Serving somebody else than the policy's choice: one incumbent (shadow mode), or by a small chance another. Pure.

With probability ε one of the other candidates within the limits is served, each as likely. A log of decisions then
holds, for every route, the probability (propensity) with which each candidate was to be served, and what the others
would do can be estimated without bias: :mod:`msat_core.evaluation.off_policy`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from msat_core.candidates import Candidate
from msat_core.errors import NoCandidateError, some_of
from msat_core.routing.choice import Choice
from msat_core.routing.policy import RoutingPolicy

_BYTES = 6  # of a hash that make a number; a float holds them exactly
_RANGE = float(256**_BYTES)


def draw_of(instruction: str, seed: int) -> float:
    """The number in [0, 1) that an instruction and a seed determine; uniform over either."""
    digest = hashlib.sha256(f"{seed}\n{instruction}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:_BYTES], "big") / _RANGE


def served(policy: RoutingPolicy, choice: Choice, candidates: Sequence[Candidate], draw: float | None) -> Choice:
    """The choice with whoever is served in its place.

    Args:
        policy: says whether it observes or explores.
        choice: the policy's own.
        candidates: of whom.
        draw: in [0, 1), by which exploration goes; None for none.

    Raises:
        NoCandidateError: the candidate that is observed cannot be dispatched to.
    """
    shown = choice if policy.observe is None else _observed(policy.observe, choice, candidates)
    rest = [i for i in choice.ranking if i != shown.chosen]
    if draw is None or not policy.explore or not rest:
        return shown
    share = policy.explore / len(rest)
    chances = {**dict.fromkeys(rest, share), shown.chosen: 1 - policy.explore}
    shown = replace(shown, propensities=chances, recommended=choice.chosen)
    if draw >= policy.explore:
        return shown
    chosen = rest[min(int(draw / share), len(rest) - 1)]
    usual = candidates[shown.chosen].name
    ranking = tuple(dict.fromkeys((chosen, shown.chosen, *shown.ranking)))
    return replace(
        shown, chosen=chosen, ranking=ranking, why=f"explored with probability {share:.2g} in place of {usual}"
    )


def _observed(name: str, choice: Choice, candidates: Sequence[Candidate]) -> Choice:
    """The incumbent alone, and who would have been chosen."""
    at = next((i for i, candidate in enumerate(candidates) if name in (candidate.name, *candidate.aliases)), None)
    if at is None:
        raise NoCandidateError(
            f"The policy observes {name!r}, which this call cannot be sent to: there is "
            f"{some_of([c.name for c in candidates])}. Make it a candidate here, or remove observe from the policy."
        )
    would = "it would be chosen" if at == choice.chosen else f"{candidates[choice.chosen].name} would be chosen"
    return replace(
        choice,
        chosen=at,
        ranking=(at,),
        recommended=choice.chosen,
        why=f"the incumbent, observed: {would} as {choice.why}",
    )
