"""What every adapter decides in the same way: which text is scored, who is kept, who comes next.

An adapter translates its messages into :class:`Turn` objects, asks :func:`read_conversation` what to score,
lets an :class:`Ask` decide, and walks through :class:`Attempts` until a candidate has answered.
"""

from __future__ import annotations

import asyncio
import inspect
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from msat_core.errors import ConfigurationError, DispatchError, ZooError
from msat_core.routing.failures import failure_kind, within
from msat_core.routing.policy import RoutingDecision, RoutingPolicy, RoutingRequest
from msat_core.zoo import Modality, Zoo

if TYPE_CHECKING:
    from msat_core.routing.router import Router

Out = TypeVar("Out")
Role = Literal["system", "user", "assistant", "tool"]
Sticky = Literal["never", "turn", "conversation"]

FOLLOW_UP_WORDS = 4  # a user text of at most so many words is read together with the one before it
_ASSENT = re.compile(
    r"(?:yes|yep|yeah|no|nope|ok|okay|sure|fine|right|good|great|perfect|thanks?|thank you|please|do it|do so|do that|"
    r"go on|go ahead|continue|proceed|carry on|keep going|next|more|again|try again|retry|sounds good|it|that|so|and|"
    r"yes please|please do)(?:[\s,.!]+|$)",
    re.IGNORECASE,
)
_HARNESS = re.compile(r"\s*(?:Observation:|Tool result:|<tool_response>)", re.IGNORECASE)


@dataclass(frozen=True)
class Turn:
    """One message of a conversation, as an adapter reports it.

    Attributes:
        role: who speaks.
        text: its text, empty if it has none.
        modalities: what it holds beside text.
        candidate: for an assistant message that a router produced, the candidate that wrote it.
    """

    role: Role
    text: str = ""
    modalities: frozenset[Modality] = frozenset()
    candidate: str | None = None


@dataclass(frozen=True)
class Reading:
    """What a conversation asks of the router.

    Attributes:
        instruction: the text to score; None where the user wrote none.
        context_chars: characters of the whole conversation.
        modalities: what its messages hold beside text.
        held: the candidate that already works on this turn and keeps it; None if it is free.
    """

    instruction: str | None
    context_chars: int
    modalities: frozenset[Modality]
    held: str | None

    def request(self, *, tools: bool, among: frozenset[str] | None) -> RoutingRequest:
        """What this call needs, for the policy."""
        return RoutingRequest(self.context_chars, self.modalities, tools, among)


def read_conversation(turns: Sequence[Turn], *, sticky: Sticky = "turn") -> Reading:
    """Find the user's last real instruction, and who already works on it.

    Passed over: tool results, harness text ("Observation: …"), bare assent ("yes, go on"). A very
    short follow-up is scored together with the instruction before it.

    Args:
        turns: the conversation, oldest first.
        sticky: ``turn`` keeps the candidate through a tool loop; ``conversation`` keeps the last
            one for good; ``never`` decides afresh each time.
    """
    real = [i for i, turn in enumerate(turns) if turn.role == "user" and _is_instruction(turn.text)]
    instruction = turns[real[-1]].text if real else _last_user_text(turns)
    if len(real) > 1 and len(turns[real[-1]].text.split()) <= FOLLOW_UP_WORDS:
        instruction = f"{turns[real[-2]].text}\n{turns[real[-1]].text}"
    since = 0 if sticky == "conversation" or not real else real[-1]
    tagged = [turn.candidate for turn in turns[since:] if turn.role == "assistant" and turn.candidate]
    modalities: frozenset[Modality] = frozenset().union(*(turn.modalities for turn in turns)) - {"text"}
    return Reading(
        instruction,
        sum(len(turn.text) for turn in turns),
        modalities,
        tagged[-1] if tagged and sticky != "never" else None,
    )


def names_of(zoo: Zoo, names: Iterable[str]) -> dict[str, str]:
    """The caller's name for each candidate of the zoo that the caller can dispatch to.

    Raises:
        ZooError: a name is not in the zoo.
        ConfigurationError: two names are of the same candidate.
    """
    given = list(names)
    found = {zoo[name].name: name for name in given}
    if len(found) < len(given):
        raise ConfigurationError(f"Two of {', '.join(given)} are the same candidate: give each once.")
    return found


@dataclass(frozen=True)
class Ask:
    """One call's question to the router.

    The policy's limits bind every answer: a candidate that already works on the turn is not kept, and one that
    the caller insists on is refused, where it has become too dear, is denied or cannot take the input.

    Attributes:
        router: scores; decides by exam accuracy where there is no text.
        reading: the conversation.
        request: what this call needs.
        policy: in place of the router's.
        forced: name of the candidate that the caller insists on; it alone is tried.
    """

    router: Router
    reading: Reading
    request: RoutingRequest
    policy: RoutingPolicy | None = None
    forced: str | None = None

    def settled(self) -> RoutingDecision | None:
        """The decision where nothing has to be scored; None where the router must score.

        Raises:
            ZooError: the forced candidate is not among those that can be dispatched to.
            NoCandidateError: the limits exclude the forced candidate.
        """
        if self.forced is not None:
            return self._forced(self.forced)
        if self.reading.held is not None and self.reading.held in self.router.zoo:
            held = self.router.zoo[self.reading.held].name
            others = self.router.decide_unscored(policy=self.policy, request=self.request)
            if held in (others.candidate, *others.ranking):
                ranking = tuple(dict.fromkeys((held, *others.ranking)))
                reason = f"{held}: already at work on this turn."
                return others.model_copy(update={"candidate": held, "ranking": ranking, "reason": reason})
        if self.reading.instruction is None:
            return self.router.decide_unscored(policy=self.policy, request=self.request)
        return None

    def decide(self) -> RoutingDecision:
        """The decision; blocks while the scorer runs."""
        return self.settled() or self.router.route(
            self.reading.instruction or "", policy=self.policy, request=self.request
        )

    async def adecide(self) -> RoutingDecision:
        """Like :meth:`decide`; the event loop stays free."""
        return self.settled() or await self.router.aroute(
            self.reading.instruction or "", policy=self.policy, request=self.request
        )

    def _forced(self, name: str) -> RoutingDecision:
        candidate, among = self.router.zoo[name], self.request.among
        if among is not None and not among & {candidate.name, *candidate.aliases}:
            raise ZooError(f"{name!r} cannot be dispatched to: there is {', '.join(sorted(among))}.")
        alone = replace(self.request, among=frozenset({candidate.name}))
        decision = self.router.decide_unscored(policy=self.policy, request=alone)
        return decision.model_copy(update={"reason": f"{candidate.name}: the caller asked for it."})


def decide_all(asks: Sequence[Ask | Exception]) -> list[RoutingDecision | Exception]:
    """A decision or its error for each of many asks of one router, with one scorer call.

    An exception among the asks stands for one that could not be made, and comes back in its place.
    """
    found: list[RoutingDecision | Exception | None] = []
    for ask in asks:
        try:
            found.append(ask if isinstance(ask, Exception) else ask.settled())
        except Exception as error:
            found.append(error)
    rest = [(i, ask) for i, ask in enumerate(asks) if found[i] is None and isinstance(ask, Ask)]
    if rest:
        decisions = rest[0][1].router.route_each(
            [ask.reading.instruction or "" for _, ask in rest],
            policies=[ask.policy for _, ask in rest],
            requests=[ask.request for _, ask in rest],
        )
        for (i, _), decision in zip(rest, decisions, strict=True):
            found[i] = decision
    return [decision for decision in found if decision is not None]


def _is_instruction(text: str) -> bool:
    return bool(_ASSENT.sub("", text).strip(" \t\r\n,.!?")) and not _HARNESS.match(text)


def _last_user_text(turns: Sequence[Turn]) -> str | None:
    """Where the user never said more than "yes", that is all there is to score."""
    texts = [turn.text for turn in turns if turn.role == "user" and turn.text.strip()]
    return texts[-1] if texts else None


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
