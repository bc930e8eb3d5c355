"""Training the compact scorer from records alone: embed, tune if wanted, train."""

from __future__ import annotations

from msat_core.encoders.base import Encoder
from msat_core.encoders.cache import EmbeddingCache, embeddings_folder
from msat_core.encoders.minilm import MiniLMEncoder
from msat_core.records import Records
from msat_core.scoring.compact.scorer import CompactScorer
from msat_core.training.compact.encoder_tuning import TuningSettings, check_tuning, tune_encoder
from msat_core.training.compact.train import CompactSettings, Progress, train_compact


def train_on_records(
    records: Records,
    settings: CompactSettings | None = None,
    *,
    tuning: TuningSettings | None = None,
    device: str | None = None,
    progress: Progress | None = None,
) -> CompactScorer:
    """A compact scorer of the published encoder, or of one tuned on the records first.

    Args:
        records: what to learn from; leave exam items out first (:func:`msat_core.training.holdout.training_items`).
        settings: of the training.
        tuning: how to tune the encoder (slow); None to leave it as published.
        device: where the encoder computes; None for the GPU if there is one, else the CPU.
        progress: called with (what, done, total).
    """
    if tuning is not None:
        check_tuning()
    advance = progress or (lambda what, done, total: None)

    def cached(encoder: Encoder) -> EmbeddingCache:
        return EmbeddingCache(encoder, embeddings_folder(), lambda *done: advance("embedding", *done))

    encoder, delta = MiniLMEncoder.embedded(device=device), None
    vectors = cached(encoder).encode(records.instructions).vectors
    if tuning is not None:
        delta = tune_encoder(records, vectors, encoder, tuning, progress=lambda *done: advance("tuning", *done))
        encoder = MiniLMEncoder.embedded(delta=delta, device=device)
        vectors = cached(encoder).encode(records.instructions).vectors
    return train_compact(records, vectors, encoder.digest, settings, delta=delta, progress=progress)
