"""The seam between an answer and its mark.

A :class:`Grader` reads one reply and gives a :class:`Grade` in [0, 1], or says that it cannot be read.
It is handed the candidate's own words: thoughts are taken off, and replies that were cut, refused or
left empty never come to it. Who has to *ask* somebody else for a mark is a judge (``graders.judge``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from msat_core.aptitude.questions import Question


@dataclass(frozen=True)
class Grade:
    """What an answer is worth.

    Attributes:
        score: in [0, 1]; None where the reply states no answer that can be read (counts as wrong, and is told apart).
        why: what decided it, for people.
    """

    score: float | None
    why: str = ""

    @classmethod
    def of(cls, right: bool | float, why: str = "") -> Grade:
        """A grade of a yes or no, or of a number that is brought into [0, 1]."""
        return cls(min(1.0, max(0.0, float(right))), why)


UNREADABLE = Grade(None, "states no answer that can be read")


class Grader(Protocol):
    """Marks replies. One whose marks cost time or money says so with ``costly = True``: they are then kept.

    Attributes:
        name: what it is called in questions files and reports, with its argument.
    """

    @property
    def name(self) -> str:
        """See the class."""

    def grade(self, question: Question, reply: str) -> Grade:
        """The worth of a reply to the question. Must depend on the two alone."""
