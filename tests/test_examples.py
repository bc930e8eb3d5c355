"""The examples run as a user runs them: each in a process of its own, without records or keys."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from demo_report import Application, beside, coin_toss
from demo_sets import OUTCOMES, DemoSet, made_again, reasoning_set, recorded_set
from replay_server import AnswerBook
from support import RECORDS, table_router

from msat_core import Exam, pretrained

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("[0-9]*.py"))
DEMO = EXAMPLES[0]
MOST_LINES = 60
POINTS = re.compile(r"[+-]\d+\.\d points \[[+-]\d+\.\d, [+-]\d+\.\d\]: (better|worse|may be chance)")
SAVING = re.compile(r"saves -?\d+% \[-?\d+%, -?\d+%\]")


def run(example: Path, *arguments: str, records: Path, folder: Path) -> str:
    """What an example prints."""
    environment = {"MSAT_RECORDS": str(records), "MSAT_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(example), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("example", EXAMPLES[1:], ids=lambda path: path.stem)
def test_example_runs(example: Path, tmp_path: Path) -> None:
    assert run(example, records=tmp_path / "none", folder=tmp_path).strip()


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_short(example: Path) -> None:
    assert len(example.read_text().splitlines()) < MOST_LINES


def test_the_demo_needs_no_records(tmp_path: Path) -> None:
    said = run(DEMO, "--per-task", "1", records=tmp_path / "none", folder=tmp_path)
    assert "(0 of 75 came out otherwise)" in said
    assert "openai/o3-mini alone" in said and "oracle" in said and "MMLU-Pro are left out" in said
    assert len(POINTS.findall(said)) == 2 and SAVING.search(said)


@pytest.mark.skipif(not (RECORDS / "mmlu_pro").is_dir(), reason=f"no records at {RECORDS} (set MSAT_RECORDS)")
def test_the_demo_uses_records_that_are_there() -> None:
    questions = recorded_set()
    assert questions.outcomes.shape == questions.usd.shape == (252, 7)
    assert np.isfinite(questions.usd).all()
    first, best = (Application(str(m), [m] * 252) for m in (0, int(questions.outcomes.mean(axis=0).argmax())))
    points, saving, *_ = beside(questions, first, best)
    assert POINTS.fullmatch(points) and SAVING.fullmatch(saving)


def test_a_policy_is_held_against_a_coin_toss_at_its_bill() -> None:
    outcomes, usd = np.array([[1.0, 0.0, 1.0]] * 4), np.array([[3.0, 1.0, np.nan]] * 4)
    questions = DemoSet("", ["?"] * 4, ["dear", "cheap", "unpriced"], outcomes, usd, AnswerBook({}, {}), table_router())
    half = Application("half", [0, 0, 1, 1])
    toss = coin_toss(questions, float(half.of(usd).mean()))
    assert toss is not None and toss.name == "a coin toss between dear (50%) and cheap"
    assert toss.outcomes.tolist() == [0.5] * 4
    assert coin_toss(questions, 4.0) is None
    lines = beside(questions, half, Application("dear", [0] * 4))
    assert lines[0].startswith("-50.0 points") and "saves 33%" in lines[1] and lines[2].startswith("+0.0 points")
    unpriced = beside(questions, Application("unpriced", [2] * 4), half)
    assert unpriced[1] == "saving unknown: 4 calls went to candidates of unknown price"


def test_the_demo_ships_figures_alone() -> None:
    """Of questions that are in no exam, on which candidates scored between nothing and everything."""
    data = json.loads(OUTCOMES.read_text())
    rows = [row for rows in data["tasks"].values() for row in rows]
    assert all(row.keys() == {"index", "id", "scores"} for row in rows)
    assert all(len(row["scores"]) == len(data["candidates"]) for row in rows)
    assert all(0 <= score <= 1 for row in rows for score in row["scores"])
    ids = {row["id"] for row in rows}
    assert len(ids) == len(rows)
    assert not ids & {shot.item_id for exam in pretrained.EXAMS for shot in Exam.load(exam).sheet.shots}
    assert not data["tasks"].keys() & {"graph_color", "rubiks_cube", "boxnet", "rush_hour", "propositional_logic"}


def test_the_demo_replays_right_answers_as_recorded() -> None:
    questions = reasoning_set(per_task=2)
    data = json.loads(OUTCOMES.read_text())
    data["tasks"] = {task: rows[:2] for task, rows in data["tasks"].items()}
    for rows, texts, right in made_again(data):
        for row, text, answer in zip(rows, texts, right, strict=True):
            assert questions.book.find(text) == row["id"]
            for name, score in zip(questions.names, row["scores"], strict=True):
                said = questions.book.answers[name][row["id"]]
                assert (said == f"The answer is {answer}.") == (score > 0.5)
