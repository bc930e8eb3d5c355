"""How well candidates that training has never seen are routed: four folds of new candidates of MMLU-Pro.

    python examples/reproduce/new_candidates.py [--seed 11] [--rule broad|distinguishing|half-right] [--tune-encoder]
        [--baselines knn tasks forest]

Per fold the scorer is trained without the fold's candidates (and their relatives in the other benchmarks) and
without the 2,000 test items (left out by text); the exam's questions are in neither. ``--seed`` draws test items,
exams and zoos: development used seed 1, the reported figures another. ``--tune-encoder`` first tunes the encoder,
once for two folds: without the new candidates of both, and without the test items and both exams.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from common import FOLDS, benchmark_part, digest_of_encoder, embeddings, load_records, rows_without, sat, tuned
from numpy.typing import NDArray
from panels import Study, points

from msat_core import CompactScorer, CompactSettings, Exam, ExamRule, Records, select_exam, train_compact
from msat_core.encoders.folder import EncoderFiles
from msat_core.evaluation.baselines import OutcomeTable
from msat_core.evaluation.metrics import auc, brier, calibration_error
from msat_core.evaluation.studies.pooled import Panel, pooled_gains
from msat_core.evaluation.studies.zoos import Kind, sample_zoos
from msat_core.families import family_of

N_TEST = 2000
KINDS: tuple[Kind, ...] = ("near-equal", "mixed", "dominant")
YARDSTICKS = ("best_single", "best_by_aptitude", "reference_winner")


@dataclass(frozen=True)
class TrainedFold:
    """A scorer that knows neither the new candidates nor the test items, and the exam that all sit."""

    names: tuple[str, ...]
    new: frozenset[str]
    pool: Records  # outcomes of all 24 candidates on all items
    train_rows: NDArray[np.intp]
    learnt: Records  # of the training items and candidates
    test_rows: NDArray[np.intp]
    exam: Exam
    scorer: CompactScorer


def main() -> None:
    """Train four scorers, evaluate each on its new candidates, print one table."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    records, panels = load_records(), []
    for number in range(len(FOLDS)):
        encoder = tuned_for(records, number, arguments.rule, arguments.seed) if arguments.tune_encoder else None
        vectors = embeddings(records, encoder)
        fold = train_fold(records, vectors, number, arguments.rule, arguments.seed, encoder=encoder)
        panels.append(panel_of(vectors, fold, arguments.baselines))
    report = summary(panels, arguments.seed)
    print(
        json.dumps(
            {"rule": arguments.rule, "seed": arguments.seed, "tuned": arguments.tune_encoder, **report}, indent=1
        )
    )


def tuned_for(records: Records, number: int, rule: ExamRule, seed: int) -> EncoderFiles:
    """An encoder tuned without anything that this fold and its partner test on."""
    drawn = [draw_fold(records, one, rule, seed) for one in range(len(FOLDS)) if one // 2 == number // 2]
    texts = set().union(*(one.exam.text_hashes | one.test_texts for one in drawn))
    rows = rows_without(records, texts)
    return tuned(records, rows, [name for name in records.candidates if all(name in one.kept for one in drawn)])


def panel_of(vectors: NDArray[np.float32], fold: TrainedFold, baselines: Sequence[str]) -> Panel:
    """The test items scored by ours and by baselines that see the same exam and embeddings."""
    study = Study(fold.pool, vectors, fold.exam, fold.test_rows, fold.new)
    learnt = OutcomeTable(vectors[fold.train_rows], fold.learnt.tasks, fold.learnt.outcomes.T.astype(float))
    return study.panel(fold.scorer, baselines, others=learnt)


@dataclass(frozen=True)
class DrawnFold:
    """What a fold tests on and what is left to learn from."""

    names: tuple[str, ...]
    new: frozenset[str]
    kept: tuple[str, ...]  # candidates of all benchmarks that are no relatives of the new ones
    pool: Records
    test_rows: NDArray[np.intp]
    test_texts: frozenset[str]
    exam: Exam


def draw_fold(
    records: Records,
    number: int,
    rule: ExamRule,
    seed: int,
    vectors: NDArray[np.float32] | None = None,
    encoder: EncoderFiles | None = None,
) -> DrawnFold:
    """Candidates, test items and exam of a fold."""
    mmlu = np.flatnonzero(benchmark_part(records, ("mmlu_pro",)))
    names = tuple(sat(records.select_items(mmlu)))
    new = frozenset(name for name in names if any(part in name for part in FOLDS[number]))
    families = {family_of(name) for name in new}
    pool = records.select_candidates(names)
    test_rows = np.random.default_rng(seed).permutation(mmlu)[:N_TEST]
    test_texts = frozenset(records.text_sha256[i] for i in test_rows)
    free = rows_without(records, test_texts, mmlu)
    exam = select_exam(
        pool.select_items(free).select_candidates([n for n in names if n not in new]),
        rule=rule,
        seed=seed,
        task_prefix="mmlu/" if rule == "half-right" else "",
        vectors=None if vectors is None else vectors[free],
        encoder_digest="" if vectors is None else digest_of_encoder(encoder),
    )
    kept = tuple(name for name in records.candidates if family_of(name) not in families)
    return DrawnFold(names, new, kept, pool, test_rows, test_texts, exam)


def train_fold(
    records: Records,
    vectors: NDArray[np.float32],
    number: int,
    rule: ExamRule,
    seed: int,
    saved: Path | None = None,
    encoder: EncoderFiles | None = None,
) -> TrainedFold:
    """Train without the fold's candidates and the test items, or load what was saved of it before."""
    started = time.time()
    fold = draw_fold(records, number, rule, seed, vectors, encoder)
    rows = rows_without(records, fold.exam.text_hashes | fold.test_texts)
    learnt = records.select_items(rows).select_candidates(fold.kept)
    if saved is not None and saved.is_dir():
        scorer = CompactScorer.load(saved)
    else:
        scorer = train_compact(
            learnt, vectors[rows], digest_of_encoder(encoder), CompactSettings(), encoder_files=encoder
        )
        if saved is not None:
            scorer.save(saved)
    assert scorer.config.encoder_digest == digest_of_encoder(encoder), f"{saved} is of another encoder"
    scorer.add_exam(fold.exam)
    print(f"fold {number + 1}: {time.time() - started:.0f} s, {scorer.config.slope=}", file=sys.stderr, flush=True)
    return TrainedFold(fold.names, fold.new, fold.pool, rows, learnt, fold.test_rows, fold.exam, scorer)


def summary(panels: list[Panel], seed: int) -> dict[str, object]:
    """Gains in points by kind of zoo, [mean, low, high] with intervals over items, and the quality of the scores."""
    report: dict[str, object] = {}
    for kind in KINDS:
        zoos = [
            sample_zoos(one.names, np.nanmean(one.outcomes, axis=0), kind, with_one_of=one.new, seed=seed)
            for one in panels
        ]
        found = pooled_gains(panels, zoos, seed=seed)
        ours = found["routed"]
        report[kind] = {
            "n_zoos": ours["n_zoos"],
            "worst_zoo": {name: points([row["worst_zoo"]])[0] for name, row in found.items()},
            "share_won": round(ours["share_won"], 3),
            **{f"over_{name}": points(ours["over"][name]) for name in YARDSTICKS},
            **{f"over_{name}": points(row["ours_minus"]) for name, row in found.items() if row is not ours},
        }
    for name in panels[0].scores:
        report[f"quality_{name}"] = _quality(panels, name)
    return report


def _quality(panels: list[Panel], method: str) -> dict[str, float]:
    """Of the scores of new candidates, mean over folds."""
    found = []
    for panel in panels:
        columns = [i for i, name in enumerate(panel.names) if name in panel.new]
        scores, outcomes = panel.scores[method][:, columns], panel.outcomes[:, columns]
        known = ~np.isnan(outcomes)
        areas = [auc(scores[k, m], outcomes[k, m]) for m, k in enumerate(known.T)]
        error = calibration_error(scores[known], outcomes[known])
        area = np.mean(areas)  # type: ignore[arg-type]  # all have both classes
        found.append((area, error.plain, error.debiased, brier(scores[known], outcomes[known])))
    names = ("auc", "ece", "ece_debiased", "brier")
    return {name: round(float(np.mean([q[i] for q in found])), 4) for i, name in enumerate(names)}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--rule", choices=("broad", "distinguishing", "half-right"), default="broad")
    parser.add_argument("--tune-encoder", action="store_true")
    parser.add_argument("--baselines", nargs="*", default=["knn", "tasks", "forest"])
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
