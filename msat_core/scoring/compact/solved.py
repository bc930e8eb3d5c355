"""Posteriors that were solved beforehand, so that the first route over a known zoo does not wait for them.

They lie beside the scorer's weights: ``posteriors.json`` says whose they are, ``posteriors.safetensors`` holds for each
exam the weights (M, E), the feature weights (M, R) and the variances (M,) of the candidates that sat it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np

from msat_core.documents import Document
from msat_core.errors import ArtefactError, MsatError
from msat_core.scoring.compact.posterior import Belief
from msat_core.tensor_files import read_tensors, save_tensors

INDEX_FILE = "posteriors.json"
TENSORS_FILE = "posteriors.safetensors"
Key = tuple[str, str]  # digests of the exam (or of its tasks' descriptions) and of the profile


class SolvedIndex(Document):
    """Whose posteriors a file holds.

    Attributes:
        scorer_digest: of the scorer that they belong to.
        profiles: digests of the profiles in the order of the rows, by exam.
        tensors_sha256: of the tensor file.
    """

    kind: ClassVar[str] = "solved-posteriors"
    error: ClassVar[type[MsatError]] = ArtefactError

    scorer_digest: str
    profiles: dict[str, tuple[str, ...]]
    tensors_sha256: str


def save_solved(folder: Path, scorer_digest: str, solved: Mapping[Key, Belief]) -> None:
    """Write posteriors beside a scorer's weights; the index last."""
    profiles: dict[str, tuple[str, ...]] = {}
    for exam, profile in solved:
        profiles[exam] = (*profiles.get(exam, ()), profile)
    tensors = {}
    for exam, rows in profiles.items():
        beliefs = [solved[exam, profile] for profile in rows]
        tensors[f"{exam}.weights"] = np.stack([belief.weights for belief in beliefs])
        tensors[f"{exam}.feature_weights"] = np.stack([belief.feature_weights for belief in beliefs])
        tensors[f"{exam}.variance"] = np.array([belief.variance for belief in beliefs])
    sha256 = save_tensors(folder / TENSORS_FILE, tensors)
    SolvedIndex(scorer_digest=scorer_digest, profiles=profiles, tensors_sha256=sha256).save(folder / INDEX_FILE)


def load_solved(folder: Path, scorer_digest: str, width: int) -> dict[Key, Belief]:
    """What lies beside a scorer's weights; nothing where there is none, or where it belongs to another scorer.

    Args:
        folder: the scorer's.
        scorer_digest: the scorer's.
        width: D, of the embeddings.

    Raises:
        ArtefactError: a file is damaged.
    """
    if not (folder / INDEX_FILE).is_file():
        return {}
    index = SolvedIndex.load(folder / INDEX_FILE)
    if index.scorer_digest != scorer_digest:
        return {}
    tensors = read_tensors(folder / TENSORS_FILE, index.tensors_sha256)
    nowhere = np.zeros((0, width), np.float32), np.zeros(0, np.float32)
    return {
        (exam, profile): Belief(
            tensors[f"{exam}.weights"][row],
            *nowhere,
            tensors[f"{exam}.feature_weights"][row],
            float(tensors[f"{exam}.variance"][row]),
        )
        for exam, profiles in index.profiles.items()
        for row, profile in enumerate(profiles)
    }
