"""How short an exam may be: questions asked against routing accuracy and score error, for new candidates.

    python examples/reproduce/short_exams.py [--seed 11] [--folds 1 2] [--scorers FOLDER]

The folds, scorers and test items are those of ``new_candidates.py``. Each new candidate sits a part of the fold's
exam of 1,000 questions: S shots a task, K tasks, the first N questions of the plain order, or N chosen one round after
another by expected information (``--adaptive``), the last also with its own stopping rule. The other candidates keep
their full exams. ``--scorers`` keeps the trained scorers for another run.

Columns: mean questions asked; routed accuracy in points over the best single candidate in hindsight, mean over
near-equal and mixed zoos with at least one new candidate, and its difference from the full exam's [95% over items];
mean absolute difference of the new candidates' scores from those after the full exam; their Brier score.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import FOLDS, embeddings, load_records
from new_candidates import TrainedFold, train_fold
from numpy.typing import NDArray

from msat_core import AdaptiveOrder, AptitudeTest, CapabilityProfile, Provenance
from msat_core.aptitude.adaptive import MIN_QUESTIONS
from msat_core.aptitude.paper import shorten
from msat_core.evaluation.metrics import bootstrap_interval, brier
from msat_core.evaluation.studies.zoos import Kind, sample_zoos

SHOTS = (1, 2, 5, 10)
TASKS = (10, 20, 30)
PREFIXES = (25, 50, 100, 200, 300)
ADAPTIVE_PREFIXES = (25, 50, MIN_QUESTIONS)  # an adaptive sitting never stops before
KINDS: tuple[Kind, ...] = ("near-equal", "mixed")
FULL = "full exam"

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Judged:
    """One kind of exam in one fold.

    Attributes:
        n_asked: questions, mean over the new candidates.
        gains: (N,) routed minus best single at each test item, mean over zoos; NaN where no zoo knows it.
        scores: (N, new candidates).
        brier: of the new candidates' scores.
    """

    n_asked: float
    gains: Floats
    scores: Floats
    brier: float


class FoldJudge:
    """Routes a fold's test items when its new candidates sat some exam."""

    def __init__(self, fold: TrainedFold, vectors: NDArray[np.float32], seed: int) -> None:
        self.fold, self.test = fold, AptitudeTest(fold.exam)
        self.new = [name for name in fold.names if name in fold.new]
        self.full = {name: self.test.profile_from_records(fold.pool, name) for name in fold.names}
        self._vectors = vectors[fold.test_rows]
        self._outcomes = fold.pool.select_items(fold.test_rows).outcomes.T.astype(float)  # (N, 24)
        accuracy = np.nanmean(self._outcomes, axis=0)
        self._zoos = [
            zoo for kind in KINDS for zoo in sample_zoos(fold.names, accuracy, kind, with_one_of=fold.new, seed=seed)
        ]
        self._known_scores = self._score([self.full[name] for name in fold.names])

    def judge(self, item_ids_of: Callable[[str], Sequence[str]]) -> Judged:
        """What comes of it if each new candidate was asked the items that ``item_ids_of`` names."""
        profiles, n_asked = [], []
        for name in self.new:
            shots = self.full[name].shots
            asked = {item_id: shots[item_id] for item_id in item_ids_of(name) if item_id in shots}
            profiles.append(self.profile(name, asked))
            n_asked.append(len(asked))
        columns = [self.fold.names.index(name) for name in self.new]
        scores = self._known_scores.copy()
        scores[:, columns] = self._score(profiles)
        outcomes = self._outcomes[:, columns]
        known = ~np.isnan(outcomes)
        error = brier(scores[:, columns][known], outcomes[known])
        return Judged(float(np.mean(n_asked)), self._gains(scores), scores[:, columns], error)

    def profile(self, name: str, scores: Mapping[str, float]) -> CapabilityProfile:
        """A profile of some of a candidate's answers."""
        return self.test.profile_of_scores(scores, name, provenance=Provenance(source="records"))

    def adaptive_sitting(self, name: str) -> list[str]:
        """The questions of an adaptive sitting, until it stops by itself."""
        items = [shot.item_id for shot in self.fold.exam.sheet.shots]
        others = [profile for other, profile in self.full.items() if other not in self.fold.new]
        order = AdaptiveOrder(self.test, items, name, self.fold.scorer, others)
        truth = self.full[name].shots
        scores: dict[str, float] = {}
        asked: list[str] = []
        while chosen := order.next_round(scores):
            asked.extend(chosen)
            scores.update({item_id: truth[item_id] for item_id in chosen if item_id in truth})
        return asked

    def _score(self, profiles: Sequence[CapabilityProfile]) -> Floats:
        return self.fold.scorer.score_vectors(self._vectors, profiles).probabilities.astype(float)

    def _gains(self, scores: Floats) -> Floats:
        gains = np.full((len(self._zoos), len(scores)), np.nan)
        for row, zoo in enumerate(map(list, self._zoos)):
            known = np.flatnonzero(~np.isnan(self._outcomes[:, zoo]).any(axis=1))
            y = self._outcomes[np.ix_(known, np.array(zoo))]
            routed = y[np.arange(len(y)), scores[np.ix_(known, np.array(zoo))].argmax(axis=1)]
            gains[row, known] = routed - y[:, y.mean(axis=0).argmax()]
        mean: Floats = np.nanmean(gains, axis=0)
        return mean


def judge_fold(judge: FoldJudge) -> dict[str, Judged]:
    """Every kind of exam."""
    exam = judge.fold.exam
    found = {FULL: judge.judge(lambda name: list(judge.full[name].shots))}

    def plain(label: str, **limits: Any) -> None:
        ids = [shot.item_id for shot in shorten(exam, **limits)]
        found[label] = judge.judge(lambda name: ids)

    for n_shots in SHOTS:
        plain(f"--shots {n_shots}", n_shots=n_shots)
    for n_tasks in TASKS:
        plain(f"--tasks {n_tasks}", n_tasks=n_tasks)
    order = [shot.item_id for shot in shorten(exam)]
    for n in PREFIXES:
        found[f"first {n} in plain order"] = judge.judge(lambda name, n=n: order[:n])  # type: ignore[misc]  # n is bound
    sittings = {name: judge.adaptive_sitting(name) for name in judge.new}
    for n in ADAPTIVE_PREFIXES:
        found[f"first {n} adaptive"] = judge.judge(lambda name, n=n: sittings[name][:n])  # type: ignore[misc]
    found["--adaptive, stopped by itself"] = judge.judge(sittings.__getitem__)
    return found


def main() -> None:
    """Train or load four scorers, judge every kind of exam, print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--folds", type=int, nargs="+", default=range(1, len(FOLDS) + 1), help="which folds, from 1")
    parser.add_argument("--scorers", type=Path, help="a folder to keep the trained scorers in")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    records = load_records()
    vectors = embeddings(records)
    judged = []
    for number in (fold - 1 for fold in arguments.folds):
        saved = arguments.scorers / f"{arguments.seed}-{number}" if arguments.scorers else None
        fold = train_fold(records, vectors, number, "broad", arguments.seed, saved)
        started = time.time()
        judged.append(judge_fold(FoldJudge(fold, vectors, arguments.seed)))
        print(f"judged fold {number + 1} in {time.time() - started:.0f} s", file=sys.stderr, flush=True)
    print(json.dumps({label: _row(label, judged, arguments.seed) for label in judged[0]}, indent=1))


def _row(label: str, judged: Sequence[Mapping[str, Judged]], seed: int) -> dict[str, object]:
    ours, full = [fold[label] for fold in judged], [fold[FULL] for fold in judged]
    gains = np.nanmean([one.gains for one in ours], axis=0)  # the folds share their test items
    lost = np.nanmean([one.gains - whole.gains for one, whole in zip(ours, full, strict=True)], axis=0)
    low, high = bootstrap_interval(lost, seed=seed)
    moved = np.mean([np.abs(one.scores - whole.scores).mean() for one, whole in zip(ours, full, strict=True)])
    return {
        "questions": round(float(np.mean([one.n_asked for one in ours])), 1),
        "gain": round(100 * float(np.nanmean(gains)), 2),
        "against_full": [round(100 * float(v), 2) for v in (np.nanmean(lost), low, high)],
        "score_error": round(float(moved), 4),
        "brier": round(float(np.mean([one.brier for one in ours])), 4),
    }


if __name__ == "__main__":
    main()
