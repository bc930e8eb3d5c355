"""What the scripts of this folder share: the records, their embeddings, and the fixed splits."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from torch import cuda

from msat_core import Exam, Records, TuningSettings, tune_encoder
from msat_core.documents import digest_of
from msat_core.encoders.cache import EmbeddingCache
from msat_core.encoders.folder import EncoderFiles
from msat_core.encoders.loading import load_encoder
from msat_core.encoders.published import published_encoder
from msat_core.encoders.torch_encoder import TorchEncoder

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache" / "embeddings"
ENCODERS = ROOT / ".cache" / "encoders"
EXAM_SEED = 2026
BENCHMARKS = ("cruxeval", "gsm8k", "math_l5", "mmlu_pro")  # what the shipped scorer learns from

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
        print(f"No records at {folder}: looked for in $MSAT_RECORDS, else in ../shared/records.", file=sys.stderr)
        sys.exit(2)
    return folder


def scores_folder() -> Path:
    """Where the published scores are: ``$MSAT_SCORES`` or ``../shared/scores`` beside the project."""
    folder = Path(os.environ.get("MSAT_SCORES", ROOT.parent / "shared" / "scores"))
    if not folder.is_dir():
        print(
            f"No published scores at {folder}: looked for in $MSAT_SCORES, else in ../shared/scores.", file=sys.stderr
        )
        sys.exit(2)
    return folder


def candidate_facts() -> dict[str, dict[str, Any]]:
    """What ``mmlu_pro/models.json`` says of each candidate (prices, chat-tuned or not), by name."""
    return {row["model"]: row for row in json.loads((records_folder() / "mmlu_pro" / "models.json").read_text())}


def load_records() -> Records:
    """The records of ``BENCHMARKS``, in an order that no other folder beside them changes.

    Left out: the texts of ``outputs_sample.parquet`` (the demo is held against those), and MMLU-Pro outcomes of
    candidates that ``models.json`` lacks: their answers were read by another rule than everybody else's.
    """
    records = Records.load(records_folder(), only=BENCHMARKS)
    table = pq.read_table(records_folder() / "mmlu_pro" / "outputs_sample.parquet", columns=["item_id"])
    sample = set(table["item_id"].to_pylist())
    texts = {t for i, t in zip(records.item_ids, records.text_sha256, strict=True) if i in sample}
    facts, outcomes = candidate_facts(), records.outcomes.copy()
    read_otherwise = np.array([name not in facts for name in records.candidates])
    outcomes[np.ix_(read_otherwise, benchmark_part(records, ("mmlu_pro",)))] = np.nan
    kept = [n for n, row in zip(records.candidates, outcomes, strict=True) if not np.isnan(row).all()]
    return replace(records, outcomes=outcomes).select_candidates(kept).without_texts(texts)


@cache
def published() -> EncoderFiles:
    """all-MiniLM-L6-v2 before any tuning: what is held out here, it has not learnt from.

    From ``$MSAT_PUBLISHED``, a folder that ``published_encoder().save(…)`` wrote, where there is no network.
    """
    folder = os.environ.get("MSAT_PUBLISHED")
    return EncoderFiles.load(folder) if folder else published_encoder()


def digest_of_encoder(encoder: EncoderFiles | None = None) -> str:
    """Of a tuned encoder, or of the published one."""
    return (encoder or published()).config.digest


def embeddings(records: Records, encoder: EncoderFiles | None = None) -> NDArray[np.float32]:
    """(N, D) of a tuned encoder, or of the published one, on a GPU if there is one; kept in ``.cache/embeddings``."""
    ready = load_encoder(encoder or published(), device="cuda" if cuda.is_available() else None)
    return EmbeddingCache(ready, CACHE, telling("embedded")).encode(records.instructions).vectors


def tuned(records: Records, rows: NDArray[np.intp], candidates: Sequence[str]) -> EncoderFiles:
    """The published encoder after tuning on these items and candidates; kept in ``.cache/encoders``."""
    own = records.select_items(rows).select_candidates(candidates)
    outcomes = hashlib.sha256(own.outcomes.tobytes()).hexdigest()
    told = {"texts": own.text_sha256, "candidates": own.candidates, "outcomes": outcomes}
    key = digest_of({**told, "encoder": digest_of_encoder(), "settings": repr(TuningSettings())})
    folder = ENCODERS / key[:16]
    if not folder.is_dir():
        tune_encoder(own, embeddings(own), TorchEncoder(published()), progress=telling("tuned on batch")).save(folder)
    return EncoderFiles.load(folder)


def telling(what: str) -> Callable[[int, int], None]:
    """Progress on standard error, in one line."""
    return lambda done, total: print(f"{what} {done} of {total}", end="\r", file=sys.stderr, flush=True)


def rows_of(records: Records, exam: Exam) -> NDArray[np.intp]:
    """(n_shots,), the records' rows of the exam's questions, in its order."""
    place = {item: row for row, item in enumerate(records.item_ids)}
    return np.array([place[shot.item_id] for shot in exam.sheet.shots], dtype=np.intp)


def rows_without(records: Records, texts: Collection[str], among: NDArray[np.intp] | None = None) -> NDArray[np.intp]:
    """The rows (of all, or among some, in their order) whose text is not one of these, by hash."""
    rows = np.arange(len(records)) if among is None else among
    return np.array([i for i in rows if records.text_sha256[i] not in texts], dtype=np.intp)


def benchmark_part(records: Records, names: tuple[str, ...]) -> NDArray[np.bool_]:
    """(N,), which items belong to the benchmarks."""
    return np.isin(np.array(records.benchmarks), names)


def sat(records: Records, share: float = 0.5) -> list[str]:
    """Candidates with outcomes on more than a share of the items."""
    known = (~np.isnan(records.outcomes)).mean(axis=1)
    return [name for name, part in zip(records.candidates, known, strict=True) if part > share]
