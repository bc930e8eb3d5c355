"""Marks that cost time or money, kept so that a trial that is run again does not pay for them twice."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msat_core.aptitude.graders.base import Grade
from msat_core.aptitude.questions import Question
from msat_core.errors import ExamError
from msat_core.files import writing
from msat_core.forking import Lock
from msat_core.json_lines import JsonLines, Owner

FILE = "grades.jsonl"
_OWNER = Owner("log of grades", "msat-grades", whose="trial", option="--out")


@dataclass(frozen=True)
class _Kept:
    key: str
    score: float | None
    why: str


class GradeBook:
    """Grades by the grader, the question and the reply; written down as they are given. Thread-safe."""

    def __init__(self, log: JsonLines[_Kept], grades: Mapping[str, Grade]) -> None:
        self._log, self._grades = log, dict(grades)
        self._lock = Lock()

    def grade(self, question: Question, reply: str) -> Grade:
        """The question's grader's mark of a reply; of a costly grader, the one it gave before where there is one."""
        if not getattr(question.grader, "costly", False):
            return question.grade(reply)
        key = _key(question, reply)
        with self._lock:
            grade = self._grades.get(key)
        if grade is None:
            grade = question.grade(reply)
            with self._lock:
                self._log.append([{"key": key, "score": grade.score, "why": grade.why}])
                self._grades[key] = grade
        return grade


@contextmanager
def grade_book(folder: Path) -> Iterator[GradeBook]:
    """The grades kept in a trial's folder. Raises ExamError if the file is somebody else's or in use."""
    with writing(folder, ExamError):
        folder.mkdir(parents=True, exist_ok=True)
    log = JsonLines(folder / FILE, _OWNER, _entry, error=ExamError, sync="never")
    try:
        yield GradeBook(log, {kept.key: Grade(kept.score, kept.why) for kept in log.open(wait=False)[0]})
    finally:
        log.close()


def _entry(line: dict[str, Any]) -> _Kept:
    entry = _Kept(**line)
    marked = entry.score is None or (type(entry.score) in (int, float) and 0 <= entry.score <= 1)
    if not (marked and isinstance(entry.key, str) and isinstance(entry.why, str)):
        raise ValueError(line)
    return entry


def _key(question: Question, reply: str) -> str:
    name = question.grader.name if question.grader is not None else ""
    asked = (name, question.with_options(), question.answer, question.tests, reply)
    return hashlib.sha256("\0".join(asked).encode("utf-8", "surrogatepass")).hexdigest()[:32]
