"""What the exams alone say, as tables for the baselines: of the zoo, and of others in the records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from msat_core.errors import ConfigurationError
from msat_core.evaluation.baselines.base import OutcomeTable
from msat_core.exam import Exam, ExamShot
from msat_core.profiles import CapabilityProfile
from msat_core.records import Records

MIN_OTHERS = 2  # chosen: a single one shows nothing of how candidates differ


def exam_outcomes(exams: Sequence[Exam], profiles: Sequence[CapabilityProfile], encoder_digest: str) -> OutcomeTable:
    """The profiles' outcomes on the exams' shots; NaN on shots of an exam that a candidate did not sit.

    Raises:
        ConfigurationError: an exam has no embeddings of this encoder.
        RecordsError: a profile holds counts only.
    """
    shots = _shots(exams)
    outcomes = np.full((len(shots), len(profiles)), np.nan)
    for column, profile in enumerate(profiles):
        answered = profile.shots
        for row, (digest, shot) in enumerate(shots):
            if digest == profile.exam_digest and shot.item_id in answered:
                outcomes[row, column] = answered[shot.item_id]
    return OutcomeTable(_vectors(exams, encoder_digest), tuple(shot.task for _, shot in shots), outcomes)


def others_outcomes(
    records: Records, exams: Sequence[Exam], names: Sequence[str], zoo: OutcomeTable
) -> OutcomeTable | None:
    """Recorded outcomes on the same shots of candidates outside the zoo.

    Args:
        records: everything recorded, exam items included.
        exams: as for the zoo's table.
        names: the zoo's candidates.
        zoo: its outcomes.

    Returns:
        The outcomes of the candidates that sat at least half of the shots; None if fewer than two did.
    """
    row_of: Mapping[str, int] = {digest: row for row, digest in reversed(list(enumerate(records.text_sha256)))}
    rows = np.array([row_of.get(shot.text_sha256, -1) for _, shot in _shots(exams)])
    outsiders = [m for m, name in enumerate(records.candidates) if name not in names]
    outcomes = np.full((len(rows), len(outsiders)), np.nan)
    outcomes[rows >= 0] = records.outcomes[outsiders].T[rows[rows >= 0]]
    sat = (~np.isnan(outcomes)).mean(axis=0) >= 0.5
    return OutcomeTable(zoo.vectors, zoo.tasks, outcomes[:, sat]) if sat.sum() >= MIN_OTHERS else None


def _shots(exams: Sequence[Exam]) -> list[tuple[str, ExamShot]]:
    return [(exam.digest, shot) for exam in exams for shot in exam.sheet.shots]


def _vectors(exams: Sequence[Exam], encoder_digest: str) -> NDArray[np.float32]:
    for exam in exams:
        if encoder_digest not in exam.embeddings:
            raise ConfigurationError(
                f"The exam {exam.sheet.name!r} has no embeddings of the scorer's encoder {encoder_digest[:12]}…: "
                "baselines cannot read it. Make the exam again with this encoder."
            )
    return np.concatenate([exam.embeddings[encoder_digest].astype(np.float32) for exam in exams])
