"""Data refinement: which right answers are worth learning from, and which candidates are drawn more often.

The paper's circle test rotates the options of hard questions and keeps only consistent answers. Where the
records say what came of it (a ``consistent`` column), inconsistent right answers are left out and consistent
ones count in full. Elsewhere a right answer counts as much as it is likely to be known rather than guessed,
which comes from the number of options alone (correction for guessing, Lord 1975): if a share s of the
candidates is right and a guess among o options succeeds with 1/o, then s = κ + (1 − κ)/o for the share κ that
knows, and P(knew | right) = κ / s.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from msat_core.lettered_options import n_options
from msat_core.records import Records

LEAST_WEIGHT = 0.05  # of a right answer that no more candidates gave than would by guessing


def outcome_weights(records: Records, *, correct_for_guessing: bool = True) -> NDArray[np.float32]:
    """What each outcome counts in training, float32 (M, N) in [0, 1]; wrong answers count in full."""
    right = records.outcomes > 0.5
    weights = np.ones(records.outcomes.shape, dtype=np.float32)
    if correct_for_guessing:
        weights = np.where(right, _known_rather_than_guessed(records)[None], weights)
    if records.consistent is not None:
        weights = np.where(right & (records.consistent > 0.5), 1.0, weights)
        weights = np.where(right & (records.consistent <= 0.5), 0.0, weights)
    return weights.astype(np.float32)


def _known_rather_than_guessed(records: Records) -> NDArray[np.float64]:
    """P(knew | right) of each item, (N,); 1 where there are no options to guess among."""
    known = ~np.isnan(records.outcomes)
    share = np.nan_to_num(records.outcomes).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    options = np.array([n_options(text) for text in records.instructions], dtype=float)
    guess = np.where(options > 1, 1 / np.maximum(options, 1), 0.0)
    knew = np.clip((share - guess) / np.maximum(share * (1 - guess), 1e-9), LEAST_WEIGHT, 1.0)
    return np.asarray(np.where(options > 1, knew, 1.0))


def candidate_shares(records: Records, strongest: float) -> NDArray[np.float64]:
    """How often each candidate is drawn, (M,), summing to 1: the strongest so many times as often as the weakest."""
    known = ~np.isnan(records.outcomes)
    accuracy = np.nan_to_num(records.outcomes).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    rank = np.argsort(np.argsort(accuracy, kind="stable"), kind="stable")
    weights = 1 + (strongest - 1) * rank / max(1, len(rank) - 1)
    return np.asarray(np.where(known.any(axis=1), weights, 0.0) / weights[known.any(axis=1)].sum())
