"""What was said: a conversation as an adapter reports it, which text of it is scored, and who is held.

An adapter translates its messages into :class:`Turn` objects; :func:`read_conversation` finds the rest.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from msat_core.candidates import CHARS_PER_TOKEN, Modality
from msat_core.routing.decision import RoutingRequest
from msat_core.routing.tags import turn_id
from msat_core.texts import n_words, tokens_in

TurnRole = Literal["system", "user", "assistant", "tool"]
Sticky = Literal["never", "turn", "conversation"]

CACHED_FROM_TOKENS = 1024  # shorter prompts are not cached: the least that OpenAI, Anthropic and Google keep
FOLLOW_UP_WORDS = 4  # a user text of at most so many words is read together with the one before it
_ASSENT = re.compile(
    r"(?:yes|yep|yeah|no|nope|ok|okay|sure|fine|right|good|great|perfect|thanks?|thank you|please|do it|do so|do that|"
    r"go on|go ahead|continue|proceed|carry on|keep going|next|more|again|try again|retry|sounds good|it|that|so|and|"
    r"yes please|please do)(?:[\s,.!]+|$)",
    re.IGNORECASE,
)
_HARNESS = re.compile(
    r"\s*(?:Observation:|Tool result:|<tool_response>|Result of executing the code|Error while parsing the output|"
    r"FAILURE: Your previous response was empty)",
    re.IGNORECASE,
)
MEDIUM_CHARS = {"image": 4000, "audio": 8000, "video": 40_000, "file": 16_000}  # chosen: 1,000 tokens for an image


_ROLES: dict[str, TurnRole] = {
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
    "image_file": "image",
    "audio": "audio",
    "input_audio": "audio",
    "audio_url": "audio",
    "video": "video",
    "video_url": "video",
    "file": "file",
    "input_file": "file",
    "document": "file",
    "text-plain": "file",
}
_DATA = ("inline_data", "inlineData", "file_data", "fileData")  # Google's parts, with the kind inside


def role_of(name: str) -> TurnRole:
    """The role behind a framework's or provider's name for it; a stranger is taken for the user."""
    return _ROLES.get(name, "user")


def modalities_of(kinds: Iterable[str]) -> frozenset[Modality]:
    """What content blocks of these kinds hold beside text."""
    return frozenset(_MODALITIES[kind] for kind in kinds if kind in _MODALITIES)


def media_in(blocks: Iterable[object]) -> Iterator[Modality]:
    """What content blocks hold beside text, in every provider's form, one for each picture, sound, film or file."""
    for block in blocks:
        if not isinstance(block, Mapping):
            continue
        kind = block.get("type")
        data: Any = next((block[key] for key in _DATA if isinstance(block.get(key), Mapping)), block)
        source = data.get("source")
        mime = str(data.get("mime_type") or data.get("mimeType") or "")
        if not mime and isinstance(source, Mapping):
            mime = str(source.get("media_type") or "")
        of_mime = _MODALITIES.get(mime.partition("/")[0])
        if kind in ("media", "file", "input_file", "document") or data is not block:
            yield of_mime or "file"
        elif kind in _MODALITIES:
            yield _MODALITIES[kind]
        elif kind is None and (named := [key for key in block if key in _MODALITIES]):  # Amazon's blocks
            yield _MODALITIES[named[0]]
        elif isinstance(inner := block.get("content"), (list, tuple)):  # a tool's result
            yield from media_in(inner)


def size_of(text: str) -> int:
    """A text's size for estimates: characters of English that make as many tokens."""
    return math.ceil(tokens_in(text) * CHARS_PER_TOKEN)


class Turn(NamedTuple):
    """One message of a conversation, as an adapter reports it.

    Attributes:
        role: who speaks.
        text: its text, empty if it has none.
        modalities: what it holds beside text.
        candidate: for an assistant message that a router produced, the candidate that wrote it. An adapter reports
            only what it can believe; see :func:`msat_core.routing.tags.believed`.
        turn: the turn that it was written in, as its tag says; None where that is not known.
        extra_chars: the size of what is sent beside the text: arguments of tool calls, media.
    """

    role: TurnRole
    text: str = ""
    modalities: frozenset[Modality] = frozenset()
    candidate: str | None = None
    turn: str | None = None
    extra_chars: int = 0


@dataclass(frozen=True)
class Reading:
    """What a conversation asks of the router.

    Attributes:
        instruction: the text to score; None where the user wrote none.
        context_chars: size of the whole conversation, in characters of four to a token.
        modalities: what its messages hold beside text.
        held: the candidate that already works on this turn and keeps it; None if it is free.
        turn: names the turn; see :func:`msat_core.routing.tags.turn_id`.
        warm: tokens of the conversation that are in a candidate's cache, as far as it has read and written it.
    """

    instruction: str | None
    context_chars: int
    modalities: frozenset[Modality]
    held: str | None
    turn: str = ""
    warm: Mapping[str, int] = field(default_factory=dict)

    def request(self, *, tools: bool, among: frozenset[str] | None, extra_chars: int = 0) -> RoutingRequest:
        """What this call needs, for the policy; ``extra_chars`` is the size of what else is sent (tool schemas)."""
        return RoutingRequest(self.context_chars + extra_chars, self.modalities, tools, among, warm=self.warm)


def read_conversation(turns: Sequence[Turn], *, sticky: Sticky = "turn") -> Reading:
    """Find the user's last real instruction, and who already works on it.

    Passed over: tool results, harness text ("Observation: …"), bare assent ("yes, go on"). A very
    short follow-up is scored together with the instruction before it.

    Args:
        turns: the conversation, oldest first.
        sticky: ``turn`` keeps the candidate through a tool loop; ``conversation`` keeps the last
            one for good; ``never`` decides afresh each time.
    """
    real = _last_instructions(turns)
    latest = turns[real[0]].text if real else _last_user_text(turns)
    instruction = latest
    if len(real) > 1 and n_words(turns[real[0]].text) <= FOLLOW_UP_WORDS:
        instruction = f"{turns[real[1]].text}\n{latest}"
    turn = turn_id(latest or "")
    return Reading(
        instruction,
        _size(turns),
        frozenset().union(*{t[2] for t in turns}) - {"text"},
        _held(turns, real[0] if real else 0, turn, sticky),
        turn,
        _warm(turns),
    )


def _warm(turns: Sequence[Turn]) -> dict[str, int]:
    """Up to its own last message, a candidate has seen the conversation; providers keep it from a length on."""
    tokens, chars, since = {}, 0, 0
    for i in [i for i, turn in enumerate(turns) if turn[3]]:  # by position: there may be thousands of turns
        chars += _size(turns[since : i + 1])
        since, turn = i + 1, turns[i]
        if turn.role == "assistant" and turn.candidate and chars >= CACHED_FROM_TOKENS * CHARS_PER_TOKEN:
            tokens[turn.candidate] = round(chars / CHARS_PER_TOKEN)
    return tokens


def _size(turns: Sequence[Turn]) -> int:
    """Of all that is sent; a conversation may have thousands of turns."""
    return sum([len(t[1]) if t[1].isascii() else size_of(t[1]) for t in turns]) + sum([t[5] for t in turns])


def _held(turns: Sequence[Turn], since: int, turn: str, sticky: Sticky) -> str | None:
    """Who wrote the last answer of this turn, or of the whole conversation."""
    if sticky == "never":
        return None
    for t in reversed(turns if sticky == "conversation" else turns[since:]):
        if t.role == "assistant" and t.candidate and (sticky == "conversation" or t.turn in (None, turn)):
            return t.candidate
    return None


def _last_instructions(turns: Sequence[Turn]) -> list[int]:
    """Where the last two real instructions of the user stand, the last one first."""
    places = []
    for i in range(len(turns) - 1, -1, -1):
        if turns[i].role == "user" and _is_instruction(turns[i].text):
            places.append(i)
            if len(places) == 2:
                break
    return places


def _is_instruction(text: str) -> bool:
    if len(text) > 200:  # no assent is so long
        return not _HARNESS.match(text)
    return bool(_ASSENT.sub("", text).strip(" \t\r\n,.!?")) and not _HARNESS.match(text)


def _last_user_text(turns: Sequence[Turn]) -> str | None:
    """Where the user never said more than "yes", that is all there is to score."""
    texts = [turn.text for turn in turns if turn.role == "user" and turn.text.strip()]
    return texts[-1] if texts else None
