"""A log of decisions and the outcomes of some of them, as arrays."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from msat_core.errors import RecordsError
from msat_core.evaluation.off_policy import LoggedRoutes
from msat_core.importers.rows import Unreadable, outcome_of
from msat_core.routing import feedback
from msat_core.routing.decision_log import DecisionRecord, read_decisions
from msat_core.trial.sources import rows_of

_NOT_SCORED = {
    "accuracy": "there was no text to score",
    "turn": "the candidate was at work on the turn already",
    "caller": "the caller insisted on a candidate",
}
_NOT_ANSWERED = {
    "failed": "nobody answered",
    "broken": "the answer broke off",
    "left": "the caller did not wait for the answer",
}

Array = NDArray[np.floating]
Positions = NDArray[np.intp]


@dataclass(frozen=True)
class LoggedDecisions:
    """N routes that the scores decided and the candidate to be asked answered; M candidates.

    Attributes:
        names: of the candidates that were ever considered, in the order in which they were met.
        records: (N,), as they were logged.
        outcomes: (N,), in [0, 1]; NaN where unknown.
        served, recommended: (N,), positions of the candidate asked and of the policy's own choice.
        scores, expected_usd: (N, M); NaN where unknown.
        propensities: (N, M).
        within: (N, M), who was within the policy's limits.
        groups: (N,); routes of one group have the same instruction.
        left_out: routes that are in no figure, by reason.
        n_strangers: outcomes of decisions that are not in the log.
    """

    names: tuple[str, ...]
    records: tuple[DecisionRecord, ...]
    outcomes: Array
    served: Positions
    recommended: Positions
    scores: Array
    expected_usd: Array
    propensities: Array
    within: NDArray[np.bool_]
    groups: Positions
    left_out: Mapping[str, int]
    n_strangers: int = 0

    def __len__(self) -> int:
        return len(self.records)

    @property
    def by_chance(self) -> NDArray[np.bool_]:
        """(N,), whether another candidate had a chance."""
        return np.asarray(self.propensities.max(axis=1) < 1)

    @property
    def marked(self) -> NDArray[np.bool_]:
        """(N,), whether the outcome is known."""
        return ~np.isnan(self.outcomes)

    def routes(self, rows: NDArray[np.bool_]) -> LoggedRoutes:
        """Some of the routes, for estimates."""
        return LoggedRoutes(self.served, self.outcomes, self.propensities, self.scores, self.groups).take(rows)


def read_logged(log: str | Path, outcomes: str | Path | Mapping[str, float] | None = None) -> LoggedDecisions:
    """A log of decisions with outcomes.

    Args:
        log: as ``Router(decisions=…)`` writes it.
        outcomes: a feedback file, a table of ``id`` and ``score``, or numbers by decision id; None where none is known.

    Raises:
        RecordsError: a file cannot be read, holds something else, or holds nothing that can be used.
    """
    records = read_decisions(log)
    known = outcomes if isinstance(outcomes, Mapping) else {} if outcomes is None else read_outcomes(Path(outcomes))
    strangers = known.keys() - {record.id for record in records}
    if known and len(strangers) == len(known):
        raise RecordsError(f"None of the {len(known)} outcomes is of a decision in {log}: give outcomes by its ids.")
    left_out: Counter[str] = Counter()
    kept = []
    for record in records:
        if (why := _unusable(record)) is None:
            kept.append(record)
        else:
            left_out[why] += 1
    if not kept:
        reasons = "; ".join(f"{n}: {why}" for why, n in left_out.most_common()) or "it is empty"
        raise RecordsError(f"{log} holds no decision that scores made and its candidate answered ({reasons}).")
    return _arrays(kept, known, left_out, len(strangers))


def read_outcomes(path: Path) -> dict[str, float]:
    """Outcomes by decision id, from a feedback file or a table with the columns ``id`` and ``score``.

    Raises:
        RecordsError: it is neither, or a row lacks one of the two.
    """
    if _is_feedback(path):
        return feedback.outcomes_by_decision(path)
    outcomes = {}
    for number, row in enumerate(rows_of(path), start=1):
        name = row.get("id")
        try:
            outcome = outcome_of(row.get("score"))
        except Unreadable as error:
            raise RecordsError(f"{path}, row {number}: {error}; expected a decision's `id` and `score`.") from None
        if not isinstance(name, str) or not name:
            raise RecordsError(f"{path}, row {number} has no `id`: expected a decision's `id` and `score`.")
        outcomes[name] = outcome
    if not outcomes:
        raise RecordsError(f"{path} holds no outcome: expected rows with a decision's `id` and `score`.")
    return outcomes


def _is_feedback(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        first = file.readline(1000)
    try:
        head = json.loads(first)
    except ValueError:
        return False
    return isinstance(head, dict) and head.get("kind") == feedback.OWNER.kind


def _unusable(record: DecisionRecord) -> str | None:
    """Why a record is in no figure; None if it is."""
    if record.basis != "scores":
        return _NOT_SCORED[record.basis]
    if record.status in _NOT_ANSWERED:
        return _NOT_ANSWERED[record.status]
    if record.answered_by not in (None, record.candidate):
        return "another candidate stepped in for the one that failed"
    return None


def _arrays(
    records: Sequence[DecisionRecord], outcomes: Mapping[str, float], left_out: Mapping[str, int], n_strangers: int
) -> LoggedDecisions:
    names = tuple(dict.fromkeys(name for record in records for name in record.costs_usd))
    at = {name: m for m, name in enumerate(names)}
    shape = (len(records), len(names))
    scores, usd, chances, within = (
        np.full(shape, np.nan),
        np.full(shape, np.nan),
        np.zeros(shape),
        np.zeros(shape, bool),
    )
    for n, record in enumerate(records):
        for name, cost in record.costs_usd.items():
            usd[n, at[name]] = np.nan if cost is None else cost
            scores[n, at[name]] = record.scores.get(name, np.nan)
            chances[n, at[name]] = record.propensities.get(name, 0.0)
            within[n, at[name]] = name not in record.excluded
    texts = {record.instruction or record.id: i for i, record in enumerate(records)}
    return LoggedDecisions(
        names,
        tuple(records),
        np.array([outcomes.get(record.id, np.nan) for record in records], dtype=float),
        np.array([at[record.candidate] for record in records], dtype=np.intp),
        np.array([at[record.recommended] for record in records], dtype=np.intp),
        scores,
        usd,
        chances,
        within,
        np.array([texts[record.instruction or record.id] for record in records], dtype=np.intp),
        dict(left_out),
        n_strangers,
    )
