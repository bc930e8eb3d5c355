"""The quick exams that are shipped: which questions of an exam, by their ids.

So few that a flagship sits them for less than a US dollar; :mod:`msat_core.aptitude.quick_choice` says how they are
chosen, examples/reproduce/LOG.md what they are worth beside longer exams.
"""

from __future__ import annotations

from typing import ClassVar

from msat_core import pretrained
from msat_core.documents import Document
from msat_core.errors import ArtefactError, ConfigurationError, MsatError
from msat_core.exam import Exam, ExamShot


class QuickExams(Document):
    """What ``quick.json`` holds.

    Attributes:
        chosen: ids of the chosen questions, in the order in which they are asked, by their exam's digest.
    """

    kind: ClassVar[str] = "quick-exams"
    error: ClassVar[type[MsatError]] = ArtefactError

    chosen: dict[str, tuple[str, ...]]


def quick_shots(exam: Exam) -> tuple[ExamShot, ...]:
    """The shipped choice of an exam's questions, in the order in which they are asked.

    Raises:
        ConfigurationError: nothing is shipped for this exam.
    """
    chosen = QuickExams.load(pretrained.QUICK).chosen.get(exam.digest)
    if chosen is None:
        raise ConfigurationError(
            f"No quick exam is shipped for {exam.sheet.name!r}, only for the shipped ones: shorten it with shots."
        )
    by_id = {shot.item_id: shot for shot in exam.sheet.shots}
    return tuple(by_id[item_id] for item_id in chosen)
