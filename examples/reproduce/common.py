"""What the scripts of this folder share: the records, their embeddings, and the fixed splits."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from msat_core import Records
from msat_core.scoring.embedding_cache import EmbeddingCache
from msat_core.scoring.encoders import Encoder

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache" / "embeddings"
EXAM_SEED = 2026

# New candidates of each fold, by parts of their names; families stay together.
FOLDS = (
    ("Mistral-7B", "mathstral", "Mixtral"),
    ("Llama-3", "jamba"),
    ("Qwen1.5", "Yi-6B", "command-r"),
    ("Llama-2", "gemini", "gemma", "DeepSeek"),
)


def records_folder() -> Path:
    """Where the records are: ``$MSAT_RECORDS`` or ``../shared/records`` beside the project."""
    folder = Path(os.environ.get("MSAT_RECORDS", ROOT.parent / "shared" / "records"))
    if not folder.is_dir():
        sys.exit(f"No records at {folder}: set MSAT_RECORDS to a folder of them.")
    return folder


def load_records() -> Records:
    """All records but the items of ``outputs_sample.parquet`` (left out by text): the demo is held against those."""
    records = Records.load(records_folder())
    table = pq.read_table(records_folder() / "mmlu_pro" / "outputs_sample.parquet", columns=["item_id"])
    sample = set(table["item_id"].to_pylist())
    texts = {t for i, t in zip(records.item_ids, records.text_sha256, strict=True) if i in sample}
    return records.without_texts(texts)


def embeddings(records: Records) -> NDArray[np.float32]:
    """(N, D) of the embedded encoder, kept in ``.cache/embeddings``."""

    def progress(done: int, total: int) -> None:
        print(f"embedded {done} of {total}", file=sys.stderr, flush=True)

    return EmbeddingCache(Encoder.embedded(), CACHE, progress).encode(records.instructions).vectors


def benchmark_part(records: Records, names: tuple[str, ...]) -> NDArray[np.bool_]:
    """(N,), which items belong to the benchmarks."""
    return np.isin(np.array(records.benchmarks), names)


def sat(records: Records, share: float = 0.5) -> list[str]:
    """Candidates with outcomes on more than a share of the items."""
    known = (~np.isnan(records.outcomes)).mean(axis=1)
    return [name for name, part in zip(records.candidates, known, strict=True) if part > share]
