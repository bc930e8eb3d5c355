"""Posteriors that were solved beforehand, so that the first route over a known zoo does not wait for them.

They lie beside the scorer's weights: ``posteriors.json`` says whose they are, ``posteriors.safetensors`` holds for each
exam the weights (M, E), the feature weights (M, R), the variances (M,) and what nearness counts on average (M,) of the
candidates that sat it, and its surroundings: their centre (R,), the variance of difficulty and the reach (2,).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from msat_core.documents import Document
from msat_core.errors import ArtefactError, MsatError
from msat_core.profiles import CapabilityProfile
from msat_core.scoring.compact.posterior import Belief, Place, Surroundings, asked_of
from msat_core.tensor_files import read_tensors, save_tensors

INDEX_FILE = "posteriors.json"
TENSORS_FILE = "posteriors.safetensors"


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


@dataclass(frozen=True)
class Solved:
    """What was solved beforehand.

    Attributes:
        beliefs: without their spread and without what was asked, by digests of exam and profile.
        surroundings: by digest of the exam.
    """

    beliefs: Mapping[tuple[str, str], Belief] = field(default_factory=dict)
    surroundings: Mapping[str, Surroundings] = field(default_factory=dict)

    def belief(self, place: Place, profile: CapabilityProfile) -> Belief | None:
        """What is believed of a candidate, if that is known."""
        known = self.beliefs.get((place.name, profile.digest))
        return None if known is None else replace(known, asked=asked_of(place, profile))


def save_solved(folder: Path, scorer_digest: str, members: Sequence[tuple[Place, CapabilityProfile, Belief]]) -> None:
    """Write posteriors beside a scorer's weights; the index last."""
    by_place: dict[str, list[tuple[Place, CapabilityProfile, Belief]]] = {}
    for member in members:
        by_place.setdefault(member[0].name, []).append(member)
    tensors = {}
    for name, group in by_place.items():
        around, beliefs = group[0][0].surroundings, [belief for *_, belief in group]
        tensors[f"{name}.weights"] = np.stack([belief.weights for belief in beliefs])
        tensors[f"{name}.feature_weights"] = np.stack([belief.feature_weights for belief in beliefs])
        tensors[f"{name}.variance"] = np.array([belief.variance for belief in beliefs])
        tensors[f"{name}.near"] = np.array([belief.near for belief in beliefs])
        tensors[f"{name}.centre"] = around.centre
        tensors[f"{name}.difficulty_and_reach"] = np.array([around.difficulty_variance, around.reach])
    sha256 = save_tensors(folder / TENSORS_FILE, tensors)
    profiles = {name: tuple(profile.digest for _, profile, _ in group) for name, group in by_place.items()}
    SolvedIndex(scorer_digest=scorer_digest, profiles=profiles, tensors_sha256=sha256).save(folder / INDEX_FILE)


def load_solved(folder: Path, scorer_digest: str, width: int) -> Solved:
    """What lies beside a scorer's weights; nothing where there is none, or where it belongs to another scorer.

    Args:
        folder: the scorer's.
        scorer_digest: the scorer's.
        width: D, of the embeddings.

    Raises:
        ArtefactError: a file is damaged.
    """
    if not (folder / INDEX_FILE).is_file():
        return Solved()
    index = SolvedIndex.load(folder / INDEX_FILE)
    if index.scorer_digest != scorer_digest:
        return Solved()
    tensors = read_tensors(folder / TENSORS_FILE, index.tensors_sha256)
    nowhere, unasked = (np.zeros((0, width), np.float32), np.zeros(0, np.float32)), np.zeros(0, bool)
    beliefs = {
        (exam, profile): Belief(
            tensors[f"{exam}.weights"][row],
            *nowhere,
            tensors[f"{exam}.feature_weights"][row],
            float(tensors[f"{exam}.variance"][row]),
            float(tensors[f"{exam}.near"][row]),
            unasked,
        )
        for exam, profiles in index.profiles.items()
        for row, profile in enumerate(profiles)
    }
    surroundings = {
        exam: Surroundings(tensors[f"{exam}.centre"], *tensors[f"{exam}.difficulty_and_reach"].tolist())
        for exam in index.profiles
    }
    return Solved(beliefs, surroundings)
