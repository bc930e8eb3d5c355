"""The journal of a sitting: every answer on disk before it counts, so that nothing is asked twice.

A file of JSON lines that is only ever appended to. The first line says what is being sat (exam,
candidate, protocol, settings, questions); each further line is one answer. Lines are written and
synced in groups, in a thread: many answers share one sync. What a crash can leave behind is
a last line that is cut: it is finished if it is whole, else dropped, and its question asked again.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from typing_extensions import Self

from msat_core.errors import ExamError
from msat_core.files import JsonLines, Owner, writing

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
    """

    def __init__(self, path: str | Path, header: Mapping[str, Any]) -> None:
        self.path = Path(path)
        owner = Owner("journal", KIND, VERSION, whose="sitting", identity=header, option="--journal")
        self._log = JsonLines(self.path, owner, _answer, error=ExamError)
        self._answers: dict[tuple[str, int], Answer] = {}
        self._writing = threading.Lock()
        self._broken: ExamError | None = None

    @property
    def created(self) -> str:
        """ISO date on which the journal was begun."""
        return self._log.created

    @property
    def answers(self) -> Mapping[tuple[str, int], Answer]:
        """Every answer that is safely on disk, by (item id, rotation)."""
        return self._answers

    def __enter__(self) -> Self:
        with writing(self.path, ExamError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        for answer in self._log.open(wait=False)[0]:
            self._answers.setdefault((answer.item_id, answer.rotation), answer)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._log.close()

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
            try:
                self._log.append(
                    [{k: v for k, v in asdict(answer).items() if v is not None} for answer in new.values()]
                )
            except ExamError as error:
                self._broken = error
                raise
            self._answers.update(new)


def _answer(line: dict[str, Any]) -> Answer:
    return Answer(**line)
