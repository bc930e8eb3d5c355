"""A small exam that can be sat: questions with options in a records folder, and a candidate that knows some of them."""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from msat_core import AptitudeTest, Exam
from msat_core.aptitude.clients import FunctionClient, Reply
from msat_core.aptitude.paper import ExamPaper
from msat_core.aptitude.protocols import ZERO_SHOT
from msat_core.aptitude.questions import Question, QuestionSet
from msat_core.exam import ExamSheet, ExamShot, ExamTask

N_TASKS, N_SHOTS = 3, 4
SUBJECTS = ("algebra", "law", "biology")


def questions() -> list[Question]:
    """Twelve questions of three subjects, four options each."""
    rng = random.Random(0)
    found = []
    for i in range(N_TASKS * N_SHOTS):
        options = tuple(f"value {rng.randrange(10**6)}" for _ in range(4))
        text = f"Question number {i} about {SUBJECTS[i % N_TASKS]}?"
        found.append(Question(f"q{i}", text, options, "ABCD"[rng.randrange(4)], SUBJECTS[i % N_TASKS]))
    return found


def question_set() -> QuestionSet:
    """All of them, with five worked examples a subject."""
    examples = [
        Question(f"e{subject}{i}", f"Example {i} of {subject}?", ("yes", "no"), "A", subject, "So. The answer is (A).")
        for subject in SUBJECTS
        for i in range(5)
    ]
    return QuestionSet.of("toy", questions(), examples)


def exam() -> Exam:
    """The exam that asks them all."""
    tasks = tuple(ExamTask(task=subject, keywords=(subject,)) for subject in SUBJECTS)
    shots = tuple(ExamShot(item_id=q.item_id, text_sha256=q.text_sha256, task=q.category) for q in questions())
    return Exam(ExamSheet(name="toy exam", rule="all", tasks=tasks, shots=shots))


def aptitude_test() -> AptitudeTest:
    return AptitudeTest(exam())


def paper(n_rotations: int = 0) -> ExamPaper:
    return ExamPaper.of(exam(), question_set(), ZERO_SHOT, n_rotations=n_rotations)


def truth() -> dict[str, float]:
    """What the candidate of :func:`knowing_client` gets right: two of three."""
    return {q.item_id: float(i % 3 != 1) for i, q in enumerate(questions())}


def answer_to(prompt: str) -> str:
    """The right option's letter wherever it stands in the prompt, or a wrong one, as :func:`truth` has it."""
    question = next(q for q in questions() if q.text in prompt)
    right = question.options["ABCD".index(question.answer)]
    letter = next(line[0] for line in prompt.splitlines() if line[1:] == f". {right}")
    wrong = "B" if letter == "A" else "A"
    return f"Let me see. The answer is ({letter if truth()[question.item_id] else wrong})."


class KnowingClient(FunctionClient):
    """Answers as :func:`truth` has it, after failing as often as it is told to; notes what it was asked."""

    def __init__(self, failures: list[Exception] | None = None, name: str = "toy-1") -> None:
        super().__init__(name, self._say, max_output_tokens=50)
        self.failures = list(failures or [])
        self.asked: list[str] = []

    async def _say(self, prompt: str) -> Reply:
        if self.failures:
            raise self.failures.pop(0)
        self.asked.append(prompt)
        return Reply(answer_to(prompt), input_tokens=100, output_tokens=10)


def write_records(folder: Path) -> Path:
    """The questions as a records folder with the outcomes of the candidate."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {
            "item_id": q.item_id,
            "task": q.category,
            "category": q.category,
            "instruction": q.with_options(),
            "answer": q.answer,
        }
        for q in questions()
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "items.parquet")
    outcomes = [{"model": "toy-1", "item_id": item_id, "score": score} for item_id, score in truth().items()]
    pq.write_table(pa.Table.from_pylist(outcomes), folder / "outcomes.parquet")
    return folder
