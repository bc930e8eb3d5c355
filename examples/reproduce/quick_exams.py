"""The quick exam beside longer ones, for candidates held out from everything, the choice of its questions too.

    python examples/reproduce/quick_exams.py [--scorer FOLDER]

MMLU-Pro: a scorer that has seen neither one half of the candidates nor the exam nor the 2,000 test questions
(`held_out.py`) chooses 100 questions from its prior and the other half's profiles. reasoning-gym: the shipped scorer,
which never saw it; its nine well-known candidates are new three at a time, and the questions chosen against the others.
Each new candidate sits a part of the exam, the others sat all of it; zoos are near-equal and mixed, with at least one
that is new. Columns as in `short_exams.py`, with 95% intervals over test questions; *profile error* is the mean
absolute difference of the new candidates' scores from those after the full exam.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from common import records_folder
from held_out import held_out
from new_candidates import TrainedFold
from numpy.typing import NDArray
from short_exams import FoldJudge, Judged
from trial import Own, pool_of

from msat_core import CompactScorer, Exam, Records, load_scorer, pretrained
from msat_core.aptitude.paper import shorten
from msat_core.aptitude.quick_choice import MAX_QUESTIONS, choose_quick
from msat_core.encoders.cache import EmbeddingCache, embeddings_folder
from msat_core.evaluation.metrics import bootstrap_interval

SEED = 11
MIN_SHOTS = 300  # of an exam, for a candidate to be well known


def main() -> None:
    """Both exams; print two tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scorer", type=Path, help="a folder to keep the held-out scorer in")
    arguments = parser.parse_args()
    print(table("MMLU-Pro", [judged(fold, vectors) for fold, vectors in mmlu_folds(arguments.scorer)]), flush=True)
    print(table("reasoning-gym", [judged(fold, vectors) for fold, vectors in gym_folds()]), flush=True)


def mmlu_folds(saved: Path | None) -> list[tuple[TrainedFold, NDArray[np.float32]]]:
    """One half of the candidates new."""
    known = held_out(saved)
    exam, scorer = Exam.load(pretrained.EXAM), known.scorer
    names = full_sitters(known.records, exam)
    vectors = EmbeddingCache(scorer.encoder, embeddings_folder()).encode(known.records.instructions).vectors
    new = frozenset(name for name in names if known.is_new(name))
    return [(fold_of(known.records, names, new, known.test_rows, exam, scorer), vectors)]


def gym_folds() -> list[tuple[TrainedFold, NDArray[np.float32]]]:
    """Three new candidates at a time."""
    exam, scorer = Exam.load(pretrained.EXAM_REASONING), load_scorer(pretrained.SCORER)
    assert isinstance(scorer, CompactScorer)
    records = Records.load(records_folder() / "reasoning_gym")
    names = full_sitters(records, exam)
    pools = [pool_of(Own("reasoning_gym", half=half)) for half in (0, 1)]  # those that are embedded for `trial.py`
    wanted = {text for pool in pools for text in pool.text_sha256} - exam.text_hashes
    rows = np.array([i for i, text in enumerate(records.text_sha256) if text in wanted])
    asked = np.array([i for i, text in enumerate(records.text_sha256) if text in exam.text_hashes])
    records = records.select_items(np.concatenate([rows, asked]))
    vectors = np.zeros((len(records), scorer.encoder.dim), np.float32)
    texts = [records.instructions[i] for i in range(len(rows))]
    vectors[: len(rows)] = EmbeddingCache(scorer.encoder, embeddings_folder()).encode(texts).vectors
    order = np.random.default_rng(SEED).permutation(names).tolist()
    test = np.arange(len(rows))
    return [(fold_of(records, names, frozenset(order[k::3]), test, exam, scorer), vectors) for k in range(3)]


def full_sitters(records: Records, exam: Exam) -> tuple[str, ...]:
    """Candidates with outcomes on most of an exam's questions."""
    asked = np.array([text in exam.text_hashes for text in records.text_sha256])
    counts = (~np.isnan(records.outcomes[:, asked])).sum(axis=1)
    return tuple(name for name, count in zip(records.candidates, counts, strict=True) if count > MIN_SHOTS)


def fold_of(
    records: Records,
    names: tuple[str, ...],
    new: frozenset[str],
    test_rows: NDArray[np.intp],
    exam: Exam,
    scorer: CompactScorer,
) -> TrainedFold:
    """As ``short_exams.py`` takes it."""
    scorer.add_exam(exam)
    pool = records.select_candidates(names)
    return TrainedFold(names, new, pool, np.array([], dtype=np.intp), pool, test_rows, exam, scorer)


def judged(fold: TrainedFold, vectors: NDArray[np.float32]) -> dict[str, Judged]:
    """Every length of exam."""
    judge = FoldJudge(fold, vectors, SEED)
    rivals = [judge.full[name] for name in fold.names if name not in fold.new]
    n_tasks = len(fold.exam.sheet.tasks)
    quick = [shot.item_id for shot in choose_quick(fold.exam, fold.scorer, rivals)]
    lengths = {"the whole exam": [shot.item_id for shot in fold.exam.sheet.shots]}
    for n in (250, MAX_QUESTIONS):
        lengths[f"{n} in plain order"] = [shot.item_id for shot in shorten(fold.exam)][:n]
    lengths["quick"] = quick
    assert len(set(shot.task for shot in fold.exam.sheet.shots if shot.item_id in set(quick))) == n_tasks
    return {label: judge.judge(lambda name, ids=ids: ids) for label, ids in lengths.items()}  # type: ignore[misc]  # bound


def table(name: str, folds: Sequence[dict[str, Judged]]) -> str:
    """Markdown: folds share their test questions, so that intervals are over those."""
    whole = "the whole exam"
    lines = [
        f"| {name} | questions | gain over the best single | against the whole exam | profile error |",
        "|---|---|---|---|---|",
    ]
    for label in folds[0]:
        ours = [fold[label] for fold in folds]
        gains = np.nanmean([one.gains for one in ours], axis=0)
        lost = np.nanmean([one.gains - fold[whole].gains for one, fold in zip(ours, folds, strict=True)], axis=0)
        moved = np.mean(
            [np.abs(one.scores - fold[whole].scores).mean(axis=1) for one, fold in zip(ours, folds, strict=True)],
            axis=0,
        )
        n = round(float(np.mean([one.n_asked for one in ours])))
        cells = [
            label,
            str(n),
            with_interval(100 * gains, "+.2f"),
            with_interval(100 * lost, "+.2f"),
            with_interval(moved, ".3f"),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def with_interval(values: NDArray[np.floating], how: str) -> str:
    """The mean over test questions with its interval."""
    known = values[~np.isnan(values)]
    low, high = bootstrap_interval(known, seed=SEED)
    return f"{format(float(known.mean()), how)} [{format(low, how)}, {format(high, how)}]"


if __name__ == "__main__":
    main()
