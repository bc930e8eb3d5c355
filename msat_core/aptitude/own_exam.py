"""An exam from one's own records, with the embeddings that scorers read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msat_core.aptitude.exam_selection import DEFAULT_RULE, check_rule, select_exam
from msat_core.encoders.cache import EmbeddingCache, embeddings_folder
from msat_core.encoders.loading import load_encoder, shipped_digest
from msat_core.exam import Exam
from msat_core.records import Records
from msat_core.scoring.base import EmbeddingScorer, Scorer


def own_exam(
    records: Records,
    scorer: Scorer | None = None,
    *,
    progress: Callable[[str, int, int], None] | None = None,
    **selection: Any,  # noqa: ANN401 - select_exam's own
) -> Exam:
    """An exam from one's own records, embedded by the scorer's encoder, and its shots by the shipped one too.

    Args:
        records: what to choose from.
        scorer: whose encoder reads the questions; None for the encoder that msat ships.
        progress: called with (what, done, total).
        **selection: of :func:`msat_core.aptitude.exam_selection.select_exam`.

    Raises:
        RecordsError: no task has enough items.
    """
    check_rule(selection.get("rule", DEFAULT_RULE))  # before hours of embedding
    encoder = scorer.encoder if isinstance(scorer, EmbeddingScorer) else load_encoder()
    notify = None if progress is None else lambda done, total: progress("embedding", done, total)
    vectors = EmbeddingCache(encoder, embeddings_folder(), notify).encode(records.instructions).vectors
    exam = select_exam(records, vectors=vectors, encoder_digest=encoder.digest, **selection)
    if encoder.digest == shipped_digest():
        return exam
    text_of = dict(zip(records.item_ids, records.instructions, strict=True))
    shots = [text_of[shot.item_id] for shot in exam.sheet.shots]
    shipped = EmbeddingCache(load_encoder(), embeddings_folder(), notify).encode(shots).vectors
    return exam.with_embeddings(shipped_digest(), shipped)
