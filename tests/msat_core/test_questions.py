"""Where questions come from, and when a source is refused."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import exam_world
import pytest
from support import RECORDS

from msat_core import AptitudeTest
from msat_core.aptitude.paper import ExamPaper
from msat_core.aptitude.protocols import FIVE_SHOT, ZERO_SHOT, protocol_named
from msat_core.aptitude.questions import QuestionSet, question_of
from msat_core.errors import ConfigurationError, ExamError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def hub_like() -> datasets.DatasetDict:
    """The toy questions laid out as the hub's data set is."""

    def row(number: int, question: object, reasoning: str = "") -> dict[str, object]:
        return {
            "question_id": number,
            "question": question.text,  # type: ignore[attr-defined]
            "options": [*question.options, *["N/A"] * 2],  # type: ignore[attr-defined]
            "answer": question.answer,  # type: ignore[attr-defined]
            "answer_index": "ABCD".index(question.answer),  # type: ignore[attr-defined]
            "cot_content": reasoning,
            "category": question.category,  # type: ignore[attr-defined]
            "src": "toy",
        }

    found = exam_world.question_set()
    examples = [example for members in found.examples.values() for example in members]
    return datasets.DatasetDict(
        test=datasets.Dataset.from_list([row(i, q) for i, q in enumerate(exam_world.questions())]),
        validation=datasets.Dataset.from_list([row(i, e, "A: " + e.reasoning) for i, e in enumerate(examples)]),
    )


def check(found: QuestionSet) -> None:
    matched = found.match(exam_world.exam().sheet, exam_world.exam().sheet.shots)
    for question in exam_world.questions():
        assert matched[question.item_id].options == question.options
        assert matched[question.item_id].answer == question.answer


def test_a_records_folder(tmp_path: Path) -> None:
    folder = exam_world.write_records(tmp_path / "toy")
    found = QuestionSet.load(folder)
    check(found)
    assert (found.source, found.examples) == ("toy", {})


def test_examples_beside_the_items_allow_five_shots(tmp_path: Path) -> None:
    folder = exam_world.write_records(tmp_path / "toy")
    rows = [
        {
            "question": e.text,
            "options": list(e.options),
            "answer": e.answer,
            "cot_content": e.reasoning,
            "category": e.category,
        }
        for members in exam_world.question_set().examples.values()
        for e in members
    ]
    (folder / "examples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    paper = ExamPaper.of(exam_world.exam(), QuestionSet.load(folder), FIVE_SHOT)
    wanted = ExamPaper.of(exam_world.exam(), exam_world.question_set(), FIVE_SHOT)
    assert [paper.prompt(i) for i in paper.item_ids] == [wanted.prompt(i) for i in wanted.item_ids]


def test_a_data_set_saved_to_disk(tmp_path: Path) -> None:
    hub_like().save_to_disk(str(tmp_path / "saved"))
    found = QuestionSet.load(tmp_path / "saved")
    check(found)
    paper = ExamPaper.of(exam_world.exam(), found, FIVE_SHOT)
    assert "Answer: So. The answer is (A)." in paper.prompt("q0")


def test_a_data_set_on_the_hub_is_pinned_and_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load_dataset(name: str, revision: str) -> datasets.DatasetDict:
        asked.append((name, revision))
        return hub_like()

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    found = QuestionSet.load("TIGER-Lab/MMLU-Pro", revision=COMMIT)
    check(found)
    assert asked == [("TIGER-Lab/MMLU-Pro", COMMIT)]
    assert found.source == f"TIGER-Lab/MMLU-Pro@{COMMIT}"


def test_a_hub_that_cannot_be_reached_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ExamError, match="is neither a local folder nor a data set that the Hugging Face hub gives"):
        QuestionSet.load("nobody/nothing")


def test_a_source_that_does_not_match_is_refused_and_told_why(tmp_path: Path) -> None:
    exam = exam_world.exam()
    questions = exam_world.questions()
    with pytest.raises(ExamError, match=r"other lacks 12 of the 12 questions .* \(q0, .*, …\); it has neither"):
        ExamPaper.of(exam, QuestionSet.of("other", [question_of("x", "What?\nA. a\nB. b", "A")]), ZERO_SHOT)
    with pytest.raises(ExamError, match=r"part lacks 1 of the 12 questions"):
        ExamPaper.of(exam, QuestionSet.of("part", questions[1:]), ZERO_SHOT)
    changed = [question_of("q0", "Another text?\nA. a\nB. b", "A"), *questions[1:]]
    with pytest.raises(ExamError, match="1 of them have the same id but another text: it is another version"):
        ExamPaper.of(exam, QuestionSet.of("new version", changed), ZERO_SHOT)


def test_records_without_answers_are_refused(tmp_path: Path) -> None:
    (tmp_path / "items.jsonl").write_text('{"item_id": "a", "task": "t", "instruction": "What?"}\n')
    with pytest.raises(ExamError, match="has no column 'answer'"):
        QuestionSet.load(tmp_path)
    with pytest.raises(ConfigurationError, match="names a version on the hub"):
        QuestionSet.load(tmp_path, revision="main")


@pytest.mark.parametrize(
    ("instruction", "answer", "options"),
    [
        ("What?\nA. one\nB. two", "B", ("one", "two")),
        ("What?\n(A) one\n(B) two\nlines", "A", ("one", "two\nlines")),
        ("Say:\nA. this\nB. that\nWhich?\nA. x\nB. y\nC. z", "C", ("x", "y", "z")),
        ("What is 2 + 2?", "4", ()),
        ("What?\nA. one\nB. two", "one and two", ()),
    ],
)
def test_options_are_taken_out_of_an_instruction(instruction: str, answer: str, options: tuple[str, ...]) -> None:
    question = question_of("id", instruction, answer)
    assert question.options == options
    assert (
        question.text_sha256
        == question_of("id", instruction.replace("(", " (").replace("\n", "\n "), answer).text_sha256
    )


def test_a_question_without_options_is_marked_by_its_short_answer() -> None:
    question = question_of("id", "How many eggs?", "18")
    assert question.grade("He has 16 + 2.\nThe answer is $18.").score == 1
    assert question.grade("The answer is 17.").score == 0
    assert question.grade("Well.\nWho knows.").score is None
    assert "where X is only the answer" in ZERO_SHOT.prompt(question, {})
    assert question.rotated(1) is question


def test_protocols_have_names() -> None:
    assert protocol_named("five-shot-cot") is FIVE_SHOT
    with pytest.raises(ConfigurationError, match="no protocol 'two-shot'"):
        protocol_named("two-shot")


def test_the_shipped_exam_is_found_in_the_records() -> None:
    if not RECORDS.is_dir():
        pytest.skip(f"no evaluation records at {RECORDS} (set MSAT_RECORDS)")
    exam = AptitudeTest.load().exam
    paper = ExamPaper.of(exam, QuestionSet.load(RECORDS / "mmlu_pro"), ZERO_SHOT)
    assert len(paper.item_ids) == 1000
    assert all(paper.questions[shot.item_id].text_sha256 == shot.text_sha256 for shot in exam.sheet.shots)
    assert all(question.options for question in paper.questions.values())
