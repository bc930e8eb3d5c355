"""A scorer that knows neither one half of all candidates nor the questions that they are asked here.

Left out of its training, by text: GSM8K, CRUXEval and MATH, law and psychology of MMLU-Pro, the shipped exam, and 2,000
further questions of MMLU-Pro. Families stay in one half. The encoder is the shipped one, whose tuning saw the open
benchmarks and these candidates (LOG, "Foreign benchmarks": its tuning moves choices little).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from common import embeddings, load_records, rows_without
from numpy.typing import NDArray

from msat_core import CompactScorer, CompactSettings, Exam, Records, load_scorer, pretrained, train_compact
from msat_core.encoders.folder import EncoderFiles
from msat_core.families import family_of
from msat_core.training.compact.train import candidate_folds

SEED = 11
FOREIGN = ("gsm8k", "cruxeval", "math_l5")
LAW, PSYCHOLOGY = ("law", "jurisprudence"), ("psychology",)
N_TEST = 2000
FOLDS = 2  # of the calibration


@dataclass(frozen=True)
class HeldOut:
    """See the module.

    Attributes:
        scorer: trained without them.
        families: of the candidates that it does not know.
        records: of all candidates.
        test_rows: the 2,000 questions of MMLU-Pro.
    """

    scorer: CompactScorer
    families: frozenset[str]
    records: Records
    test_rows: NDArray[np.intp]

    def is_new(self, candidate: str) -> bool:
        """Does the scorer not know it?"""
        return family_of(candidate) in self.families


def held_out(saved: Path | None = None) -> HeldOut:
    """Train it (some minutes), or load what was saved of it before."""
    records, shipped = load_records(), load_scorer(pretrained.SCORER)
    assert isinstance(shipped, CompactScorer)
    half = candidate_folds(records.candidates, 2, SEED)[1]
    families = frozenset(family_of(records.candidates[i]) for i in half)
    mmlu = np.flatnonzero(np.array(records.benchmarks) == "mmlu_pro")
    exam = Exam.load(pretrained.EXAM)
    free = rows_without(records, exam.text_hashes, mmlu)
    test_rows = np.random.default_rng(SEED).permutation(free)[:N_TEST]
    if saved is not None and saved.is_dir():
        return HeldOut(CompactScorer.load(saved), families, records, test_rows)
    foreign = [
        i
        for i, (task, benchmark) in enumerate(zip(records.tasks, records.benchmarks, strict=True))
        if benchmark in FOREIGN or any(word in task for word in (*LAW, *PSYCHOLOGY))
    ]
    held = {records.text_sha256[i] for i in (*foreign, *test_rows)} | exam.text_hashes
    rows = rows_without(records, held)
    learnt = records.select_items(rows)
    known = np.asarray((~np.isnan(learnt.outcomes)).any(axis=1))
    others = [c for c, k in zip(records.candidates, known, strict=True) if k and family_of(c) not in families]
    scorer = train_compact(
        learnt.select_candidates(others),
        embeddings(records, EncoderFiles.load(pretrained.ENCODER))[rows],
        shipped.encoder_digest,
        CompactSettings(folds=FOLDS),
        progress=lambda what, done, total: print(f"{what} {done} of {total}", end="\r", file=sys.stderr, flush=True),
    )
    if saved is not None:
        scorer.save(saved)
    return HeldOut(scorer, families, records, test_rows)
