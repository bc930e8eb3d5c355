"""The journal of a sitting: every answer on disk before it counts, so that nothing is asked twice.

A file of JSON lines that is only ever appended to. The first line says what is being sat (exam,
candidate, protocol, settings, questions); each further line is one answer. Lines are written and
synced in groups, in a thread: many answers share one sync. What a crash can leave behind is
a last line that is cut: it is finished if it is whole, else dropped, and its question asked again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from typing_extensions import Self

from msat_core.errors import ExamError
from msat_core.files import writing
from msat_core.forking import Lock
from msat_core.json_lines import JsonLines, Owner

KIND = "msat-journal"
VERSION = 1  # of the file's format


@dataclass(frozen=True)
class Answer:
    """What a candidate said to one question.

    Attributes:
        item_id: the exam question.
        rotation: by how many turns its options were moved; 0 for the first asking.
        text: the reply, whole.
        input_tokens, output_tokens: as the endpoint counted them, hidden thinking included; None where it does not.
        ended: the endpoint's reason for ending it ("stop", "length", …); None where it gives none.
        limit: most output tokens that were allowed; None if nobody knows.
        seconds: how long it took to come.
    """

    item_id: str
    rotation: int
    text: str
    input_tokens: int | None = None
    output_tokens: int | None = None
    ended: str | None = None
    limit: int | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Loss:
    """What a call that failed may have cost, in USD."""

    usd_lost: float


class Journal:
    """The answers of one sitting, on disk. Use as a context manager: the file is locked meanwhile.

    Args:
        path: the file; made if it does not exist.
        header: what is being sat; a journal that says otherwise is refused.

    Attributes:
        usd_lost: what calls that failed may have cost, in USD.
    """

    def __init__(self, path: str | Path, header: Mapping[str, Any]) -> None:
        self.path = Path(path)
        owner = Owner("journal", KIND, VERSION, whose="sitting", identity=header, option="--journal")
        self._log = JsonLines(self.path, owner, _entry, error=ExamError)
        self._answers: dict[tuple[str, int], Answer] = {}
        self._writing = Lock()
        self._broken: ExamError | None = None
        self.usd_lost = 0.0

    @property
    def created(self) -> str:
        """ISO date on which the journal was begun."""
        return self._log.created

    @property
    def answers(self) -> Mapping[tuple[str, int], Answer]:
        """Every answer that is safely on disk, by (item id, rotation); the latest where a question was asked again."""
        return self._answers

    def __enter__(self) -> Self:
        with writing(self.path, ExamError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        for entry in self._log.open(wait=False)[0]:
            if isinstance(entry, Loss):
                self.usd_lost += entry.usd_lost
            else:
                self._answers[entry.item_id, entry.rotation] = entry
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
            new = {(answer.item_id, answer.rotation): answer for answer in answers}
            new = {key: answer for key, answer in new.items() if self._answers.get(key) != answer}
            if new:
                self._append(list(new.values()))
                self._answers.update(new)

    def write_loss(self, usd: float) -> None:
        """Note what a call that failed may have cost. Raises as :meth:`append` does."""
        with self._writing:
            self._append([Loss(usd)])
            self.usd_lost += usd

    def _append(self, entries: Sequence[Answer | Loss]) -> None:
        if self._broken is not None:
            raise self._broken
        try:
            self._log.append([{k: v for k, v in asdict(entry).items() if v is not None} for entry in entries])
        except ExamError as error:
            self._broken = error
            raise


def _entry(line: dict[str, Any]) -> Answer | Loss:
    """Raises TypeError or ValueError if a line is neither."""
    entry = Loss(**line) if "usd_lost" in line else Answer(**line)
    for name, value in line.items():
        kinds, least = _FIELDS[name]
        if type(value) not in kinds or (least is not None and value < least):
            raise ValueError(f"{name} is {value!r}")
    return entry


_NUMBER, _COUNT, _TEXT = (((int, float), 0), ((int,), 0), ((str,), None))
_FIELDS: Mapping[str, tuple[tuple[type, ...], int | None]] = {
    **dict.fromkeys(("item_id", "text", "ended"), _TEXT),
    **dict.fromkeys(("rotation", "input_tokens", "output_tokens", "limit"), _COUNT),
    **dict.fromkeys(("seconds", "usd_lost"), _NUMBER),
}
