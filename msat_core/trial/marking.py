"""From answers to marks: each by its question's grader, here or by a judge."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msat_core.aptitude.clients import ExamClient
from msat_core.aptitude.graders.base import UNREADABLE, Grade
from msat_core.aptitude.graders.judge import EXPECTED_OUTPUT_TOKENS, Judge
from msat_core.aptitude.journal import Answer
from msat_core.aptitude.marking import Mark
from msat_core.aptitude.paper import Prices
from msat_core.aptitude.questions import Question
from msat_core.aptitude.replies import missing_answer, own_words
from msat_core.errors import ConfigurationError
from msat_core.trial.asking import Asking
from msat_core.trial.grades import GradeBook
from msat_core.trial.questions import OwnQuestion

# Why a question of a candidate has no mark, or a 0 without having been read.
UNANSWERED, UNJUDGED = "not answered", "not judged"


@dataclass(frozen=True)
class JudgedReply:
    """One reply that a judge is to mark.

    Attributes:
        judge: what it is asked.
        question, text: what it is about; who gave it is not said.
    """

    judge: Judge
    question: Question
    text: str

    @property
    def item_id(self) -> str:
        """Made of what is asked, so that the same reply is judged once, whoever gave it."""
        asked = self.judge.prompt(self.question, self.text)
        return "judged:" + hashlib.sha256(asked.encode("utf-8", "surrogatepass")).hexdigest()[:16]


@dataclass(frozen=True)
class JudgePaper:
    """Replies handed to a judge.

    Attributes:
        replies: by id.
    """

    replies: Mapping[str, JudgedReply]

    @property
    def item_ids(self) -> tuple[str, ...]:
        """Ids in the order of asking."""
        return tuple(self.replies)

    def prompt(self, item_id: str, rotation: int = 0) -> str:
        """What the judge is asked at that turn."""
        reply = self.replies[item_id]
        return reply.judge.prompt(reply.question, reply.text, rotation)

    def tools(self, item_id: str) -> Sequence[Mapping[str, Any]]:
        """None."""
        return ()

    def mark(self, item_id: str, answers: Mapping[tuple[str, int], Answer], limit: int | None) -> Mark:
        """Settled once every turn has been answered."""
        for turn in range(self.replies[item_id].judge.n_turns):
            if (item_id, turn) not in answers:
                return Mark(None, turn, settled=False)
        return Mark(None, 0)

    def grade(self, item_id: str, answers: Mapping[tuple[str, int], Answer]) -> Grade:
        """What the judge said of it."""
        reply = self.replies[item_id]
        said = [answers.get((item_id, turn)) for turn in range(reply.judge.n_turns)]
        words = [own_words(answer.text) for answer in said if answer is not None]
        if len(words) < reply.judge.n_turns or any(word is None for word in words):
            return UNREADABLE
        return reply.judge.read(tuple(word or "" for word in words))


@dataclass(frozen=True)
class Marks:
    """What every answer is worth. M candidates, N questions.

    Attributes:
        outcomes: float (M, N), in [0, 1]; NaN where there is no mark.
        missing: by candidate, how many questions got no answer that could be read, by reason. Cut, refused, empty and
            unreadable ones count as wrong; those not answered or not judged have no mark.
    """

    outcomes: NDArray[np.float64]
    missing: Mapping[str, Counter[str]]


def replies_to_judge(
    questions: Sequence[OwnQuestion], answers: Sequence[Mapping[str, Answer]]
) -> dict[str, JudgedReply]:
    """What a judge has to mark: every answer to a question that needs one, the same reply once."""
    replies = {}
    for item in questions:
        if isinstance(item.grader, Judge):
            for by_item in answers:
                words = _words(by_item.get(item.item_id))
                if words:
                    reply = JudgedReply(item.grader, item.question, words)
                    replies[reply.item_id] = reply
    return replies


def judge_asking(client: ExamClient | None, prices: Prices, paper: JudgePaper) -> Asking:
    """The sitting of a judge over some answers. Raises ConfigurationError if there is no judge."""
    if client is None:
        raise ConfigurationError(
            f"{len(paper.replies)} answers need a judge: name one with --judge openai:NAME, or another --grader."
        )
    settings = {name: value for name, value in client.settings.items() if name != "max_output_tokens"}
    header = {"judge": client.candidate, "protocol": "grade 1", "settings": settings}
    return Asking(f"judge.{client.candidate}", client, paper, prices, header, EXPECTED_OUTPUT_TOKENS)


async def mark_all(
    names: Sequence[str],
    questions: Sequence[OwnQuestion],
    answers: Mapping[str, Mapping[str, Answer]],
    paper: JudgePaper,
    judged: Mapping[tuple[str, int], Answer],
    book: GradeBook,
) -> Marks:
    """Mark everything that was answered; graders that take time run beside each other.

    Args:
        names: the candidates, in order.
        questions: in order.
        answers: of each candidate, by item id.
        paper: what the judge was asked.
        judged: what it answered.
        book: gives the marks that need no judge.
    """
    outcomes = np.full((len(names), len(questions)), np.nan)
    missing: dict[str, Counter[str]] = {name: Counter() for name in names}
    waiting: list[tuple[int, int, OwnQuestion, str]] = []
    for m, name in enumerate(names):
        for n, item in enumerate(questions):
            if name in item.outcomes:
                outcomes[m, n] = item.outcomes[name]
                continue
            answer = answers[name].get(item.item_id)
            why = UNANSWERED if answer is None else missing_answer(answer.text, answer.ended)
            if answer is None or item.grader is None:
                missing[name][UNANSWERED] += 1
            elif why is not None:
                outcomes[m, n] = 0.0
                missing[name][why] += 1
            elif isinstance(item.grader, Judge):
                reply = JudgedReply(item.grader, item.question, _words(answer) or "")
                grade = paper.grade(reply.item_id, judged)
                if grade.score is None:
                    missing[name][UNJUDGED] += 1
                else:
                    outcomes[m, n] = grade.score
            else:
                waiting.append((m, n, item, _words(answer) or ""))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        loop = asyncio.get_running_loop()
        graded = await asyncio.gather(
            *(loop.run_in_executor(pool, book.grade, item.question, words) for _, _, item, words in waiting)
        )
    for (m, n, _, _), grade in zip(waiting, graded, strict=True):
        outcomes[m, n] = grade.score or 0.0
        if grade.score is None:
            missing[names[m]]["unreadable"] += 1
    return Marks(outcomes, missing)


def _words(answer: Answer | None) -> str | None:
    """An answer's own words; None where it is no answer."""
    if answer is None or missing_answer(answer.text, answer.ended) is not None:
        return None
    return own_words(answer.text)
