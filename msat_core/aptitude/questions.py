"""Where an exam's questions come from: a records folder, or a data set laid out like MMLU-Pro.

An exam names its questions by id and by the hash of their text; the text itself is never shipped.
A source whose texts do not match the exam is refused.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from msat_core.aptitude import reasoning_gym
from msat_core.aptitude.graders.base import Grade, Grader
from msat_core.aptitude.graders.texts import Choice, ShortAnswer
from msat_core.errors import ConfigurationError, ExamError
from msat_core.exam import ExamSheet, ExamShot
from msat_core.lettered_options import LETTERS, options_of, with_options, without_options
from msat_core.mmlu_pro import id_of_question, stated_options
from msat_core.records import read_table, record_folders
from msat_core.texts import text_sha256

HUB_DATASET = "TIGER-Lab/MMLU-Pro"
_COMMIT = re.compile("^[0-9a-f]{40}$")
_SHOWN = 3  # missing questions named in an error


@dataclass(frozen=True)
class Question:
    """One question as it can be asked.

    Attributes:
        item_id: its id in the source.
        text: the question without its options.
        options: the options' texts, A first; empty where the answer is a short text.
        answer: the right option's letter, or the right short text.
        category: the subject by which worked examples are chosen.
        reasoning: a worked chain of thought that ends in the answer; only examples have one.
        tests: Python that an answer in code must pass.
        rubric: what a judge goes by.
        tools: offered with it, as OpenAI's API describes them.
        grader: who marks it; None for the letter where there are options, else the short answer.
    """

    item_id: str
    text: str
    options: tuple[str, ...]
    answer: str
    category: str = ""
    reasoning: str = ""
    tests: str = ""
    rubric: str = ""
    tools: tuple[Mapping[str, Any], ...] = ()
    grader: Grader | None = field(default=None, compare=False)

    @property
    def text_sha256(self) -> str:
        """Hash of the normalised question, as exams and records have it."""
        return text_sha256(self.with_options())

    def with_options(self) -> str:
        """The question and its lettered options, one a line."""
        return with_options(self.text, self.options)

    def rotated(self, places: int) -> Question:
        """The same question with its options moved on by some places, and the right letter with them."""
        n = len(self.options)
        if not n or places % n == 0:
            return self
        moved = tuple(self.options[(i - places) % n] for i in range(n))
        return replace(self, options=moved, answer=LETTERS[(LETTERS.index(self.answer) + places) % n])

    def grade(self, reply: str) -> Grade:
        """What the reply is worth; its score is None if it states no answer."""
        grader = self.grader or (Choice() if self.options else ShortAnswer())
        return grader.grade(self, reply)


@dataclass(frozen=True)
class QuestionSet:
    """Questions by the hash of their text, and worked examples by category.

    Attributes:
        source: where they come from, with the revision where there is one.
        by_text: the questions of each text (textual twins share one).
        examples: worked examples of each category, in the source's order.
        exact: whether ids are made of the exact texts, so that only the same id is the same question.
    """

    source: str
    by_text: Mapping[str, Sequence[Question]]
    examples: Mapping[str, Sequence[Question]] = field(default_factory=dict)
    exact: bool = False

    @classmethod
    def of(cls, source: str, questions: Iterable[Question], examples: Iterable[Question] = ()) -> QuestionSet:
        """A set of the given questions."""
        by_text, by_category = defaultdict(list), defaultdict(list)
        for question in questions:
            by_text[question.text_sha256].append(question)
        for example in examples:
            by_category[example.category].append(example)
        return cls(source, dict(by_text), dict(by_category))

    @classmethod
    def load(
        cls, source: str | Path = HUB_DATASET, *, revision: str | None = None, tasks: Collection[str] | None = None
    ) -> QuestionSet:
        """Questions of a records folder, of a data set saved to disk or on the hub, or of ``reasoning-gym``.

        Args:
            source: a folder, a data set's name on the hub, or ``"reasoning-gym"``.
            revision: of a data set on the hub.
            tasks: of the exam that is to be sat: questions that are made, not read, are made of these alone.

        Raises:
            ExamError: the source cannot be read, or lacks answers.
        """
        if source == reasoning_gym.SOURCE:
            question_set = cls.of(
                f"{reasoning_gym.SOURCE} {reasoning_gym.VERSION}", reasoning_gym.make_questions(tasks)
            )
            return replace(question_set, exact=True)
        path = Path(source)
        if not path.is_dir():
            return _from_hub(str(source), revision)
        if revision is not None:
            raise ConfigurationError(
                f"--revision {revision} names a version on the hub, but {source} is a local folder."
            )
        if (path / "dataset_dict.json").is_file():
            import datasets

            splits = datasets.load_from_disk(str(path))
            return cls.of(path.name, *_splits(splits, str(path)))
        return _from_records(path)

    def match(self, sheet: ExamSheet, shots: Sequence[ExamShot]) -> dict[str, Question]:
        """The exam's questions by their exam ids. Raises ExamError unless every one is in the set."""
        matches: dict[str, Question] = {}
        missing: list[ExamShot] = []
        for shot in shots:
            twins = sorted(self.by_text.get(shot.text_sha256, ()), key=lambda q: q.item_id != shot.item_id)
            if twins and not (self.exact and twins[0].item_id != shot.item_id):
                matches[shot.item_id] = twins[0]
            else:
                missing.append(shot)
        if missing:
            ids = {question.item_id for twins in self.by_text.values() for question in twins}
            renamed = sum(shot.item_id in ids for shot in missing)
            why = (
                f"{renamed} of them have the same id but another text: it is another version of the questions"
                if renamed
                else "it has neither their texts nor their ids: it is another benchmark, or a part of one"
            )
            named = ", ".join([*(shot.item_id for shot in missing[:_SHOWN]), *["…"][: len(missing) > _SHOWN]])
            raise ExamError(
                f"{self.source} lacks {len(missing)} of the {len(shots)} questions of the exam {sheet.name!r} "
                f"({named}); {why}. "
                "Give the source from which the exam was made, or an exam made from this one with "
                "`msat aptitude select`."
            )
        return matches


def question_of(item_id: str, instruction: str, answer: str, category: str = "") -> Question:
    """A question from an instruction as records have it, with its options inside."""
    text, options = without_options(instruction), options_of(instruction)
    if options and not (len(answer) == 1 and answer in LETTERS[: len(options)]):
        text, options = instruction, ()
    return Question(item_id, text.strip(), options, answer, category)


def _from_records(folder: Path) -> QuestionSet:
    questions, examples = [], []
    for part in record_folders(folder):
        file, items = read_table(part, "items", ("item_id", "instruction"))
        if "answer" not in items:
            raise ExamError(f"{file} has no column 'answer': an exam can only be marked against right answers.")
        categories = items.get("category") or [""] * len(items["item_id"])
        rows = zip(items["item_id"], items["instruction"], items["answer"], categories, strict=True)
        questions += [question_of(i, text, str(answer), c or "") for i, text, answer, c in rows if answer is not None]
        if any((part / f"examples.{suffix}").is_file() for suffix in ("parquet", "jsonl")):
            file, table = read_table(part, "examples", ("question", "options", "answer", "cot_content", "category"))
            names = list(table)
            examples += [
                _hub_question(dict(zip(names, row, strict=True)), i, str(file))
                for i, row in enumerate(zip(*table.values(), strict=True))
            ]
    if not questions:
        raise ExamError(f"{folder} holds no question: expected a records folder with an items table.")
    return QuestionSet.of(folder.name, questions, examples)


def _from_hub(name: str, revision: str | None) -> QuestionSet:
    try:
        import datasets
        from huggingface_hub import HfApi
    except ImportError:
        raise ConfigurationError(
            f"{name!r} is not a folder, and reading it from the Hugging Face hub needs `datasets`: "
            'pip install "model-sat-router[exam]", or name a local records folder.'
        ) from None
    try:
        if revision is None or not _COMMIT.match(revision):
            revision = HfApi().dataset_info(name, revision=revision).sha
        splits = datasets.load_dataset(name, revision=revision)
    except Exception as error:  # of the hub, of its checks, or of whatever its client makes connections with
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ExamError(
            f"{name!r} is neither a local folder nor a data set that the Hugging Face hub gives ({reason}): "
            "name a records folder, check the name and the connection, or sit `--questions reasoning-gym`, whose "
            "questions are made here."
        ) from None
    return QuestionSet.of(f"{name}@{revision}", *_splits(splits, name))


def _splits(splits: Mapping[str, Any], where: str) -> tuple[list[Question], list[Question]]:
    if "test" not in splits:
        raise ExamError(f"{where} has the splits {', '.join(splits) or 'none'}: expected test (and validation).")
    questions = [_hub_question(row, i, where) for i, row in enumerate(splits["test"])]
    return questions, [_hub_question(row, i, where) for i, row in enumerate(splits.get("validation", ()))]


def _hub_question(row: Mapping[str, Any], position: int, where: str) -> Question:
    """A row of MMLU-Pro: question_id, question, options, answer (a letter), cot_content, category."""
    try:
        return Question(
            id_of_question(row.get("question_id", position)),
            row["question"],
            stated_options(row["options"]),
            row["answer"],
            row.get("category") or "",
            row.get("cot_content") or "",
        )
    except (KeyError, TypeError, AttributeError):
        raise ExamError(
            f"{where}, row {position}: expected the columns question, options, answer and category, got "
            f"{', '.join(row)}."
        ) from None
