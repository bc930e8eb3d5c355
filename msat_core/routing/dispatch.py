"""What every adapter decides in the same way: which text is scored, who is kept, who comes next.

An adapter translates its messages into :class:`Turn` objects, asks :func:`read_conversation` what to score,
lets an :class:`Ask` decide, and walks through :class:`Attempts` until a candidate has answered.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from msat_core.errors import ConfigurationError, ZooError
from msat_core.routing.fallback import (
    Attempts,
    Fallback,
    Opened,
    afirst_answer,
    afirst_stream,
    first_answer,
    first_stream,
)
from msat_core.routing.policy import RoutingDecision, RoutingPolicy, RoutingRequest
from msat_core.zoo import Modality, Zoo

if TYPE_CHECKING:
    from msat_core.routing.router import Router

__all__ = [
    "Ask",
    "Attempts",
    "Fallback",
    "Opened",
    "Reading",
    "Role",
    "Sticky",
    "Turn",
    "afirst_answer",
    "afirst_stream",
    "common_abilities",
    "decide_all",
    "first_answer",
    "first_stream",
    "modalities_of",
    "names_of",
    "read_conversation",
    "role_of",
]

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


_ROLES: dict[str, Role] = {
    "ai": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "chatbot": "assistant",
    "system": "system",
    "developer": "system",
    "tool": "tool",
    "function": "tool",
}
_MODALITIES: dict[str, Modality] = {
    "image": "image",
    "image_url": "image",
    "input_image": "image",
    "audio": "audio",
    "input_audio": "audio",
    "video": "video",
    "file": "file",
    "document": "file",
}


def role_of(name: str) -> Role:
    """The role behind a framework's or provider's name for it; a stranger is taken for the user."""
    return _ROLES.get(name, "user")


def modalities_of(kinds: Iterable[str]) -> frozenset[Modality]:
    """What content blocks of these kinds hold beside text."""
    return frozenset(_MODALITIES[kind] for kind in kinds if kind in _MODALITIES)


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


def common_abilities(of: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What all candidates can do: of what each says of itself, flags that all have and the lowest of each limit."""
    common: dict[str, Any] = {}
    for key in sorted(set.intersection(*(set(one) for one in of))):
        values = [one[key] for one in of]
        if all(isinstance(value, bool) for value in values):
            common[key] = all(values)
        elif all(isinstance(value, (int, float)) for value in values):
            common[key] = min(values)
        elif all(value == values[0] for value in values):
            common[key] = values[0]
    return common


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
    ) -> Ask:
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
        """
        reading = read_conversation(turns, sticky=sticky)
        if instruction is not None:
            reading = replace(reading, instruction=instruction)
        if isinstance(policy, Mapping):
            policy = RoutingPolicy.model_validate(policy)
        request = reading.request(tools=tools, among=None if among is None else frozenset(among))
        return cls(router, reading, request, policy, forced)

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
