"""Questions that a library makes again: the same ones each time, marked by its verifiers, no other version."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest

from msat_core import AptitudeTest, Exam
from msat_core.aptitude.aptitude_test import exam_for
from msat_core.aptitude.clients import FunctionClient
from msat_core.aptitude.paper import ExamPaper
from msat_core.aptitude.protocols import ANSWER_TAGS
from msat_core.aptitude.questions import QuestionSet
from msat_core.aptitude.reasoning_gym import item_id_of, make_questions, tagged_answer
from msat_core.errors import ConfigurationError, ExamError
from msat_core.exam import ExamSheet, ExamShot, ExamTask

pytest.importorskip("reasoning_gym")

TASKS = ("algebra/chain_sum", "games/n_queens")  # the boards of the second fold to the same words


@pytest.fixture(scope="module")
def made() -> QuestionSet:
    return QuestionSet.load("reasoning-gym", tasks=TASKS)


def exam_of(made: QuestionSet) -> Exam:
    questions = [question for twins in made.by_text.values() for question in twins]
    shots = tuple(
        ExamShot(item_id=q.item_id, text_sha256=q.text_sha256, task=next(t for t in TASKS if t.endswith(q.category)))
        for q in questions
    )
    return Exam(ExamSheet(name="made", rule="all", tasks=tuple(ExamTask(task=t) for t in TASKS), shots=shots))


def test_the_same_questions_each_time(made: QuestionSet) -> None:
    ids = sorted(question.item_id for twins in made.by_text.values() for question in twins)
    assert len(ids) == 100
    assert hashlib.sha256("".join(ids).encode()).hexdigest()[:16] == "eb722a6433f13cf0"
    assert made.source == "reasoning-gym 0.1.25"


def test_questions_of_the_same_words_are_told_apart(made: QuestionSet) -> None:
    exam = exam_of(made)
    matched = made.match(exam.sheet, exam.sheet.shots)
    assert all(matched[shot.item_id].item_id == shot.item_id for shot in exam.sheet.shots)
    assert max(len(twins) for twins in made.by_text.values()) > 1
    stranger = exam.sheet.shots[0].model_copy(update={"item_id": item_id_of("another text")})
    with pytest.raises(ExamError, match="lacks 1 of the 1 questions"):
        made.match(exam.sheet, [stranger])


async def test_a_candidate_sits_it_offline(made: QuestionSet, tmp_path: Path) -> None:
    answers = {q.with_options(): q.answer for twins in made.by_text.values() for q in twins}

    async def knows_sums(prompt: str) -> str:
        question = next(text for text in answers if prompt.endswith(text))
        return f"<answer>1</answer>, no: <answer>{answers[question]}</answer>" if "queen" not in prompt else "Hm."

    test = AptitudeTest(exam_of(made))
    profile = await test.run(
        FunctionClient("t", knows_sums), "reasoning-gym", protocol=ANSWER_TAGS.name, journal=tmp_path / "j"
    )
    assert {result.task: result.accuracy for result in profile.results} == {TASKS[0]: 1.0, TASKS[1]: 0.0}
    assert profile.provenance.sitting is not None and profile.provenance.sitting.n_unreadable == 50


def test_the_verifiers_take_what_is_right_and_survive_nonsense(made: QuestionSet) -> None:
    paper = ExamPaper.of(exam_of(made), made, ANSWER_TAGS)
    for question in paper.questions.values():
        assert question.grade(f"<answer>{question.answer}</answer>").score == 1
        assert (question.grade("<answer>[[</answer>").score or 0) < 1
        assert question.grade("<answer>().__class__</answer>").score == 0
        assert question.grade(question.answer).score is None
    assert tagged_answer("<answer>a</answer> <answer> b </answer> </answer>") == "b"
    assert tagged_answer("</answer><answer>") is None


def test_another_version_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("msat_core.aptitude.reasoning_gym.version", lambda name: "0.1.24")
    with pytest.raises(ConfigurationError, match=r"reasoning-gym 0.1.24 is installed .* than 0.1.25"):
        make_questions(["chain_sum"])

    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError

    monkeypatch.setattr("msat_core.aptitude.reasoning_gym.version", missing)
    with pytest.raises(ConfigurationError, match=r"pip install .*reasoning-gym"):
        make_questions(["chain_sum"])


def test_a_task_that_the_library_does_not_have() -> None:
    with pytest.raises(ExamError, match="has no task 'astrology'"):
        make_questions(["logic/astrology"])


def test_the_shipped_exam_is_of_questions_that_can_be_made() -> None:
    """A few of its tasks, as making all of them takes a minute."""
    exam = AptitudeTest.load(exam_for("reasoning-gym")).exam
    few = {"chain_sum", "word_sorting", "basic_arithmetic", "caesar_cipher", "gcd"}
    shots = [shot for shot in exam.sheet.shots if shot.task.rsplit("/", 1)[-1] in few]
    assert len({shot.task for shot in shots}) >= 3
    found = QuestionSet.load("reasoning-gym", tasks={shot.task for shot in shots}).match(exam.sheet, shots)
    assert all(found[shot.item_id].text_sha256 == shot.text_sha256 for shot in shots)
    assert exam_for("TIGER-Lab/MMLU-Pro") != exam_for("reasoning-gym")


@pytest.mark.parametrize("seed", ["0", "1"])
def test_no_order_of_a_set_gets_into_the_words(seed: str) -> None:
    """The library draws powers from a set, whose order depends on the process."""
    exam = AptitudeTest.load(exam_for("reasoning-gym")).exam
    asked = sorted(shot.item_id for shot in exam.sheet.shots if shot.task.endswith("polynomial_multiplication"))
    code = (
        "from msat_core.aptitude.reasoning_gym import make_questions\n"
        "made = {one.item_id for one in make_questions(['polynomial_multiplication'])}\n"
        f"print(len(made & set({asked!r})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONHASHSEED": seed},
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) == len(asked) == 6
