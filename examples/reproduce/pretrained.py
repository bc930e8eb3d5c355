"""Make everything in ``msat_core/pretrained``: two exams, the trained scorer, the zoo and the model card.

    python examples/reproduce/pretrained.py

The weights alone are what this command makes, after the exams exist:

    msat train RECORDS --tune-encoder --leave-out RECORDS/mmlu_pro/outputs_sample.parquet --out DIR
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np
import torch
from common import (
    EXAM_SEED,
    benchmark_part,
    embeddings,
    load_records,
    records_folder,
    rows_of,
    rows_without,
    sat,
    tuned,
)
from numpy.typing import NDArray

from msat_core import AptitudeTest, Candidate, Exam, Records, Zoo, pretrained, select_exam, train_compact
from msat_core.encoders.minilm import embedded_digest

OPEN_BENCHMARKS = ("gsm8k", "cruxeval", "math_l5")
OPEN_SHOTS = 10  # per task; each of the three benchmarks is split into ten tasks or so
PROTOCOLS = {"mmlu_pro": "five-shot-cot", "open": "zero-shot-cot"}
ALIASES = {
    "claude-3-5-sonnet-20240620": ("claude-3-5-sonnet",),
    "claude-3-5-haiku-20241022": ("claude-3-5-haiku",),
    "claude-3-haiku-20240307": ("claude-3-haiku",),
    "claude-3-opus-20240229": ("claude-3-opus",),
    "gpt-4o-2024-08-06": ("gpt-4o",),
    "gpt-3.5-turbo-0125": ("gpt-3.5-turbo",),
    "Meta-Llama-3.1-70B-Instruct": ("llama-3.1-70b-instruct",),
    "Meta-Llama-3.1-405B-Instruct": ("llama-3.1-405b-instruct",),
    "Meta-Llama-3-70B-Instruct": ("llama-3-70b-instruct",),
    "Meta-Llama-3-8B-Instruct": ("llama-3-8b-instruct",),
    "gemini-1.5-pro-002": (),
    "c4ai-command-r-v01": ("command-r",),
}


def main() -> None:
    """Exams, training, zoo, card, in that order."""
    torch.set_num_threads(1)
    records = load_records()
    exams = make_exams(records, embeddings(records))
    rows = rows_without(records, exams[0].text_hashes | exams[1].text_hashes)
    started = time.time()
    delta = tuned(records, rows, records.candidates)
    vectors, digest = embeddings(records, delta), embedded_digest(delta=delta)
    exam, open_exam = (one.with_embeddings(digest, vectors[rows_of(records, one)]) for one in exams)
    exam.save(pretrained.EXAM)
    open_exam.save(pretrained.EXAM_OPEN)
    scorer = train_compact(
        records.select_items(rows),
        vectors[rows],
        digest,
        delta=delta,
        progress=lambda what, done, total: print(f"{what}: {done}/{total}", end="\r", file=sys.stderr, flush=True),
    )
    print(f"\ntrained in {time.time() - started:.0f} s", file=sys.stderr)
    scorer.save(pretrained.SCORER)
    zoo = make_zoo(records, exam, open_exam)
    zoo.save(pretrained.ZOO)
    print(json.dumps({"candidates": list(zoo.names), **scorer.config.trained_on}, indent=1))


def make_exams(records: Records, vectors: NDArray[np.float32]) -> tuple[Exam, Exam]:
    """The exam of 50 × 20 from MMLU-Pro, and a coarse one from the three open benchmarks."""
    made = []
    for names in (("mmlu_pro",), OPEN_BENCHMARKS):
        rows = np.flatnonzero(benchmark_part(records, names))
        part = records.select_items(rows)
        mmlu = names == ("mmlu_pro",)
        exam = select_exam(
            part.select_candidates(sat(part) if mmlu else in_all(records)),
            rule="broad" if mmlu else "own-tasks",
            n_shots=20 if mmlu else OPEN_SHOTS,
            seed=EXAM_SEED,
            name="MMLU-Pro, 50 tasks × 20" if mmlu else "GSM8K, CRUXEval, MATH level 5 (coarse)",
            vectors=vectors[rows],
            encoder_digest=embedded_digest(),
        )
        made.append(exam)
    return made[0], made[1]


def in_all(records: Records) -> list[str]:
    """Candidates that sat all three open benchmarks."""
    members = [set(sat(records.select_items(benchmark_part(records, (name,))))) for name in OPEN_BENCHMARKS]
    return [name for name in records.candidates if all(name in one for one in members)]


def make_zoo(records: Records, exam: Exam, open_exam: Exam) -> Zoo:
    """Chat-tuned candidates: those of MMLU-Pro, then those of the open benchmarks with coarse profiles."""
    facts = {row["model"]: row for row in json.loads((records_folder() / "mmlu_pro" / "models.json").read_text())}
    chat = [name for name in records.candidates if facts.get(name, {}).get("chat_tuned")]
    coarse = [name for name in in_all(records) if name not in chat]
    test, open_test = AptitudeTest(exam), AptitudeTest(open_exam)
    profiles = [
        *(test.profile_from_records(records, name, protocol=PROTOCOLS["mmlu_pro"]) for name in chat),
        *(open_test.profile_from_records(records, name, protocol=PROTOCOLS["open"], coarse=True) for name in coarse),
    ]
    prices = ("usd_per_mtok_in", "usd_per_mtok_out")
    return Zoo.of(
        Candidate(
            profile=profile,
            aliases=ALIASES.get(profile.candidate, ()),
            **{key: facts.get(profile.candidate, {}).get(key) for key in prices},
        )
        for profile in profiles
    )


if __name__ == "__main__":
    main()
