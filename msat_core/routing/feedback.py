"""Feedback: outcomes of the user's own traffic, kept as evidence about the candidates that gave them.

A log holds, for each outcome, the candidate, the vector that the scorer reads of the instruction (not its
text), the outcome, its source and its time. It is bounded, and kept in an append-only JSONL file if it has
one. What it is worth fades with age, and depends on who judged; each router has a learner that takes it in.
"""

from __future__ import annotations

import base64
import math
import time
from collections.abc import Sequence
from numbers import Real
from pathlib import Path
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator

from msat_core.checks import check_count
from msat_core.errors import ConfigurationError, FeedbackError
from msat_core.forking import Lock
from msat_core.json_lines import JsonLines, Owner
from msat_core.scoring.base import WeightedOutcome
from msat_core.texts import replace_surrogates

FeedbackSource = Literal["test", "judge", "user"]

SOURCE_WEIGHTS: dict[FeedbackSource, float] = {"test": 1.0, "judge": 0.7, "user": 0.5}  # in exam shots
HALF_LIFE_DAYS = 90.0  # after which an outcome counts half: candidates are updated, traffic changes
MAX_OUTCOMES = 10_000  # of all candidates together
EPOCH = 946_684_800.0  # 2000-01-01: an earlier time is no time since the epoch but another clock's
AHEAD_S = 86_400.0  # how far another machine's clock may be ahead
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
        vector: base64 of float16 (D,), all finite.
        decision: id of the decision's record; None where none was kept.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    candidate: str = Field(min_length=1)
    outcome: float = Field(ge=0, le=1, allow_inf_nan=False)
    source: FeedbackSource
    at: float = Field(allow_inf_nan=False)
    key: str
    vector: str
    decision: str | None = None

    @field_validator("vector")
    @classmethod
    def _is_a_vector(cls, packed: str) -> str:
        vector = _unpacked(packed)
        if not len(vector) or not np.isfinite(vector).all():
            raise ValueError("the vector is empty or not finite")
        return packed

    def weighted(self, now: float) -> WeightedOutcome:
        """As a learner takes it in, at what it is worth at a time."""
        return WeightedOutcome(self.candidate, _unpacked(self.vector), self.outcome, self.weight(now))

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
        check_count("max_outcomes", max_outcomes)
        self._max = max_outcomes
        self._lock = Lock()
        self._outcomes: list[Outcome] = []
        self._first = 0  # number of the oldest one kept
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

    def add(
        self,
        candidate: str,
        vector: NDArray[np.float16],
        outcome: float,
        *,
        key: str,
        source: FeedbackSource = "user",
        at: float | None = None,
        decision: str | None = None,
    ) -> None:
        """Append one outcome; it is on disk when this returns.

        Raises:
            ConfigurationError: something that cannot be; nothing is written then.
            FeedbackError: the file cannot be written, or is damaged.
        """
        if source not in list(SOURCE_WEIGHTS):
            raise ConfigurationError(f"Feedback comes from {', '.join(SOURCE_WEIGHTS)}; got the source {source!r:.60}.")
        if not isinstance(outcome, Real | np.bool_) or not 0 <= cast("float", outcome) <= 1:
            raise ConfigurationError(f"An outcome lies in [0, 1] (0 wrong, 1 right), got {outcome!r:.60}.")
        now = time.time()
        if at is not None and not (isinstance(at, Real) and EPOCH <= cast("float", at) <= now + AHEAD_S):
            raise ConfigurationError(
                f"`at` is the time in seconds since the epoch, as time.time() gives it (now: {now:.0f}), "
                f"got {at!r:.60}."
            )
        for name, text in (("A candidate's name", candidate), ("A key", key), ("A decision's id", decision or "none")):
            if not isinstance(text, str) or not text or replace_surrogates(text) != text:
                raise ConfigurationError(f"{name} is a text in Unicode that is not empty, got {text!r:.60}.")
        try:
            with np.errstate(over="ignore"):
                half = np.ascontiguousarray(vector, dtype=np.float16)
        except (TypeError, ValueError, OverflowError):
            raise ConfigurationError(f"An outcome's vector is one row of numbers, got {vector!r:.60}.") from None
        if half.ndim != 1 or not half.size or not np.isfinite(half).all():
            raise ConfigurationError(
                f"An outcome's vector must be one row of finite numbers, got {half.shape} with "
                f"{int((~np.isfinite(half)).sum())} that are not."
            )
        packed = base64.b64encode(half.tobytes()).decode()
        when = now if at is None else float(at)
        new = Outcome(
            candidate=candidate,
            outcome=float(outcome),
            source=source,
            at=when,
            key=key,
            vector=packed,
            decision=decision,
        )
        with self._lock:
            if self._log is None:
                self._keep([new])
                return
            try:
                self._open(self._log)
                self._append(self._log, new)
            finally:
                self._log.close()

    def after(self, seen: int) -> tuple[int, int, list[Outcome]]:
        """What came since.

        Args:
            seen: the second number of an earlier answer; 0 for everything.

        Returns:
            The number of the oldest outcome kept, that of the next to come, and the outcomes kept from ``seen`` on;
            outcomes are numbered in the order in which this log met them.
        """
        with self._lock:
            last = self._first + len(self._outcomes)
            return self._first, last, self._outcomes[max(seen - self._first, 0) :]

    def _open(self, log: JsonLines[Outcome]) -> None:
        """Lock the file, and take in what other processes wrote."""
        outcomes, afresh = log.open(wait=True)
        self._n_lines = len(outcomes) + (0 if afresh else self._n_lines)
        self._keep(self._unmet(outcomes) if afresh else outcomes)

    def _unmet(self, outcomes: list[Outcome]) -> list[Outcome]:
        """What of a file read from its start came after the last outcome that this log holds."""
        for i in range(len(outcomes) - 1, -1, -1):
            if self._outcomes and outcomes[i] == self._outcomes[-1]:
                return outcomes[i + 1 :]
        self._first += len(self._outcomes)  # another file, or one in which all of them are forgotten
        self._outcomes.clear()
        return outcomes

    def _append(self, log: JsonLines[Outcome], new: Outcome) -> None:
        if self._n_lines + 1 > COMPACT_AT * self._max:
            kept = [*self._outcomes, new][-self._max :]
            log.rewrite([outcome.model_dump(exclude_none=True) for outcome in kept])
            self._n_lines = len(kept)
        else:
            log.append([new.model_dump(exclude_none=True)])
            self._n_lines += 1
        self._keep([new])

    def _keep(self, new: Sequence[Outcome]) -> None:
        self._outcomes.extend(new)
        dropped = max(len(self._outcomes) - self._max, 0)
        del self._outcomes[:dropped]
        self._first += dropped


def outcomes_by_decision(path: Path) -> dict[str, float]:
    """The outcome of each decision that a feedback file names; the latest where there are several.

    Raises:
        FeedbackError: the file is something else, or damaged.
    """
    log = FeedbackLog(path)
    return {outcome.decision: outcome.outcome for outcome in log.after(0)[2] if outcome.decision is not None}


def _unpacked(packed: str) -> NDArray[np.float16]:
    return np.frombuffer(base64.b64decode(packed, validate=True), dtype=np.float16)
