"""Does Model-SAT learn? all-MiniLM-L6-v2 as ψ and φ, a small causal LLM built from config, and the ablations.

    python examples/reproduce/model_sat_learns.py main                    # the first table, beside the compact scorer
    python examples/reproduce/model_sat_learns.py ablations --size small  # the second, one row a variant
    python examples/reproduce/model_sat_learns.py per-task-both causal …  # single variants

MMLU-Pro. The candidates of one fold (families apart) and the test items (by text) are in no training; exams are drawn
from the rest. One line of JSON a variant goes to standard output, progress to standard error.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import FOLDS, benchmark_part, digest_of_encoder, embeddings, load_records, sat
from numpy.typing import NDArray

from msat_core import (
    AptitudeTest,
    CapabilityProfile,
    CompactSettings,
    Records,
    StageSettings,
    TrainingSettings,
    select_exam,
    train_model_sat,
)
from msat_core.evaluation.metrics import auc, brier, calibration_error
from msat_core.evaluation.studies.zoos import sample_zoos
from msat_core.evaluation.yardsticks import yardsticks
from msat_core.families import family_of
from msat_core.scoring.model_sat.config import Backbone, ModelSATConfig
from msat_core.scoring.model_sat.representations import level_of
from msat_core.training.compact.train import train_kernel, uncalibrated_scorer

FOLD = 1  # its candidates are new: Llama 3 and jamba
EXAM_TASKS, EXAM_SHOTS = 10, 20
SEED = 11


@dataclass(frozen=True)
class Size:
    """How much of everything: items, steps of the two stages, instructions and candidates of one step."""

    n_train: int
    n_test: int
    steps: tuple[int, int]
    group: tuple[int, int]
    only_new: bool  # score the new candidates alone


SIZES = {
    "main": Size(4000, 500, (40, 200), (32, 3), False),
    "small": Size(1500, 250, (8, 16), (16, 3), True),
    "try": Size(600, 60, (1, 2), (8, 2), True),
    "large": Size(8000, 2000, (50, 600), (64, 8), False),
}

MINILM = Backbone(source="embedded")
SMALL_LLM = Backbone(
    config={
        "model_type": "llama",
        "vocab_size": 30522,
        "hidden_size": 256,
        "intermediate_size": 688,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "max_position_embeddings": 512,
        "pad_token_id": 0,
    },
    tokenizer="embedded",
)


OTHER_LOSSES: dict[str, dict[str, Any]] = {
    "per-task-listwise": {"loss": "listwise"},
    "per-task-pointwise": {"loss": "pointwise"},
    "no-level": {"level": 0.0},
}


def variant(name: str, size: Size) -> TrainingSettings:
    """The settings of a named variant."""
    model: dict[str, Any] = {
        "encoder": MINILM,
        "llm": MINILM,
        "llm_kind": "bidirectional",
        "head": "regression",
        "n_capability_tokens": 2,
        "instruction_prefix": "",
        "inquiry": "",
        "max_length": 48,
        "max_capability_length": 48,
    }
    k, m = size.group
    run: dict[str, Any] = {
        "loss": "both",
        "level": 1.0,
        "group_size": k,
        "candidates_per_group": m,
        "groups_per_step": 1,
    }
    stages = [
        StageSettings(steps=size.steps[0], train="connector", connector_learning_rate=3e-3, task_prefix="mmlu/"),
        StageSettings(steps=size.steps[1], learning_rate=1e-4, connector_learning_rate=3e-4),
    ]
    if name.startswith("no-encoder"):
        model.update(encoder=None, representation="no-encoder", max_capability_length=128)
        run.update(candidates_per_group=2)  # a candidate costs 128 tokens here
        stages = stages[1:]
    elif name.startswith("pooled"):
        model.update(representation="pooled", max_capability_length=256)
    elif name == "per-task-no-counts":
        model.update(evidence=False)
    elif name in OTHER_LOSSES:
        run.update(OTHER_LOSSES[name])
    elif name == "stage-1-only":
        stages = [stages[0].model_copy(update={"steps": sum(size.steps)})]
    elif name == "stage-2-only":
        stages = [stages[1].model_copy(update={"steps": sum(size.steps)})]
    elif name == "paper-groups":  # one candidate a group, one right answer among k
        run.update(candidates_per_group=1, group_size=8, groups_per_step=k // 8, loss="listwise")
    elif name.startswith("causal"):
        model.update(
            encoder=MINILM.model_copy(update={"tuning": "frozen"}),
            llm=SMALL_LLM,
            llm_kind="causal",
            head="verdict",
            yes="yes",
            no="no",
            inquiry=" can the model answer?",
        )
        longer = {"steps": 8 * size.steps[1], "learning_rate": 1e-3, "connector_learning_rate": 1e-3}
        stages[1] = stages[1].model_copy(update=longer)
    return TrainingSettings(
        model=ModelSATConfig(**model),
        stages=tuple(stages),
        exam_tasks=EXAM_TASKS,
        exam_shots=EXAM_SHOTS,
        held_out_items=0.1,
        calibration_items=100,
        held_out_candidates=0.25,
        seed=SEED,
        **run,
    )


ABLATIONS = (
    "per-task-both",
    "causal",
    "pooled",
    "no-encoder",
    "per-task-listwise",
    "per-task-pointwise",
    "stage-1-only",
    "stage-2-only",
    "paper-groups",
    "per-task-no-counts",
    "no-level",
)


@dataclass(frozen=True)
class Split:
    """One split of the records."""

    train: Records
    train_vectors: NDArray[np.float32]
    test: Records
    test_vectors: NDArray[np.float32]
    test_of_exam: AptitudeTest
    profiles: list[CapabilityProfile]
    new: tuple[str, ...]


def make_split(size: Size) -> Split:
    """New candidates, test items, one exam for all."""
    records = load_records()
    vectors = embeddings(records)
    mmlu = np.flatnonzero(benchmark_part(records, ("mmlu_pro",)))
    names = tuple(sat(records.select_items(mmlu)))
    pool = records.select_candidates(names)
    new = tuple(name for name in names if any(part in name for part in FOLDS[FOLD]))
    relatives = {family_of(name) for name in new}
    rows = np.random.default_rng(SEED).permutation(mmlu)
    texts = np.array(records.text_sha256)
    test = rows[: size.n_test]
    free = np.array([i for i in rows[size.n_test :] if texts[i] not in set(texts[test])])
    exam = select_exam(
        pool.select_items(free).select_candidates([n for n in names if n not in new]),
        n_tasks=EXAM_TASKS,
        n_shots=EXAM_SHOTS,
        seed=SEED,
        vectors=vectors[free],
        encoder_digest=digest_of_encoder(),
        rule="broad",
    )
    kept = np.array([i for i in free if texts[i] not in exam.text_hashes])[: size.n_train]
    known = [n for n in names if family_of(n) not in relatives]
    test_of_exam = AptitudeTest(exam)
    scored = new if size.only_new else names
    return Split(
        pool.select_items(kept).select_candidates(known),
        vectors[kept],
        pool.select_items(test).select_candidates(scored),
        vectors[test],
        test_of_exam,
        [test_of_exam.profile_from_records(pool, name) for name in scored],
        new,
    )


def report(split: Split, scores: NDArray[np.float32]) -> dict[str, float]:
    """Quality of the scores of new candidates, and routing: among them, or in zoos that hold at least one of them."""
    names, outcomes = split.test.candidates, split.test.outcomes.T.astype(float)
    columns = [names.index(name) for name in split.new]
    known = ~np.isnan(outcomes[:, columns])
    p, y = scores[:, columns], outcomes[:, columns]
    areas = [auc(p[k, m], y[k, m]) for m, k in enumerate(known.T)]
    found = {
        "auc": float(np.mean(areas)),  # type: ignore[arg-type]  # all have both classes
        "ece_debiased": calibration_error(p[known], y[known]).debiased,
        "brier": brier(p[known], y[known]),
    }
    if set(names) == set(split.new):
        found.update(routing(split, scores, [list(range(len(names)))]))
        return {name: round(value, 4) for name, value in found.items()}
    for kind in ("near-equal", "mixed"):
        zoos = sample_zoos(names, np.nanmean(outcomes, axis=0), kind, with_one_of=frozenset(split.new), seed=SEED)
        found[f"{kind}_zoos"] = len(zoos)
        found.update({f"{kind}_{name}": v for name, v in routing(split, scores, [list(zoo) for zoo in zoos]).items()})
    return {name: round(value, 4) for name, value in found.items()}


def routing(split: Split, scores: NDArray[np.float32], zoos: list[list[int]]) -> dict[str, float]:
    """Mean accuracy of routing in percent, and its gains in points, over zoos."""
    outcomes, gains = split.test.outcomes.T.astype(float), []
    aptitude = np.array([profile.accuracy for profile in split.profiles])
    for zoo in zoos:
        rows = np.flatnonzero(~np.isnan(outcomes[:, zoo]).any(axis=1))
        own = outcomes[np.ix_(rows, np.array(zoo))]
        routed = own[np.arange(len(rows)), scores[np.ix_(rows, np.array(zoo))].argmax(axis=1)].mean()
        tasks = tuple(split.test.tasks[i] for i in rows)
        sticks = yardsticks(own, tasks, aptitude[zoo], EXAM_TASKS * EXAM_SHOTS, seed=SEED)
        gains.append([routed, routed - sticks.best_by_aptitude.mean(), routed - sticks.best_single.mean()])
    names = ("routed", "over_best_by_aptitude", "over_best_single")
    return dict(zip(names, (100 * np.mean(gains, axis=0)).tolist(), strict=True))


def run_compact(split: Split) -> dict[str, Any]:
    """The compact scorer on the same split, uncalibrated: what is compared is its ranking."""
    started = time.time()
    kernel = train_kernel(split.train, torch.from_numpy(split.train_vectors), CompactSettings())
    scorer = uncalibrated_scorer(kernel, digest_of_encoder())
    scorer.add_exam(split.test_of_exam.exam)
    scores = scorer.score_vectors(split.test_vectors, split.profiles).probabilities
    return {"variant": "compact, uncalibrated", **report(split, scores), "train_s": round(time.time() - started)}


def run_variant(split: Split, name: str, size: Size) -> list[dict[str, Any]]:
    """Train a variant; its figures with calibration and without."""
    started, settings = time.time(), variant(name, size)

    def show(metrics: dict[str, float]) -> None:
        if metrics["step"] % 5 == 0:
            print(f"{name}: step {metrics['step']:.0f} loss {metrics['loss']:.4f}", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory() as folder:
        scorer = train_model_sat(split.train, settings, Path(folder), on_metrics=show)
    assert scorer is not None
    trained_s = time.time() - started
    logits = scorer.logits(scorer.prompts(split.test.instructions), split.profiles)
    levels, config = np.array([level_of(profile) for profile in split.profiles]), scorer.config
    calibrated = config.slope * logits + config.level * levels + config.intercept
    parameters = sum(p.numel() for p in scorer.module.llm.parameters()) / 1e6
    rows = []
    for label, found in (("", calibrated), (", uncalibrated", logits + settings.level * levels)):
        scores = (1 / (1 + np.exp(-found))).astype(np.float32)
        rows.append({"variant": name + label, **report(split, scores)})
    rows[0].update(
        train_s=round(trained_s),
        llm_parameters_m=round(parameters, 1),
        score_s=round(time.time() - started - trained_s),
    )
    return rows


def main() -> None:
    """Run the named variants in order."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("variants", nargs="+", help=f"main, ablations, compact, or of {', '.join(ABLATIONS)}")
    parser.add_argument("--size", choices=tuple(SIZES))
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    short = {"main": ("per-task-both", "compact"), "ablations": ("compact", *ABLATIONS)}
    names = [name for given in arguments.variants for name in short.get(given, (given,))]
    size = SIZES[arguments.size or ("main" if "main" in arguments.variants else "small")]
    split = make_split(size)
    print(
        f"{len(split.train)} items × {len(split.train.candidates)} candidates to learn from; "
        f"{len(split.test)} test items, new: {', '.join(split.new)}",
        file=sys.stderr,
        flush=True,
    )
    for name in names:
        for row in [run_compact(split)] if name == "compact" else run_variant(split, name, size):
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
