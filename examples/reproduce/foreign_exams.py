"""A benchmark that training has never seen, with a short exam of its own questions, and candidates that are new.

    python examples/reproduce/foreign_exams.py [--seed 11] [--published-encoder]

Each of four benchmarks is left out in turn. All candidates are split by family into two halves: the scorer is trained
on the other benchmarks' questions and one half (its encoder was tuned without any of the four), and routes zoos of 3 to
6 of the other half, which sat an exam of about 200 of the benchmark's own questions. Gains in points on the questions
left over, mean over 50 zoos, with [95% interval over questions]; the baselines see the same exam and embeddings.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from common import digest_of_encoder, embeddings, load_records, rows_of, rows_without, sat, tuned
from numpy.typing import NDArray
from panels import Study, points

from msat_core import CompactSettings, Records, select_exam
from msat_core.encoders.folder import EncoderFiles
from msat_core.evaluation.metrics import mean_auc
from msat_core.evaluation.studies.pooled import Panel, pooled_gains
from msat_core.evaluation.studies.zoos import MAX_OF_FAMILY
from msat_core.families import family_of
from msat_core.training.compact.train import candidate_folds, train_kernel, uncalibrated_scorer

RESULT = Path(__file__).parent / "results" / "foreign_exams.json"
TARGETS = {"cruxeval": 20, "gsm8k": 20, "math_l5": 20, "stemez": 13}  # shots a task, for about 200 in all
BASELINES = ("knn", "kmeans", "tasks")
YARDSTICKS = ("best_by_aptitude", "best_single", "reference_winner")
ZOO_SIZES = (3, 6)
ZOOS_A_HALF = 25


def main() -> None:
    """Every benchmark in turn; print and keep one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--published-encoder", action="store_true", help="leave the encoder as it was published")
    arguments = parser.parse_args()
    seed = arguments.seed
    torch.set_num_threads(1)
    records = load_records()
    folds = candidate_folds(records.candidates, 2, seed)
    halves = [frozenset(records.candidates[i] for i in fold) for fold in folds]
    encoders = [None if arguments.published_encoder else tuned_without(records, half) for half in halves]
    vectors = [embeddings(records, encoder) for encoder in encoders]
    published = embeddings(records)
    report: dict[str, object] = {"seed": seed, "encoder": "published" if arguments.published_encoder else "tuned"}
    for target, shots in TARGETS.items():
        started = time.time()
        panels = [
            panel(records, published, v, target, shots, half, seed, encoder)
            for v, half, encoder in zip(vectors, halves, encoders, strict=True)
        ]
        report[target] = summary(panels, seed)
        print(f"{target}: {time.time() - started:.0f} s", file=sys.stderr, flush=True)
    if not arguments.published_encoder:
        RESULT.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


def tuned_without(records: Records, new: frozenset[str]) -> EncoderFiles:
    """An encoder tuned without the four benchmarks and without the new candidates."""
    foreign = np.array([task.split("/")[0] in TARGETS for task in records.tasks])
    held = {records.text_sha256[i] for i in np.flatnonzero(foreign)}
    rows = rows_without(records, held)
    return tuned(records, rows, [name for name in records.candidates if name not in new])


def panel(
    records: Records,
    published: NDArray[np.float32],
    vectors: NDArray[np.float32],
    target: str,
    shots: int,
    half: frozenset[str],
    seed: int,
    encoder: EncoderFiles | None,
) -> Panel:
    """Train without the benchmark and one half of all candidates; score that half on the benchmark."""
    inside = np.array([task.split("/")[0] == target for task in records.tasks])
    rows = np.flatnonzero(inside)
    names = sat(records.select_items(rows))
    new = [name for name in names if name in half]
    relatives = {family_of(name) for name in new}
    exam = select_exam(
        records.select_items(rows).select_candidates(names),
        rule="own-tasks",
        n_shots=shots,
        seed=seed,
        vectors=published[rows],  # a benchmark that is one large task is split by them: alike for both halves
        encoder_digest=digest_of_encoder(),
    )
    asked = rows_of(records, exam)
    exam = exam.with_embeddings(digest_of_encoder(encoder), vectors[asked])
    held = {records.text_sha256[i] for i in rows}
    train = rows_without(records, held)
    others = [name for name in records.candidates if family_of(name) not in relatives]
    known = records.select_items(train).select_candidates(others)
    kernel = train_kernel(known, torch.from_numpy(vectors[train]), CompactSettings())
    scorer = uncalibrated_scorer(
        kernel, digest_of_encoder(encoder), encoder_files=encoder
    )  # calibration moves no choice
    pool, test = records.select_candidates(new), rows_without(records, exam.text_hashes, rows)
    return Study(pool, vectors, exam, test, frozenset(new)).panel(scorer, BASELINES)


def summary(panels: list[Panel], seed: int) -> dict[str, object]:
    """Gains of ours in points over the zoos of both halves, and AUC."""
    gains = pooled_gains(panels, [random_zoos(one.names, seed) for one in panels], seed=seed)
    over = {f"over_{name}": gains["routed"]["over"][name] for name in YARDSTICKS}
    over |= {f"over_{name}": gains[name]["ours_minus"] for name in BASELINES}
    areas = []
    for one in panels:
        known = ~np.isnan(one.outcomes).any(axis=1)
        areas.append(mean_auc(one.scores["routed"][known], one.outcomes[known]))
    return {
        "exam_size": panels[0].exam_size,
        "n_test": len(panels[0].tasks),
        "auc": round(float(np.mean(areas)), 4),  # type: ignore[arg-type]  # all have both classes
        **{name: points(values) for name, values in over.items()},
        "worst_zoo": points([gains["routed"]["worst_zoo"]])[0],
    }


def random_zoos(names: tuple[str, ...], seed: int) -> list[tuple[int, ...]]:
    """Distinct random zoos of any spread, at most two of a family."""
    rng = np.random.default_rng(seed)
    zoos: dict[tuple[int, ...], None] = {}
    while len(zoos) < ZOOS_A_HALF:
        size = int(rng.integers(ZOO_SIZES[0], ZOO_SIZES[1] + 1))
        zoo = tuple(sorted(rng.choice(len(names), size, replace=False).tolist()))
        families = [family_of(names[i]) for i in zoo]
        if max(map(families.count, families)) <= MAX_OF_FAMILY:
            zoos[zoo] = None
    return list(zoos)


if __name__ == "__main__":
    main()
