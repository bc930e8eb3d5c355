"""The demo's two sets: questions, what each candidate scored on them, what its answers cost, and what it says."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from replay_server import AnswerBook

from msat_core import Candidate, Router, Zoo, pretrained

HERE = Path(__file__).resolve().parent
RECORDS = Path(os.environ.get("MSAT_RECORDS", HERE.parents[1] / "shared" / "records")) / "mmlu_pro"
OUTCOMES = HERE / "data" / "reasoning_outcomes.json"
CHARS_PER_TOKEN = 4
ANSWER_TOKENS = 250  # where nobody recorded how long the answers were
THINKS = ("openai/o3-mini", "qwen/qwen3-30b-a3b", "qwen/qwq-32b")  # before they answer, at the price of output
THINKING = 10  # times the tokens of an answer: a supposition, shown beside the price without it


@dataclass(frozen=True)
class DemoSet:
    """N questions and M candidates.

    Attributes:
        about: what it is, in a few sentences.
        texts: N questions.
        names: M candidates.
        outcomes: (N, M), recorded, in [0, 1].
        usd: (N, M), of one call; NaN where the price is unknown.
        book: what the server answers.
        router: over the candidates.
        usd_thinking: (N, M), of one call, if those that think write :data:`THINKING` times as many tokens.
    """

    about: str
    texts: list[str]
    names: list[str]
    outcomes: NDArray[np.float64]
    usd: NDArray[np.float64]
    book: AnswerBook = field(repr=False)
    router: Router = field(repr=False)
    usd_thinking: NDArray[np.float64] | None = None


def reasoning_set(per_task: int | None = None) -> DemoSet:
    """Questions that reasoning-gym makes from a seed, with the outcomes recorded for its public evaluations.

    Args:
        per_task: at most so many of each task; None for all.
    """
    data = json.loads(OUTCOMES.read_text(encoding="utf-8"))
    data["tasks"] = {task: rows[:per_task] for task, rows in data["tasks"].items()}
    names: list[str] = data["candidates"]
    zoo = Zoo.load(pretrained.ZOO_REASONING).subset(names)
    zoo.set_all(prices_of_the_zoo(zoo))
    zoo.set_all({name: {"reasoning": True} for name in THINKS})
    texts: dict[str, str] = {}
    answers: dict[str, dict[str, str]] = {name: {} for name in names}
    outcomes = []
    for rows, questions, right in made_again(data):
        for i, row in enumerate(rows):
            texts[row["id"]] = questions[i]
            outcomes.append(row["scores"])
            wrong = next((other for other in right if other != right[i]), "I do not know")
            for name, outcome in zip(names, row["scores"], strict=True):
                answers[name][row["id"]] = f"The answer is {right[i] if outcome > 0.5 else wrong}."
    n_recorded = sum(map(len, data["tasks"].values()))
    lengths = np.full((len(texts), len(names)), float(ANSWER_TOKENS))
    more = np.array([THINKING if name in THINKS else 1 for name in names])
    asked = list(texts.values())
    about = (
        f"{len(texts)} questions of {len(data['tasks'])} tasks, made by reasoning-gym {data['library']['version']} "
        f"({n_recorded - len(texts)} of {n_recorded} came out otherwise); none is in the exam by which the candidates "
        "are known. An outcome is the mean of three recorded samples of the real candidate; the server replays the "
        "library's right answer or a wrong one accordingly. How long the answers were is not recorded: USD is for the "
        f"question and {ANSWER_TOKENS} tokens of answer, at list price; hidden thinking is unknown, and the second "
        f"column supposes that {', '.join(THINKS)} write {THINKING} times as much.\n"
    )
    return DemoSet(
        about,
        asked,
        names,
        np.array(outcomes),
        call_usd(asked, lengths, zoo),
        AnswerBook(texts, answers),
        Router.from_pretrained(zoo=zoo, repeats=len(texts)),
        call_usd(asked, lengths * more, zoo),
    )


def made_again(data: dict[str, Any]) -> Iterator[tuple[list[dict[str, Any]], list[str], list[str]]]:
    """By task: the rows whose question comes out as it was, the questions and their right answers."""
    library = data["library"]
    if version("reasoning-gym") != library["version"]:
        raise SystemExit(f'These outcomes are of other questions: pip install "reasoning-gym=={library["version"]}".')
    from reasoning_gym.factory import create_dataset

    for task, rows in data["tasks"].items():
        with contextlib.redirect_stdout(io.StringIO()):  # some print while they make
            dataset = create_dataset(task, size=library["size"], seed=library["seed"])
            entries = [dataset[row["index"]] for row in rows]
        same = [
            (row, entry["question"], entry["answer"])
            for row, entry in zip(rows, entries, strict=True)
            if row["id"] == "rgym:" + hashlib.sha256(entry["question"].encode()).hexdigest()[:16]
        ]
        yield [one[0] for one in same], [one[1] for one in same], [one[2] for one in same]


def prices_of_the_zoo(zoo: Zoo) -> dict[str, dict[str, float]]:
    """List prices as the price library has them, else as the large shipped zoo has them; unknown ones are left out."""
    zoo = zoo.subset(zoo.names)
    zoo.refresh(at=datetime.now(timezone.utc))
    shipped = Zoo.load(pretrained.ZOO)
    known = {c.name: c if c.is_priced or c.name not in shipped else shipped[c.name] for c in zoo}
    return {name: _prices(candidate) for name, candidate in known.items() if candidate.is_priced}


def _prices(candidate: Candidate) -> dict[str, Any]:
    return {key: getattr(candidate, key) for key in ("usd_per_mtok_in", "usd_per_mtok_out")}


def recorded_set() -> DemoSet:
    """252 questions of MMLU-Pro and what seven LLMs really said, from the records."""
    outputs = RECORDS / "outputs_sample.parquet"
    rows = pq.read_table(outputs).to_pylist()
    names = list(dict.fromkeys(row["model"] for row in rows))
    wanted = {row["item_id"] for row in rows}
    table = pq.read_table(RECORDS / "items.parquet", columns=["item_id", "instruction", "answer"]).to_pylist()
    items = {row["item_id"]: row for row in table if row["item_id"] in wanted}
    zoo = Zoo.load(pretrained.ZOO).subset(names)
    models = json.loads((RECORDS / "models.json").read_text(encoding="utf-8"))
    of_the_time = {row["model"]: {k: row[k] for k in ("usd_per_mtok_in", "usd_per_mtok_out")} for row in models}
    zoo.set_all({name: of_the_time[name] for name in names if name in of_the_time})
    by_pair = {(row["item_id"], row["model"]): row for row in rows}
    grid = [[by_pair[item_id, name] for name in names] for item_id in items]
    right = [[row["extracted_answer"] == items[row["item_id"]]["answer"] for row in line] for line in grid]
    lengths = np.array([[len(row["output"]) / CHARS_PER_TOKEN for row in line] for line in grid])
    texts = [item["instruction"] for item in items.values()]
    about = (
        f"\n{len(items)} recorded questions of MMLU-Pro: the server replays what {len(names)} candidates really said. "
        "USD is for question and answer at the prices of the time.\n"
    )
    return DemoSet(
        about,
        texts,
        names,
        np.array(right, dtype=float),
        call_usd(texts, lengths, zoo),
        AnswerBook.from_outputs(RECORDS / "items.parquet", outputs),
        Router.from_pretrained(zoo=zoo, repeats=len(texts)),
    )


def call_usd(texts: Sequence[str], lengths: NDArray[np.float64], zoo: Zoo) -> NDArray[np.float64]:
    """(N, M): question and answer, whose lengths (N, M) are in tokens, at the zoo's prices; NaN where unknown."""

    def price(usd: float | None) -> float:
        return math.nan if usd is None else usd / 1e6

    sent = np.array([len(text) / CHARS_PER_TOKEN for text in texts])[:, None]
    usd_in = np.array([price(c.usd_per_mtok_in) for c in zoo])
    usd_out = np.array([price(c.usd_per_mtok_out) for c in zoo])
    usd: NDArray[np.float64] = sent * usd_in + lengths * usd_out
    return usd
