"""What a reply is before anybody marks it: the candidate's own words, or no answer at all.

Thoughts that a candidate writes down before its answer are not its answer, and a reply that was cut
short, refused or left empty states none, whatever stands in it.
"""

from __future__ import annotations

import re
from typing import Literal

Missing = Literal["cut", "refused", "empty", "unreadable"]

_OPEN = re.compile(r"<(think|thinking|thought|reasoning)>|\[(THINK)\]", re.IGNORECASE)
_CLOSE = re.compile(r"</(think|thinking|thought|reasoning)>|\[/(THINK)\]", re.IGNORECASE)
# How endpoints say it: OpenAI, Anthropic, Google, Bedrock, Cohere, Ollama.
_CUT = frozenset({"length", "max_tokens", "max_output_tokens", "model_length", "model_context_window_exceeded"})
_REFUSED = frozenset(
    {"content_filter", "content_filtered", "refusal", "safety", "recitation", "prohibited_content", "blocklist"}
    | {"spii", "guardrail_intervened", "error_toxic"}
)


def own_words(text: str) -> str | None:
    """The reply without its thoughts; None if a thought was begun and never ended. Linear in the text."""
    parts, at = [], 0
    closing = list(_CLOSE.finditer(text))
    first_open = _OPEN.search(text)
    if closing and (first_open is None or closing[0].start() < first_open.start()):
        at = closing[0].end()  # some chat templates open the thought in the prompt
    upcoming = 0
    while opening := _OPEN.search(text, at):
        while upcoming < len(closing) and closing[upcoming].start() < opening.end():
            upcoming += 1
        if upcoming == len(closing):
            return None
        parts.append(text[at : opening.start()])
        at = closing[upcoming].end()
    return "".join([*parts, text[at:]]).strip()


def missing_answer(text: str, ended: str | None) -> Missing | None:
    """Why a reply is no answer, as far as that can be said without reading it; None if it may be one.

    Args:
        text: the reply, whole.
        ended: the endpoint's reason for ending it; None where it gives none.
    """
    reason = (ended or "").lower()
    if reason in _REFUSED:
        return "refused"
    if reason in _CUT:
        return "cut"
    words = own_words(text)
    if words is None:
        return "cut"
    return None if words else "empty"
