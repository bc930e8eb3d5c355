"""An exam of one's own questions on benchmarks that the shipped scorer and its encoder have never seen.

    python examples/reproduce/own_exams.py --half development    # what was chosen on
    python examples/reproduce/own_exams.py                       # the reported figures, once

Each set's questions are cut in two by the hash of their text. Exams (three draws, by the records' own tasks) and the
questions left over come from one half; `farel`, of 400 questions, draws its exams from all. *plain* is the same scorer
without what an exam teaches (which kind a question is, how far its tasks set candidates apart); *true task* is the mean
of the exam's outcomes in the question's true task, which nobody is told when routing. Gains are in points, mean over
zoos and draws, with [95% interval over questions].
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from common import CACHE, records_folder, sat, telling
from numpy.typing import NDArray
from panels import Study, points

from msat_core import Records, load_scorer, pretrained, select_exam
from msat_core.encoders.cache import EmbeddingCache
from msat_core.evaluation.metrics import calibration_error, mean_auc
from msat_core.evaluation.studies.pooled import Panel, pooled_gains
from msat_core.evaluation.studies.zoos import Kind, sample_zoos
from msat_core.scoring.base import EmbeddingScorer
from msat_core.scoring.compact import scorer as compact

RESULT = Path(__file__).parent / "results" / "own_exams.json"
KINDS: tuple[Kind, ...] = ("near-equal", "mixed", "dominant")
MOST = 0.55  # of the questions that so many candidates have answered: who has is kept
BASELINES = ("knn", "kmeans", "tasks", "forest")
HALVES, SEEDS = {"development": 0, "report": 1}, {"development": (1, 2, 3), "report": (11, 12, 13)}


@dataclass(frozen=True)
class Own:
    """A set: shots a task, questions looked at, and how many candidates must have answered each (0: all are kept)."""

    shots: int
    pool: int = 10**6
    known: int = 0
    exam_of_all: bool = False


SETS = {
    "farel": Own(19, exam_of_all=True),
    "farel, few": Own(3, exam_of_all=True),
    "mixed_qa": Own(20, pool=2000),
    "reasoning_gym": Own(8, known=9),
}


def main() -> None:
    """Every set in turn; print and keep one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--half", choices=tuple(HALVES), default="report")
    half = parser.parse_args().half
    report = {name: summary(name, own, half) for name, own in SETS.items()}
    if half == "report":
        RESULT.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


def summary(name: str, own: Own, half: str) -> dict[str, Any]:
    """Gains by kind of zoo and the quality of the scores."""
    started = time.time()
    scorer = load_scorer(pretrained.SCORER)
    assert isinstance(scorer, EmbeddingScorer)
    records, mine = pool_of(name, own, HALVES[half])
    vectors = EmbeddingCache(scorer.encoder, CACHE, telling("embedded")).encode(records.instructions).vectors
    panels = [panel(records, vectors, mine, scorer, own, seed) for seed in SEEDS[half]]
    print(f"{name}: {time.time() - started:.0f} s", file=sys.stderr, flush=True)
    return {"exam": panels[0].exam_size, "questions": int(mine.sum()), "names": panels[0].names, **summary_of(panels)}


def summary_of(panels: list[Panel]) -> dict[str, Any]:
    """Gains of each method by kind of zoo, in points, and the quality of its scores."""
    summary: dict[str, Any] = {}
    for kind in KINDS:
        zoos = [sample_zoos(one.names, np.nanmean(one.outcomes, axis=0), kind, seed=11) for one in panels]
        for method, row in pooled_gains(panels, zoos, seed=11).items():
            summary[f"{kind}, {method}"] = {
                "zoos": row["n_zoos"],
                "over_best_single": points(row["over"]["best_single"]),
                "over_best_by_exam": points(row["over"]["best_by_aptitude"]),
                "under_oracle": points(row["over"]["oracle"]),
                "fifth_zoo": round(100 * row["fifth_zoo"], 2),
                "ours_minus": points(row.get("ours_minus", [0.0] * 3)),
            }
    for method in panels[0].scores:
        summary[f"quality_{method}"] = quality(panels, method)
    return summary


def pool_of(name: str, own: Own, half: int) -> tuple[Records, NDArray[np.bool_]]:
    """The set's questions that every candidate kept has answered, and which of them are the half's."""
    records = Records.load(records_folder() / name.split(",")[0])
    if own.known:
        records = records.select_items(np.flatnonzero((~np.isnan(records.outcomes)).sum(axis=0) >= own.known))
        records = records.select_candidates(sat(records, MOST))
        records = records.select_items(np.flatnonzero(~np.isnan(records.outcomes).any(axis=0)))
    if len(records) > own.pool:
        records = records.select_items(np.sort(np.random.default_rng(0).choice(len(records), own.pool, replace=False)))
    mine = np.array([int(text, 16) % 2 == half for text in records.text_sha256])
    return (records, mine) if own.exam_of_all else (records.select_items(np.flatnonzero(mine)), mine[mine])


def panel(
    records: Records,
    vectors: NDArray[np.float32],
    mine: NDArray[np.bool_],
    scorer: EmbeddingScorer,
    own: Own,
    seed: int,
) -> Panel:
    """One exam, and the half's questions scored by all methods; those of the exam have no outcome."""
    exam = select_exam(
        records, rule="own-tasks", n_shots=own.shots, seed=seed, vectors=vectors, encoder_digest=scorer.encoder_digest
    )
    study = Study(records, vectors, exam, np.flatnonzero(mine))
    found = study.panel(scorer, BASELINES)
    plain = load_scorer(pretrained.SCORER)
    assert isinstance(plain, EmbeddingScorer)
    with patch.object(compact, "OWN_RULES", ()):  # whose exams teach
        scores = {**found.scores, "plain": study.scores(plain)}
    known = study.exam_outcomes
    if set(known.tasks) & set(found.tasks):
        tasks = np.array(known.tasks)
        by_task = {task: np.nanmean(known.outcomes[tasks == task], axis=0) for task in set(known.tasks)}
        scores["true task"] = np.stack([by_task.get(label, known.accuracy) for label in found.tasks])
    in_exam = [text in exam.text_hashes for text in records.select_items(study.asked).text_sha256]
    outcomes = np.where(np.array(in_exam)[:, None], np.nan, found.outcomes)
    return replace(found, outcomes=outcomes, scores=scores)


def quality(panels: list[Panel], method: str) -> dict[str, float]:
    """AUC and calibration error, mean over draws."""
    found = []
    for one in panels:
        known = ~np.isnan(one.outcomes)
        rows = known.all(axis=1)
        error = calibration_error(one.scores[method][known], one.outcomes[known]).plain
        found.append((mean_auc(one.scores[method][rows], one.outcomes[rows]), error))
    return {
        "auc": round(float(np.mean([a for a, _ in found])), 4),
        "ece": round(float(np.mean([e for _, e in found])), 4),
    }


if __name__ == "__main__":
    main()
