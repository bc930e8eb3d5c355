"""What a log of decisions amounts to: what was served, what would have been, and what that would have got.

What was never served is never measured. Where the policy explored, the log's propensities make what other choices
would have got estimable (:mod:`msat_core.evaluation.off_policy`); where it did not, only what the scorer believes and
what the calls cost can be set against the incumbent, and the advice says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from msat_core.evaluation.off_policy import Estimate, OffPolicy, interval, off_policy, off_policy_gain
from msat_core.routing.ranking import by_quality, by_value
from msat_core.trial.logged_decisions import LoggedDecisions, read_logged
from msat_core.trial.verdict import PER_CALLS, exchange_rates

Array = NDArray[np.floating]
Positions = NDArray[np.intp]
Advice = Literal["route", "alone", "unknown"]

MAX_LOSS = 0.02  # accuracy that choices may surely not lose more of, where they are advised for being cheaper; chosen
SERVED, RECOMMENDED, HIGHEST = "as it was served", "as the policy would choose", "the highest score"


@dataclass(frozen=True)
class Way:
    """One way of choosing: a candidate alone, or a rule.

    Attributes:
        label: what it does, in words.
        believed: mean score of its choices: what the scorer predicts.
        value: what it got or would have got; None where the log cannot say.
        gain: over the reference; None where the log cannot say, or for the reference itself.
        usd_per_1000: expected price of 1,000 such calls; None where one is unknown.
        saving: share of the reference's expected cost that it saves; None where unknown.
        shares: how often each candidate is chosen.
    """

    label: str
    believed: float | None
    value: OffPolicy | None
    gain: Estimate | None
    usd_per_1000: float | None
    saving: Estimate | None
    shares: tuple[float, ...]


@dataclass(frozen=True)
class ShadowResult:
    """What came of a log.

    Attributes:
        decisions: the routes.
        incumbent: position of the candidate that is usually served on every route; None where there is no such one.
        reference: position of the candidate that gains and savings are over: the incumbent, else the best alone by
            estimate; None where neither is known.
        n_by_chance: routes with an outcome on which another candidate had a chance.
        alone: of each candidate.
        served, recommended: of the routes as they were.
        others: other rules over the same scores: the highest one, and several exchange rates.
        advice: whether to ``route``, to use one candidate ``alone``, or that it is ``unknown``.
    """

    decisions: LoggedDecisions
    incumbent: int | None
    reference: int | None
    n_by_chance: int
    alone: tuple[Way, ...]
    served: Way
    recommended: Way
    others: tuple[Way, ...]
    advice: Advice

    @property
    def names(self) -> tuple[str, ...]:
        """The candidates'."""
        return self.decisions.names

    @property
    def explored(self) -> bool:
        """Whether estimates rest on exploration."""
        return self.n_by_chance > 0

    @property
    def use_alone(self) -> str | None:
        """Name of the candidate to use for everything; None where routing pays, or nobody knows."""
        return self.names[self.reference] if self.advice == "alone" and self.reference is not None else None


def trial_from_log(log: str | Path, outcomes: str | Path | Mapping[str, float] | None = None) -> ShadowResult:
    """Weigh a log of decisions.

    Args:
        log, outcomes: see :func:`msat_core.trial.logged_decisions.read_logged`.

    Raises:
        RecordsError: a file cannot be read, or holds nothing that can be used.
    """
    return weigh(read_logged(log, outcomes))


def weigh(decisions: LoggedDecisions) -> ShadowResult:
    """What decisions amount to; see :func:`trial_from_log`."""
    n, names = len(decisions), decisions.names
    usual = decisions.propensities.argmax(axis=1)
    incumbent = int(usual[0]) if (usual == usual[0]).all() else None
    rows = decisions.marked & decisions.by_chance
    if not rows.any():
        rows = decisions.marked
    weighed = _Weighed(decisions, rows)
    each = [np.full(n, m, dtype=np.intp) for m in range(len(names))]
    values = [weighed.value(chosen) for chosen in each]
    measured = [m for m, value in enumerate(values) if value is not None]
    best = max(measured, key=lambda m: values[m].dr.value) if measured else None  # type: ignore[union-attr]  # those measured
    reference = incumbent if incumbent is not None else best if weighed.by_chance else None
    against = None if reference is None else each[reference]
    recommended = weighed.way(RECOMMENDED, decisions.recommended, against)
    return ShadowResult(
        decisions,
        incumbent,
        reference,
        int(rows.sum()) if weighed.by_chance else 0,
        tuple(weighed.way(name, chosen, against) for name, chosen in zip(names, each, strict=True)),
        weighed.way(SERVED, decisions.served, against, served=True),
        recommended,
        tuple(weighed.way(label, chosen, against) for label, chosen in _rules(decisions)),
        "alone" if against is not None and (decisions.recommended == against).all() else _advice(recommended),
    )


def _advice(recommended: Way) -> Advice:
    gain, saving = recommended.gain, recommended.saving
    if gain is None:
        return "unknown"
    if gain.low > 0 or (saving is not None and saving.low > 0 and gain.low > -MAX_LOSS):
        return "route"
    return "alone" if gain.high < 0 else "unknown"


def _rules(decisions: LoggedDecisions) -> list[tuple[str, Positions]]:
    """Rules over the logged scores and expected costs, within the policy's limits."""
    scores = np.where(decisions.within & ~np.isnan(decisions.scores), decisions.scores, -np.inf)
    if np.isneginf(scores.max(axis=1)).any():  # nobody was within the limits, and the default stepped in
        return []
    usd = decisions.expected_usd
    rules = [(HIGHEST, by_quality(scores, usd)[:, 0])]
    if np.isnan(usd).any():
        return rules
    rates = exchange_rates(usd).items()
    return [*rules, *((label, by_value(scores, usd, weight)[:, 0]) for weight, label in rates)]


class _Weighed:
    """Ways of choosing, all weighed on the same routes."""

    def __init__(self, decisions: LoggedDecisions, rows: NDArray[np.bool_]) -> None:
        self._decisions, self._rows = decisions, rows
        self._routes = decisions.routes(rows)
        self.by_chance = bool((rows & decisions.by_chance).any())

    def value(self, chosen: Positions) -> OffPolicy | None:
        """What choices, (N,), got or would have got; None where nobody explored and they are not what was served."""
        if not self._rows.any():
            return None
        chosen = chosen[self._rows]
        if not self.by_chance and (chosen != self._routes.served).any():
            return None
        return off_policy(self._routes, chosen)

    def way(self, label: str, chosen: Positions, against: Positions | None, *, served: bool = False) -> Way:
        """Weigh choices, (N,), against those of the reference."""
        d, at = self._decisions, np.arange(len(chosen))
        scores, usd = d.scores[at, chosen], d.expected_usd[at, chosen]
        same = against is not None and bool((chosen == against).all())
        gain = saving = None
        if against is not None and not same and not served and self.by_chance:
            gain = off_policy_gain(self._routes, chosen[self._rows], against[self._rows])
        if against is not None and not same:
            saving = self._saving(usd, d.expected_usd[at, against])
        return Way(
            label,
            None if np.isnan(scores).all() else float(np.nanmean(scores)),
            self._mean_served() if served else self.value(chosen),
            gain,
            None if np.isnan(usd).any() else float(usd.mean()) * PER_CALLS,
            saving,
            tuple(float((chosen == m).mean()) for m in range(len(d.names))),
        )

    def _mean_served(self) -> OffPolicy | None:
        """What was served, whoever it was: nothing has to be weighted."""
        routes = self._routes
        if not len(routes):
            return None
        sure = np.zeros_like(routes.propensities)
        sure[np.arange(len(routes)), routes.served] = 1.0
        return off_policy(replace(routes, propensities=sure), routes.served)

    def _saving(self, usd: Array, reference_usd: Array) -> Estimate | None:
        if np.isnan(usd).any() or np.isnan(reference_usd).any() or reference_usd.sum() <= 0:
            return None
        kept = float(usd.sum() / reference_usd.sum())
        return interval(1 - kept, (kept * reference_usd - usd) / reference_usd.mean(), self._decisions.groups)
