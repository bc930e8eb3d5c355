"""`msat profile run` against a real local server: faults, kill -9, refusals; and `msat aptitude select`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import exam_world
import pytest
from commands import msat, written
from replay_server import AnswerBook, Faults, ReplayApp, serve

from msat_core import AptitudeTest, CapabilityProfile
from msat_core.aptitude.openai_client import OpenAIClient, client_named
from msat_core.aptitude.sitting import RunSettings
from msat_core.errors import ConfigurationError

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(records folder, exam folder)."""
    root = tmp_path_factory.mktemp("world")
    return exam_world.write_records(root / "toy"), exam_world.exam().save(root / "exam")


@pytest.fixture
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("msat_core.aptitude.paid_calls.FIRST_BACKOFF_S", 0.005)


@pytest.fixture
def app() -> ReplayApp:
    book = {q.item_id: q.with_options() for q in exam_world.questions()}
    return ReplayApp(AnswerBook(book, {"toy-1": {i: exam_world.answer_to(text) for i, text in book.items()}}))


@pytest.fixture
def url(app: ReplayApp, socket_enabled: None) -> Iterator[str]:
    with serve(app) as address:
        yield address


def run_arguments(world: tuple[Path, Path], out: Path, url: str) -> list[str]:
    records, exam = world
    return [
        "profile", "run", "--client", "openai:toy-1", "--base-url", url, "--questions", str(records),
        "--exam", str(exam), "--out", str(out),
    ]  # fmt: skip


def test_run_makes_a_profile_and_running_again_asks_nothing(
    capsys: pytest.CaptureFixture[str], world: tuple[Path, Path], tmp_path: Path, no_key: None, app: ReplayApp, url: str
) -> None:
    arguments = run_arguments(world, tmp_path, url)
    code, out, err = msat(capsys, *arguments, "--json")
    assert code == 0, err
    assert "12 questions, 12 calls, zero-shot-cot" in err
    result = json.loads(out)
    assert (result["accuracy"], result["n_shots"], result["complete"]) == (pytest.approx(8 / 12), 12, True)
    first = Path(result["file"]).read_text()
    profile = CapabilityProfile.load(result["file"])
    assert profile.shots == exam_world.truth()
    assert (tmp_path / "exams" / profile.exam_digest[:16] / "exam.json").is_file()
    n_requests = app.stats.requests["toy-1"]
    code, out, _ = msat(capsys, *arguments)
    assert code == 0
    assert "0.667 [0.391, 0.862] on 12 questions" in out
    assert app.stats.requests["toy-1"] == n_requests
    assert Path(result["file"]).read_text() == first


def test_injected_faults_change_nothing(
    capsys: pytest.CaptureFixture[str], world: tuple[Path, Path], tmp_path: Path, no_key: None, app: ReplayApp, url: str
) -> None:
    app.faults = Faults(rate_429=0.2, rate_500=0.1, rate_timeout=0.1, rate_garbage=0.2, hang_s=1.0)
    code, out, err = msat(capsys, *run_arguments(world, tmp_path, url), "--timeout", "0.3", "--json")
    assert code == 0, err
    assert CapabilityProfile.load(json.loads(out)["file"]).shots == exam_world.truth()
    assert app.stats.faults["garbage"] + app.stats.faults["429"] > 0


def test_kill_nine_at_any_moment_changes_nothing(
    world: tuple[Path, Path], tmp_path: Path, no_key: None, app: ReplayApp, url: str
) -> None:
    """A run that is killed asks every question that was journalled once, and ends in the same profile.

    ``examples/reproduce/exam_run.py`` does it ten times over a whole exam with faults.
    """
    app.faults = Faults(latency_s=0.1)
    command = [sys.executable, "-c", "from msat_core.cli import main; main()"]
    arguments = [*run_arguments(world, tmp_path / "killed", url), "--concurrency", "2"]
    journal = tmp_path / "killed" / "journals" / "toy-1.zero-shot-cot.jsonl"
    running = subprocess.Popen([*command, *arguments], stderr=subprocess.DEVNULL, env=os.environ)
    while running.poll() is None and not (journal.exists() and journal.read_bytes().count(b"\n") >= 5):
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL
    done = subprocess.run([*command, *arguments, "--json"], capture_output=True, text=True, env=os.environ, check=True)
    profile = CapabilityProfile.load(json.loads(done.stdout)["file"])
    assert profile.shots == exam_world.truth()
    # at most the two calls under way at the kill were answered without being written down
    assert 12 <= app.stats.requests["toy-1"] <= 12 + 2
    lines = journal.read_text().splitlines()
    assert len(lines) == len({json.loads(line).get("item_id") for line in lines}) == 13


def test_the_run_loads_no_torch(world: tuple[Path, Path], tmp_path: Path, no_key: None, url: str) -> None:
    code = (
        "import sys\nfrom msat_core.cli import main\ntry:\n main()\nfinally:\n"
        " print([n for n in ('torch', 'transformers', 'sklearn', 'datasets') if n in sys.modules])"
    )
    command = [sys.executable, "-c", code, *run_arguments(world, tmp_path, url), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_dry_run_calls_nobody(
    capsys: pytest.CaptureFixture[str], world: tuple[Path, Path], tmp_path: Path, no_key: None, app: ReplayApp, url: str
) -> None:
    prices = ["--usd-per-mtok-in", "1", "--usd-per-mtok-out", "2", "--shots", "2", "--rotate", "1"]
    code, out, err = msat(capsys, *run_arguments(world, tmp_path, url), "--dry-run", "--json", *prices)
    assert code == 0
    assert "6 questions, at most 12 calls" in err
    result = json.loads(out)
    assert (result["n_questions"], result["n_calls"]) == (6, 12)
    assert result["usd"] == pytest.approx((result["input_tokens"] + 2 * result["output_tokens"]) / 1e6)
    assert not app.stats.requests
    assert list(tmp_path.iterdir()) == []


def test_a_run_out_of_budget_says_how_to_go_on(
    capsys: pytest.CaptureFixture[str], world: tuple[Path, Path], tmp_path: Path, no_key: None, url: str
) -> None:
    prices = ["--usd-per-mtok-in", "10", "--usd-per-mtok-out", "10", "--max-tokens", "30"]
    arguments = [*run_arguments(world, tmp_path, url), *prices, "--json"]
    code, out, err = msat(capsys, *arguments, "--max-usd", "0.004")
    assert code == 3
    assert "the same command with a higher --max-usd" in err
    result = json.loads(out)
    assert not result["complete"] and 0 < result["usd"] <= 0.004 and 0 < result["n_shots"] < 12
    code, out, _ = msat(capsys, *arguments, "--max-usd", "1")
    assert code == 0
    assert json.loads(out)["n_shots"] == 12


@pytest.mark.parametrize(
    ("extra", "sentence"),
    [
        (["--client", "anthropic:claude"], "names no client: expected openai:NAME"),
        (["--protocol", "ten-shot"], "There is no protocol 'ten-shot'"),
        (["--protocol", "five-shot-cot"], "shows 5 worked examples"),
        (["--max-usd", "1"], "A spending cap needs prices"),
        (["--exam", "nowhere"], "Cannot read nowhere/exam.json"),
        (["--revision", "main"], "names a version on the hub"),
    ],
)
def test_a_users_mistake_is_one_sentence(
    capsys: pytest.CaptureFixture[str],
    world: tuple[Path, Path],
    tmp_path: Path,
    no_key: None,
    extra: list[str],
    sentence: str,
) -> None:
    code, out, err = msat(capsys, *run_arguments(world, tmp_path, "http://127.0.0.1:1/v1"), *extra)
    assert (code, out) == (2, "")
    assert sentence in err
    assert "Traceback" not in err


def test_a_refusal_and_another_sitting_are_one_sentence(
    capsys: pytest.CaptureFixture[str], world: tuple[Path, Path], tmp_path: Path, no_key: None, url: str
) -> None:
    arguments = run_arguments(world, tmp_path, url)
    code, _, err = msat(capsys, *arguments, "--client", "openai:nobody")
    assert code == 2
    assert "refuses (NotFoundError" in err and "run the same command again" in err
    assert msat(capsys, *arguments)[0] == 0
    code, _, err = msat(capsys, *arguments, "--temperature", "1")
    assert code == 2
    assert "is the journal of another sitting: its settings is" in err


def test_openai_itself_needs_a_key(no_key: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="set OPENAI_API_KEY"):
        OpenAIClient("gpt-4o")
    monkeypatch.setenv("OPENAI_API_KEY", "secret-key")
    client = client_named("openai:gpt-4o", base_url="https://user:secret@host.example:8443/v1/")
    assert client.source == "openai:gpt-4o at https://host.example:8443/v1"
    assert "secret" not in json.dumps([client.source, dict(client.settings)])


async def test_from_python_with_a_client(world: tuple[Path, Path], tmp_path: Path, no_key: None, url: str) -> None:
    client = OpenAIClient("toy-1", base_url=url)
    profile = await AptitudeTest.load(world[1]).run(
        client, world[0], protocol="zero-shot-cot", journal=tmp_path / "j", settings=RunSettings(concurrency=4)
    )
    await client.aclose()
    assert profile.shots == exam_world.truth()
    assert profile.provenance.source == f"openai:toy-1 at {url}"


def test_select_builds_an_exam_of_own_questions(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from support import synthetic_records

    records = written(synthetic_records(n_items=120, n_candidates=5), tmp_path / "toy")
    arguments = ["aptitude", "select", str(records), "--tasks", "2", "--shots", "5", "--out", str(tmp_path / "exam")]
    code, out, err = msat(capsys, *arguments, "--json")
    assert code == 0, err
    assert (json.loads(out)["n_tasks"], json.loads(out)["n_shots"]) == (2, 10)
    loaded = AptitudeTest.load(tmp_path / "exam")
    assert loaded.exam.digest == json.loads(out)["exam"]
    assert loaded.exam.embeddings
    elsewhere = [str(tmp_path / "other") if one == str(tmp_path / "exam") else one for one in arguments]
    code, _, err = msat(capsys, *elsewhere, "--rule", "hardest")
    assert code == 2
    assert "There is no rule 'hardest'" in err
