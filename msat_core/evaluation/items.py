"""Recorded items made ready for evaluation: which of them count, their scores, choices and costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from msat_core.candidates import CHARS_PER_TOKEN
from msat_core.encoders.base import Embeddings, Encoder
from msat_core.encoders.cache import EmbeddingCache
from msat_core.errors import NoCandidateError, RecordsError, ZooError
from msat_core.profiles import CapabilityProfile
from msat_core.records import Records
from msat_core.routing.conversation import size_of
from msat_core.routing.cost import expected_costs
from msat_core.routing.deciding import rows_of
from msat_core.routing.decision import RoutingRequest
from msat_core.routing.policy import RoutingPolicy
from msat_core.scoring.base import EmbeddingScorer, Scorer, Scores
from msat_core.zoo import Zoo

SCORED_AT_ONCE = 2048  # instructions; bounds memory

Array = NDArray[np.floating]


def item_costs(records: Records, zoo: Zoo) -> Array:
    """(N, M) price of each call in USD (see :meth:`Candidate.cost_usd`); 0 where a price is unknown."""
    chars = np.array([len(text) for text in records.instructions], dtype=float)
    fixed = np.array([candidate.cost_usd(0) or 0.0 for candidate in zoo])
    per_char = np.array([(c.usd_per_mtok_in or 0.0) / CHARS_PER_TOKEN / 1e6 for c in zoo])
    return np.asarray(fixed[None, :] + chars[:, None] * per_char[None, :])


def expected_item_costs(records: Records, zoo: Zoo) -> Array:
    """(N, M) what a calibrated policy compares candidates by for each item, in USD; NaN where a price is unknown."""
    return np.array(
        [expected_costs(zoo.candidates, chars=size_of(text)).ranked_usd for text in records.instructions], dtype=float
    )


def evaluation_items(records: Records, zoo: Zoo, exam_texts: frozenset[str]) -> Records:
    """The items to evaluate on: not in the exam by text, and known for every member of the zoo.

    Raises:
        RecordsError: a candidate is not in the records, or no item is left.
        ZooError: the zoo is empty.
    """
    if not len(zoo):
        raise ZooError("The zoo is empty: name at least one candidate.")
    kept = records.select_candidates(zoo.names).without_texts(exam_texts).known_to_all()
    if not len(kept):
        raise RecordsError(
            f"No item is left to evaluate on: none of the {len(records)} is outside the exam and known for all of "
            f"{', '.join(zoo.names)}."
        )
    return kept


def score_items(
    scorer: Scorer,
    records: Records,
    profiles: Sequence[CapabilityProfile],
    cache: Path,
    *,
    progress: Callable[[str, int, int], None] | None = None,
) -> Scores:
    """Scores of the records' instructions; a scorer of embeddings reads embeddings from the cache folder."""
    if isinstance(scorer, EmbeddingScorer):
        embedded = embed_items(scorer.encoder, records, cache, progress=progress)
    parts = []
    for start in range(0, len(records), SCORED_AT_ONCE):
        rows = slice(start, start + SCORED_AT_ONCE)
        if isinstance(scorer, EmbeddingScorer):
            parts.append(scorer.score_vectors(embedded.vectors[rows], profiles, unread=embedded.unread[rows]))
        else:
            parts.append(scorer.score(records.instructions[rows], profiles))
        if progress is not None:
            progress("scoring", min(rows.stop, len(records)), len(records))
    first = parts[0]
    return Scores(
        np.concatenate([part.probabilities for part in parts]),
        np.concatenate([part.truncated_tokens for part in parts]),
        tasks=first.tasks,
        task_weights=_joined([part.task_weights for part in parts]),
        deviations=_joined([part.deviations for part in parts]),
        levels=first.levels,
    )


def _joined(parts: Sequence[NDArray[np.float32] | None]) -> NDArray[np.float32] | None:
    """One array of all parts; None where the scorer states none."""
    stated = [part for part in parts if part is not None]
    return np.concatenate(stated) if stated else None


def embed_items(
    encoder: Encoder, records: Records, cache: Path, *, progress: Callable[[str, int, int], None] | None = None
) -> Embeddings:
    """The records' instructions, through the cache folder."""
    notify = None if progress is None else lambda done, total: progress("embedding", done, total)
    return EmbeddingCache(encoder, cache, notify).encode(records.instructions)


def choose_all(scores: Scores, records: Records, zoo: Zoo, policy: RoutingPolicy) -> NDArray[np.intp]:
    """(N,), column of the candidate that the policy chooses for each item, as a router does without chance.

    Prices are those of the instant at which they were read. Scores without task weights, of a baseline, say, leave
    the length of an answer at the candidate's mean.
    """
    candidates, bare, chosen = zoo.candidates, RoutingRequest(), list[int]()
    try:
        for start in range(0, len(records), SCORED_AT_ONCE):
            at = slice(start, start + SCORED_AT_ONCE)
            rows = zip(rows_of(scores, candidates, at), records.instructions[at], strict=True)
            chosen += [row.choice(text, policy, bare).chosen for row, text in rows]
    except NoCandidateError as error:
        raise NoCandidateError(f"On the records, {error}") from None
    return np.array(chosen, dtype=np.intp)
