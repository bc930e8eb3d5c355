"""Graders of short texts: word for word, by normal form, by value, by pattern, by letter."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from msat_core.aptitude.answers import number_in, read_choice, read_text, same_text
from msat_core.aptitude.graders.base import UNREADABLE, Grade
from msat_core.errors import ConfigurationError
from msat_core.texts import normalised

if TYPE_CHECKING:
    from msat_core.aptitude.questions import Question

DEFAULT_TOLERANCE = 1e-6  # relative above 1, absolute below; chosen: rounding of printed numbers, no more


@dataclass(frozen=True)
class Exact:
    """The reply is the answer, word for word; white space around it does not count."""

    name: str = "exact"

    def grade(self, question: Question, reply: str) -> Grade:
        """1 or 0."""
        return Grade.of(reply.strip() == question.answer.strip())


@dataclass(frozen=True)
class SameWords:
    """The stated answer has the right one's words; case and punctuation do not count."""

    name: str = "text"

    def grade(self, question: Question, reply: str) -> Grade:
        """1 or 0; a reply of several lines without a statement is compared whole."""
        answer = read_text(reply) or reply
        return Grade.of(normalised(answer) == normalised(question.answer) != "")


@dataclass(frozen=True)
class Contains:
    """The right answer's words stand somewhere in the reply, in their order. Generous: a list of guesses passes."""

    name: str = "contains"

    def grade(self, question: Question, reply: str) -> Grade:
        """1 or 0."""
        expected = normalised(question.answer)
        return Grade.of(bool(expected) and f" {expected} " in f" {normalised(reply)} ")


@dataclass(frozen=True)
class ShortAnswer:
    """The last answer stated is the right one: numbers by value, anything else by its words."""

    name: str = "short"

    def grade(self, question: Question, reply: str) -> Grade:
        """1, 0, or unreadable."""
        answer = read_text(reply)
        return UNREADABLE if answer is None else Grade.of(same_text(answer, question.answer))


@dataclass(frozen=True)
class Choice:
    """The last letter stated, or the option repeated word for word, is the right one."""

    name: str = "choice"

    def grade(self, question: Question, reply: str) -> Grade:
        """1, 0, or unreadable."""
        letter = read_choice(reply, question.options)
        return UNREADABLE if letter is None else Grade.of(letter == question.answer)


@dataclass(frozen=True)
class Number:
    """The last number stated is the right one.

    Attributes:
        tolerance: largest difference that counts as none, as a share of the right number (of 1 where that is smaller).
    """

    tolerance: float = DEFAULT_TOLERANCE

    def __post_init__(self) -> None:
        if not 0 <= self.tolerance < 1:
            raise ConfigurationError(
                f"The tolerance of the grader `number` must be in [0, 1), got {self.tolerance:g}: 0.01 is one per cent."
            )

    @property
    def name(self) -> str:
        """With the tolerance where it is not the usual one."""
        return "number" if self.tolerance == DEFAULT_TOLERANCE else f"number:{self.tolerance:g}"

    def grade(self, question: Question, reply: str) -> Grade:
        """1, 0, or unreadable.

        Raises:
            ConfigurationError: the right answer holds no number.
        """
        expected = number_in(question.answer)
        if expected is None:
            raise ConfigurationError(
                f"Question {question.item_id}: the grader `number` needs a number as answer, got {question.answer!r}."
            )
        number = number_in(read_text(reply) or reply)
        if number is None:
            number = number_in(reply)
        if number is None:
            return UNREADABLE
        right = abs(number - expected) <= self.tolerance * max(1.0, abs(expected))
        return Grade.of(right, f"{number:g} for {expected:g}")


@dataclass(frozen=True)
class Pattern:
    """A regular expression is found in the reply.

    Attributes:
        pattern: None: each question's answer is its pattern.
    """

    pattern: str | None = None

    def __post_init__(self) -> None:
        if self.pattern is not None:
            _compiled(self.pattern)

    @property
    def name(self) -> str:
        """With the pattern, if there is one for all questions."""
        return "regex" if self.pattern is None else f"regex:{self.pattern}"

    def grade(self, question: Question, reply: str) -> Grade:
        """1 or 0."""
        pattern = question.answer if self.pattern is None else self.pattern
        return Grade.of(_compiled(pattern).search(reply) is not None)


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ConfigurationError(f"{pattern!r} is not a regular expression ({error}).") from None
