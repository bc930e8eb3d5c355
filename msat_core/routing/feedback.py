"""Feedback: outcomes of the user's own traffic, kept as evidence about the candidates that gave them.

A log holds, for each outcome, the candidate, the vector that the scorer reads of the instruction (not its
text), the outcome, its source and its time. It is bounded, and kept in an append-only JSONL file if it has
one. What it is worth fades with age, and depends on who judged.
"""

from __future__ import annotations

import base64
import math
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from msat_core.errors import ConfigurationError, FeedbackError
from msat_core.files import JsonLines, Owner
from msat_core.scoring.base import Observations

Source = Literal["test", "judge", "user"]

SOURCE_WEIGHTS: dict[Source, float] = {"test": 1.0, "judge": 0.7, "user": 0.5}  # in exam shots
HALF_LIFE_DAYS = 90.0  # after which an outcome counts half: candidates are updated, traffic changes
MAX_OUTCOMES = 2000  # of all candidates together; solving for them takes about a second on two cores
OWNER = Owner("feedback file", "msat-feedback")
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
        path: a JSONL file to keep them in, made if it does not exist (its folder must); None to keep them in
            memory. Several processes may keep one file: each reads what the others wrote when it adds something.
        max_outcomes: beyond it the oldest are forgotten.

    Raises:
        FeedbackError: the file is something else, damaged, or cannot be written. A last line that a crash cut is
            dropped.
    """

    def __init__(self, path: str | Path | None = None, *, max_outcomes: int = MAX_OUTCOMES) -> None:
        if max_outcomes < 1:
            raise ConfigurationError(f"max_outcomes must be at least 1, got {max_outcomes}.")
        self._max = max_outcomes
        self._lock = threading.Lock()
        self._outcomes: list[Outcome] = []
        self._n_lines = 0  # outcomes in the file
        self._log: JsonLines[Outcome] | None = None
        if path is not None:
            self._log = JsonLines(
                Path(path), OWNER, Outcome.model_validate, error=FeedbackError, mode=0o600, headless=True
            )
            self._open(self._log)
            self._log.close()

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
            if self._log is None:
                self._outcomes = [*self._outcomes, new][-self._max :]
                return
            try:
                self._open(self._log)
                self._append(self._log, new)
            finally:
                self._log.close()

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

    def _open(self, log: JsonLines[Outcome]) -> None:
        """Lock the file, and take in what other processes wrote."""
        found, afresh = log.open(wait=True)
        self._outcomes = [*([] if afresh else self._outcomes), *found][-self._max :]
        self._n_lines = len(found) + (0 if afresh else self._n_lines)

    def _append(self, log: JsonLines[Outcome], new: Outcome) -> None:
        outcomes = [*self._outcomes, new][-self._max :]
        if self._n_lines + 1 > COMPACT_AT * self._max:
            log.rewrite([one.model_dump() for one in outcomes])
            self._n_lines = len(outcomes)
        else:
            log.append([new.model_dump()])
            self._n_lines += 1
        self._outcomes = outcomes
