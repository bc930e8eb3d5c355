"""From an instruction's scores to a decision: who is considered, who is chosen and who served, and why."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msat_core.candidates import Candidate
from msat_core.errors import ZooError
from msat_core.profiles import CapabilityProfile
from msat_core.routing.choice import Choice, Uncertainty, choose
from msat_core.routing.columns import Column, columns_of, plain
from msat_core.routing.conversation import size_of
from msat_core.routing.decision import RoutingDecision, RoutingRequest
from msat_core.routing.exploration import draw_of, served
from msat_core.routing.policy import RoutingPolicy
from msat_core.routing.ranking import SCORE_DIGITS
from msat_core.scoring.base import FAR, Scores

REASON_TASKS = 3  # tasks named in a decision's reason
DISTANCE_DIGITS = 3


@dataclass(frozen=True)
class Scored:
    """One instruction's row of scores, with the candidates its columns belong to."""

    candidates: tuple[Candidate, ...]
    row: Column  # (M,), rounded to SCORE_DIGITS
    distance: NDArray[np.float32]  # (M,), NaN where unknown
    uncertainty: Uncertainty | None
    truncated_tokens: int
    task_weights: Mapping[str, float]  # heaviest first
    unread: str  # the script that the scorer has not learnt to read; empty for none

    def distance_of(self, name: str) -> float | None:
        """How far the instruction is from what a candidate was tested on; None if unknown."""
        distance = float(self.distance[columns_of(self.candidates).position[name]])
        return None if math.isnan(distance) else round(distance, DISTANCE_DIGITS)

    def among(self, candidates: tuple[Candidate, ...]) -> Scored:
        """The same for some of the candidates, by name; their facts may be others."""
        position, unsure = columns_of(self.candidates).position, self.uncertainty
        kept = [position[name] for name in columns_of(candidates).names]
        if unsure is not None:
            unsure = Uncertainty(unsure.deviations[kept], unsure.levels[kept])
        return replace(
            self, candidates=candidates, row=self.row[kept], distance=self.distance[kept], uncertainty=unsure
        )

    def choice(self, instruction: str, rule: RoutingPolicy, request: RoutingRequest) -> Choice:
        """Whom the policy chooses for the instruction, before chance and observation."""
        return choose(
            rule,
            self.row,
            self.candidates,
            instruction_chars=size_of(instruction),
            request=request,
            task_weights=self.task_weights,
            uncertainty=self.uncertainty,
        )


def rows_of(scores: Scores, candidates: tuple[Candidate, ...], at: slice = slice(None)) -> list[Scored]:
    """Each instruction's part of the scores of N instructions for M candidates.

    Args:
        scores: of N instructions.
        candidates: M.
        at: which instructions.
    """
    probabilities = scores.probabilities[at].astype(np.float64).round(SCORE_DIGITS)
    weights = weights_of_tasks(scores, at)
    distance = np.full_like(probabilities, np.nan) if scores.distance is None else scores.distance[at]
    return [
        Scored(
            candidates,
            probabilities[i],
            distance[i],
            Uncertainty.of(scores, n),
            int(scores.truncated_tokens[n]),
            weights[i],
            scores.unread[n] if scores.unread else "",
        )
        for i, n in enumerate(range(len(scores.probabilities))[at])
    ]


def decided(
    instruction: str, scored: Scored, rule: RoutingPolicy, request: RoutingRequest | None, scorer: str
) -> RoutingDecision:
    """The decision for an instruction that was scored.

    Args:
        instruction: that was scored.
        scored: for whom.
        rule: how to choose.
        request: what the call needs beside it.
        scorer: digest of the scorer.
    """
    request = _dated(request)
    candidates = _among(scored.candidates, request)
    if candidates is not scored.candidates:
        scored = scored.among(candidates)
    names = columns_of(candidates).names
    choice = scored.choice(instruction, rule, request)
    draw = draw_of(instruction, rule.explore_seed) if rule.explore and request.draw is None else request.draw
    choice = served(rule, choice, candidates, draw)
    elsewhere = rule.differences(candidates, scorer)
    scores = dict(zip(names, scored.row.tolist(), strict=True))
    distance = scored.distance_of(names[choice.chosen])
    score = scores[names[choice.chosen]]
    reason = _reason(choice, candidates, score, scored, distance, elsewhere)
    return RoutingDecision(
        **_chosen(choice, names),
        score=score,
        scores=scores,
        reason=reason,
        truncated_tokens=scored.truncated_tokens,
        distance=distance,
    )


def decided_unscored(
    candidates: tuple[Candidate, ...], rule: RoutingPolicy, request: RoutingRequest | None
) -> RoutingDecision:
    """The decision where there is no text to score: the default, else by aptitude; nothing is explored."""
    request = _dated(request)
    candidates = _among(candidates, request)
    aptitude = [candidate.profile.accuracy for candidate in candidates]
    choice = choose(rule, aptitude, candidates, instruction_chars=0, request=request)
    named = [i for i in choice.ranking if rule.default in (candidates[i].name, *candidates[i].aliases)]
    if named:
        order = (*named, *(i for i in choice.ranking if i not in named))
        choice = replace(choice, chosen=named[0], ranking=order, why="the default", notes=())
    choice = served(rule, choice, candidates, None)
    by_default = choice.why.startswith("the default")
    said = f"no text to score; chosen as {choice.why}{'' if by_default else ' by exam accuracy'}"
    reason = f"{'; '.join([f'{candidates[choice.chosen].name}: {said}', *choice.notes])}."
    names = columns_of(candidates).names
    return RoutingDecision(**_chosen(choice, names), score=None, scores={}, reason=reason, basis="accuracy")


def _among(candidates: tuple[Candidate, ...], request: RoutingRequest) -> tuple[Candidate, ...]:
    among = request.among
    kept = candidates if among is None else tuple(c for c in candidates if among & {c.name, *c.aliases})
    if among is not None and not kept:
        raise ZooError(f"None of {', '.join(sorted(among))} is in the zoo: add their profiles first.")
    facts = request.facts
    return kept if facts is None else tuple(map(facts.over, kept))


def _dated(request: RoutingRequest | None) -> RoutingRequest:
    """The request with its instant: now, where it names none."""
    request = request or RoutingRequest()
    return request if request.at is not None else replace(request, at=datetime.now(timezone.utc))


def _chosen(choice: Choice, names: Sequence[str]) -> dict[str, Any]:
    """A decision's fields that say who comes where, and what each is expected to cost."""
    return {
        "candidate": names[choice.chosen],
        "costs_usd": dict(zip(names, choice.costs_usd, strict=True)),
        "list_usd": dict(zip(names, plain(choice.costs.list_usd), strict=True)),
        "ranking": tuple(names[i] for i in choice.ranking),
        "excluded": {names[i]: why for i, why in choice.excluded.items()},
        "recommended": names[choice.chosen if choice.recommended is None else choice.recommended],
        "propensities": {names[i]: chance for i, chance in choice.propensities.items()},
    }


def weights_of_tasks(scores: Scores, at: slice = slice(None)) -> list[dict[str, float]]:
    """How much each task counted for each instruction, heaviest first."""
    if scores.task_weights is None:
        return [{}] * len(scores.probabilities[at])
    order = np.argsort(-scores.task_weights[at], axis=1, kind="stable")
    weights = np.take_along_axis(scores.task_weights[at], order, axis=1).tolist()
    return [{scores.tasks[k]: w for k, w in zip(row, ws, strict=True)} for row, ws in zip(order, weights, strict=True)]


def _nearest(profile: CapabilityProfile, tasks: Sequence[str]) -> str:
    """A candidate's results in the tasks nearest to the instruction, nearest first; empty where it has none."""
    results = {result.task: result for result in profile.results if result.n_shots}
    near = [results[task] for task in tasks if task in results][:REASON_TASKS]
    if not near:
        return ""
    if profile.provenance.is_expected:
        told = "; ".join(f"{task.about} ({task.accuracy:.0%})" for task in near)
        return f"; expected of it from published scores in what is nearest: {told}"
    told = "; ".join(f"{task.about} ({task.n_correct:.3g} of {task.n_shots} right)" for task in near)
    return f"; nearest in its exam: {told}"


def _reason(
    choice: Choice,
    candidates: Sequence[Candidate],
    score: float,
    scored: Scored,
    distance: float | None,
    elsewhere: Sequence[str],
) -> str:
    chosen = candidates[choice.chosen]
    if scored.unread:
        near = f"; in {scored.unread} script, which the scorer has not learnt to read: overall levels decide"
    elif distance is not None and distance > FAR:
        near = "; far from what the candidates were tested on, so that their overall levels decide"
    else:
        near = _nearest(chosen.profile, tuple(scored.task_weights))
    results_from = "" if chosen.has_results else f" (no results yet: as {chosen.profile.provenance.borrowed_from})"
    lost = [f"outside of what the policy was calibrated for ({'; '.join(elsewhere)})"] if elsewhere else []
    said = f"{chosen.name}: P(correct) {score:.2f}{results_from}, {choice.why}{near}"
    return f"{'; '.join([said, *choice.notes, *lost])}."
