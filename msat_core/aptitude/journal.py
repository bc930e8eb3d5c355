"""The journal of a sitting: every answer on disk before it counts, so that nothing is asked twice.

A file of JSON lines that is only ever appended to. The first line says what is being sat (exam,
candidate, protocol, settings, questions); each further line is one answer. Lines are written and
synced in groups, in a thread: many answers share one sync. What a crash can leave behind is
a last line that is cut: it is finished if it is whole, else dropped, and its question asked again.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from typing_extensions import Self

from msat_core.errors import ExamError

KIND = "msat-journal"
VERSION = 1


@dataclass(frozen=True)
class Answer:
    """What a candidate said to one question.

    Attributes:
        item_id: the exam question.
        rotation: by how many turns its options were moved; 0 for the first asking.
        text: the reply, whole.
        input_tokens, output_tokens: as the endpoint counted them; None where it does not.
    """

    item_id: str
    rotation: int
    text: str
    input_tokens: int | None = None
    output_tokens: int | None = None


class Journal:
    """The answers of one sitting, on disk. Use as a context manager: the file is locked meanwhile.

    Args:
        path: the file; made if it does not exist.
        header: what is being sat; a journal that says otherwise is refused.

    Attributes:
        created: ISO date on which the journal was begun.
    """

    def __init__(self, path: str | Path, header: Mapping[str, Any]) -> None:
        self.path = Path(path)
        self._header = {"kind": KIND, "version": VERSION, **header}
        self._answers: dict[tuple[str, int], Answer] = {}
        self._writing = threading.Lock()
        self._broken: ExamError | None = None
        self.created = ""

    @property
    def answers(self) -> Mapping[tuple[str, int], Answer]:
        """Every answer that is safely on disk, by (item id, rotation)."""
        return self._answers

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("a+b")
        try:
            _lock(self._file.fileno(), self.path)
            self._recover()
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    async def append(self, answers: Sequence[Answer]) -> None:
        """Write answers in a thread; returns once they are synced to disk, all with one sync.

        Raises:
            ExamError: the file cannot be written. Nothing more is then taken: what stands at its end is unknown
                until it is opened again.
        """
        await asyncio.to_thread(self.write, answers)

    def write(self, answers: Sequence[Answer]) -> None:
        """Like :meth:`append`, at once; what is written already is left out."""
        with self._writing:
            if self._broken is not None:
                raise self._broken
            new = {(answer.item_id, answer.rotation): answer for answer in answers}
            new = {key: answer for key, answer in new.items() if key not in self._answers}
            if not new:
                return
            lines = [{k: v for k, v in asdict(answer).items() if v is not None} for answer in new.values()]
            try:
                self._append("".join(json.dumps(line) + "\n" for line in lines))
            except OSError as error:
                self._broken = ExamError(f"{self.path} cannot be written ({error}): make room, and run again.")
                raise self._broken from None
            self._answers.update(new)

    def _append(self, text: str) -> None:
        self._file.write(text.encode())
        self._file.flush()
        os.fsync(self._file.fileno())

    def _recover(self) -> None:
        """Read what is there; mend the last line; begin the file if there is nothing."""
        self._file.seek(0)
        lines = self._file.read().split(b"\n")
        tail = lines.pop()
        if tail:
            if (_answer(tail) if lines else _parsed(tail)) is None:
                self._file.truncate(self._file.tell() - len(tail))
            else:
                self._append("\n")
                lines.append(tail)
        if not lines:
            created = _today()
            self._append(json.dumps({**self._header, "created": created}) + "\n")
            _sync_folder(self.path.parent)
            self.created = created
            return
        self._check_header(lines[0])
        for number, line in enumerate(lines[1:], start=2):
            self._take(number, line)

    def _check_header(self, line: bytes) -> None:
        found = _parsed(line)
        if found is None or found.get("kind") != KIND:
            raise ExamError(f"{self.path} is not a journal of an exam: name another --journal, or move it away.")
        self.created = str(found.pop("created", ""))
        for key in {**self._header, **found}:
            if found.get(key) != self._header.get(key):
                raise ExamError(
                    f"{self.path} is the journal of another sitting: its {key} is {found.get(key)!r}, this one's is "
                    f"{self._header.get(key)!r}. Answers of the two cannot be mixed: name another --journal, or move "
                    "the file away."
                )

    def _take(self, number: int, line: bytes) -> None:
        answer = _answer(line)
        if answer is None:
            raise ExamError(
                f"{self.path}, line {number} is damaged (only a last line can be mended): delete that line, and its "
                "question will be asked again."
            )
        self._answers.setdefault((answer.item_id, answer.rotation), answer)


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        data = json.loads(line)
    except ValueError:
        return None
    return data if isinstance(data, dict) else None


def _answer(line: bytes) -> Answer | None:
    try:
        return Answer(**(_parsed(line) or {}))
    except TypeError:
        return None


def _today() -> str:
    from datetime import datetime, timezone

    return datetime.now(timezone.utc).date().isoformat()


def _lock(descriptor: int, path: Path) -> None:
    """One process at a time; the system lets go of the lock when the process dies, however it dies."""
    try:
        import fcntl
    except ImportError:  # not on Windows
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise ExamError(f"{path} is in use by another run: wait for it, or name another --journal.") from None


def _sync_folder(folder: Path) -> None:
    """Make a new file's name durable too."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
