"""What a call is expected to cost. No clock: the instant comes with the request.

Input tokens × input price + the candidate's own mean output tokens in the tasks that the instruction is near to ×
output price. Input that is still warm at a candidate counts at its cached price. A reasoning model's output is what
its endpoint counted in the exam, or unknown: its visible characters say nothing of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

import numpy as np

from msat_core.candidates import CHARS_PER_TOKEN, DEFAULT_OUTPUT_TOKENS, Candidate
from msat_core.forking import Lock
from msat_core.routing.price_columns import Column, PriceColumns, column


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
    sent, known = chars / CHARS_PER_TOKEN, _known_of(candidates)
    prices, output = known.prices, known.output.copy()
    for i in known.counted:
        output[i] = expected_output_tokens(candidates[i], task_weights or {})
    usual, nothing = np.full(len(output), float(DEFAULT_OUTPUT_TOKENS)), np.zeros(len(output))
    longest = np.fmax.reduce(output, initial=DEFAULT_OUTPUT_TOKENS)
    cached = np.minimum(sent, [_warm(one, warm) for one in candidates]) if warm else nothing
    lacking = np.isnan(output)
    list_usd = prices.usd(at, sent, nothing, usual)
    ranked = prices.usd(at, sent, cached, np.where(lacking, longest, output))
    worst = prices.usd(at, sent, cached, np.where(lacking, prices.most_output, np.nan)) if lacking.any() else output
    ranked[np.isnan(list_usd)] = np.nan
    usd = np.where(lacking, np.nan, ranked)
    worst = np.where(lacking & ~np.isnan(list_usd), worst, np.nan)
    return tuple(map(ExpectedCost, *map(_plain, (usd, list_usd, ranked, worst))))


@dataclass(frozen=True)
class _Known:
    """What is known of a set of candidates whatever the call.

    Attributes:
        candidates: whom.
        prices: theirs.
        output: (M,), tokens of an answer anywhere; NaN where unknown.
        counted: positions of those whose exam counted tokens by task.
    """

    candidates: Sequence[Candidate]
    prices: PriceColumns
    output: Column
    counted: list[int]

    @classmethod
    def of(cls, candidates: Sequence[Candidate]) -> _Known:
        """Look at each of them."""
        output = column(expected_output_tokens(one, {}) for one in candidates)
        counted = [i for i, one in enumerate(candidates) if one.profile.output_tokens]
        return cls(candidates, PriceColumns(candidates), output, counted)


_kept: deque[_Known] = deque(maxlen=4)  # a process routes among few sets of candidates at a time
_lock = Lock()


def _known_of(candidates: Sequence[Candidate]) -> _Known:
    if not isinstance(candidates, tuple):  # it might change
        return _Known.of(candidates)
    with _lock:
        known = next((one for one in _kept if one.candidates is candidates), None)
    if known is None:
        known = _Known.of(candidates)
        with _lock:
            _kept.append(known)
    return known


def _plain(values: Column) -> list[float | None]:
    """Numbers, and None for NaN."""
    plain: list[float | None] = values.tolist()
    for i in np.flatnonzero(np.isnan(values)):
        plain[i] = None
    return plain


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
    return _plain(PriceColumns((candidate,)).usd(at, sent, np.array([cached]), np.array([output])))[0]
