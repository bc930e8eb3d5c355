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
from msat_core.scoring.compact.posterior import CapabilityPosterior, asked_of
from msat_core.scoring.compact.support import Support, Surroundings
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
        posteriors: without their covariance and without what was asked, by digests of exam and profile.
        surroundings: by digest of the exam.
    """

    posteriors: Mapping[tuple[str, str], CapabilityPosterior] = field(default_factory=dict)
    surroundings: Mapping[str, Surroundings] = field(default_factory=dict)

    def posterior(self, support: Support, profile: CapabilityProfile) -> CapabilityPosterior | None:
        """The posterior of a candidate, if it was solved."""
        posterior = self.posteriors.get((support.name, profile.digest))
        return None if posterior is None else replace(posterior, asked=asked_of(support, profile))


def save_solved(
    folder: Path, scorer_digest: str, members: Sequence[tuple[Support, CapabilityProfile, CapabilityPosterior]]
) -> None:
    """Write posteriors beside a scorer's weights; the index last."""
    by_support: dict[str, list[tuple[Support, CapabilityProfile, CapabilityPosterior]]] = {}
    for member in members:
        by_support.setdefault(member[0].name, []).append(member)
    tensors = {}
    for name, group in by_support.items():
        around, posteriors = group[0][0].surroundings, [posterior for *_, posterior in group]
        tensors[f"{name}.weights"] = np.stack([posterior.weights for posterior in posteriors])
        tensors[f"{name}.feature_weights"] = np.stack([posterior.feature_weights for posterior in posteriors])
        tensors[f"{name}.variance"] = np.array([posterior.variance for posterior in posteriors])
        tensors[f"{name}.near"] = np.array([posterior.mean_nearness for posterior in posteriors])
        tensors[f"{name}.centre"] = around.centre
        tensors[f"{name}.difficulty_and_reach"] = np.array([around.difficulty_variance, around.reach])
    sha256 = save_tensors(folder / TENSORS_FILE, tensors)
    profiles = {name: tuple(profile.digest for _, profile, _ in group) for name, group in by_support.items()}
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
    posteriors = {
        (exam, profile): CapabilityPosterior(
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
    return Solved(posteriors, surroundings)
