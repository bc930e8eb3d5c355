"""`msat evaluate`: one zoo over held-out records, every yardstick and baseline beside ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msat_core.evaluation.cost import CurvePoint, area_under_curve, cost_at_share, quality_cost_curve
from msat_core.evaluation.items import item_costs
from msat_core.evaluation.metrics import bootstrap_interval, brier, calibration_error, mean_auc, paired_p_value
from msat_core.evaluation.yardsticks import Yardsticks, yardsticks
from msat_core.records import Records
from msat_core.zoo import Zoo

SHARES = (0.95, 0.98, 1.0)  # of the best single's accuracy, at which costs are compared

Array = NDArray[np.floating]


@dataclass(frozen=True)
class MethodChoices:
    """What one method said of N items and M candidates.

    Attributes:
        scores: (N, M).
        chosen: (N,), column of the candidate chosen for each item.
    """

    scores: Array
    chosen: NDArray[np.intp]

    def routed(self, outcomes: Array) -> Array:
        """(N,), outcome of the chosen candidate on each item."""
        return np.asarray(outcomes[np.arange(len(self.chosen)), self.chosen])

    def figures(self, outcomes: Array) -> dict[str, float | None]:
        """Routed accuracy and the quality of the scores, against outcomes (N, M)."""
        error = calibration_error(self.scores, outcomes)
        return {
            "routed": float(self.routed(outcomes).mean()),
            "auc": mean_auc(self.scores, outcomes),
            "ece": error.plain,
            "ece_debiased": error.debiased,
            "brier": brier(self.scores, outcomes),
        }

    def rows(self, keep: NDArray[np.intp]) -> MethodChoices:
        """The items at the given positions."""
        return MethodChoices(self.scores[keep], self.chosen[keep])


@dataclass(frozen=True)
class Evaluation:
    """Scores and choices on the items that were evaluated.

    Attributes:
        records: the items, N, that every member of the zoo has; candidates in the zoo's order.
        zoo: the M candidates.
        ours: of the scorer under evaluation.
        exam_size: questions in the largest exam that a member sat; 0 where nobody sat one.
        baselines: other methods on the same items, by name.
        seed: of the reference exams and the bootstrap.
    """

    records: Records
    zoo: Zoo
    ours: MethodChoices
    exam_size: int
    baselines: Mapping[str, MethodChoices] = field(default_factory=dict)
    seed: int = 0

    @cached_property
    def outcomes(self) -> Array:
        """(N, M), no NaN."""
        return np.asarray(self.records.outcomes.T.astype(float))

    @cached_property
    def costs(self) -> Array | None:
        """(N, M), USD of each call; None unless every price is known."""
        priced = all(c.usd_per_mtok_in is not None and c.usd_per_mtok_out is not None for c in self.zoo)
        return item_costs(self.records, self.zoo) if priced else None

    def yardsticks(self, rows: NDArray[np.intp] | None = None) -> Yardsticks:
        """Yardsticks on all items or on the given ones."""
        rows = np.arange(len(self.records)) if rows is None else rows
        aptitude = np.array([candidate.profile.accuracy for candidate in self.zoo])
        tasks = tuple(self.records.tasks[i] for i in rows)
        return yardsticks(self.outcomes[rows], tasks, aptitude, self.exam_size, seed=self.seed)

    def to_json(self) -> dict[str, Any]:
        """The report as plain data; the layout is a contract (see the CLI's documentation)."""
        benchmarks = np.array(self.records.benchmarks)
        report: dict[str, Any] = {
            "overall": self._figures(np.arange(len(self.records))),
            "benchmarks": {
                name: self._figures(np.flatnonzero(benchmarks == name))
                for name in dict.fromkeys(self.records.benchmarks)
            },
            **self._comparisons(),
            "candidates": {c.name: float(acc) for c, acc in zip(self.zoo, self.outcomes.mean(axis=0), strict=True)},
            "share_chosen": {c.name: float((self.ours.chosen == m).mean()) for m, c in enumerate(self.zoo)},
        }
        if self.baselines:
            report["baselines"] = {name: baseline.figures(self.outcomes) for name, baseline in self.baselines.items()}
        if self.costs is not None:
            report.update(self._cost_figures(self.costs))
        return report

    def dump(self, path: str | Path) -> None:
        """Write item_id, candidate, score and chosen of every pair as a Parquet table."""
        import pyarrow as pa
        import pyarrow.parquet

        n, m = self.ours.scores.shape
        table = pa.table(
            {
                "item_id": np.repeat(np.array(self.records.item_ids), m),
                "candidate": np.tile(np.array(self.zoo.names), n),
                "score": self.ours.scores.ravel(),
                "chosen": (np.arange(m)[None, :] == self.ours.chosen[:, None]).ravel(),
            }
        )
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        pa.parquet.write_table(table, path)

    def _figures(self, rows: NDArray[np.intp]) -> dict[str, float | int | None]:
        return {
            "n_instructions": len(rows),
            "n_candidates": len(self.zoo),
            **{name: float(values.mean()) for name, values in self.yardsticks(rows).known().items()},
            **self.ours.rows(rows).figures(self.outcomes[rows]),
        }

    def _comparisons(self) -> dict[str, dict[str, Any]]:
        """Ours minus each yardstick and baseline, item by item: 95% intervals and p-values."""
        routed = self.ours.routed(self.outcomes)
        references = {
            **self.yardsticks().known(),
            **{n: baseline.routed(self.outcomes) for n, baseline in self.baselines.items()},
        }
        gains = {f"routed_minus_{name}": routed - values for name, values in references.items()}
        return {
            "intervals": {
                name: list(bootstrap_interval(values, seed=self.seed))
                for name, values in {"routed": routed, **gains}.items()
            },
            "p_values": {name: paired_p_value(values, seed=self.seed) for name, values in gains.items()},
        }

    def _cost_figures(self, costs: Array) -> dict[str, Any]:
        singles, totals = self.outcomes.mean(axis=0), costs.sum(axis=0)
        best = int(singles.argmax())
        curves = {
            name: quality_cost_curve(method.scores, self.outcomes, costs)
            for name, method in {"routed": self.ours, **self.baselines}.items()
        }

        def summary(curve: list[CurvePoint]) -> dict[str, float | None]:
            at = {
                f"cost_at_{share:.0%}_of_best_single": cost_at_share(curve, singles[best], totals[best], share)
                for share in SHARES
            }
            return {"area": area_under_curve(curve, float(totals.min()), float(totals.max())), **at}

        routed = float(self.ours.routed(costs).sum())
        return {
            "cost_usd": {**dict(zip(self.zoo.names, totals.tolist(), strict=True)), "routed": routed},
            "quality_cost_curve": [asdict(point) for point in curves["routed"]],
            "cost": {name: summary(curve) for name, curve in curves.items()},
        }
