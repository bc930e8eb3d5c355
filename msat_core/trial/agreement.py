"""How far a judge agrees with people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from msat_core.aptitude.graders.judge import Judge
from msat_core.aptitude.journal import Answer
from msat_core.aptitude.questions import Question
from msat_core.errors import RecordsError
from msat_core.importers.rows import Unreadable, outcome_of, text_of
from msat_core.trial.marking import JudgedReply, JudgePaper
from msat_core.trial.questions import item_id_of
from msat_core.trial.sources import rows_of


@dataclass(frozen=True)
class HumanMark:
    """A person's mark of one answer.

    Attributes:
        reply: the same answer, for the judge.
        outcome: in [0, 1].
    """

    reply: JudgedReply
    outcome: float


@dataclass(frozen=True)
class Agreement:
    """A judge beside people on the same answers.

    Attributes:
        n: answers that both marked.
        same_side: share on which both say more than half, or both do not.
        kappa: the same beyond chance (Cohen 1960); None where one of them always says the same.
        mean_difference: judge minus people; above 0 it is too kind.
    """

    n: int
    same_side: float
    kappa: float | None
    mean_difference: float


def read_human_marks(path: str | Path, judge: Judge) -> list[HumanMark]:
    """People's marks: rows with ``instruction``, ``output``, ``score``, and as it may be ``answer`` and ``rubric``.

    Raises:
        RecordsError: a row lacks one of the first three.
    """
    marks = []
    for number, row in enumerate(rows_of(Path(path)), start=1):
        try:
            instruction, text = text_of(row, "instruction"), text_of(row, "output", "reply")
            outcome = outcome_of(row.get("score"))
        except Unreadable as error:
            raise RecordsError(f"{path}, row {number}: {error}; expected instruction, output and score.") from None
        question = Question(item_id_of(instruction), instruction, (), str(row.get("answer") or ""))
        question = replace(question, rubric=str(row.get("rubric") or ""))
        marks.append(HumanMark(JudgedReply(judge, question, text), outcome))
    if not marks:
        raise RecordsError(f"{path} holds no mark: expected rows with instruction, output and score.")
    return marks


def agreement(
    marks: Sequence[HumanMark], paper: JudgePaper, answers: Mapping[tuple[str, int], Answer]
) -> Agreement | None:
    """The judge's marks beside people's; None where it marked nothing."""
    pairs = [(paper.grade(mark.reply.item_id, answers).score, mark.outcome) for mark in marks]
    both = [(judged, human) for judged, human in pairs if judged is not None]
    if not both:
        return None
    judged, human = (np.array(side, dtype=float) for side in zip(*both, strict=True))
    says, holds = judged > 0.5, human > 0.5
    same = float((says == holds).mean())
    chance = float(says.mean() * holds.mean() + (1 - says.mean()) * (1 - holds.mean()))
    kappa = None if chance >= 1 else (same - chance) / (1 - chance)
    return Agreement(len(both), same, kappa, float((judged - human).mean()))


def in_words(figures: Agreement | None) -> str:
    """For a report."""
    if figures is None:
        return "The judge marked none of the answers that people had marked."
    kappa = "" if figures.kappa is None else f" (kappa {figures.kappa:.2f})"
    return (
        f"On {figures.n} answers that people had marked, the judge is on their side in {figures.same_side:.0%}{kappa}; "
        f"its marks are {100 * figures.mean_difference:+.0f} points off theirs on average."
    )


def plain(figures: Agreement | None) -> dict[str, Any] | None:
    """As JSON values."""
    return None if figures is None else vars(figures)
