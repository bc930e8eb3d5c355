"""What answers are worth: a question's mark and its tokens, read off the journal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from msat_core.aptitude.journal import Answer
from msat_core.aptitude.replies import Missing, missing_answer, own_words
from msat_core.candidates import CHARS_PER_TOKEN

if TYPE_CHECKING:
    from msat_core.aptitude.paper import ExamPaper
    from msat_core.aptitude.sitting import Paper


@dataclass(frozen=True)
class Mark:
    """What the journal says of one question.

    Attributes:
        score: in [0, 1]; None while it has to be asked (again, at ``rotation``), and where it is marked later.
        rotation: the turn at which it is to be asked next, or was asked last.
        missing: why there is no answer, which counts as wrong; None where there is one.
        inconsistent: right at first, and wrong at a turn of its options.
        settled: whether nothing more is to be asked.
    """

    score: float | None
    rotation: int
    missing: Missing | None = None
    inconsistent: bool = False
    settled: bool = True


def mark_of(
    paper: ExamPaper, answers: Mapping[tuple[str, int], Answer], item_id: str, limit: int | None = None
) -> Mark:
    """A question's mark from the answers so far: the least of the turns of its options.

    Args:
        paper: what is sat.
        answers: by (item id, rotation).
        item_id: the question.
        limit: most output tokens that would be allowed now; an answer that was cut at fewer is asked again.
    """
    turns, least = paper.turns(item_id), 1.0
    for rotation in range(turns):
        answer = answers.get((item_id, rotation))
        if answer is None or can_be_longer(answer, limit):
            return Mark(None, rotation, settled=False)
        missing = missing_answer(answer.text, answer.ended)
        score = None if missing else paper.asked(item_id, rotation).grade(own_words(answer.text) or "").score
        if score is None:
            return Mark(0.0, rotation, missing=missing or "unreadable")
        if score == 0:
            return Mark(0.0, rotation, inconsistent=rotation > 0)
        least = min(least, score)
    return Mark(least, turns - 1)


def can_be_longer(answer: Answer, limit: int | None) -> bool:
    """Was the answer cut at fewer output tokens than would be allowed now?"""
    if answer.limit is None or limit is None or answer.limit >= limit:
        return False
    return missing_answer(answer.text, answer.ended) == "cut"


def tokens_of(paper: Paper, answer: Answer) -> tuple[int, int]:
    """Input and output tokens of an answer: counted by the endpoint, else characters / 4."""
    tokens_in, tokens_out = answer.input_tokens, answer.output_tokens
    if tokens_in is None:
        tokens_in = round(len(paper.prompt(answer.item_id, answer.rotation)) / CHARS_PER_TOKEN)
    return tokens_in, round(len(answer.text) / CHARS_PER_TOKEN) if tokens_out is None else tokens_out
