"""The multimodal zoo: six vision-language candidates on MMMU-Pro, routed by what an instruction says beside its images.

    python examples/reproduce/multimodal.py

Text and options are what the scorer reads: the images are not in the records. The setting with 10 options, which all
six were asked (another shows the question inside the image); three exams drawn from one half of the questions, asked
the other. The scorer has seen neither the candidates nor the benchmark.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from common import CACHE, records_folder, telling
from numpy.typing import NDArray
from own_exams import BASELINES, SEEDS, summary_of
from panels import Study

from msat_core import Records, load_scorer, pretrained, select_exam
from msat_core.encoders.cache import EmbeddingCache
from msat_core.evaluation.studies.pooled import Panel
from msat_core.scoring.base import EmbeddingScorer

RESULT = Path(__file__).parent / "results" / "multimodal.json"
SETTING = "std10"
SHOTS = 8  # a task: a subject


def main() -> None:
    """Print and keep one table."""
    torch.set_num_threads(1)
    scorer = load_scorer(pretrained.SCORER)
    assert isinstance(scorer, EmbeddingScorer)
    records = Records.load(records_folder() / "mmmu_pro")
    records = records.select_items(np.array([task.endswith(f"/{SETTING}") for task in records.tasks]))
    records = records.select_items(np.flatnonzero(~np.isnan(records.outcomes).any(axis=0)))
    vectors = EmbeddingCache(scorer.encoder, CACHE, telling("embedded")).encode(records.instructions).vectors
    questions = [item.rsplit(":", 1)[-1] for item in records.item_ids]  # without benchmark and setting
    asked = np.array([hashlib.sha256(question.encode()).digest()[0] % 2 == 1 for question in questions])
    panels = [panel(records, vectors, asked, scorer, seed) for seed in SEEDS["report"]]
    accuracy = dict(zip(records.candidates, np.nanmean(records.outcomes, axis=1).round(3).tolist(), strict=True))
    report = {"exam": panels[0].exam_size, "questions": int(asked.sum()), "accuracy": accuracy, **summary_of(panels)}
    RESULT.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=1))


def panel(
    records: Records, vectors: NDArray[np.float32], asked: NDArray[np.bool_], scorer: EmbeddingScorer, seed: int
) -> Panel:
    """An exam from the other half, and these questions scored by all methods."""
    exam = select_exam(
        records.select_items(~asked),
        rule="own-tasks",
        n_shots=SHOTS,
        seed=seed,
        vectors=vectors[~asked],
        encoder_digest=scorer.encoder_digest,
    )
    return Study(records, vectors, exam, np.flatnonzero(asked)).panel(scorer, BASELINES)


if __name__ == "__main__":
    main()
