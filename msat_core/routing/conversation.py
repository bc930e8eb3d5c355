"""What was said: a conversation as an adapter reports it, which text of it is scored, and who is held.

An adapter translates its messages into :class:`Turn` objects; :func:`read_conversation` finds the rest.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from msat_core.routing.policy import RoutingRequest
from msat_core.zoo import Modality

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


def _is_instruction(text: str) -> bool:
    return bool(_ASSENT.sub("", text).strip(" \t\r\n,.!?")) and not _HARNESS.match(text)


def _last_user_text(turns: Sequence[Turn]) -> str | None:
    """Where the user never said more than "yes", that is all there is to score."""
    texts = [turn.text for turn in turns if turn.role == "user" and turn.text.strip()]
    return texts[-1] if texts else None
