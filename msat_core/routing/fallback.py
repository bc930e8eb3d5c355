"""Who comes next when a candidate fails: within one deadline and one cost budget, and never after the first chunk."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from msat_core.errors import ConfigurationError, DispatchError
from msat_core.routing.failures import failure_kind, within
from msat_core.routing.policy import RoutingDecision
from msat_core.zoo import Zoo

Out = TypeVar("Out")


@dataclass(frozen=True)
class Fallback:
    """How far to go when the chosen candidate fails.

    Attributes:
        max_attempts: candidates tried at most, the chosen one included; 1 turns fallback off.
        timeout_s: seconds each candidate has (to its first chunk, when streaming); None for no limit. A synchronous
            call that is late goes on in a thread of its own until the client's own timeout, so set that too.
        deadline_s: seconds for all attempts together; None for no limit.
        max_usd: expected cost of all attempts together, in USD; None for no limit. A candidate that does not fit
            in, or whose price is unknown, is passed over.
    """

    max_attempts: int = 3
    timeout_s: float | None = None
    deadline_s: float | None = None
    max_usd: float | None = None

    def __post_init__(self) -> None:
        if self.max_attempts < 1:
            raise ConfigurationError(f"max_attempts must be at least 1, got {self.max_attempts}; 1 turns fallback off.")
        for name in ("timeout_s", "deadline_s", "max_usd"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ConfigurationError(f"{name} must be above 0, got {value}; use None for no limit.")


@dataclass
class Attempts:
    """The candidates to try for one call, best first, within one deadline and one cost budget.

    Use::

        attempts = Attempts(decision, zoo, Fallback())
        for name in attempts:
            try:
                return call(name, timeout_s=attempts.timeout_s())
            except Exception as error:
                attempts.failed(error)      # raises it again unless another candidate may help
        raise attempts.exhausted()

    Once a chunk has gone out, an adapter lets the error through instead of calling ``failed``.

    Attributes:
        path: what was tried: ``{"candidate": …}`` and, where it failed, ``"error"`` and ``"kind"``.
    """

    decision: RoutingDecision
    zoo: Zoo
    fallback: Fallback = field(default_factory=Fallback)
    clock: Callable[[], float] = time.monotonic
    path: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._start = self.clock()
        self._spent_usd = 0.0
        self._window_above = 0
        self._last: Exception | None = None

    def __iter__(self) -> Iterator[str]:
        order = dict.fromkeys((self.decision.candidate, *self.decision.ranking))
        for name in order:
            if len(self.path) >= self.fallback.max_attempts or self._remaining_s() <= 0:
                return
            if self._may_try(name):
                self._spent_usd += self.decision.costs_usd.get(name) or 0.0
                self.path.append({"candidate": name})
                yield name

    def report(self, name_of: Callable[[str], str]) -> dict[str, Any]:
        """The decision and the path taken, as plain data for an answer's metadata; names as ``name_of`` gives them."""
        decision, answered = self.decision, self.path[-1]["candidate"]
        return {
            "candidate": name_of(answered),
            "score": decision.scores.get(answered),
            "scores": {name_of(name): score for name, score in decision.scores.items()},
            "costs_usd": {name_of(name): cost for name, cost in decision.costs_usd.items()},
            "reason": decision.reason,
            "path": [{**step, "candidate": name_of(step["candidate"])} for step in self.path],
            "truncated_tokens": decision.truncated_tokens,
        }

    def timeout_s(self) -> float | None:
        """Seconds that the present attempt has; None for no limit."""
        limits = [self.fallback.timeout_s, None if self.fallback.deadline_s is None else self._remaining_s()]
        return min((limit for limit in limits if limit is not None), default=None)

    def failed(self, error: Exception) -> None:
        """Note the present attempt's failure; raises it again where no other candidate would do better."""
        kind = failure_kind(error)
        self.path[-1].update(error=f"{type(error).__name__}: {error}"[:500], kind=kind)
        self._last = error
        if kind == "bad_request":
            raise error
        if kind == "context_overflow":
            self._window_above = max(self._window_above, self._window(self.path[-1]["candidate"]) or 0)

    def exhausted(self) -> Exception:
        """What to raise when nobody answered: the only error as it came, or one that lists them all."""
        if self._last is not None and len(self.path) == 1:
            return self._last
        tried = "; ".join(f"{step['candidate']}: {step.get('error', 'no answer')}" for step in self.path)
        none = f"none fits into the budget of {self.fallback.max_usd} USD a call: raise Fallback(max_usd=…)"
        error = DispatchError(f"No candidate answered ({tried or none}).")
        error.__cause__ = self._last
        return error

    def _may_try(self, name: str) -> bool:
        if self._window_above and (window := self._window(name)) is not None and window <= self._window_above:
            return False
        cost = self.decision.costs_usd.get(name)
        return self.fallback.max_usd is None or (cost is not None and self._spent_usd + cost <= self.fallback.max_usd)

    def _remaining_s(self) -> float:
        if self.fallback.deadline_s is None:
            return float("inf")
        return self.fallback.deadline_s - (self.clock() - self._start)

    def _window(self, name: str) -> int | None:
        return self.zoo[name].context_window if name in self.zoo else None


@dataclass(frozen=True)
class Opened(Generic[Out]):
    """A candidate's stream whose first chunk has come; iterating gives all chunks and closes the stream at the end.

    Attributes:
        first: the first chunk; None if the stream is empty.
        rest: what follows it.
    """

    first: Out | None
    rest: Any

    def __iter__(self) -> Iterator[Out]:
        try:
            if self.first is not None:
                yield self.first
                yield from self.rest
        finally:
            if hasattr(self.rest, "close"):
                self.rest.close()

    async def __aiter__(self) -> AsyncGenerator[Out, None]:
        try:
            if self.first is not None:
                yield self.first
                async for chunk in self.rest:
                    yield chunk
        finally:
            if hasattr(self.rest, "aclose"):
                await self.rest.aclose()


def first_answer(attempts: Attempts, call: Callable[[str], Out]) -> Out:
    """The first answer that a candidate gives, each within its time.

    Raises:
        DispatchError: nobody answered; a candidate's own error, where no other could do better.
    """
    for name in attempts:
        try:
            return within(attempts.timeout_s(), call, name)
        except Exception as error:
            attempts.failed(error)
    raise attempts.exhausted()


async def afirst_answer(attempts: Attempts, call: Callable[[str], Awaitable[Out]]) -> Out:
    """Like :func:`first_answer`."""
    # Not through wait_for without a limit: before Python 3.12 a task of its own would give the call another context.
    for name in attempts:
        try:
            limit = attempts.timeout_s()
            return await (call(name) if limit is None else asyncio.wait_for(call(name), limit))
        except Exception as error:
            attempts.failed(error)
    raise attempts.exhausted()


def first_stream(attempts: Attempts, start: Callable[[str], Iterator[Out]]) -> Opened[Out]:
    """The first stream whose first chunk comes, each within its time; after that, nobody else steps in."""

    def open_one(name: str) -> Opened[Out]:
        rest = start(name)
        return Opened(next(rest, None), rest)

    return first_answer(attempts, open_one)


async def afirst_stream(
    attempts: Attempts, start: Callable[[str], AsyncIterator[Out] | Awaitable[AsyncIterator[Out]]]
) -> Opened[Out]:
    """Like :func:`first_stream`; a start may have to be awaited."""

    async def open_one(name: str) -> Opened[Out]:
        started = start(name)
        rest = await started if inspect.isawaitable(started) else started
        return Opened(await anext(rest, None), rest)

    return await afirst_answer(attempts, open_one)
