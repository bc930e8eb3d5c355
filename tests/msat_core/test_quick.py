"""The quick exam: which questions, in closed form, and what is shipped."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from commands import msat
from support import RECORDS

from msat_core import CompactScorer, Exam, Zoo, pretrained
from msat_core.aptitude.adaptive import LogitPosterior
from msat_core.aptitude.paper import shorten
from msat_core.aptitude.quick import QuickExams
from msat_core.aptitude.quick_choice import MAX_QUESTIONS, _expected_best, _Worth, choose_quick
from msat_core.errors import ConfigurationError
from msat_core.exam import ExamSheet, ExamTask


@pytest.mark.parametrize("folder", [pretrained.EXAM, pretrained.EXAM_REASONING])
def test_what_is_shipped_covers_every_task_and_holds_no_text(folder: Path) -> None:
    exam = Exam.load(folder)
    shots = shorten(exam, quick=True)
    assert len(shots) == len({shot.item_id for shot in shots}) <= MAX_QUESTIONS
    assert {shot.task for shot in shots} == {task.task for task in exam.sheet.tasks}
    chosen = QuickExams.load(pretrained.QUICK).chosen[exam.digest]
    assert [shot.item_id for shot in shots] == list(chosen)


def test_it_is_asked_for_alone_and_of_a_shipped_exam() -> None:
    exam = Exam.load(pretrained.EXAM)
    with pytest.raises(ConfigurationError, match="either quick, or shots and tasks"):
        shorten(exam, quick=True, n_shots=5)
    own = Exam(exam.sheet.changed(name="mine"))
    with pytest.raises(ConfigurationError, match=r"No quick exam is shipped for 'mine'"):
        shorten(own, quick=True)


@pytest.mark.skipif(not RECORDS.is_dir(), reason=f"no records at {RECORDS}")
def test_the_command_says_what_a_flagship_would_cost(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    asked = ["profile", "run", "--client", "openai:some-model", "--questions", str(RECORDS / "mmlu_pro"), "--quick"]
    code, _, err = msat(capsys, *asked, "--dry-run", "--out", str(tmp_path))
    assert code == 0, err
    assert "100 questions, 100 calls" in err and "at a flagship's 4 and 20 USD per million tokens" in err
    asked += ["--usd-per-mtok-in", "4", "--usd-per-mtok-out", "20"]
    code, text, _ = msat(capsys, *asked, "--dry-run", "--out", str(tmp_path), "--json")
    assert code == 0
    assert 0 < json.loads(text)["usd"] < 1


def test_the_better_of_two_in_closed_form() -> None:
    draws = np.random.default_rng(0).standard_normal(400_000)
    for lead, deviation in ((0.1, 0.2), (-0.3, 0.1), (0.0, 0.05)):
        simulated = np.maximum(lead + deviation * draws, 0).mean()
        assert _expected_best(np.array([lead]), deviation)[0] == pytest.approx(simulated, abs=1e-3)
    assert _expected_best(np.array([0.2, -0.2]), 0).tolist() == [0.2, 0.0]


def test_the_question_that_tells_about_close_rivals_comes_first() -> None:
    """Two independent areas, equally uncertain: in the first the rival is as good, in the second out of reach."""
    block = np.full((3, 3), 1.0) + 0.01 * np.eye(3)
    covariance = np.block([[block, np.zeros((3, 3))], [np.zeros((3, 3)), block]])
    posterior = LogitPosterior(np.zeros(6), covariance)
    rivals = np.array([[0.5]] * 3 + [[0.999]] * 3)
    assert _Worth(posterior, rivals).best(posterior, np.ones(6, dtype=bool)) < 3
    assert _Worth(posterior, rivals[::-1]).best(posterior, np.ones(6, dtype=bool)) >= 3


def test_every_task_is_asked_and_none_much_more_than_others() -> None:
    scorer, shipped = CompactScorer.load(pretrained.SCORER), Exam.load(pretrained.EXAM)
    rivals = [one.profile for one in Zoo.load(pretrained.ZOO) if one.profile.exam_digest == shipped.digest][:3]
    scorer.add_exam(shipped)
    tasks = tuple(ExamTask(task=one.task) for one in shipped.sheet.tasks[:4])
    rows = [i for i, shot in enumerate(shipped.sheet.shots) if shot.task in {one.task for one in tasks}]
    shots = tuple(shipped.sheet.shots[i] for i in rows)
    sheet = ExamSheet(name="part", rule="part", tasks=tasks, shots=shots)
    part = Exam(sheet, {digest: vectors[rows] for digest, vectors in shipped.embeddings.items()})
    chosen = choose_quick(part, scorer, rivals, 6)
    counts = [sum(shot.task == task.task for shot in chosen) for task in sheet.tasks]
    assert len({shot.item_id for shot in chosen}) == sum(counts) == 6
    assert min(counts) >= 1 and max(counts) <= 4
    with pytest.raises(ConfigurationError, match="Expected between 4"):
        choose_quick(part, scorer, rivals, 3)
