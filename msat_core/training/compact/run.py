"""Training the compact scorer from records alone: embed, tune if wanted, train."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from msat_core.encoders.base import Encoder
from msat_core.encoders.cache import EmbeddingCache, embeddings_folder
from msat_core.encoders.folder import EncoderFiles
from msat_core.encoders.loading import load_encoder
from msat_core.encoders.torch_encoder import TorchEncoder
from msat_core.pretrained import ENCODER
from msat_core.records import Records
from msat_core.scoring.compact.scorer import CompactScorer
from msat_core.training.compact.encoder_tuning import TuningSettings, check_tuning, tune_encoder
from msat_core.training.compact.train import CompactSettings, Progress, train_compact


def train_on_records(
    records: Records,
    settings: CompactSettings | None = None,
    *,
    encoder: EncoderFiles | None = None,
    tuning: TuningSettings | None = None,
    device: str | None = None,
    progress: Progress | None = None,
) -> CompactScorer:
    """A compact scorer of an encoder as it is, or tuned on the records first.

    Args:
        records: what to learn from; leave exam items out first (:func:`msat_core.training.holdout.training_items`).
        settings: of the training.
        encoder: to read texts with; None for the one that msat ships.
        tuning: how to tune the encoder (slow); None to leave it as it is.
        device: where the encoder computes; None or ``"cpu"`` for the CPU, else as torch names it.
        progress: called with (what, done, total).
    """
    if tuning is not None:
        check_tuning()
    advance = progress or (lambda what, done, total: None)

    def embed(reader: Encoder) -> NDArray[np.float32]:
        cache = EmbeddingCache(reader, embeddings_folder(), lambda *done: advance("embedding", *done))
        return cache.encode(records.instructions).vectors

    if tuning is not None:
        learner = TorchEncoder(encoder or EncoderFiles.load(ENCODER), device=device)
        encoder = tune_encoder(
            records, embed(learner), learner, tuning, progress=lambda *done: advance("tuning", *done)
        )
    reader = load_encoder(encoder, device=device)
    return train_compact(records, embed(reader), reader.digest, settings, encoder_files=encoder, progress=progress)
