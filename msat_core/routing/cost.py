"""What a call is expected to cost. Pure: the instant comes with the request.

Input tokens × input price + the candidate's own mean output tokens in the tasks that the instruction is near to ×
output price. Input that is still warm at a candidate counts at its cached price. A reasoning model's output is what
its endpoint counted in the exam, or unknown: its visible characters say nothing of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from msat_core.candidates import CHARS_PER_TOKEN, DEFAULT_OUTPUT_TOKENS, Candidate


class ExpectedCost(NamedTuple):  # one a candidate and call: a tuple is made fastest
    """What one call is expected to cost with one candidate.

    Attributes:
        usd: the expectation; None where the price or the output is unknown.
        list_usd: at list price, with the same output for every candidate; None where the price is unknown.
        ranked_usd: what it is compared by: the expectation, or where only the output is unknown, the price with the
            longest output that is expected of anybody; None where the price is unknown.
        worst_usd: where only the output is unknown, with the longest answer that it can give; None if unknown too.
    """

    usd: float | None = None
    list_usd: float | None = None
    ranked_usd: float | None = None
    worst_usd: float | None = None

    @property
    def has_price(self) -> bool:
        """Whether the price is known."""
        return self.list_usd is not None

    @property
    def lacks_output(self) -> bool:
        """Whether only the length of the answer is unknown."""
        return self.usd is None and self.list_usd is not None


def expected_costs(
    candidates: Sequence[Candidate],
    *,
    chars: int,
    task_weights: Mapping[str, float] | None = None,
    warm: Mapping[str, int] | None = None,
    at: datetime | None = None,
) -> tuple[ExpectedCost, ...]:
    """What a call costs with each of M candidates.

    Args:
        candidates: whom.
        chars: of everything that will be sent.
        task_weights: how near the instruction is to each exam task, by name.
        warm: input tokens that a candidate's provider still has in its cache, by name.
        at: the instant of the call; None for the instant at which prices were read.
    """
    sent = chars / CHARS_PER_TOKEN
    outputs = [expected_output_tokens(candidate, task_weights or {}) for candidate in candidates]
    longest = max([DEFAULT_OUTPUT_TOKENS, *(tokens for tokens in outputs if tokens is not None)])
    found = []
    for candidate, output in zip(candidates, outputs, strict=True):
        cached = min(sent, _warm(candidate, warm))
        list_usd = price_of(candidate, sent, 0.0, DEFAULT_OUTPUT_TOKENS, at)
        if list_usd is None:
            found.append(ExpectedCost())
        elif output is not None:
            usd = price_of(candidate, sent, cached, output, at)
            found.append(ExpectedCost(usd, list_usd, usd))
        else:
            most = candidate.max_output_tokens
            worst = None if most is None else price_of(candidate, sent, cached, most, at)
            found.append(ExpectedCost(None, list_usd, price_of(candidate, sent, cached, longest, at), worst))
    return tuple(found)


def expected_output_tokens(candidate: Candidate, task_weights: Mapping[str, float]) -> float | None:
    """Mean tokens of an answer, near the given tasks where the exam counted them; None where nobody knows.

    Counted tokens come first; then, but not for a reasoning model, visible characters / 4, or a rule of thumb.
    """
    profile = candidate.profile
    if counted := profile.output_tokens:
        weights = {task: task_weights[task] for task in counted if task in task_weights}
        total = sum(weights.values())
        if total <= 0:
            return profile.mean_output_tokens
        return sum(weight * counted[task] for task, weight in weights.items()) / total
    if candidate.reasoning:
        return None
    chars = profile.mean_output_chars
    return DEFAULT_OUTPUT_TOKENS if chars is None else chars / CHARS_PER_TOKEN


def _warm(candidate: Candidate, warm: Mapping[str, int] | None) -> float:
    return float(next((warm[n] for n in (candidate.name, *candidate.aliases) if n in warm), 0)) if warm else 0.0


def price_of(candidate: Candidate, sent: float, cached: float, output: float, at: datetime | None) -> float | None:
    """USD for so many tokens sent, cached ones among them, and given back; None where the price is unknown."""
    if candidate.usd_per_mtok_in is None or candidate.usd_per_mtok_out is None:
        return None
    if candidate.tariff is not None and not candidate.tariff.holds(at, sent):
        return candidate.tariff.usd(at, input_tokens=sent, cached_tokens=cached, output_tokens=output)
    price_cached = candidate.usd_per_mtok_cached_in
    price_cached = candidate.usd_per_mtok_in if price_cached is None else price_cached
    fresh = (sent - cached) * candidate.usd_per_mtok_in
    return (fresh + cached * price_cached + output * candidate.usd_per_mtok_out) / 1e6
