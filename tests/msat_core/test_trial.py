"""A trial from end to end over real HTTP: its figures are those computed by hand, and nothing is asked twice."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trial_world as world
from commands import msat

from msat_core import CapabilityProfile, Exam, Router, RoutingPolicy, Zoo
from msat_core.aptitude.sitting import Progress, RunSettings
from msat_core.trial.opening import open_trial
from msat_core.trial.report import summary, write_result

pytestmark = [pytest.mark.allow_hosts(["127.0.0.1"]), pytest.mark.timeout(300)]


async def interrupted(folder: Path, files: tuple[Path, Path, Path], n_answers: int) -> None:
    """Run a trial and cancel it once so many questions are answered."""
    questions, candidates, judging = files
    done: Counter[str] = Counter()
    reached = asyncio.Event()

    def told(name: str, now: Progress) -> None:
        done[name] = now.n_done
        if done.total() >= n_answers:
            reached.set()

    trial = open_trial(questions, candidates, judge=judging, run_code=True, settings=RunSettings(concurrency=4))
    run = asyncio.create_task(trial.run(folder, told))
    await reached.wait()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    for one in trial.contenders:
        assert one.client is not None
        await one.client.aclose()


def test_three_hundred_questions_of_five_kinds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], socket_enabled: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    server, out = world.server(), tmp_path / "out"
    with server.running() as url:
        files = world.write_files(tmp_path, url)
        asyncio.run(interrupted(out, files, 100))
        asyncio.run(interrupted(out, files, 700))
        questions, candidates, judging = files
        arguments = ["trial", str(questions), "--candidates", str(candidates), "--out", str(out), "--run-code"]
        arguments += ["--judge", str(judging)]
        code, text, err = msat(capsys, *arguments, "--json")
        assert code == 0, err
        found = json.loads(text)
        names = tuple(world.STRENGTHS)
        asked = Counter((body["model"], body["messages"][-1]["content"]) for body in server.bodies)
        for name in names:  # what was under way when it was interrupted was asked twice, and nothing else
            assert sum(n for (model, _), n in asked.items() if model == name) <= 300 + 2 * 4
            assert len([1 for model, _ in asked if model == name]) == 300
        by_hand(found, server.bodies, names)
        artefacts(out, found, names)
        # Running again asks nobody; a candidate added later costs its own calls and its own letters' judging.
        n_before = server.n_asked
        assert json.loads(msat(capsys, *arguments, "--json")[1]) == found
        assert server.n_asked == n_before
        world.write_files(tmp_path, url, (*names, "later-1"))
        code, text, err = msat(capsys, *arguments, "--json")
        assert code == 0, err
        assert set(json.loads(text)["candidates"]) == {*names, "later-1"}
        new = server.n_asked - n_before
        assert new["later-1"] == 300
        given = {
            name: {i: world.is_right(name, "letters", i) for i in range(world.N_EACH)} for name in (*names, "later-1")
        }
        unheard = [i for i, right in given["later-1"].items() if all(given[name][i] != right for name in names)]
        assert set(new) <= {"later-1", "judge-1"}
        assert new["judge-1"] == len(unheard)  # its other letters are replies that were judged before


def by_hand(found: dict[str, Any], bodies: list[Any], names: tuple[str, ...]) -> None:
    """Accuracy and cost of every candidate alone."""
    for name in names:
        outcomes = [world.outcome(name, kind, i) for kind in world.KINDS for i in range(world.N_EACH)]
        assert found["candidates"][name]["accuracy"] == pytest.approx(np.mean(outcomes))
        assert found["candidates"][name]["missing"] == {}
    answers = {}
    for kind in world.KINDS:
        for i in range(world.N_EACH):
            said = world.reply(kind, i, world.is_right("sums-9", kind, i))
            message = {"content": said} if isinstance(said, str) else said["message"]
            prompt = world.question(kind, i)["instruction"]
            answers[kind, i] = 2.0 * (len(prompt) // 4 + 1) + 8.0 * (len(json.dumps(message)) // 4 + 1)
    assert found["candidates"]["sums-9"]["usd_per_1000"] == pytest.approx(np.mean(list(answers.values())) / 1e6 * 1000)
    assert found["n_questions"] == found["n_asked"] == 300
    assert found["use_alone"] is None  # strengths differ by kind: routing must pay
    best = max(found["candidates"].values(), key=lambda one: one["accuracy"])["accuracy"]
    assert found["router"]["accuracy"] > best + 0.1
    assert found["router"]["gain"]["low"] > 0
    assert 0 < found["guarantee"]["accuracy"] < found["router"]["accuracy"]
    assert found["usd"] > 0


def artefacts(out: Path, found: dict[str, Any], names: tuple[str, ...]) -> None:
    """The folder routes as it is, and its page can be read by itself."""
    zoo = Zoo.load(out / "zoo.json")
    assert zoo.names == names
    exam = Exam.load(out / "exam")
    for name in names:
        profile = CapabilityProfile.load(out / "profiles" / f"{name}.json")
        assert profile == zoo[name].profile
        assert profile.exam_digest == exam.digest
        assert profile.accuracy == pytest.approx(found["candidates"][name]["accuracy"], abs=1e-6)
    router = Router.from_pretrained(zoo=out)
    assert router.policy == RoutingPolicy.load(out / "policy.json")
    assert router.route("Add 5 and 12, and give only the number.").candidate == "sums-9"
    assert router.route("Write a kind letter to customer number 99 whose parcel is late.").candidate == "writer-9"
    page = (out / "report.html").read_text()
    assert page.index("Route: ") < page.index("The candidates alone")
    assert "http" not in page.replace("http-equiv", "")
    assert json.loads((out / "trial.json").read_text()) == found


def recorded(rows: list[dict[str, Any]], names: tuple[str, ...], folder: Path, **options: Any) -> dict[str, Any]:
    """A trial of earlier outcomes alone; nobody is asked."""
    questions, candidates = folder / "q.jsonl", folder / "c.json"
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    prices = {"usd_per_mtok_in": 1.0, "usd_per_mtok_out": 1.0}
    candidates.write_text(json.dumps([{"name": name, **prices} for name in names]))
    result = asyncio.run(open_trial(questions, candidates, **options).run(folder))
    write_result(result, folder)
    return summary(result)


def rows_of(strengths: Mapping[str, tuple[int, ...]]) -> list[dict[str, Any]]:
    """The questions with outcomes: each candidate right on the first so many of each kind, strewn."""
    rows = []
    for k, kind in enumerate(world.KINDS):
        for i in range(40):
            scores = {name: float((i * 7 + 3 * j) % 40 < s[k]) for j, (name, s) in enumerate(strengths.items())}
            rows.append({"instruction": world.question(kind, i)["instruction"], "task": kind, "scores": scores})
    return rows


def test_one_that_is_always_ahead_is_used_alone(tmp_path: Path) -> None:
    strengths = {"strong": (38, 38, 38, 38, 38), "weak": (10, 10, 10, 10, 10), "weaker": (6, 6, 6, 6, 6)}
    found = recorded(rows_of(strengths), tuple(strengths), tmp_path)
    assert found["use_alone"] == "strong"
    assert not found["router"]["advised"]
    page = (tmp_path / "report.html").read_text()
    assert page.index("Use strong alone") < page.index("The candidates alone")
    router = Router.from_pretrained(zoo=tmp_path)
    assert {router.route(row["instruction"]).candidate for row in rows_of(strengths)[:20]} == {"strong"}


def test_the_guaranteed_part_is_never_the_exams(tmp_path: Path) -> None:
    strengths = {"a": (39, 39, 10, 10, 20), "b": (10, 10, 39, 39, 30)}
    found = recorded(rows_of(strengths), tuple(strengths), tmp_path, target=0.5)
    promise = found["guarantee"]
    assert promise["target"] == promise["accuracy"] == 0.5
    exam = Exam.load(tmp_path / "exam")
    assert len(exam.sheet.shots) + promise["n_questions"] == 200
    assert RoutingPolicy.load(tmp_path / "policy.json").target == promise["threshold"]
    impossible = recorded(rows_of(strengths), tuple(strengths), tmp_path, target=0.999)["guarantee"]
    assert impossible["threshold"] is None
    assert 0 < impossible["accuracy"] < 0.999
    assert "No threshold reaches" in (tmp_path / "report.html").read_text()
