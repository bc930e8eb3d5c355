"""The exam as an artefact: which questions, in which tasks, and their embeddings.

An exam folder holds ``exam.json`` (item ids, text hashes, tasks with keywords, selection rule; no
question text) and ``shot_embeddings.safetensors`` (one row a shot, keyed by the encoder's digest).
A profile names its exam by digest; routing and evaluation never need the exam's text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from msat_core import pretrained
from msat_core.documents import Document
from msat_core.errors import ArtefactError, ConfigurationError, MsatError
from msat_core.files import write_bytes
from msat_core.profiles import CapabilityProfile
from msat_core.reading import read_bytes

SHEET_FILE = "exam.json"
EMBEDDINGS_FILE = "shot_embeddings.safetensors"

OWN_TASKS: Final = "own-tasks"  # the rule of an exam of a benchmark's own tasks
OWN_QUESTIONS: Final = "own questions"  # and of one of a trial's questions
OWN_RULES = (OWN_TASKS, OWN_QUESTIONS)  # of exams whose tasks are not those that a scorer was trained on


class ExamTask(BaseModel):
    """One task of an exam: its name and up to five keywords."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str = Field(min_length=1)
    keywords: tuple[str, ...] = ()


class ExamShot(BaseModel):
    """One question of an exam: its id, the SHA-256 of its normalised text, and its task."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    item_id: str = Field(min_length=1)
    text_sha256: str = Field(pattern="^[0-9a-f]{64}$")
    task: str


class ExamSheet(Document):
    """What ``exam.json`` holds. Its digest names the exam: its questions, whoever embedded them."""

    kind: ClassVar[str] = "exam"
    error: ClassVar[type[MsatError]] = ArtefactError
    unnamed: ClassVar[frozenset[str]] = frozenset({"embeddings_sha256"})

    name: str
    rule: str
    seed: int = 0
    tasks: tuple[ExamTask, ...]
    shots: tuple[ExamShot, ...]
    embeddings_sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")  # of the file beside it

    @model_validator(mode="after")
    def _consistent(self) -> ExamSheet:
        names = [task.task for task in self.tasks]
        ids = [shot.item_id for shot in self.shots]
        if len(set(names)) != len(names) or len(set(ids)) != len(ids):
            raise ValueError("a task or an item is listed twice")
        if not ids or not {shot.task for shot in self.shots} <= set(names):
            raise ValueError("an exam needs at least one shot, and every shot a listed task")
        return self


@dataclass(frozen=True)
class Exam:
    """An exam sheet with the embeddings of its shots.

    Attributes:
        sheet: the questions' ids, hashes and tasks.
        embeddings: by encoder digest, float16 (n_shots, D) in the order of ``sheet.shots``.
    """

    sheet: ExamSheet
    embeddings: Mapping[str, NDArray[np.float16]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for digest, vectors in self.embeddings.items():
            if vectors.ndim != 2 or len(vectors) != len(self.sheet.shots) or not np.isfinite(vectors).all():
                raise ArtefactError(
                    f"The exam {self.sheet.name!r} has {len(self.sheet.shots)} shots, but its embeddings for "
                    f"encoder {digest[:12]}… have shape {vectors.shape} or hold no numbers: make the exam again."
                )

    def __repr__(self) -> str:
        return f"Exam({self.sheet.name!r}, {len(self.sheet.tasks)} tasks, {len(self.sheet.shots)} shots)"

    def with_embeddings(self, encoder_digest: str, vectors: NDArray[np.floating]) -> Exam:
        """The exam with one more encoder's embeddings, (n_shots, D) in the order of ``sheet.shots``."""
        return Exam(self.sheet, {**self.embeddings, encoder_digest: vectors.astype(np.float16)})

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the sheet."""
        return self.sheet.digest

    @property
    def text_hashes(self) -> frozenset[str]:
        """The text hashes of all shots: what must be left out of training and evaluation."""
        return frozenset(shot.text_sha256 for shot in self.sheet.shots)

    def save(self, folder: str | Path) -> Path:
        """Write the exam's two files; the sheet last, so that a folder with a sheet is whole."""
        from safetensors.numpy import save

        folder = Path(folder)
        sheet = self.sheet.changed(embeddings_sha256=None)
        if self.embeddings:
            data = save({key: np.ascontiguousarray(rows) for key, rows in self.embeddings.items()})
            write_bytes(folder / EMBEDDINGS_FILE, data)
            sheet = sheet.changed(embeddings_sha256=hashlib.sha256(data).hexdigest())
        sheet.save(folder / SHEET_FILE)
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> Exam:
        """Read an exam folder. Raises ArtefactError if it is missing or damaged.

        Embeddings without a checksum, as an earlier msat wrote them, are taken as they are.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load

        folder = Path(folder)
        sheet = ExamSheet.load(folder / SHEET_FILE)
        path = folder / EMBEDDINGS_FILE
        if sheet.embeddings_sha256 is None and not path.exists():
            return cls(sheet)
        try:
            data = read_bytes(path)
            if sheet.embeddings_sha256 not in (None, hashlib.sha256(data).hexdigest()):
                raise ValueError("its bytes are not those that exam.json names")
            embeddings = load(data)
            if any(rows.dtype.kind != "f" for rows in embeddings.values()):
                raise ValueError("it holds something else than floats")
            return cls(sheet, {key: rows.astype(np.float16) for key, rows in embeddings.items()})
        except (SafetensorError, OSError, ValueError, TypeError, LookupError) as error:
            raise ArtefactError(f"{path} is damaged ({error}): copy or make the exam again.") from None


def exams_beside(folder: str | Path) -> list[Exam]:
    """The exams kept beside profiles or a zoo file: ``exam/`` and ``exams/*/`` of their folder."""
    places = [Path(folder) / "exam", *sorted((Path(folder) / "exams").glob("*"))]
    return [Exam.load(place) for place in places if (place / SHEET_FILE).is_file()]


def exams_of(profiles: Sequence[CapabilityProfile], folder: str | Path) -> list[Exam]:
    """The exams that the profiles of a folder name, from beside them or from the shipped ones.

    Raises:
        ConfigurationError: one is in neither place.
    """
    wanted = {profile.exam_digest: profile.candidate for profile in profiles if profile.exam_digest}
    shipped = [Exam.load(place) for place in pretrained.EXAMS if place.is_dir()]
    by_digest = {exam.digest: exam for exam in [*shipped, *exams_beside(folder)]}
    for digest, candidate in wanted.items():
        if digest not in by_digest:
            raise ConfigurationError(
                f"The profile of {candidate!r} names the exam {digest[:12]}…, which is neither shipped nor in "
                f"{Path(folder) / 'exam'}: without it nobody can tell which items to leave out."
            )
    return [by_digest[digest] for digest in wanted]
