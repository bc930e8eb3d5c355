"""What every adapter decides in the same way: who is chosen, kept or forced, for one call or many.

An adapter lets a :class:`RoutingAsk` decide, and walks through its :meth:`~RoutingAsk.attempts` until a candidate has
answered. One that only chooses, and leaves the call to others, lets it :meth:`~RoutingAsk.route`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from msat_core.candidates import ModelFacts
from msat_core.errors import ConfigurationError, ZooError
from msat_core.routing.attempts import Attempts
from msat_core.routing.conversation import Reading, Sticky, Turn, read_conversation
from msat_core.routing.decision import RoutingDecision, RoutingRequest
from msat_core.routing.fallback import Fallback
from msat_core.routing.observing import Asked, Observer, Route, UsageReader, recorded
from msat_core.routing.policy import RoutingPolicy
from msat_core.zoo import Zoo

if TYPE_CHECKING:
    from msat_core.routing.router import Router


def names_in_zoo(zoo: Zoo, names: Iterable[str]) -> dict[str, str]:
    """The caller's name for each candidate of the zoo that the caller can dispatch to.

    Raises:
        ZooError: a name is not in the zoo.
        ConfigurationError: two names are of the same candidate.
    """
    listed = list(names)
    by_name = {zoo[name].name: name for name in listed}
    if len(by_name) < len(listed):
        raise ConfigurationError(f"Two of {', '.join(listed)} are the same candidate: give each once.")
    return by_name


def common_abilities(of: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What all candidates can do: of what each says of itself, flags that all have and the lowest of each limit."""
    common: dict[str, Any] = {}
    for key in sorted(set.intersection(*(set(flags) for flags in of))):
        values = [flags[key] for flags in of]
        if all(isinstance(value, bool) for value in values):
            common[key] = all(values)
        elif all(isinstance(value, (int, float)) for value in values):
            common[key] = min(values)
        elif all(value == values[0] for value in values):
            common[key] = values[0]
    return common


@dataclass(frozen=True)
class RoutingAsk:
    """One call's question to the router.

    The policy's limits bind every answer: a candidate that already works on the turn is not kept, and one that
    the caller insists on is refused, where it has become too dear, is denied or cannot take the input.

    Attributes:
        router: scores; decides by exam accuracy where there is no text.
        reading: the conversation.
        request: what this call needs.
        policy: in place of the router's.
        forced: name of the candidate that the caller insists on; it alone is tried.
        observers: of this call; by default the router's.
        began: when, by ``time.monotonic``.
    """

    router: Router
    reading: Reading
    request: RoutingRequest
    policy: RoutingPolicy | None = None
    forced: str | None = None
    observers: Sequence[Observer] = ()
    began: float = field(default_factory=time.monotonic)

    @classmethod
    def of(
        cls,
        router: Router,
        turns: Sequence[Turn],
        *,
        sticky: Sticky = "turn",
        tools: bool = False,
        among: Iterable[str] | None = None,
        policy: RoutingPolicy | Mapping[str, Any] | None = None,
        forced: str | None = None,
        instruction: str | None = None,
        extra_chars: int = 0,
        facts: ModelFacts | None = None,
        conversation: str | None = None,
        observers: Sequence[Observer] = (),
    ) -> RoutingAsk:
        """What a conversation asks of a router.

        Args:
            router: see the class.
            turns: the conversation, oldest first.
            sticky: see :func:`read_conversation`.
            tools: whether tools will be offered.
            among: names that can be dispatched to; None for the whole zoo.
            policy: in place of the router's; a mapping is read as a policy's fields.
            forced: see the class.
            instruction: the text to score, in place of the last real instruction.
            extra_chars: size of what is sent beside the messages: the schemas of tools.
            facts: what the wrapped models say of themselves.
            conversation: its name, for records of decisions.
            observers: beside the router's own.
        """
        reading = read_conversation(turns, sticky=sticky)
        if instruction is not None:
            reading = replace(reading, instruction=instruction)
        names = None if among is None else frozenset(among)
        request = reading.request(tools=tools, among=names, extra_chars=extra_chars)
        rule = None if policy is None else RoutingPolicy.of_call(policy)
        request = replace(request, facts=facts, conversation=conversation)
        return cls(router, reading, request, rule, forced, (*router.observers, *observers))

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
            limited = self.router.decide_unscored(policy=self._rule.of_limits, request=self.request)
            if held in (limited.candidate, *limited.ranking):
                after = limited.ranking if self._rule.observe is None else ()
                changes = {"ranking": tuple(dict.fromkeys((held, *after))), "basis": "turn"}
                reason = f"{held}: already at work on this turn."
                return limited.model_copy(update={"candidate": held, "recommended": held, "reason": reason, **changes})
        if self.reading.instruction is None:
            return self.router.decide_unscored(policy=self.policy, request=self.request)
        return None

    def decide(self) -> RoutingDecision:
        """The decision, not yet recorded; blocks while the scorer runs."""
        return self.settled() or self.router.decide(
            self.reading.instruction or "", policy=self.policy, request=self.request
        )

    async def adecide(self) -> RoutingDecision:
        """Like :meth:`decide`; the event loop stays free."""
        return self.settled() or await self.router.adecide(
            self.reading.instruction or "", policy=self.policy, request=self.request
        )

    def route(self) -> RoutingDecision:
        """The decision, recorded as one of which nothing more will be heard; blocks while the scorer runs."""
        return self._recorded(self.decide())

    async def aroute(self) -> RoutingDecision:
        """Like :meth:`route`; the event loop stays free."""
        return self._recorded(await self.adecide())

    def attempts(
        self,
        decision: RoutingDecision,
        fallback: Fallback | None = None,
        *,
        passes: Callable[[Exception], bool] = lambda error: False,
        usage_of: UsageReader | None = None,
    ) -> Attempts:
        """The candidates to try after a decision; those of this router that rest come last.

        Args:
            decision: of this ask.
            fallback: how far to go; None for the default.
            passes: see :class:`Attempts`.
            usage_of: what an answer or a chunk says of itself, for records of decisions.
        """
        router, route = self.router, None
        if self.observers:
            route = Route(decision, self._asked, self.observers, usage_of)
            decision = route.decision
        return Attempts(decision, router.zoo, fallback or Fallback(), router.cooldown, passes=passes, route=route)

    @property
    def _rule(self) -> RoutingPolicy:
        return self.policy or self.router.policy

    @property
    def _asked(self) -> Asked:
        return self.router.asked(self.reading.instruction, self.policy, self.request, self.began)

    def _recorded(self, decision: RoutingDecision) -> RoutingDecision:
        return recorded(decision, self._asked, self.observers) if self.observers else decision

    def _forced(self, name: str) -> RoutingDecision:
        candidate, among = self.router.zoo[name], self.request.among
        if among is not None and not among & {candidate.name, *candidate.aliases}:
            raise ZooError(f"{name!r} cannot be dispatched to: there is {', '.join(sorted(among))}.")
        alone = replace(self.request, among=frozenset({candidate.name}))
        decision = self.router.decide_unscored(policy=self._rule.of_limits, request=alone)
        reason = f"{candidate.name}: the caller asked for it."
        return decision.model_copy(update={"reason": reason, "basis": "caller"})


Ask = RoutingAsk  # its name in programs written before 0.1


def decide_all(asks: Sequence[RoutingAsk | Exception]) -> list[RoutingDecision | Exception]:
    """A decision or its error for each of many asks of one router, with one scorer call.

    An exception among the asks stands for one that could not be made, and comes back in its place.
    """
    results: list[RoutingDecision | Exception | None] = []
    for ask in asks:
        try:
            results.append(ask if isinstance(ask, Exception) else ask.settled())
        except Exception as error:
            results.append(error)
    rest = [(i, ask) for i, ask in enumerate(asks) if results[i] is None and isinstance(ask, RoutingAsk)]
    if rest:
        decisions = rest[0][1].router.decide_each(
            [ask.reading.instruction or "" for _, ask in rest],
            policies=[ask.policy for _, ask in rest],
            requests=[ask.request for _, ask in rest],
        )
        for (i, _), decision in zip(rest, decisions, strict=True):
            results[i] = decision
    return [result for result in results if result is not None]
