"""`msat evaluate`: one zoo over held-out records, every yardstick beside ours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msat_core.errors import NoCandidateError, RecordsError, ZooError
from msat_core.evaluation.metrics import bootstrap_interval, brier, calibration_error, mean_auc
from msat_core.evaluation.yardsticks import Yardsticks, yardsticks
from msat_core.profiles import CapabilityProfile
from msat_core.records import Records
from msat_core.routing.policy import RoutingPolicy, choose
from msat_core.scoring.base import Scorer
from msat_core.scoring.compact import CompactScorer
from msat_core.scoring.embedding_cache import EmbeddingCache
from msat_core.zoo import CHARS_PER_TOKEN, Zoo

N_CURVE_POINTS = 15
SCORED_AT_ONCE = 2048  # instructions; bounds memory

Array = NDArray[np.floating]


@dataclass(frozen=True)
class Evaluation:
    """Scores and choices on the items that were evaluated.

    Attributes:
        records: the items, N, that every member of the zoo has; candidates in the zoo's order.
        zoo: the M candidates.
        scores: (N, M).
        chosen: (N,), column of the candidate chosen for each item.
        exam_size: questions in the largest exam of the zoo.
        seed: of the reference exams and the bootstrap.
    """

    records: Records
    zoo: Zoo
    scores: Array
    chosen: NDArray[np.intp]
    exam_size: int
    seed: int = 0

    @property
    def outcomes(self) -> Array:
        """(N, M), no NaN."""
        return np.asarray(self.records.outcomes.T.astype(float))

    @property
    def routed(self) -> Array:
        """(N,), outcome of the chosen candidate on each item."""
        return np.asarray(self.outcomes[np.arange(len(self.chosen)), self.chosen])

    def yardsticks(self, rows: NDArray[np.intp] | None = None) -> Yardsticks:
        """Yardsticks on all items or on the given ones."""
        rows = np.arange(len(self.chosen)) if rows is None else rows
        aptitude = np.array([candidate.profile.accuracy for candidate in self.zoo])
        tasks = tuple(self.records.tasks[i] for i in rows)
        return yardsticks(self.outcomes[rows], tasks, aptitude, self.exam_size, seed=self.seed)

    def to_json(self) -> dict[str, Any]:
        """The report as plain data; the layout is a contract (see the CLI's documentation)."""
        benchmarks = np.array(self.records.benchmarks)
        report: dict[str, Any] = {
            "overall": self._figures(np.arange(len(self.chosen))),
            "benchmarks": {
                name: self._figures(np.flatnonzero(benchmarks == name))
                for name in dict.fromkeys(self.records.benchmarks)
            },
            "intervals": self._intervals(),
            "candidates": {c.name: float(acc) for c, acc in zip(self.zoo, self.outcomes.mean(axis=0), strict=True)},
            "share_chosen": {c.name: float((self.chosen == m).mean()) for m, c in enumerate(self.zoo)},
        }
        if all(candidate.usd_per_mtok_in is not None for candidate in self.zoo):
            report["cost_usd"], report["quality_cost_curve"] = self._costs()
        return report

    def _figures(self, rows: NDArray[np.intp]) -> dict[str, float | int | None]:
        scores, outcomes, sticks = self.scores[rows], self.outcomes[rows], self.yardsticks(rows)
        error = calibration_error(scores, outcomes)
        return {
            "n_instructions": len(rows),
            "n_candidates": len(self.zoo),
            **{name: float(values.mean()) for name, values in vars(sticks).items()},
            "routed": float(self.routed[rows].mean()),
            "auc": mean_auc(scores, outcomes),
            "ece": error.plain,
            "ece_debiased": error.debiased,
            "brier": brier(scores, outcomes),
        }

    def _intervals(self) -> dict[str, list[float]]:
        routed, sticks = self.routed, self.yardsticks()
        values = {"routed": routed, **{f"routed_minus_{name}": routed - v for name, v in vars(sticks).items()}}
        return {name: list(bootstrap_interval(v, seed=self.seed)) for name, v in values.items()}

    def _costs(self) -> tuple[dict[str, float], list[dict[str, float]]]:
        prices = item_costs(self.records, self.zoo)  # (N, M)
        rows = np.arange(len(self.chosen))
        costs = {candidate.name: float(prices[:, m].sum()) for m, candidate in enumerate(self.zoo)}
        costs["routed"] = float(prices[rows, self.chosen].sum())
        spread = float(np.ptp(prices.mean(axis=0))) or 1.0
        curve = []
        for weight in [0.0, *(np.geomspace(0.01, 10, N_CURVE_POINTS) / spread)]:
            chosen = (self.scores - weight * prices).argmax(axis=1)
            curve.append(
                {
                    "usd_weight": float(weight),
                    "accuracy": float(self.outcomes[rows, chosen].mean()),
                    "cost_usd": float(prices[rows, chosen].sum()),
                }
            )
        return costs, curve


def item_costs(records: Records, zoo: Zoo) -> Array:
    """(N, M) price of each call in USD (see :meth:`Candidate.cost_usd`); 0 where a price is unknown."""
    chars = np.array([len(text) for text in records.instructions], dtype=float)
    fixed = np.array([candidate.cost_usd(0) or 0.0 for candidate in zoo])
    per_char = np.array([(c.usd_per_mtok_in or 0.0) / CHARS_PER_TOKEN / 1e6 for c in zoo])
    return np.asarray(fixed[None, :] + chars[:, None] * per_char[None, :])


def evaluation_items(records: Records, zoo: Zoo, exam_texts: frozenset[str]) -> Records:
    """The items to evaluate on: not in the exam by text, and known for every member of the zoo.

    Raises:
        RecordsError: a candidate is not in the records, or no item is left.
        ZooError: the zoo is empty.
    """
    if not len(zoo):
        raise ZooError("The zoo is empty: name at least one candidate.")
    kept = records.select_candidates(zoo.names).without_texts(exam_texts).known_to_all()
    if not len(kept):
        raise RecordsError(
            f"No item is left to evaluate on: none of the {len(records)} is outside the exam and known for all of "
            f"{', '.join(zoo.names)}."
        )
    return kept


def score_items(
    scorer: Scorer,
    records: Records,
    profiles: Sequence[CapabilityProfile],
    cache: Path,
    *,
    progress: Callable[[str, int, int], None] | None = None,
) -> Array:
    """(N, M) scores of the records' instructions; a compact scorer reads embeddings from the cache folder."""
    if isinstance(scorer, CompactScorer):
        notify = None if progress is None else lambda done, total: progress("embedding", done, total)
        vectors = EmbeddingCache(scorer.encoder, cache, notify).encode(records.instructions).vectors
    parts = []
    for start in range(0, len(records), SCORED_AT_ONCE):
        rows = slice(start, start + SCORED_AT_ONCE)
        if isinstance(scorer, CompactScorer):
            parts.append(scorer.score_vectors(vectors[rows], profiles).probabilities)
        else:
            parts.append(scorer.score(records.instructions[rows], profiles).probabilities)
        if progress is not None:
            progress("scoring", min(rows.stop, len(records)), len(records))
    return np.concatenate(parts)


def choose_all(scores: Array, records: Records, zoo: Zoo, policy: RoutingPolicy) -> NDArray[np.intp]:
    """Column of the candidate that the policy chooses for each item: (N, M) → (N,)."""
    candidates: Sequence[Any] = zoo.candidates
    rows = scores.tolist()
    try:
        chosen = [
            choose(policy, row, candidates, instruction_chars=len(text)).chosen
            for row, text in zip(rows, records.instructions, strict=True)
        ]
    except NoCandidateError as error:
        raise NoCandidateError(f"On the records, {error}") from None
    return np.array(chosen, dtype=np.intp)
