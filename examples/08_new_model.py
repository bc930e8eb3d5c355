"""A model released today: it sits an exam, joins the zoo, and is routed to. No training.

    python examples/08_new_model.py

Runs offline: the questions are made by reasoning-gym, and the new model is a stand-in that knows geometry and sorts
words. Six tasks of the exam's 89 are asked here. For a real model and all of them, the command is
``msat profile run --exam reasoning --questions reasoning-gym --client openai:NAME --base-url URL --out profiles/``.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from msat_core import AptitudeTest, Candidate, Exam, FunctionClient, QuestionSet, Router, Zoo, pretrained

NEW = "new-model-8b"
TASKS = ("acre", "game_of_life", "needle_haystack", "puzzle24", "simple_geometry", "word_sorting")  # farthest apart
KNOWS = ("simple_geometry", "word_sorting")
ASKED = (
    "Sort these words in descending order and give them separated by commas: pear, apple, quince, fig.",
    "Make 24 of the numbers 3, 3, 8 and 8, each used once.",
)


async def main() -> None:
    """Sit the exam, add the profile, route."""
    questions = QuestionSet.load("reasoning-gym", tasks=TASKS)
    known = [question for same in questions.by_text.values() for question in same]

    async def answer(prompt: str) -> str:
        question = next(one for one in known if one.text in prompt)
        return f"<answer>{question.answer if question.category in KNOWS else 'I do not know'}</answer>"

    test = AptitudeTest(Exam.load(pretrained.EXAM_REASONING))
    with tempfile.TemporaryDirectory() as folder:  # run again with the same journal, it goes on where it stopped
        journal = Path(folder) / "journal.jsonl"
        profile = await test.run(FunctionClient(NEW, answer), questions, n_tasks=len(TASKS), journal=journal)
    for result in (one for one in profile.results if one.n_shots):
        low, high = result.interval.low, result.interval.high
        print(f"{result.task}: {result.n_correct:g} of {result.n_shots} right, 95% in [{low:.2f}, {high:.2f}]")

    router = Router.from_pretrained(zoo=Zoo.load(pretrained.ZOO_REASONING))
    router.zoo.add(Candidate(profile=profile, usd_per_mtok_in=0.05, usd_per_mtok_out=0.05))
    for text in ASKED:
        decision = router.route(text)
        print(f"\n{text}\n  P({NEW} is right) = {decision.scores[NEW]:.2f}; routed to {decision.candidate}")


if __name__ == "__main__":
    asyncio.run(main())
