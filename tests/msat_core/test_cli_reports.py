"""What `msat` says while it works and when it is done, where nobody looks at a terminal."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from commands import msat, written
from support import profile, synthetic_records

from msat_core import Assessment, TableScorer, Zoo
from msat_core.cli.shared import progress_bars

NAMES = ["familya-0", "familyc-2"]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MSAT_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def test_an_explanation_is_part_of_the_object(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = msat(capsys, "route", "Which enzyme unwinds DNA?", "--json", "--explain")
    assert code == 0, err
    decision = json.loads(out)
    assert len(decision["nearest_tasks"]) == 4
    for results in decision["nearest_tasks"].values():
        assert set(results) <= set(decision["ranking"])
        assert decision["candidate"] in results
        assert all(cell is None or 0 <= cell[0] <= cell[1] for cell in results.values())
    _, out, _ = msat(capsys, "route", "Which enzyme unwinds DNA?", "--json")
    assert "nearest_tasks" not in json.loads(out)


def test_off_a_terminal_progress_is_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with progress_bars() as advance:
        for done in range(1, 31):
            now[0] += 1.0
            advance("a long [red]name of what is done: " * 9, done, 30)
    out, err = capsys.readouterr()
    assert not out
    lines = err.splitlines()
    assert [line.rsplit(": ", 1)[1] for line in lines] == ["10 of 30", "20 of 30", "30 of 30"]
    assert "[red]" in lines[0]


def test_published_scores_are_evaluated_without_a_reference_exam(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = str(written(synthetic_records(n_items=24, n_candidates=3), tmp_path / "records"))
    table, profiles = tmp_path / "table.csv", str(tmp_path / "profiles")
    rows = [f"{name},{task},0.{6 + i},100" for i, name in enumerate(NAMES) for task in ("algebra", "law")]
    table.write_text("\n".join(["model,task,accuracy,n_questions", *rows]) + "\n")
    assert msat(capsys, "profile", "from-scores", str(table), "--out", profiles)[0] == 0
    code, out, err = msat(capsys, "evaluate", folder, "--profiles", profiles, "--json")
    assert code == 0, err
    report = json.loads(out)
    assert report["overall"]["n_instructions"] == 24
    assert "reference_winner" not in report["overall"]
    assert "routed_minus_best_single" in report["intervals"]
    code, out, err = msat(capsys, "evaluate", folder, "--profiles", profiles)
    assert code == 0, err
    assert "best_single" in out and "reference_winner" not in out
    code, _, err = msat(capsys, "evaluate", folder, "--profiles", profiles, "--baselines", "knn")
    assert (code, err.count("\n")) == (2, 1)


def test_a_name_that_the_records_have_not_is_one_short_sentence(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = str(written(synthetic_records(n_items=12, n_candidates=20), tmp_path / "records"))
    for name, said in (("familyc2", "did you mean familyc-2"), ("nobody", "they know familya-0, familyb-1")):
        code, _, err = msat(capsys, "profile", "from-records", folder, "--model", name, "--out", str(tmp_path / "out"))
        assert (code, said in err, len(err) < 200) == (2, True, True), err


@pytest.mark.parametrize("command", [["evaluate", "r", "--profiles", "p"], ["train", "r", "--out", "o"]])
def test_a_seed_is_checked_before_the_work(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = msat(capsys, *command, "--seed", "-1")
    assert (code, "--seed" in err) == (2, True), err


def test_nobodys_exam_is_no_exam_of_one_question() -> None:
    records, scorer = synthetic_records(n_items=24, n_candidates=3), TableScorer()
    profiles = [profile(name) for name in NAMES]
    report = Assessment(scorer, profiles, Zoo.of(profiles), []).evaluate(records).to_json()
    assert report["overall"]["n_instructions"] == 24
    assert "reference_winner" not in report["overall"]
