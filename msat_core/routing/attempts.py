"""Who comes next when a candidate fails: within one deadline and one cost budget, and never after the first token."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from msat_core.errors import DispatchError, EmptyAnswerError
from msat_core.forking import Lock
from msat_core.routing.cooldown import Cooldown
from msat_core.routing.decision import RoutingDecision
from msat_core.routing.failures import FINAL, STANDING, Failure, failure_of
from msat_core.routing.fallback import Fallback
from msat_core.routing.observing import Route, Status
from msat_core.scrubbing import kept_text
from msat_core.zoo import Zoo

_NOTHING: AbstractContextManager[object] = contextlib.nullcontext()
NOTE = "msat: "  # how a note on a provider's own exception begins
_log = logging.getLogger(__name__)


class Attempt(str):
    """One try of a candidate: its name, and what has become of it.

    It *is* the name, so that code which only dispatches needs no more. An adapter that hands events of the
    candidate's call to somebody (callbacks, say) asks :meth:`begin` before the first token goes out, and stops for
    good when it has been given up.

    Attributes:
        begun: a token has gone out: the answer is this candidate's, whatever comes.
        given_up: nobody waits for it any longer.
    """

    def __init__(self, name: str) -> None:
        self.begun = False
        self.given_up = False
        self._lock = Lock()
        self._at_the_end: list[Callable[[BaseException], None]] = []

    def begin(self) -> bool:
        """A token is about to go out. False if it must not, because the attempt has been given up."""
        with self._lock:
            self.begun = self.begun or not self.given_up
            return not self.given_up

    def give_up(self, error: BaseException, *, even_if_begun: bool = False) -> bool:
        """Nobody waits any longer; what was registered runs. False if a token has gone out meanwhile."""
        with self._lock:
            if self.given_up or (self.begun and not even_if_begun):
                return self.given_up
            self.given_up = True
        for act in self._at_the_end:
            act(error)
        return True

    def when_given_up(self, act: Callable[[BaseException], None]) -> None:
        """Register what must happen at the moment of giving up."""
        self._at_the_end.append(act)


@dataclass
class Attempts:
    """The candidates to try for one call, best first, within one deadline and one cost budget.

    Use::

        attempts = Attempts(decision, zoo, Fallback(), router.cooldown)
        for attempt in attempts:
            try:
                with attempts.calling():
                    answer = call(attempt, timeout_s=attempts.timeout_s())
            except Exception as error:
                attempts.failed(error)      # raises it again unless another candidate may help
            else:
                attempts.answered(answer)
                return answer
        return attempts.last_resort()       # raises what there is to say

    Candidates that rest come last: they are asked only where nobody else has answered.

    Attributes:
        passes: what an adapter knows to be nobody's failure (an error of the caller's callbacks, say).
        path: what was tried: ``{"candidate": …}`` and, where it failed, ``"error"`` and ``"kind"``; an adapter may
            add what it left out for a candidate.
        resting: seconds that each candidate still rests, of those passed over for it.
        route: what observers are told; None where there are none.
    """

    decision: RoutingDecision
    zoo: Zoo
    fallback: Fallback = field(default_factory=Fallback)
    cooldown: Cooldown | None = None
    clock: Callable[[], float] = time.monotonic
    passes: Callable[[Exception], bool] = lambda error: False
    path: list[dict[str, Any]] = field(default_factory=list)
    resting: dict[str, float] = field(default_factory=dict)
    route: Route | None = None

    def __post_init__(self) -> None:
        self._start = self.clock()
        self._spent_usd = 0.0
        self._window_above = 0
        self._limit = self.fallback.max_attempts
        self._errors: list[Exception] = []
        self._doubts: list[tuple[str, Failure]] = []  # failures that are the candidate's own if another answers
        self._current: Attempt | None = None

    def __iter__(self) -> Iterator[Attempt]:
        order = list(dict.fromkeys((self.decision.candidate, *self.decision.ranking)))
        rested = []
        for name in order:
            if not self._may_try(name):
                continue
            if len(order) > 1 and self.cooldown is not None and not self.cooldown.claim(name):
                self.resting[name] = round(self.cooldown.resting_s(name), 1)
                rested.append(name)
                continue
            if self._over():
                return
            yield self._begun(name)
        for name in rested:
            if self._over():
                return
            if self._may_try(name):
                yield self._begun(name)

    @property
    def current(self) -> Attempt:
        """The attempt in progress, or the one that answered."""
        if self._current is None:
            raise DispatchError("No candidate has been tried yet.")
        return self._current

    @property
    def elapsed_s(self) -> float:
        """Seconds since the first attempt."""
        return self.clock() - self._start

    def timeout_s(self) -> float | None:
        """Seconds that the present attempt has for its first token; None for no limit."""
        limits = [self.fallback.timeout_s, self.remaining_s()]
        return min((limit for limit in limits if limit is not None), default=None)

    def remaining_s(self) -> float | None:
        """Seconds to the deadline, 0 if it has passed; None for no deadline."""
        deadline = self.fallback.deadline_s
        return None if deadline is None else max(0.0, deadline - self.elapsed_s)

    def failed(self, error: Exception) -> None:
        """Note the present attempt's failure; raises it again where nobody else may be asked."""
        attempt = self.current
        failure = Failure("control_flow") if self.passes(error) else failure_of(error)
        if self.route is not None:
            self.route.failed(failure.kind, error)
        if failure.kind in ("control_flow", "caller"):
            self.ended("failed")
            raise error
        self.path[-1].update(error=kept_text(error), kind=failure.kind)
        self._errors.append(error)
        if failure.kind in STANDING:
            self._rest(attempt, failure)
        elif failure.kind in ("other", "unclear_request", "empty", "cut"):
            self._doubts.append((str(attempt), failure))
        if failure.kind in FINAL or attempt.begun:
            self.ended("failed")
            raise self._told(error)
        if failure.kind == "unclear_request":
            self._limit = min(self._limit, len(self.path) + 1)
        if failure.kind == "context_overflow":
            self._window_above = max(self._window_above, self._window(attempt) or 0)

    def answered(self, answer: object = None, *, streams: bool = False) -> None:
        """The present attempt has answered: it is well, and who failed before it did so by its own fault.

        Args:
            answer: for observers.
            streams: the answer is a stream that has begun; whoever reads it says when it has :meth:`ended`.
        """
        if self.route is not None:
            self._observed(self.route, answer, streams)
        if self.cooldown is not None:
            self.cooldown.answered(str(self.current))
        for name, failure in self._doubts:
            self._rest(name, failure)
        failures = [step for step in self.path if "error" in step]
        if failures:
            trail = "; ".join(f"{step['candidate']}: {step['error']}" for step in failures)
            _log.warning("%s answered in place of a candidate that failed (%s).", self.current, trail)

    def broke_off(self, error: Exception) -> None:
        """The answering candidate's stream has broken after its first token: the error is the caller's to see."""
        failure = failure_of(error)
        if self.route is not None:
            self.route.failed(failure.kind, error)
        self.ended("broken")
        if failure.kind in STANDING and not self.passes(error):
            self._rest(self.current, failure)

    def calling(self) -> AbstractContextManager[object]:
        """What is open while the present attempt's call runs: an observer's span, say."""
        return _NOTHING if self.route is None else self.route.calling()

    def heard(self, chunk: object) -> None:
        """The next chunk of the answer, for observers."""
        if self.route is not None:
            self.route.heard(chunk)

    def ended(self, status: Status) -> None:
        """Nothing more will come, for observers."""
        if self.route is not None:
            self.route.end(status)

    def last_resort(self) -> Any:  # noqa: ANN401 - an answer, of whatever type
        """The empty answer of the first that was tried, where it gave one.

        Raises:
            Exception: the error of the first that was tried, with the path attached. It is the provider's own, so
                that retries, fallbacks and except clauses see what they would see from that candidate alone.
            DispatchError: nobody was tried.
        """
        first = self._errors[0] if self._errors else None
        if isinstance(first, EmptyAnswerError):
            self._current = Attempt(self.path[0]["candidate"])
            if self.route is not None:
                self.route.end("answered", answered=0)
            return first.answer
        self.ended("failed")
        raise (
            self._told(first)
            if first
            else DispatchError(
                f"No candidate was tried: none fits into the budget of {self.fallback.max_usd} USD a call, "
                "or the deadline has passed: raise Fallback(max_usd=…) or Fallback(deadline_s=…)."
            )
        )

    def _told(self, error: Exception) -> Exception:
        """The error with the path attached, where there is more to tell than itself."""
        with contextlib.suppress(AttributeError, TypeError):  # an exception may forbid attributes
            error.msat_path = [dict(step) for step in self.path]  # type: ignore[attr-defined]  # a new attribute
            if len(self.path) > 1:
                tried = "; ".join(f"{step['candidate']}: {step.get('error', 'no answer')}" for step in self.path)
                notes = [note for note in getattr(error, "__notes__", []) if not note.startswith(NOTE)]
                error.__notes__ = [*notes, f"{NOTE}no candidate answered ({tried})."]
        return error

    def _begun(self, name: str) -> Attempt:
        self._spent_usd += self.decision.costs_usd.get(name) or 0.0
        self.path.append({"candidate": name})
        self._current = Attempt(name)
        if self.route is not None:
            self.route.begin_step(name)
        return self._current

    def _observed(self, route: Route, answer: object, streams: bool) -> None:
        if streams:
            route.first_token()
        else:
            route.heard(answer)
            route.end("answered", answered=len(route.steps) - 1)

    def _rest(self, name: str, failure: Failure) -> None:
        if self.cooldown is not None:
            self.cooldown.failed(str(name), failure)

    def _over(self) -> bool:
        return len(self.path) >= self._limit or self.remaining_s() == 0

    def _may_try(self, name: str) -> bool:
        if self._window_above and (window := self._window(name)) is not None and window <= self._window_above:
            return False
        cost = self.decision.costs_usd.get(name)
        return self.fallback.max_usd is None or (cost is not None and self._spent_usd + cost <= self.fallback.max_usd)

    def _window(self, name: str) -> int | None:
        return self.zoo[name].context_window if name in self.zoo else None
