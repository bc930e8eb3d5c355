from __future__ import annotations

import pytest
from hypothesis import settings
from support import RECORDS, synthetic_records

from msat_core import AptitudeTest, CompactScorer, Records, Router
from msat_core.aptitude.exam_selection import select_exam
from msat_core.encoders.hashed import HashEncoder
from msat_core.training.compact.train import CompactSettings, train_compact

settings.register_profile("same", derandomize=True)  # one result for one commit; tests/fuzz.py looks further
settings.load_profile("same")


@pytest.fixture(scope="session")
def records() -> Records:
    return synthetic_records()


@pytest.fixture(scope="session")
def trained(records: Records) -> tuple[CompactScorer, AptitudeTest]:
    """A scorer trained for a moment on synthetic records, with the exam that its candidates sat."""
    encoder = HashEncoder()
    vectors = encoder.encode(records.instructions).vectors
    exam = select_exam(records, n_tasks=3, n_shots=10, vectors=vectors, encoder_digest=encoder.digest, rule="broad")
    kept = [i for i, text in enumerate(records.text_sha256) if text not in exam.text_hashes]
    settings = CompactSettings(steps=15, folds=2, n_skills=2, hidden=8)
    scorer = train_compact(records.select_items(kept), vectors[kept], encoder.digest, settings)
    scorer = CompactScorer(scorer.config, scorer.kernel, encoder=HashEncoder)
    scorer.add_exam(exam)
    return scorer, AptitudeTest(exam)


@pytest.fixture(scope="session")
def shipped() -> Router:
    return Router.from_pretrained()


@pytest.fixture(scope="session")
def real_records() -> Records:
    if not RECORDS.is_dir():
        pytest.skip(f"no evaluation records at {RECORDS} (set MSAT_RECORDS)")
    return Records.load(RECORDS)
