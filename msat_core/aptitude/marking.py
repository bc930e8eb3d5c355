"""What answers are worth: a question's mark and its tokens, read off the journal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from msat_core.aptitude.journal import Answer
from msat_core.aptitude.paper import ExamPaper
from msat_core.candidates import CHARS_PER_TOKEN


@dataclass(frozen=True)
class Mark:
    """What the journal says of one question.

    Attributes:
        score: 1 or 0; None while it has to be asked (again, at ``rotation``).
        rotation: the turn at which it is to be asked next, or was asked last.
        unreadable, inconsistent: why it counts as wrong.
    """

    score: float | None
    rotation: int
    unreadable: bool = False
    inconsistent: bool = False


def mark_of(paper: ExamPaper, answers: Mapping[tuple[str, int], Answer], item_id: str) -> Mark:
    """A question's mark from the answers so far: right only if right at every turn of its options."""
    turns = paper.turns(item_id)
    for rotation in range(turns):
        answer = answers.get((item_id, rotation))
        if answer is None:
            return Mark(None, rotation)
        right = paper.asked(item_id, rotation).mark(answer.text)
        if not right:
            return Mark(0.0, rotation, unreadable=right is None, inconsistent=rotation > 0 and right is not None)
    return Mark(1.0, turns - 1)


def tokens_of(paper: ExamPaper, answer: Answer) -> tuple[int, int]:
    """Input and output tokens of an answer: counted by the endpoint, else characters / 4."""
    given, made = answer.input_tokens, answer.output_tokens
    if given is None:
        given = round(len(paper.prompt(answer.item_id, answer.rotation)) / CHARS_PER_TOKEN)
    return given, round(len(answer.text) / CHARS_PER_TOKEN) if made is None else made
