"""How far off the scores are on a benchmark that neither training nor the exam knows, and what outcomes mend.

    python examples/reproduce/far_from_home.py

The scorer learns from MMLU-Pro alone, without any of the candidates. They sit an exam of two of GSM8K, CRUXEval and
MATH (20 questions a task, each benchmark split into ten or so) and are asked questions of the third. Then so many
outcomes of every candidate are recorded, as ``Router.record`` does, or Platt scaling is fitted to them, candidate by
candidate. The encoder is the shipped one, whose tuning saw these questions.
"""

from __future__ import annotations

import json

import numpy as np
import torch
from common import benchmark_part, embeddings, load_records, rows_without, sat
from numpy.typing import NDArray
from panels import Study

from msat_core import (
    CompactScorer,
    CompactSettings,
    Records,
    WeightedOutcome,
    load_scorer,
    pretrained,
    select_exam,
    train_compact,
)
from msat_core.encoders.folder import EncoderFiles
from msat_core.evaluation.metrics import calibration_error, mean_auc
from msat_core.training.calibration import slope_fit

OPEN = ("gsm8k", "cruxeval", "math_l5")
SHOTS = 20  # a task
COUNTS = (50, 200)
SEED = 11


def main() -> None:
    """Every benchmark in turn; print one table."""
    torch.set_num_threads(1)
    records, shipped = load_records(), load_scorer(pretrained.SCORER)
    assert isinstance(shipped, CompactScorer)
    vectors = embeddings(records, EncoderFiles.load(pretrained.ENCODER))
    parts = {name: np.flatnonzero(benchmark_part(records, (name,))) for name in (*OPEN, "mmlu_pro")}
    members = [set(sat(records.select_items(parts[name]))) for name in OPEN]
    names = [name for name in records.candidates if all(name in one for one in members)]
    at_home = parts["mmlu_pro"]
    others = [name for name in sat(records.select_items(at_home)) if name not in names]
    scorer = train_compact(
        records.select_items(at_home).select_candidates(others),
        vectors[at_home],
        shipped.encoder_digest,
        CompactSettings(),
    )
    report = {name: _away(records.select_candidates(names), vectors, parts, name, scorer) for name in OPEN}
    print(json.dumps(report, indent=1))


def _away(
    pool: Records,
    vectors: NDArray[np.float32],
    parts: dict[str, NDArray[np.intp]],
    target: str,
    scorer: CompactScorer,
) -> dict[str, dict[str, float]]:
    """Calibration error and AUC on a benchmark but for 200 questions, by what was recorded on those."""
    free = np.concatenate([parts[name] for name in OPEN if name != target])
    exam = select_exam(
        pool.select_items(free),
        rule="own-tasks",
        n_shots=SHOTS,
        seed=SEED,
        vectors=vectors[free],
        encoder_digest=scorer.encoder_digest,
    )
    rows = np.random.default_rng(SEED).permutation(rows_without(pool, exam.text_hashes, parts[target]))
    recorded, asked = rows[: max(COUNTS)], rows[max(COUNTS) :]
    study = Study(pool, vectors, exam, asked)
    before, after = Study(pool, vectors, exam, recorded).scores(scorer), study.scores(scorer)
    table = {"exam alone": _quality(after, pool.outcomes[:, asked].T)}
    for n in COUNTS:
        learner = scorer.learner()
        observations = [
            WeightedOutcome(name, vectors[row], float(pool.outcomes[m, row]), 1.0)
            for m, name in enumerate(pool.candidates)
            for row in recorded[:n]
            if not np.isnan(pool.outcomes[m, row])
        ]
        learner.learn(observations, study.profiles)
        learnt = learner.score_vectors(vectors[asked], study.profiles).probabilities
        table[f"{n} recorded"] = _quality(learnt, pool.outcomes[:, asked].T)
        scaled = _scaled(before[:n], pool.outcomes[:, recorded[:n]].T, after)
        table[f"{n} by Platt scaling"] = _quality(scaled, pool.outcomes[:, asked].T)
    return table


def _scaled(
    before: NDArray[np.floating], outcomes: NDArray[np.floating], after: NDArray[np.floating]
) -> NDArray[np.floating]:
    """(N, M), each candidate's scores after Platt scaling on its outcomes."""
    columns = []
    for m in range(before.shape[1]):
        known = ~np.isnan(outcomes[:, m])
        slope, intercept = slope_fit(_logit(before[known, m]), outcomes[known, m].astype(float))
        columns.append(1 / (1 + np.exp(-(slope * _logit(after[:, m]) + intercept))))
    return np.stack(columns, axis=1)


def _logit(scores: NDArray[np.floating]) -> NDArray[np.float64]:
    p = np.clip(scores.astype(float), 1e-6, 1 - 1e-6)
    return np.asarray(np.log(p / (1 - p)))


def _quality(scores: NDArray[np.floating], outcomes: NDArray[np.floating]) -> dict[str, float]:
    known = ~np.isnan(outcomes)
    rows = known.all(axis=1)
    each = [calibration_error(scores[k, m], outcomes[k, m]).plain for m, k in enumerate(known.T)]
    area = mean_auc(scores[rows], outcomes[rows])
    return {
        "ece": round(float(calibration_error(scores[known], outcomes[known]).plain), 3),
        "ece_per_candidate": round(float(np.mean(each)), 3),
        "auc": round(float(area or 0.5), 3),
    }


if __name__ == "__main__":
    main()
