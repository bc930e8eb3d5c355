"""How MMLU-Pro lays its questions out, in its data set and in its published results alike."""

from __future__ import annotations

from collections.abc import Sequence

BENCHMARK = "mmlu_pro"
_FILLED_UP = "N/A"  # what early versions filled the options up to ten with


def id_of_question(question_id: object) -> str:
    """The id of a question in records and exams."""
    return f"{BENCHMARK}:{question_id}"


def stated_options(options: Sequence[object]) -> tuple[str, ...]:
    """The options without what they were filled up with."""
    stated = [str(option) for option in options]
    while stated and stated[-1].strip() == _FILLED_UP:
        stated.pop()
    return tuple(stated)
