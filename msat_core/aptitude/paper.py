"""The paper that a candidate is handed: which questions, in which words, and what that will cost."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msat_core.aptitude.journal import Answer
from msat_core.aptitude.marking import Mark, mark_of
from msat_core.aptitude.protocols import Protocol
from msat_core.aptitude.questions import Question, QuestionSet
from msat_core.aptitude.quick import quick_shots
from msat_core.candidates import CHARS_PER_TOKEN
from msat_core.checks import check_count
from msat_core.documents import digest_of
from msat_core.errors import ConfigurationError
from msat_core.exam import Exam, ExamShot

CHARS_PER_TOKEN_AT_WORST = 2.0  # formulas and code split into more tokens; a spending cap reckons with this


@dataclass(frozen=True)
class Prices:
    """USD per million tokens, in and out; None where unknown."""

    usd_per_mtok_in: float | None = None
    usd_per_mtok_out: float | None = None

    @property
    def known(self) -> bool:
        """Are both prices known?"""
        return self.usd_per_mtok_in is not None and self.usd_per_mtok_out is not None

    def usd(self, input_tokens: float, output_tokens: float) -> float:
        """Price of some tokens; unknown prices count as nothing."""
        return (input_tokens * (self.usd_per_mtok_in or 0) + output_tokens * (self.usd_per_mtok_out or 0)) / 1e6


FLAGSHIP = Prices(4.0, 20.0)  # of gpt-5.6-sol and claude-opus-5.5, November 2026


@dataclass(frozen=True)
class Estimate:
    """What a sitting will take, before it begins.

    Attributes:
        n_calls: at most so many (a question once got wrong is not asked again with rotated options).
        input_tokens: prompt characters / 4.
        output_tokens: calls × the protocol's expected length of an answer, and hidden thinking where there is any.
        usd: None where no price was given.
    """

    n_calls: int
    input_tokens: int
    output_tokens: int
    usd: float | None


@dataclass(frozen=True)
class ExamPaper:
    """Questions chosen from an exam, with the words they are asked in.

    Attributes:
        exam: the exam they are from.
        shots: the chosen shots, in the order in which they are asked: one of every task, then the
            next of every task. Any beginning of it is an exam of its own, spread over the tasks.
        questions: by the shots' ids.
        examples: worked examples by category.
        protocol: how questions are asked.
        n_rotations: how often a question that was got right is asked again with rotated options.
        source: where the questions come from.
    """

    exam: Exam
    shots: tuple[ExamShot, ...]
    questions: Mapping[str, Question]
    examples: Mapping[str, Sequence[Question]]
    protocol: Protocol
    n_rotations: int
    source: str

    @classmethod
    def of(
        cls,
        exam: Exam,
        questions: QuestionSet,
        protocol: Protocol,
        *,
        n_shots: int | None = None,
        n_tasks: int | None = None,
        quick: bool = False,
        n_rotations: int = 0,
    ) -> ExamPaper:
        """Match an exam with a question set, whole or shortened as :func:`shorten` does.

        Raises:
            ExamError: the question set does not match, or lacks the protocol's worked examples.
        """
        check_count("n_rotations", n_rotations, least=0)
        shots = shorten(exam, n_shots=n_shots, n_tasks=n_tasks, quick=quick)
        matched = questions.match(exam.sheet, shots)
        paper = cls(exam, shots, matched, questions.examples, protocol, n_rotations, questions.source)
        for question in {question.category: question for question in matched.values()}.values():
            protocol.prompt(question, questions.examples)  # refuses now what could not be asked later
        return paper

    @property
    def item_ids(self) -> tuple[str, ...]:
        """The shots' ids in the order of asking."""
        return tuple(shot.item_id for shot in self.shots)

    @property
    def questions_sha256(self) -> str:
        """SHA-256 (hex) of all that is asked: questions, options, answers and worked examples."""
        asked = [[q.item_id, q.with_options(), q.answer] for q in self.questions.values()]
        shown = [[q.with_options(), q.answer, q.reasoning] for qs in self.examples.values() for q in qs]
        return digest_of([sorted(asked), shown if self.protocol.n_examples else []])

    def asked(self, item_id: str, rotation: int = 0) -> Question:
        """The question as it is asked at that turn of its options."""
        question = self.questions[item_id]
        step = max(1, len(question.options) // (self.n_rotations + 1))
        return question.rotated(rotation * step)

    def turns(self, item_id: str) -> int:
        """How often the question is asked if it is got right each time: once, and once a distinct rotation."""
        return 1 + min(self.n_rotations, max(0, len(self.questions[item_id].options) - 1))

    def prompt(self, item_id: str, rotation: int = 0) -> str:
        """The prompt that asks the question at that turn."""
        return self.protocol.prompt(self.asked(item_id, rotation), self.examples)

    def tools(self, item_id: str) -> Sequence[Mapping[str, Any]]:
        """Tools that are offered with the question."""
        return self.questions[item_id].tools

    def mark(self, item_id: str, answers: Mapping[tuple[str, int], Answer], limit: int | None = None) -> Mark:
        """See :func:`msat_core.aptitude.marking.mark_of`."""
        return mark_of(self, answers, item_id, limit)

    def estimate(self, prices: Prices, *, thinking_tokens: int = 0) -> Estimate:
        """Calls, tokens and cost of the whole paper.

        Args:
            prices: of the candidate.
            thinking_tokens: hidden ones to reckon with for each answer; see :class:`ExamClient`.
        """
        n_calls = chars = 0
        for item_id in self.item_ids:
            turns = self.turns(item_id)
            n_calls += turns
            chars += turns * len(self.prompt(item_id))
        tokens_in = round(chars / CHARS_PER_TOKEN)
        tokens_out = n_calls * (self.protocol.expected_output_tokens + thinking_tokens)
        return Estimate(n_calls, tokens_in, tokens_out, prices.usd(tokens_in, tokens_out) if prices.known else None)


def shorten(
    exam: Exam, *, n_shots: int | None = None, n_tasks: int | None = None, quick: bool = False
) -> tuple[ExamShot, ...]:
    """S shots of each of K of the exam's tasks, in the order of asking, all where None; or the shipped quick exam.

    Within a task the order is that of a hash of the question, so that a shorter exam is part of a
    longer one and no order of the source gets in. Tasks are taken farthest first, by the
    embeddings of their shots where the exam has them, so that few tasks still span what it covers.
    """
    for name, number in (("n_shots", n_shots), ("n_tasks", n_tasks)):
        if number is not None:
            check_count(name, number)
    if quick:
        if n_shots is not None or n_tasks is not None:
            raise ConfigurationError("A quick exam is a choice of its own: give either quick, or shots and tasks.")
        return quick_shots(exam)
    by_task: dict[str, list[ExamShot]] = {task.task: [] for task in exam.sheet.tasks}
    for shot in exam.sheet.shots:
        by_task[shot.task].append(shot)
    kept = _spread_tasks(exam, n_tasks) if n_tasks is not None and n_tasks < len(by_task) else list(by_task)
    ranked = []
    for position, task in enumerate(kept):
        shots = sorted(by_task[task], key=_draw)[:n_shots]
        ranked += [(rank, position, shot) for rank, shot in enumerate(shots)]
    return tuple(shot for _, _, shot in sorted(ranked, key=lambda row: row[:2]))


def _draw(shot: ExamShot) -> str:
    return hashlib.sha256(f"order of asking\n{shot.text_sha256}".encode()).hexdigest()


def _spread_tasks(exam: Exam, n_tasks: int) -> list[str]:
    """Farthest-first traversal over the tasks' mean embeddings (Gonzalez 1985), in the exam's order."""
    names = [task.task for task in exam.sheet.tasks]
    if not exam.embeddings:
        kept = sorted(names, key=lambda name: hashlib.sha256(name.encode()).hexdigest())[:n_tasks]
        return [name for name in names if name in set(kept)]
    first = min(exam.embeddings)  # the file gives them in another order each time
    vectors = exam.embeddings[first].astype(np.float32)  # (n_shots, D)
    task_of = np.array([names.index(shot.task) for shot in exam.sheet.shots])
    centres: NDArray[np.float32] = np.stack([vectors[task_of == k].mean(axis=0) for k in range(len(names))])
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    chosen = [int(np.argmax(centres @ centres.mean(axis=0)))]  # begin with the most central task
    while len(chosen) < n_tasks:
        nearest = (centres @ centres[chosen].T).max(axis=1)
        nearest[chosen] = np.inf
        chosen.append(int(np.argmin(nearest)))
    return [names[k] for k in sorted(chosen)]
