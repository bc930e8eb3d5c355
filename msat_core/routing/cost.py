"""What a call is expected to cost. No clock: the instant comes with the request.

Input tokens × input price + the candidate's own mean output tokens in the tasks that the instruction is near to ×
output price. Input that is still warm at a candidate counts at its cached price. A reasoning model's output is what
its endpoint counted in the exam, or unknown: its visible characters say nothing of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

import numpy as np
from numpy.typing import NDArray

from msat_core.candidates import CHARS_PER_TOKEN, DEFAULT_OUTPUT_TOKENS, Candidate
from msat_core.routing.columns import Column, Columns, columns_of, plain


@dataclass(frozen=True)
class ExpectedCost:
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


@dataclass(frozen=True, eq=False)
class ExpectedCosts:
    """Those of M candidates: columns of what :class:`ExpectedCost` has of each, NaN where that is None."""

    usd: Column
    list_usd: Column
    ranked_usd: Column
    worst_usd: Column

    def __len__(self) -> int:
        return len(self.usd)

    def __getitem__(self, i: int) -> ExpectedCost:
        return ExpectedCost(*plain(np.array([values[i] for values in self._columns])))

    def __iter__(self) -> Iterator[ExpectedCost]:
        return (self[i] for i in range(len(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ExpectedCosts):
            return NotImplemented
        return all(map(partial(np.array_equal, equal_nan=True), self._columns, other._columns))

    @property
    def lacks_output(self) -> NDArray[np.bool_]:
        """(M,), of whom only the length of the answer is unknown."""
        return np.isnan(self.usd) & ~np.isnan(self.list_usd)

    @property
    def _columns(self) -> tuple[Column, ...]:
        return self.usd, self.list_usd, self.ranked_usd, self.worst_usd


def expected_costs(
    candidates: Sequence[Candidate],
    *,
    chars: int,
    task_weights: Mapping[str, float] | None = None,
    warm: Mapping[str, int] | None = None,
    at: datetime | None = None,
) -> ExpectedCosts:
    """What a call costs with each of M candidates.

    Args:
        candidates: whom.
        chars: of everything that will be sent.
        task_weights: how near the instruction is to each exam task, by name.
        warm: input tokens that a candidate's provider still has in its cache, by name.
        at: the instant of the call; None for the instant at which prices were read.
    """
    sent, columns = chars / CHARS_PER_TOKEN, columns_of(candidates)
    output = columns.output
    if columns.counted and task_weights:
        output = output.copy()
        for i in columns.counted:
            output[i] = _output_tokens_near(candidates[i], task_weights)
    cached = np.minimum(sent, [_warm(candidate, warm) for candidate in candidates]) if warm else columns.nothing
    list_usd = columns.usd(at, sent, columns.nothing, columns.usual_output)
    lacking = np.isnan(output)
    if not lacking.any():
        usd = np.where(np.isnan(list_usd), np.nan, columns.usd(at, sent, cached, output))
        return ExpectedCosts(usd, list_usd, usd, np.full(len(usd), np.nan))
    longest = np.fmax.reduce(output, initial=DEFAULT_OUTPUT_TOKENS)
    ranked = columns.usd(at, sent, cached, np.where(lacking, longest, output))
    worst = columns.usd(at, sent, cached, np.where(lacking, columns.most_output, np.nan))
    unpriced = np.isnan(list_usd)
    ranked[unpriced] = worst[unpriced] = np.nan
    return ExpectedCosts(np.where(lacking, np.nan, ranked), list_usd, ranked, worst)


def _output_tokens_near(candidate: Candidate, task_weights: Mapping[str, float]) -> float | None:
    """Mean tokens of an answer near the given tasks, as far as the candidate's exam counted them."""
    counted = candidate.profile.output_tokens
    weights = {task: task_weights[task] for task in counted if task in task_weights}
    total = sum(weights.values())
    if total <= 0:
        return candidate.profile.mean_output_tokens
    return sum(weight * counted[task] for task, weight in weights.items()) / total


def _warm(candidate: Candidate, warm: Mapping[str, int]) -> float:
    return float(next((warm[n] for n in (candidate.name, *candidate.aliases) if n in warm), 0))


def price_of(candidate: Candidate, sent: float, cached: float, output: float, at: datetime | None) -> float | None:
    """USD for so many tokens sent, cached ones among them, and given back; None where the price is unknown."""
    return plain(Columns((candidate,)).usd(at, sent, np.array([cached]), np.array([output])))[0]
