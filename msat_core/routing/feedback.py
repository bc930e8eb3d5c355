"""Feedback: outcomes of the user's own traffic, kept as evidence about the candidates that gave them.

A log holds, for each outcome, the candidate, the vector that the scorer reads of the instruction (not its
text), the outcome, its source and its time. It is bounded, and kept in an append-only JSONL file if it has
one. What it is worth fades with age, and depends on who judged.
"""

from __future__ import annotations

import base64
import json
import math
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from msat_core.documents import write_text
from msat_core.errors import ConfigurationError, FeedbackError
from msat_core.scoring.base import Observations

Source = Literal["test", "judge", "user"]

SOURCE_WEIGHTS: dict[Source, float] = {"test": 1.0, "judge": 0.7, "user": 0.5}  # in exam shots
HALF_LIFE_DAYS = 90.0  # after which an outcome counts half: candidates are updated, traffic changes
MAX_OUTCOMES = 2000  # of all candidates together; solving for them takes about a second on two cores
COMPACT_AT = 2  # the file is rewritten when it holds so many times what the log keeps


class Outcome(BaseModel):
    """One line of the log.

    Attributes:
        candidate: who answered.
        outcome: how right the answer was, in [0, 1].
        source: who says so: ``test`` (a check that cannot be wrong), ``judge`` (a grader), ``user`` (a thumb).
        at: seconds since the epoch.
        key: names the kind of ``vector``.
        vector: base64 of float16 (D,).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    candidate: str = Field(min_length=1)
    outcome: float = Field(ge=0, le=1)
    source: Source
    at: float
    key: str
    vector: str

    def weight(self, now: float) -> float:
        """How many exam shots it counts for at a time."""
        age_days = max(0.0, now - self.at) / 86400
        return SOURCE_WEIGHTS[self.source] * math.exp2(-age_days / HALF_LIFE_DAYS)


class FeedbackLog:
    """The outcomes, newest last; thread-safe.

    Args:
        path: a JSONL file to keep them in, made if it does not exist; None to keep them in memory.
        max_outcomes: beyond it the oldest are forgotten.

    Raises:
        FeedbackError: the file holds something else. A damaged last line, as a crash leaves it, is dropped.
    """

    def __init__(self, path: str | Path | None = None, *, max_outcomes: int = MAX_OUTCOMES) -> None:
        if max_outcomes < 1:
            raise ConfigurationError(f"max_outcomes must be at least 1, got {max_outcomes}.")
        self._path = None if path is None else Path(path)
        self._max = max_outcomes
        self._lock = threading.Lock()
        self._outcomes, self._n_lines = self._read()

    def __len__(self) -> int:
        return len(self._outcomes)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=threading.Lock())

    def add(
        self,
        candidate: str,
        vector: NDArray[np.float16],
        outcome: float,
        *,
        key: str,
        source: Source = "user",
        at: float | None = None,
    ) -> None:
        """Append one outcome; it is on disk when this returns."""
        if source not in SOURCE_WEIGHTS:
            raise ConfigurationError(f"Feedback comes from {', '.join(SOURCE_WEIGHTS)}; got the source {source!r}.")
        if not 0 <= outcome <= 1:
            raise ConfigurationError(f"An outcome lies in [0, 1] (0 wrong, 1 right), got {outcome!r}.")
        packed = base64.b64encode(np.ascontiguousarray(vector, dtype=np.float16).tobytes()).decode()
        when = time.time() if at is None else at
        new = Outcome(candidate=candidate, outcome=float(outcome), source=source, at=when, key=key, vector=packed)
        with self._lock:
            self._outcomes = [*self._outcomes, new][-self._max :]
            if self._path is None:
                return
            if self._n_lines + 1 > COMPACT_AT * self._max:
                write_text(self._path, "".join(_line(one) for one in self._outcomes))
                self._n_lines = len(self._outcomes)
                return
            with self._path.open("a", encoding="utf-8") as file:
                file.write(_line(new))
                file.flush()
                os.fsync(file.fileno())
            self._n_lines += 1

    def observations(self, key: str, *, now: float | None = None) -> Mapping[str, Observations]:
        """What the log says of each candidate, of outcomes whose vectors are of the given kind."""
        now = time.time() if now is None else now
        by_candidate: dict[str, list[Outcome]] = {}
        for one in self._outcomes:
            if one.key == key:
                by_candidate.setdefault(one.candidate, []).append(one)
        return {
            name: Observations(
                np.stack([np.frombuffer(base64.b64decode(one.vector), dtype=np.float16) for one in found]),
                np.array([one.outcome for one in found], dtype=np.float32),
                np.array([one.weight(now) for one in found], dtype=np.float32),
            )
            for name, found in by_candidate.items()
        }

    def _read(self) -> tuple[list[Outcome], int]:
        if self._path is None or not self._path.exists():
            return [], 0
        try:
            lines = self._path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
        except OSError as error:
            raise FeedbackError(f"The feedback file {self._path} cannot be read ({error}).") from None
        found: list[Outcome] = []
        for number, line in enumerate(lines):
            try:
                found.append(Outcome.model_validate(json.loads(line)))
            except (ValueError, ValidationError):
                if number < len(lines) - 1 or line.endswith("\n"):
                    raise FeedbackError(
                        f"{self._path}, line {number + 1} is not an outcome as msat writes it: name another file, or "
                        "take the line out."
                    ) from None
                write_text(self._path, "".join(lines[:-1]))
        return found[-self._max :], len(found)


def _line(outcome: Outcome) -> str:
    return outcome.model_dump_json() + "\n"
