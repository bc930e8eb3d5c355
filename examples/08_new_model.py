"""A model released today: it sits an exam of your own questions, joins the zoo, and is routed to. No training.

    python examples/08_new_model.py

Runs offline: the new model is a local stand-in behind a real OpenAI-compatible endpoint, good at sums and poor at
spelling. For a real one, give its address and name; for the shipped exam of 1,000 questions, the command is
``msat profile run --client openai:NAME --base-url URL --out profiles/``.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
from pathlib import Path

import numpy as np
from replay_server import AnswerBook, ReplayApp, serve

from msat_core import AptitudeTest, Candidate, CapabilityProfile, Exam, Records, Router
from msat_core.aptitude.clients import OpenAIClient
from msat_core.aptitude.questions import Question, QuestionSet
from msat_core.aptitude.selection import select_exam
from msat_core.encoders.base import Encoder
from msat_core.scoring.base import EmbeddingScorer
from msat_core.texts import text_sha256

NEW = "new-model-8b"
WORDS = ("rhythm", "necessary", "accommodate", "conscience", "liaison", "millennium", "separate", "occurrence")
KNOWS = {"sums": 0.95, "spelling": 0.3}  # how often the stand-in is right


def main() -> None:
    """Choose an exam, sit it, add the profile, route."""
    questions = own_questions()
    router = Router.from_pretrained()
    assert isinstance(router.scorer, EmbeddingScorer)
    exam = own_exam(questions, router.scorer.encoder)
    router.scorer.add_exam(exam)
    test = AptitudeTest(exam)
    with serve(ReplayApp(stand_in(questions))) as url, tempfile.TemporaryDirectory() as folder:
        profile = asyncio.run(sit(test, questions, url, Path(folder)))
    for result in profile.results:
        print(f"{result.task}: {result.n_correct:g} of {result.n_shots} right, 95% in "
              f"[{result.interval.low:.2f}, {result.interval.high:.2f}]")  # fmt: skip
    router.zoo.add(Candidate(profile=profile, usd_per_mtok_in=0.05, usd_per_mtok_out=0.05))
    for text in (questions[0].text, questions[-1].text):
        decision = router.route(text)
        print(f"\n{text}\n  P({NEW} is right) = {decision.scores[NEW]:.2f}; routed to {decision.candidate}")


async def sit(test: AptitudeTest, questions: list[Question], url: str, folder: Path) -> CapabilityProfile:
    """The exam; run again with the same journal, it would go on where it stopped."""
    client = OpenAIClient(NEW, base_url=url, api_key="none")
    try:
        return await test.run(
            client,
            QuestionSet.of("my questions", questions),
            protocol="zero-shot-cot",
            journal=folder / "journal.jsonl",
        )
    finally:
        await client.aclose()


def own_questions() -> list[Question]:
    """Forty sums and forty spellings, four options each."""
    draw = random.Random(0)
    found = []
    for i in range(40):
        a, b = draw.randint(100, 999), draw.randint(100, 999)
        found.append(
            _question(f"sum:{i}", f"What is {a} + {b}?", str(a + b), [str(a + b + d) for d in (1, 10, -9)], draw)
        )
    for i in range(40):
        word = WORDS[i % len(WORDS)]
        wrong = [word[:k] + word[k + 1 :] for k in draw.sample(range(1, len(word)), 3)]
        text = f"Which is the right spelling of word {i + 1} of the dictation?"
        found.append(_question(f"word:{i}", text, word, wrong, draw))
    return found


def _question(item_id: str, text: str, right: str, wrong: list[str], draw: random.Random) -> Question:
    options = [right, *wrong]
    draw.shuffle(options)
    return Question(item_id, text, tuple(options), "ABCD"[options.index(right)], item_id.split(":")[0])


def own_exam(questions: list[Question], encoder: Encoder) -> Exam:
    """Twenty questions of each kind. With outcomes of candidates that you know, ``msat aptitude select`` does this."""
    texts = tuple(q.with_options() for q in questions)
    unknown = np.zeros((1, len(questions)), dtype=np.float32)
    records = Records(
        item_ids=tuple(q.item_id for q in questions),
        benchmarks=("mine",) * len(questions),
        tasks=tuple("sums" if q.category == "sum" else "spelling" for q in questions),
        instructions=texts,
        text_sha256=tuple(map(text_sha256, texts)),
        candidates=("nobody",),
        outcomes=unknown,
        output_chars=unknown,
    )
    vectors = encoder.encode(texts).vectors
    return select_exam(records, n_tasks=2, n_shots=20, name="my exam", vectors=vectors, encoder_digest=encoder.digest)


def stand_in(questions: list[Question]) -> AnswerBook:
    """What the new model says to each question."""
    draw = random.Random(1)
    said = {}
    for q in questions:
        right = draw.random() < KNOWS["sums" if q.category == "sum" else "spelling"]
        said[q.item_id] = f"The answer is ({q.answer if right else 'B' if q.answer == 'A' else 'A'})."
    return AnswerBook({q.item_id: q.with_options() for q in questions}, {NEW: said})


if __name__ == "__main__":
    main()
