"""A small trial: questions of five kinds, candidates of known strengths behind a local server, and a judge."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chat_server import Answers, ChatServer

KINDS = ("sums", "records", "tools", "code", "letters")
N_EACH = 60
# How many of each 60 a candidate gets right, in the order of KINDS.
STRENGTHS: Mapping[str, tuple[int, ...]] = {
    "sums-9": (57, 54, 12, 12, 18),
    "coder-9": (15, 24, 57, 57, 12),
    "writer-9": (24, 30, 24, 18, 60),
    "cheap-1": (30, 30, 30, 24, 30),
}
LATER = {"later-1": (60, 6, 6, 6, 6)}
PRICES = {"sums-9": 2.0, "coder-9": 3.0, "writer-9": 2.5, "cheap-1": 0.1, "later-1": 1.0, "judge-1": 1.0}
WEATHER = {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}
CITIES = ("Bern", "Oslo", "Lima", "Cairo", "Quito", "Delhi")


def question(kind: str, i: int) -> dict[str, Any]:
    """The i-th question of a kind, as a line of the questions file."""
    if kind == "sums":
        return {"instruction": f"Add {i} and {7 * i + 3}, and give only the number.", "answer": 8 * i + 3, "task": kind}
    if kind == "records":
        text = f"Write the order as JSON with the keys item and count: {i + 2} boxes of screws."
        return {"instruction": text, "answer": {"item": "screws", "count": i + 2}, "task": kind}
    if kind == "tools":
        city = CITIES[i % len(CITIES)]
        call = {"name": "weather", "arguments": {"city": city}}
        text = f"Will it rain in {city} on day {i} of the year?"
        return {"instruction": text, "answer": call, "task": kind, "grader": "tool-call", "tools": [WEATHER]}
    if kind == "code":
        text = f"Write a Python function named times_{i} that multiplies its argument by {i + 2}."
        return {"instruction": text, "tests": f"assert times_{i}(3) == {3 * (i + 2)}", "task": kind}
    text = f"Write a kind letter to customer number {i} whose parcel is late."
    return {"instruction": text, "rubric": "Is the letter kind?", "task": kind}


def all_questions() -> list[dict[str, Any]]:
    return [question(kind, i) for kind in KINDS for i in range(N_EACH)]


def is_right(candidate: str, kind: str, i: int) -> bool:
    """Does it get the i-th question of a kind right? As often as its strength says, strewn over the questions."""
    strength = {**STRENGTHS, **LATER}[candidate][KINDS.index(kind)]
    return (i * 37 + 11 * len(candidate)) % N_EACH < strength


def reply(kind: str, i: int, right: bool) -> str | Mapping[str, Any]:
    """A right or a wrong answer."""
    if kind == "sums":
        return f"The answer is {8 * i + 3 if right else 8 * i + 4}."
    if kind == "records":
        return f"```json\n{json.dumps({'count': i + 2, 'item': 'screws' if right else 'nails'})}\n```"
    if kind == "tools":
        city = CITIES[i % len(CITIES)] if right else "Atlantis"
        call = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": json.dumps({"city": city})}}
        return {"message": {"tool_calls": [call]}, "finish_reason": "tool_calls"}
    if kind == "code":
        return f"```python\ndef times_{i}(x):\n    return x * {i + 2 if right else i + 1}\n```"
    return f"Dear customer {i}, {'we are truly sorry' if right else 'wait'}."


def candidate(name: str) -> Answers:
    book = {question(kind, i)["instruction"]: (kind, i) for kind in KINDS for i in range(N_EACH)}

    def answer(prompt: str, request: Mapping[str, Any]) -> str | Mapping[str, Any]:
        kind, i = book[prompt]
        return reply(kind, i, is_right(name, kind, i))

    return answer


def judge(prompt: str, request: Mapping[str, Any]) -> str:
    """Grades letters: kind ones get 9 of 10, others 2."""
    assert not any(name in prompt for name in (*STRENGTHS, *LATER))
    return f"It is what it is. Grade: {9 if 'truly sorry' in prompt else 2}"


def server() -> ChatServer:
    names = (*STRENGTHS, *LATER)
    return ChatServer({**{name: candidate(name) for name in names}, "judge-1": judge})


def outcome(name: str, kind: str, i: int) -> float:
    """What its answer is worth."""
    right = is_right(name, kind, i)
    return (0.9 if right else 0.2) if kind == "letters" else float(right)


def write_files(folder: Path, url: str, names: tuple[str, ...] = tuple(STRENGTHS)) -> tuple[Path, Path, Path]:
    """(questions, candidates, judge) files."""

    def line(name: str) -> dict[str, Any]:
        price = PRICES[name]
        about = {"client": f"openai:{name}", "base_url": url, "usd_per_mtok_in": price, "usd_per_mtok_out": 4 * price}
        return {"name": name, **about}

    questions = folder / "questions.jsonl"
    questions.write_text("".join(json.dumps(row) + "\n" for row in all_questions()))
    candidates, judging = folder / "candidates.json", folder / "judge.json"
    candidates.write_text(json.dumps([line(name) for name in names]))
    judging.write_text(json.dumps([line("judge-1")]))
    return questions, candidates, judging
