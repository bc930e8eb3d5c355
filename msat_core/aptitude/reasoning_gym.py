"""An exam's questions without a download: those that the library ``reasoning-gym`` makes again from a seed.

The library (Apache-2.0) makes questions of about a hundred tasks, each with a verifier. Its version, a size and a seed
decide every word, so a question is named by the hash of its exact text, and another version is refused: it would make
other questions. Answers are marked by the library's own verifiers.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
from collections.abc import Collection
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from random import Random
from typing import TYPE_CHECKING, Any

from msat_core.aptitude.graders.base import UNREADABLE, Grade
from msat_core.errors import ConfigurationError, ExamError

if TYPE_CHECKING:
    from msat_core.aptitude.questions import Question

SOURCE = "reasoning-gym"
VERSION, SIZE, SEED = "0.1.25", 50, 45
ID_PREFIX = "rgym:"
MAX_ANSWER_CHARS = 20_000  # read by a verifier; chosen: far longer than any right answer
_OPEN, _CLOSE = "<answer>", "</answer>"
# sympy hands over a variable's powers as a set, in another order in every process; the outcomes were got with this one.
_POWERS = {"x": (1, 2, 3, 0), "y": (0, 1, 2, 3), "z": (1, 2, 3, 0)}
_INSTALL = f'pip install "model-sat-router[reasoning-gym]" (reasoning-gym=={VERSION})'


@dataclass(frozen=True)
class Verifier:
    """The library's own verifier of one question, on what stands between the last answer tags."""

    dataset: Any = field(repr=False)
    entry: Any = field(repr=False)
    name: str = SOURCE

    def grade(self, question: Question, reply: str) -> Grade:
        """The verifier's score, or unreadable without an answer in tags."""
        answer = tagged_answer(reply)
        if answer is None:
            return UNREADABLE
        # Some verifiers evaluate what they are given as an expression: nothing that reaches for Python's insides.
        if len(answer) > MAX_ANSWER_CHARS or ("__" in answer and "__" not in question.answer):
            return Grade(0.0, "not given to the verifier")
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                return Grade.of(self.dataset.score_answer(answer=answer, entry=self.entry))
        except Exception as error:
            return Grade(0.0, f"the verifier could not read it ({type(error).__name__})")


def tagged_answer(reply: str) -> str | None:
    """What stands between the last pair of answer tags; None without one."""
    start = reply.rfind(_OPEN, 0, reply.rfind(_CLOSE) + 1)
    return reply[start + len(_OPEN) : reply.find(_CLOSE, start)].strip() if start >= 0 else None


def item_id_of(text: str) -> str:
    """A question's id: the hash of its exact text."""
    return ID_PREFIX + hashlib.sha256(text.encode()).hexdigest()[:16]


def instructions() -> str:
    """The library's own words on how to answer, with which the recorded outcomes were got."""
    _check_installed()
    from reasoning_gym.utils import SYSTEM_PROMPTS

    return str(SYSTEM_PROMPTS["default"]).strip()


def make_questions(tasks: Collection[str] | None = None) -> list[Question]:
    """The questions of some tasks, or of all; the last part of a task's name is the library's.

    Raises:
        ConfigurationError: the library is not installed, or in another version.
        ExamError: the library has no such task.
    """
    from msat_core.aptitude.questions import Question

    _check_installed()
    from reasoning_gym.factory import DATASETS, create_dataset

    questions: dict[str, Question] = {}
    wanted = sorted({task.rsplit("/", 1)[-1] for task in tasks}) if tasks is not None else sorted(DATASETS)
    for name in wanted:
        if name not in DATASETS:
            raise ExamError(f"reasoning-gym {VERSION} has no task {name!r}: was the exam made with another source?")
        if name == "composite":  # of other tasks; has none by itself
            continue
        with contextlib.redirect_stdout(io.StringIO()):  # some print while they make
            dataset = create_dataset(name, size=SIZE, seed=SEED)
            if name == "polynomial_multiplication":
                _order_powers(dataset)
            entries = [dataset[i] for i in range(SIZE)]
        for entry in entries:
            text, answer = entry["question"], entry["answer"]
            question = Question(
                item_id_of(text), text, (), "" if answer is None else str(answer), name, grader=Verifier(dataset, entry)
            )
            questions.setdefault(question.item_id, question)
    return list(questions.values())


def _order_powers(dataset: Any) -> None:  # noqa: ANN401 - the library's own
    import sympy

    def monomials(rng: Random) -> list[Any]:
        variable = rng.choice(dataset.config.variables)
        return [sympy.Symbol(variable) ** power for power in _POWERS[variable]]

    dataset._get_monomials = monomials


def _check_installed() -> None:
    try:
        installed = version("reasoning-gym")
    except PackageNotFoundError:
        raise ConfigurationError(f"These questions are made by reasoning-gym: {_INSTALL}.") from None
    if installed != VERSION:
        raise ConfigurationError(
            f"reasoning-gym {installed} is installed and makes other questions than {VERSION}, by which this exam's "
            f"outcomes were got: {_INSTALL}."
        )
