"""How well candidates that training has never seen are routed: four folds of new candidates of MMLU-Pro.

    python examples/reproduce/new_candidates.py [--seed 11] [--rule broad|distinguishing|half-right] [--tune-encoder]

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
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from common import FOLDS, benchmark_part, embeddings, load_records, sat, tuned
from numpy.typing import NDArray

from msat_core import AptitudeTest, CompactScorer, Exam, Records
from msat_core.aptitude.selection import Rule, select_exam
from msat_core.evaluation.metrics import auc, bootstrap_interval, brier, calibration_error
from msat_core.evaluation.yardsticks import yardsticks
from msat_core.evaluation.zoos import Kind, sample_zoos
from msat_core.families import family_of
from msat_core.scoring.encoders import embedded_digest
from msat_core.scoring.low_rank import LowRankDelta
from msat_core.training.compact import CompactSettings, train_compact

N_TEST = 2000
EXAM_SIZE = 1000
KINDS: tuple[Kind, ...] = ("near-equal", "mixed", "dominant")


@dataclass(frozen=True)
class Fold:
    """Test outcomes of all 24 candidates and the scores that a scorer gave them."""

    names: tuple[str, ...]
    new: frozenset[str]
    test: Records
    scores: NDArray[np.float32]  # (N, M)
    aptitude: NDArray[np.float64]  # (M,)


@dataclass(frozen=True)
class TrainedFold:
    """A scorer that knows neither the new candidates nor the test items, and the exam that all sit."""

    names: tuple[str, ...]
    new: frozenset[str]
    pool: Records  # outcomes of all 24 candidates on all items
    test_rows: NDArray[np.intp]
    exam: Exam
    scorer: CompactScorer


def main() -> None:
    """Train four scorers, evaluate each on its new candidates, print one table."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    records, folds = load_records(), []
    for number in range(len(FOLDS)):
        delta = tuned_for(records, number, arguments.rule, arguments.seed) if arguments.tune_encoder else None
        vectors = embeddings(records, delta)
        folds.append(run_fold(records, vectors, number, arguments.rule, arguments.seed, delta))
    report = summary(folds, arguments.seed)
    print(json.dumps({"rule": arguments.rule, "seed": arguments.seed, **report}, indent=1))


def tuned_for(records: Records, number: int, rule: Rule, seed: int) -> LowRankDelta:
    """An encoder tuned without anything that this fold and its partner test on."""
    drawn = [draw_fold(records, one, rule, seed) for one in range(len(FOLDS)) if one // 2 == number // 2]
    texts = set().union(*(one.exam.text_hashes | one.test_texts for one in drawn))
    rows = np.array([i for i, text in enumerate(records.text_sha256) if text not in texts])
    return tuned(records, rows, [name for name in records.candidates if all(name in one.kept for one in drawn)])


def run_fold(
    records: Records,
    vectors: NDArray[np.float32],
    number: int,
    rule: Rule,
    seed: int,
    delta: LowRankDelta | None = None,
) -> Fold:
    """Train without the fold's candidates and score all candidates on the test items."""
    fold = train_fold(records, vectors, number, rule, seed, delta=delta)
    test = AptitudeTest(fold.exam)
    profiles = [test.profile_from_records(fold.pool, name) for name in fold.names]
    scores = fold.scorer.score_vectors(vectors[fold.test_rows], profiles).probabilities
    aptitude = np.array([p.accuracy for p in profiles])
    return Fold(fold.names, fold.new, fold.pool.select_items(fold.test_rows), scores, aptitude)


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
    rule: Rule,
    seed: int,
    vectors: NDArray[np.float32] | None = None,
    delta: LowRankDelta | None = None,
) -> DrawnFold:
    """Candidates, test items and exam of a fold."""
    mmlu = np.flatnonzero(benchmark_part(records, ("mmlu_pro",)))
    names = tuple(sat(records.select_items(mmlu)))
    new = frozenset(name for name in names if any(part in name for part in FOLDS[number]))
    families = {family_of(name) for name in new}
    pool = records.select_candidates(names)
    test_rows = np.random.default_rng(seed).permutation(mmlu)[:N_TEST]
    test_texts = frozenset(records.text_sha256[i] for i in test_rows)
    free = np.array([i for i in mmlu if records.text_sha256[i] not in test_texts])
    exam = select_exam(
        pool.select_items(free).select_candidates([n for n in names if n not in new]),
        rule=rule,
        seed=seed,
        task_prefix="mmlu/" if rule == "half-right" else "",
        vectors=None if vectors is None else vectors[free],
        encoder_digest="" if vectors is None else embedded_digest(delta=delta),
    )
    kept = tuple(name for name in records.candidates if family_of(name) not in families)
    return DrawnFold(names, new, kept, pool, test_rows, test_texts, exam)


def train_fold(
    records: Records,
    vectors: NDArray[np.float32],
    number: int,
    rule: Rule,
    seed: int,
    saved: Path | None = None,
    delta: LowRankDelta | None = None,
) -> TrainedFold:
    """Train without the fold's candidates and the test items, or load what was saved of it before."""
    started = time.time()
    fold = draw_fold(records, number, rule, seed, vectors, delta)
    if saved is not None and saved.is_dir():
        scorer = CompactScorer.load(saved)
    else:
        excluded = fold.exam.text_hashes | fold.test_texts
        rows = np.array([i for i in range(len(records)) if records.text_sha256[i] not in excluded])
        learnt = records.select_items(rows).select_candidates(fold.kept)
        scorer = train_compact(learnt, vectors[rows], embedded_digest(delta=delta), CompactSettings(), delta=delta)
        if saved is not None:
            scorer.save(saved)
    scorer.add_exam(fold.exam)
    print(f"fold {number + 1}: {time.time() - started:.0f} s, {scorer.config.slope=}", file=sys.stderr, flush=True)
    return TrainedFold(fold.names, fold.new, fold.pool, fold.test_rows, fold.exam, scorer)


def summary(folds: list[Fold], seed: int) -> dict[str, object]:
    """Gains over the yardsticks by kind of zoo, and the quality of the scores of new candidates."""
    report: dict[str, object] = {}
    for kind in KINDS:
        report[kind] = _gains(folds, kind, seed)
    quality = []
    for fold in folds:
        columns = [i for i, name in enumerate(fold.names) if name in fold.new]
        scores, outcomes = fold.scores[:, columns], fold.test.outcomes[columns].T
        known = ~np.isnan(outcomes)
        areas = [auc(scores[k, m], outcomes[k, m]) for m, k in enumerate(known.T)]
        error = calibration_error(scores[known], outcomes[known])
        quality.append((np.mean(areas), error.plain, error.debiased, brier(scores[known], outcomes[known])))
    names = ("auc", "ece", "ece_debiased", "brier")
    report["new_candidates"] = {name: round(float(np.mean([q[i] for q in quality])), 4) for i, name in enumerate(names)}
    return report


def _gains(folds: list[Fold], kind: Kind, seed: int) -> dict[str, object]:
    """Mean gain in points over all zoos, with intervals over items (resampled within each fold)."""
    over: dict[str, list[NDArray[np.float64]]] = {"best_single": [], "best_by_aptitude": [], "reference_winner": []}
    by_zoo, n_zoos = [], []
    for fold in folds:
        outcomes = fold.test.outcomes.T.astype(float)
        zoos = sample_zoos(fold.names, np.nanmean(outcomes, axis=0), kind, with_one_of=fold.new, seed=seed)
        gains = {name: np.full((len(zoos), len(outcomes)), np.nan) for name in over}
        for row, zoo in enumerate(map(list, zoos)):
            known = np.flatnonzero(~np.isnan(outcomes[:, zoo]).any(axis=1))
            y, scores = outcomes[np.ix_(known, zoo)], fold.scores[np.ix_(known, zoo)]
            routed = y[np.arange(len(y)), scores.argmax(axis=1)]
            tasks = tuple(fold.test.tasks[i] for i in known)
            sticks = yardsticks(y, tasks, fold.aptitude[zoo], EXAM_SIZE, seed=seed)
            for name, values in gains.items():
                values[row, known] = routed - getattr(sticks, name)
        n_zoos.append(len(zoos))
        by_zoo.extend(np.nanmean(gains["best_single"], axis=1).tolist())
        for name, values in gains.items():
            over[name].append(np.nanmean(values, axis=0))
    result: dict[str, object] = {"n_zoos": n_zoos, "worst_zoo": round(100 * min(by_zoo), 2)}
    result["share_won"] = round(float(np.mean(np.array(by_zoo) > 0)), 3)
    for name, per_fold in over.items():
        per_item = np.nanmean(per_fold, axis=0)  # the folds share their test items
        low, high = bootstrap_interval(per_item, seed=seed)
        result[f"over_{name}"] = [round(100 * float(v), 2) for v in (per_item.mean(), low, high)]
    return result


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--rule", choices=("broad", "distinguishing", "half-right"), default="broad")
    parser.add_argument("--tune-encoder", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
