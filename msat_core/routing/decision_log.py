"""Decision records: one JSON line for every route, in a file that several processes may share.

No text of the user's is kept unless it is asked for: an instruction is known by its digest. Where a feedback log holds
the outcome of an answer, it names the decision's id.
"""

from __future__ import annotations

import hashlib
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from msat_core.errors import FileError, RecordsError
from msat_core.forking import Lock
from msat_core.json_lines import JsonLines, Owner
from msat_core.routing.decision import Basis
from msat_core.routing.observing import Route, Status, Step

OWNER = Owner("decision log", "msat-decisions")
DIGITS = 6  # of seconds


class CallRecord(BaseModel):
    """One call of a candidate on the way to an answer. Times are seconds since the route began.

    Attributes:
        candidate: who was called.
        model: what the provider calls whoever answered; None if it does not say.
        begun_s, first_token_s, ended_s: when; None where it did not come to that.
        failure: the kind of failure; empty where there was none.
        error: the failure's own words; None where no texts are kept.
        input_tokens, output_tokens, cached_tokens: as the provider counts them; None if it does not say.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    candidate: str
    model: str | None = None
    begun_s: float
    first_token_s: float | None = None
    ended_s: float | None = None
    failure: str = ""
    error: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None


class DecisionRecord(BaseModel):
    """One line of the log.

    Attributes:
        id: of the decision; also in the answer's metadata.
        at: seconds since the epoch at which the route began.
        status: what became of it; see :class:`~msat_core.routing.observing.Route`.
        policy, zoo, scorer: digests of what it was made by.
        basis: what decided; see :class:`~msat_core.routing.decision.RoutingDecision`.
        instruction: SHA-256 (hex) of the text that was scored; None where there was none.
        text: that text; None unless texts are kept.
        conversation: its name; None where it has none.
        recommended: whom the policy chose.
        candidate: who was to be asked; somebody else where the policy observes or explores.
        propensities: probability with which each candidate was to be asked.
        scores: P(correct) of each; empty where there was no text to score.
        costs_usd: expected price of the call by candidate; None where unknown.
        excluded: why candidates were outside of the limits.
        reason: one sentence for people.
        path: the calls that were made; empty where whoever decided does not call.
        answered_by: whose answer was given; None where nobody's is known.
        cost_usd: of that answer, by its tokens; None where they or the price are unknown.
        latency_s: seconds from the question to the end of the answer, or to the decision where that is all.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(min_length=1)
    at: float
    status: Status
    policy: str
    zoo: str
    scorer: str
    basis: Basis
    instruction: str | None = None
    text: str | None = None
    conversation: str | None = None
    recommended: str
    candidate: str
    propensities: dict[str, float]
    scores: dict[str, float]
    costs_usd: dict[str, float | None]
    excluded: dict[str, str] = Field(default_factory=dict)
    reason: str
    path: tuple[CallRecord, ...] = ()
    answered_by: str | None = None
    cost_usd: float | None = None
    latency_s: float

    @classmethod
    def of(cls, route: Route, *, text: bool = False) -> DecisionRecord:
        """What is to be kept of a route.

        Args:
            route: that has ended.
            text: whether the user's text and the words of errors are kept.
        """
        decision, asked, answer = route.decision, route.asked, route.answer
        words, chances = asked.instruction, decision.chances
        return cls(
            id=decision.id or "",
            at=round(route.at, DIGITS),
            status=route.status,
            policy=asked.policy.digest,
            zoo=asked.zoo.digest,
            scorer=asked.scorer,
            basis=decision.basis,
            instruction=None if words is None else hashlib.sha256(words.encode("utf-8", "surrogatepass")).hexdigest(),
            text=words if text else None,
            conversation=asked.request.conversation,
            recommended=decision.recommended or decision.candidate,
            candidate=decision.candidate,
            propensities={name: chances.get(name, 0.0) for name in decision.costs_usd},
            scores=decision.scores,
            costs_usd=decision.costs_usd,
            excluded=decision.excluded,
            reason=decision.reason,
            path=tuple(_call(step, text) for step in route.steps),
            answered_by=None if answer is None else answer.candidate,
            cost_usd=route.cost_usd,
            latency_s=_rounded(route.ended_s) or 0.0,
        )


class DecisionLog:
    """Writes a record of every route to a file; thread-safe. What is written is in the system's hands at once.

    Args:
        path: a JSONL file, made if it does not exist (its folder must), readable by its owner alone. Several
            processes may write to one.
        text: whether instructions and the words of errors are kept too.

    Raises:
        FileError: the file is something else, or cannot be written.
    """

    def __init__(self, path: str | Path, *, text: bool = False) -> None:
        self.text = text
        self._lock = Lock()
        self._file = _lines(Path(path), FileError, from_end=True)
        self._file.open(wait=True)
        self._file.close()

    def __repr__(self) -> str:
        return f"DecisionLog({str(self._file.path)!r}{', text=True' if self.text else ''})"

    def begin(self, route: Route) -> None:
        """Nothing is known yet."""

    def attempt(self, route: Route) -> AbstractContextManager[object]:
        """Nothing is known yet."""
        return nullcontext()

    def end(self, route: Route) -> None:
        """Write the record."""
        line = DecisionRecord.of(route, text=self.text).model_dump(mode="json", exclude_none=True)
        line["costs_usd"] = route.decision.costs_usd  # None is said there
        with self._lock:
            try:
                self._file.open(wait=True)
                self._file.append([line])
            finally:
                self._file.close()


def read_decisions(path: str | Path) -> list[DecisionRecord]:
    """The records of a log, oldest first.

    Raises:
        RecordsError: there is no such file, it is something else, or a line is damaged; the message names the line.
    """
    path = Path(path)
    if not path.is_file():
        raise RecordsError(f"{path} does not exist: expected a log of decisions, as Router(decisions=…) writes it.")
    lines = _lines(path, RecordsError)
    try:
        return lines.open(wait=True)[0]
    finally:
        lines.close()


def _lines(path: Path, error: type[FileError] | type[RecordsError], from_end: bool = False) -> JsonLines[Any]:
    read = dict if from_end else DecisionRecord.model_validate  # whoever only writes need not check what others wrote
    return JsonLines(path, OWNER, read, error=error, sync="never", mode=0o600, from_end=from_end)


def _call(step: Step, text: bool) -> CallRecord:
    usage = step.usage
    return CallRecord(
        candidate=step.candidate,
        model=usage.model,
        begun_s=round(step.begun_s, DIGITS),
        first_token_s=_rounded(step.first_token_s),
        ended_s=_rounded(step.ended_s),
        failure=step.failure,
        error=str(step.error) if text and step.error is not None else None,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cached_tokens=usage.cached_tokens,
    )


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, DIGITS)
