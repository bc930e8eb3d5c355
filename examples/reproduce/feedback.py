"""What feedback is worth: exam plus n outcomes of the user's own traffic, here questions of a source that is new.

    python examples/reproduce/feedback.py [--folds 4] [--seed 11]

Per fold of new candidates the scorer is trained on `mmlu/*` questions, without the fold's candidates; the exam is of
`mmlu/*` too, and the traffic is of `stemez` (textbook exercises), of which half is recorded from and half judged on.
Two settings: outcomes of every candidate on the recorded questions are known, or only of the candidate that the
router chose at the time (what an app sees; five rounds of choosing and recording). Gains in points over the best
single candidate in hindsight, mean over zoos with [95% interval over questions].
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from common import FOLDS, digest_of_encoder, embeddings, load_records, rows_without, sat
from numpy.typing import NDArray

from msat_core import (
    AptitudeTest,
    CapabilityProfile,
    CompactScorer,
    CompactSettings,
    Records,
    WeightedOutcome,
    select_exam,
    train_compact,
)
from msat_core.evaluation.metrics import bootstrap_interval
from msat_core.evaluation.studies.zoos import sample_zoos
from msat_core.families import family_of
from msat_core.scoring.compact.learner import CompactLearner

RESULT = Path(__file__).parent / "results" / "feedback.json"
COUNTS = (0, 50, 200, 1000)
ROUNDS = 5
N_ZOOS = {"every candidate": 60, "the chosen candidate": 6}

Array = NDArray[np.floating]


def main() -> None:
    """Both settings over four folds; print and keep one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folds", type=int, default=len(FOLDS))
    parser.add_argument("--seed", type=int, default=11)
    options = parser.parse_args()
    seed = options.seed
    torch.set_num_threads(1)
    records = load_records()
    sources = np.array([task.split("/")[0] for task in records.tasks])
    records = records.select_items(np.flatnonzero(np.isin(sources, ("mmlu", "stemez"))))
    vectors = embeddings(records)
    gains: dict[tuple[str, str, int], list[Array]] = {}
    for number in range(options.folds):
        started = time.time()
        for key, values in run_fold(records, vectors, number, seed).items():
            gains.setdefault(key, []).append(values)
        print(f"fold {number + 1}: {time.time() - started:.0f} s", file=sys.stderr, flush=True)
    table: dict[str, dict[str, dict[str, list[float]]]] = {}
    for (setting, kind, n), found in gains.items():
        per_item = np.nanmean(np.concatenate(found), axis=0)
        low, high = bootstrap_interval(per_item, seed=seed)
        row = [round(100 * float(value), 2) for value in (per_item.mean(), low, high)]
        table.setdefault(setting, {}).setdefault(kind, {})[str(n)] = row
    RESULT.write_text(json.dumps({"seed": seed, "folds": options.folds, **table}, indent=1) + "\n")
    print(RESULT.read_text())


def run_fold(
    records: Records, vectors: NDArray[np.float32], number: int, seed: int
) -> dict[tuple[str, str, int], Array]:
    """Per setting, kind of zoo and number of outcomes: (zoos, N) gains over the best single on the test questions."""
    rng = np.random.default_rng(seed)
    tasks = np.array([task.split("/")[0] for task in records.tasks])
    names = sat(records.select_items(np.flatnonzero(np.isin(tasks, ("mmlu", "stemez")))))
    new = frozenset(name for name in names if any(part in name for part in FOLDS[number]))
    traffic = rng.permutation(np.flatnonzero(tasks == "stemez"))
    recorded, judged = traffic[: max(COUNTS)], traffic[len(traffic) // 2 :]
    held = {records.text_sha256[i] for i in traffic}
    free = rows_without(records, held, np.flatnonzero(tasks == "mmlu"))
    pool = records.select_candidates(names)
    exam = select_exam(
        pool.select_items(free),
        n_tasks=40,
        vectors=vectors[free],
        encoder_digest=digest_of_encoder(),
        seed=seed,
        rule="broad",
    )
    train = rows_without(records, exam.text_hashes, free)
    relatives = {family_of(name) for name in new}
    others = [name for name in names if family_of(name) not in relatives]
    scorer = train_compact(
        records.select_items(train).select_candidates(others), vectors[train], digest_of_encoder(), CompactSettings()
    )
    scorer.add_exam(exam)
    profiles = [AptitudeTest(exam).profile_from_records(pool, name) for name in names]
    seen, truth = pool.outcomes[:, recorded], pool.outcomes[:, judged].T.astype(float)
    found = {}
    learnt = {}
    for n in COUNTS:
        learner = scorer.learner()
        every = [_observed(name, vectors[recorded[:n]], seen[m, :n]) for m, name in enumerate(names)]
        learner.learn([one for own in every for one in own], profiles)
        learnt[n] = learner.score_vectors(vectors[judged], profiles).probabilities
    for kind in ("near-equal", "mixed"):
        zoos = sample_zoos(names, np.nanmean(truth, axis=0), kind, with_one_of=new, seed=seed)
        for n, scores in learnt.items():
            picked = zoos[: N_ZOOS["every candidate"]]
            found["every candidate", kind, n] = np.stack(
                [_gain(scores[:, zoo], truth[:, zoo]) for zoo in map(list, picked)]
            )
            rows = []
            for zoo in map(list, zoos[: N_ZOOS["the chosen candidate"]]):
                members = [profiles[m] for m in zoo]
                learner = _record_choices(scorer, members, vectors[recorded[:n]], seen[zoo, :n].T)
                rows.append(_gain(learner.score_vectors(vectors[judged], members).probabilities, truth[:, zoo]))
            found["the chosen candidate", kind, n] = np.stack(rows)
    return found


def _record_choices(
    scorer: CompactScorer, members: Sequence[CapabilityProfile], vectors: NDArray[np.float32], outcomes: Array
) -> CompactLearner:
    """Route the questions in rounds, each time with what the choices before have shown."""
    learner = scorer.learner()
    for rows in np.array_split(np.arange(len(vectors)), ROUNDS):
        if len(rows):
            chosen = learner.score_vectors(vectors[rows], members).probabilities.argmax(axis=1)
            for m, profile in enumerate(members):
                own = rows[chosen == m]
                learner.learn(_observed(profile.candidate, vectors[own], outcomes[own, m]), members)
    return learner


def _observed(name: str, vectors: NDArray[np.float32], outcomes: Array) -> list[WeightedOutcome]:
    known = np.flatnonzero(~np.isnan(outcomes))
    return [WeightedOutcome(name, vectors[i], float(outcomes[i]), 1.0) for i in known]


def _gain(scores: Array, truth: Array) -> Array:
    """(N,), outcome of the highest score less that of the best single; NaN where a member's outcome is unknown."""
    best = int(np.nanmean(truth, axis=0).argmax())
    gain = truth[np.arange(len(truth)), scores.argmax(axis=1)] - truth[:, best]
    return np.where(np.isnan(truth).any(axis=1), np.nan, gain)


if __name__ == "__main__":
    main()
