"""What is told of a route: who was chosen and why, who was called, and what came of it.

An :class:`Observer` hears of every route when it is decided, when a candidate is called and when it is over. What it
raises never reaches the caller: an answer is worth more than its record.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

from msat_core.errors import ConfigurationError
from msat_core.routing.cost import price_of
from msat_core.routing.decision import RoutingDecision, RoutingRequest
from msat_core.routing.policy import RoutingPolicy
from msat_core.zoo import Zoo

Status = Literal["decided", "answered", "failed", "broken", "left"]

_log = logging.getLogger(__name__)


class TokenUsage(NamedTuple):
    """What an answer says of itself; None where it says nothing.

    Attributes:
        model: the provider's name for whoever answered.
        input_tokens, output_tokens: as the provider counts them.
        cached_tokens: of the input, those that came from the provider's cache.
    """

    model: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None


# What is known so far, and the next answer or chunk → what is known now.
UsageReader = Callable[[TokenUsage, Any], TokenUsage]


@dataclass
class Step:
    """One call of a candidate. Times are seconds since the route began.

    Attributes:
        candidate: who was called.
        begun_s: when.
        first_token_s: when its stream's first token came; None where it does not stream, or none came.
        ended_s: when it had answered or failed.
        failure: the kind of failure; empty where there was none.
        error: the failure itself.
        usage: what its answer says of itself.
    """

    candidate: str
    begun_s: float
    first_token_s: float | None = None
    ended_s: float | None = None
    failure: str = ""
    error: BaseException | None = None
    usage: TokenUsage = field(default_factory=TokenUsage)


@dataclass(frozen=True)
class Asked:
    """What a decision was made by.

    Attributes:
        zoo, policy, request: as it was made with.
        scorer: digest.
        instruction: the text that was scored; None where there was none.
        began: when the route began, by ``time.monotonic``.
    """

    zoo: Zoo
    policy: RoutingPolicy
    scorer: str
    instruction: str | None
    request: RoutingRequest
    began: float


@dataclass(eq=False)
class Route:
    """One route on its way from a decision to the end of an answer.

    Attributes:
        decision: with its id.
        asked: what it was made by.
        at: seconds since the epoch at which the route began.
        steps: the calls of candidates, in order; the last one answered, where any did.
        answered: position of the step that answered; None as long as none has.
        status: ``decided`` where it is not known that anybody was called; ``answered``; ``failed`` where nobody
            answered; ``broken`` where the answer broke off; ``left`` where the caller did not wait for its end.
        ended_s: seconds from its beginning to its end; None before.
    """

    decision: RoutingDecision
    asked: Asked
    observers: Sequence[Observer]
    usage_of: UsageReader | None = None
    at: float = field(init=False)
    steps: list[Step] = field(default_factory=list)
    answered: int | None = None
    status: Status = "decided"
    ended_s: float | None = None

    def __post_init__(self) -> None:
        self.at = time.time() - self.elapsed_s
        if self.decision.id is None:
            self.decision = self.decision.model_copy(update={"id": uuid.uuid4().hex})
        for observer in self.observers:
            self._tell(observer.begin)

    @property
    def elapsed_s(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self.asked.began

    @property
    def answer(self) -> Step | None:
        """The call that answered."""
        return None if self.answered is None else self.steps[self.answered]

    @property
    def cost_usd(self) -> float | None:
        """What the answer's tokens cost at the candidate's prices; None where either is unknown."""
        step = self.answer
        if step is None or step.candidate not in self.asked.zoo:
            return None
        candidate, request = self.asked.zoo[step.candidate], self.asked.request
        if request.facts is not None:
            candidate = request.facts.over(candidate)
        tokens_in, tokens_out, cached = step.usage.input_tokens, step.usage.output_tokens, step.usage.cached_tokens or 0
        at = request.at or datetime.fromtimestamp(self.at, timezone.utc)
        return (
            None if tokens_in is None or tokens_out is None else price_of(candidate, tokens_in, cached, tokens_out, at)
        )

    # --- told by whoever calls candidates ---

    def begin_step(self, candidate: str) -> None:
        """A candidate is about to be called."""
        self.steps.append(Step(candidate, self.elapsed_s))

    def calling(self) -> AbstractContextManager[object]:
        """What is open while the present candidate's call runs."""
        stack = ExitStack()

        def entered(observer: Observer) -> Callable[[Route], object]:
            return lambda route: stack.enter_context(observer.attempt(route))

        for observer in self.observers:
            self._tell(entered(observer))
        return stack

    def first_token(self) -> None:
        """The present candidate's stream has begun: it is the one that answers."""
        self.steps[-1].first_token_s = self.elapsed_s
        self.answered = len(self.steps) - 1

    def heard(self, output: object) -> None:
        """The present candidate's answer, or the next chunk of it."""
        step = self.steps[-1] if self.answered is None else self.steps[self.answered]
        if self.usage_of is not None:
            try:
                step.usage = self.usage_of(step.usage, output)
            except Exception as error:
                _log.warning("An answer's usage cannot be read (%s).", error)

    def failed(self, kind: str, error: BaseException) -> None:
        """The present candidate has failed."""
        step = self.steps[-1]
        step.failure, step.error, step.ended_s = kind, error, self.elapsed_s

    def end(self, status: Status, answered: int | None = None) -> None:
        """It is over; only the first end counts.

        Args:
            status: how.
            answered: position of the step that answered; None for the one that is known to.
        """
        if self.ended_s is not None:
            return
        self.status, self.ended_s = status, self.elapsed_s
        self.answered = self.answered if answered is None else answered
        if self.steps and self.steps[-1].ended_s is None:
            self.steps[-1].ended_s = self.ended_s
        for observer in self.observers:
            self._tell(observer.end)

    def _tell(self, act: Callable[[Route], object]) -> None:
        try:
            act(self)
        except Exception as error:
            _log.warning("Decision %s could not be recorded (%s).", self.decision.id, error)


def recorded(decision: RoutingDecision, asked: Asked, observers: Sequence[Observer]) -> RoutingDecision:
    """The decision with its id, told as one of which nothing more will be heard."""
    route = Route(decision, asked, observers)
    route.end("decided")
    return route.decision


@runtime_checkable
class Observer(Protocol):
    """Hears of routes, from any thread."""

    def begin(self, route: Route) -> None:
        """A decision has been made."""

    def attempt(self, route: Route) -> AbstractContextManager[object]:
        """The candidate of the last step is about to be called; what comes back is open while its call runs."""

    def end(self, route: Route) -> None:
        """It is over."""


Decisions = Observer | str | Path | Sequence[Observer | str | Path] | None  # what a user may give


def observers_of(given: Decisions) -> tuple[Observer, ...]:
    """The observers that a user names: one or several, each an observer or a file for a log.

    Raises:
        ConfigurationError: something that is neither.
        FileError: a file that is something else, or cannot be written.
    """
    from msat_core.routing.decision_log import DecisionLog

    several = given if isinstance(given, Sequence) and not isinstance(given, str) else [] if given is None else [given]
    observers: list[Observer] = []
    for observer in several:
        if isinstance(observer, (str, Path)):
            observers.append(DecisionLog(observer))
        elif isinstance(observer, Observer):
            observers.append(observer)
        else:
            raise ConfigurationError(
                f"Expected as decisions a file, a DecisionLog or a DecisionTelemetry, got {type(observer).__name__}."
            )
    return tuple(observers)
