"""What φ and ψ read of a capability profile: clauses in words, and their counts as numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from msat_core.profiles import CapabilityProfile, TaskResult
from msat_core.scoring.model_sat.config import ModelSATConfig
from msat_core.texts import replace_surrogates

N_EVIDENCE = 3  # numbers a task: see evidence_of


@dataclass(frozen=True)
class Representations:
    """The capability representations of M candidates. U: distinct texts, K: texts of a candidate at most.

    Attributes:
        texts: length U.
        token_ids, token_mask: (U, T), tokens of the texts, padded on the right.
        text_of: int64 (M, K), which texts are a candidate's; 0 where ``mask`` is False.
        mask: bool (M, K).
        evidence: float32 (M, K, E), see :func:`evidence_of`; E = 0 if the connector reads none.
        vectors: (U, D) of ψ where they are known already, so that a frozen ψ encodes a text once.
        truncated_tokens: int64 (M,), tokens of a candidate's texts beyond ``max_capability_length``.
    """

    texts: tuple[str, ...]
    token_ids: Tensor
    token_mask: Tensor
    text_of: Tensor
    mask: Tensor
    evidence: Tensor
    truncated_tokens: Tensor
    vectors: Tensor | None = None

    def to(self, device: torch.device) -> Representations:
        """The same on another device."""
        moved: dict[str, Any] = {name: v.to(device) for name, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, **moved)

    def of_text(self, row: int) -> Representations:
        """One of the distinct texts without its padding, for encoding; the candidates stay as they are."""
        width, rows = int(self.token_mask[row].sum()), slice(row, row + 1)
        token_ids, token_mask = self.token_ids[rows, :width], self.token_mask[rows, :width]
        return replace(self, texts=self.texts[rows], token_ids=token_ids, token_mask=token_mask)

    def with_vectors(self, vectors: Tensor) -> Representations:
        """With ψ's vectors of the distinct texts, (U, D)."""
        return replace(self, vectors=vectors)


def represent(
    profiles: Sequence[CapabilityProfile],
    config: ModelSATConfig,
    tokenizer: PreTrainedTokenizerBase,
    *,
    rng: np.random.Generator | None = None,
) -> Representations:
    """Represent profiles as the configuration says.

    Args:
        profiles: M of them.
        config: the representation and its limits.
        tokenizer: ψ's, or φ's for ``no-encoder``.
        rng: shuffles the tasks of each profile; None keeps their order.
    """
    per_task = config.representation == "per-task"
    prefix = config.encoder.prefix if config.encoder else ""
    texts_by_profile, evidence_by_profile = [], []
    for profile in profiles:
        results = [result for result in profile.results if result.n_shots]
        if per_task:
            results.sort(key=lambda result: result.task)  # one order for all, so that a profile's own cannot matter
        elif rng is not None:
            results = [results[i] for i in rng.permutation(len(results))]
        clauses = [result.clause for result in results] + ([profile.notes] if profile.notes else [])
        texts_by_profile.append(clauses if per_task else ["\n".join(clauses)])
        evidence_by_profile.append(evidence_of(results, len(clauses)))
    unique = tuple(dict.fromkeys(text for texts in texts_by_profile for text in texts))
    row_of = {text: row for row, text in enumerate(unique)}
    # A text that φ itself reads stands inside its prompt, where no special token belongs.
    marked = [replace_surrogates(prefix + text) for text in unique]
    ids = tokenizer(marked, add_special_tokens=config.encoder is not None, split_special_tokens=True)["input_ids"]
    cut = [max(0, len(row) - config.max_capability_length) for row in ids]
    token_ids, token_mask = padded([row[: config.max_capability_length] for row in ids])
    text_of, mask = padded([[row_of[text] for text in texts] for texts in texts_by_profile])
    evidence = torch.zeros(*mask.shape, N_EVIDENCE if config.reads_evidence else 0)
    if config.reads_evidence:
        for row, numbers in enumerate(evidence_by_profile):
            evidence[row, : len(numbers)] = torch.tensor(numbers)
    truncated = torch.tensor([sum(cut[row_of[text]] for text in texts) for texts in texts_by_profile])
    return Representations(unique, token_ids, token_mask, text_of, mask, evidence, truncated)


def evidence_of(results: Sequence[TaskResult], n_rows: int) -> list[list[float]]:
    """Counts as numbers, n_rows × 3: smoothed log odds, the same less the whole exam's, and 1 / √(shots + 1).

    Twenty shots are noisy, and a ratio in words hides how many there were. Rows beyond the results (notes) are zero.
    """
    total = log_odds(sum(r.n_correct for r in results), sum(r.n_shots for r in results))
    rows = []
    for result in results:
        evidence = log_odds(result.n_correct, result.n_shots)
        rows.append([evidence, evidence - total, 1 / math.sqrt(result.n_shots + 1)])
    return rows + [[0.0] * N_EVIDENCE] * (n_rows - len(rows))


def level_of(profile: CapabilityProfile) -> float:
    """Smoothed log odds of the candidate's whole exam."""
    return log_odds(profile.accuracy * profile.n_shots, profile.n_shots)


def log_odds(n_correct: float, n_shots: int) -> float:
    """Log odds of a right answer, smoothed by Laplace's rule of succession."""
    return math.log((n_correct + 1) / (n_shots - n_correct + 1))


def padded(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Rows of whole numbers side by side, zeros on the right: int64 and bool (B, longest)."""
    width = max(len(row) for row in rows)
    values = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    for i, row in enumerate(rows):
        values[i, : len(row)] = torch.tensor(row, dtype=torch.long)
        mask[i, : len(row)] = True
    return values, mask
