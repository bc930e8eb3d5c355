"""A whole exam against a server with faults, ten kill -9, peak memory, and throughput beside a bare loop.

    python examples/reproduce/exam_run.py faults        # 10% 429, 5% 500, 2% timeouts, 1% garbage, a minute of refusal
    python examples/reproduce/exam_run.py kills         # the same faults without the refusal, killed ten times
    python examples/reproduce/exam_run.py throughput    # concurrency 64, in turns with a bare asyncio + openai loop

The server (``examples/replay_server.py``, a process of its own) answers as the records say; every profile is compared
with the recorded outcomes question for question. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common import ROOT, records_folder

from msat_core import AptitudeTest, CapabilityProfile, ExamPaper, QuestionSet, Records
from msat_core.aptitude.protocols import ZERO_SHOT

MODEL = "gemini-1.5-pro-002"
FAULTS = {"rate-429": 0.10, "rate-500": 0.05, "rate-timeout": 0.02, "rate-garbage": 0.01, "hang-s": 8}
REFUSAL = {"refuse-after": 400, "refuse-s": 60}
KILLS = 10
CONCURRENCY = 64
ROUNDS = 5
MSAT = [sys.executable, "-c", "from msat_core.cli import main; main()"]
MEMORY = "import resource; print('peak_kib', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
LOADED = "print('torch_loaded', 'torch' in sys.modules)"
WATCHED = f"import sys\nfrom msat_core.cli import main\ntry:\n    main()\nfinally:\n    {MEMORY}\n    {LOADED}"


def main() -> None:
    """Run one of the three measurements."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("faults", "kills", "throughput"))
    what = parser.parse_args().what
    with tempfile.TemporaryDirectory() as folder:
        result = {"faults": with_faults, "kills": with_kills, "throughput": throughput}[what](Path(folder))
    print(json.dumps(result, indent=1))


def with_faults(folder: Path) -> dict[str, Any]:
    """One uninterrupted run through all faults and a minute of refusal."""
    with server({**FAULTS, **REFUSAL}) as url:
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", WATCHED, *arguments(folder, url)], capture_output=True, text=True, env=os.environ
        )
        elapsed = time.perf_counter() - started
        stats = stats_of(url)
    facts = dict(line.split() for line in done.stdout.splitlines() if line.startswith(("peak_kib", "torch_loaded")))
    return {
        "exit_code": done.returncode,
        "seconds": round(elapsed, 1),
        "peak_mb": round(int(facts["peak_kib"]) / 1024),
        "torch_loaded": facts["torch_loaded"],
        "differs_from_records": differences(folder),
        "server": stats,
    }


def with_kills(folder: Path) -> dict[str, Any]:
    """Killed at ten random moments, then finished; beside it one run that is left alone."""
    draw = random.Random(0)
    journal = folder / "killed" / "journals" / f"{MODEL}.{ZERO_SHOT.name}.jsonl"
    kills, lines = 0, []
    with server(FAULTS) as url:
        for share in sorted(draw.random() for _ in range(KILLS)):
            running = subprocess.Popen([*MSAT, *arguments(folder / "killed", url, 16)], **QUIET)
            aim = int(share * 1000)
            while running.poll() is None and n_lines(journal) <= aim:
                time.sleep(draw.random() * 0.02)
            running.send_signal(signal.SIGKILL)
            kills += running.wait() == -signal.SIGKILL
            lines.append(n_lines(journal))
        subprocess.run([*MSAT, *arguments(folder / "killed", url, 16)], check=True, **QUIET)
        stats = stats_of(url)
        subprocess.run([*MSAT, *arguments(folder / "whole", url, 16)], check=True, **QUIET)
    entries = [json.loads(line) for line in journal.read_text().splitlines()[1:]]
    same = [profile_file(folder / which).read_bytes() for which in ("killed", "whole")]
    return {
        "kills": kills,
        "journal_lines_at_each_kill": lines,
        "differs_from_records": differences(folder / "killed"),
        "profile_same_as_uninterrupted": same[0] == same[1],
        "answers_in_journal": len(entries),
        "distinct_questions_in_journal": len({entry["item_id"] for entry in entries}),
        "answers_given_by_server": stats["answered"][MODEL],
    }


def throughput(folder: Path) -> dict[str, Any]:
    """The runner and a bare loop in turns, each in a process of its own, timed from first call to last answer."""
    ours: list[float] = []  # seconds
    bare: list[float] = []
    with server({"latency-s": 0.05}) as url:
        for turn in range(ROUNDS):
            for times, kind in ((bare, "bare"), (ours, "ours")):
                done = subprocess.run(
                    [sys.executable, __file__, "--", kind, url, str(folder / f"{kind}{turn}")],
                    capture_output=True,
                    text=True,
                    check=True,
                    env=os.environ,
                )
                times.append(float(done.stdout))
    return {
        "concurrency": CONCURRENCY,
        "bare_s": bare,
        "ours_s": ours,
        "ratio_of_medians": round(sorted(ours)[ROUNDS // 2] / sorted(bare)[ROUNDS // 2], 3),
    }


def timed(kind: str, url: str, folder: Path) -> float:
    """Seconds that 1,000 questions take, the paper being ready."""
    test = AptitudeTest.load()
    paper = ExamPaper.of(test.exam, QuestionSet.load(records_folder() / "mmlu_pro"), ZERO_SHOT)
    return asyncio.run(bare_loop(paper, url) if kind == "bare" else our_run(test, paper, url, folder))


async def bare_loop(paper: ExamPaper, url: str) -> float:
    """Asyncio and openai, and nothing else."""
    import openai

    client = openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0, timeout=None)
    prompts = [paper.prompt(item_id) for item_id in paper.item_ids]
    gate = asyncio.Semaphore(CONCURRENCY)

    async def ask(prompt: str) -> None:
        async with gate:
            messages: Any = [{"role": "user", "content": prompt}]
            await client.chat.completions.create(model=MODEL, messages=messages, temperature=0, max_tokens=2048)

    started = time.perf_counter()
    await asyncio.gather(*map(ask, prompts))
    return time.perf_counter() - started


async def our_run(test: AptitudeTest, paper: ExamPaper, url: str, folder: Path) -> float:
    """The runner with its journal, marking and progress."""
    from msat_core.aptitude.openai_client import OpenAIClient
    from msat_core.aptitude.sitting import RunSettings
    from msat_core.cli.profile_run import progress_bar

    client = OpenAIClient(MODEL, base_url=url)
    started = time.perf_counter()
    with progress_bar() as progress:
        settings = RunSettings(concurrency=CONCURRENCY)
        await test.sit(paper, client, folder / "journal.jsonl", settings=settings, progress=progress)
    return time.perf_counter() - started


QUIET: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": os.environ}


def arguments(folder: Path, url: str, concurrency: int = CONCURRENCY) -> list[str]:
    """Of ``msat``, for a whole exam."""
    return [
        "profile", "run", "--client", f"openai:{MODEL}", "--base-url", url, "--out", str(folder),
        "--questions", str(records_folder() / "mmlu_pro"), "--concurrency", str(concurrency), "--timeout", "5",
    ]  # fmt: skip


@contextlib.contextmanager
def server(faults: dict[str, float]) -> Iterator[str]:
    """The replay server in a process of its own; yields its URL."""
    options = [text for name, value in faults.items() for text in (f"--{name}", str(value))]
    command = [sys.executable, str(ROOT / "examples" / "replay_server.py"), "--model", MODEL, *options]
    process = subprocess.Popen(
        [*command, "--records", str(records_folder() / "mmlu_pro")], stdout=subprocess.PIPE, text=True, env=os.environ
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait()


def stats_of(url: str) -> dict[str, Any]:
    """What the server counted."""
    with urllib.request.urlopen(url.removesuffix("/v1") + "/stats") as reply:
        found: dict[str, Any] = json.load(reply)
    return found


def n_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def profile_file(folder: Path) -> Path:
    return folder / f"{MODEL}.json"


def differences(folder: Path) -> int:
    """Exam questions whose mark in the profile is not the recorded outcome."""
    truth = AptitudeTest.load().profile_from_records(Records.load(records_folder() / "mmlu_pro"), MODEL).shots
    found = CapabilityProfile.load(profile_file(folder)).shots
    return sum(found.get(item_id) != truth.get(item_id) for item_id in {**truth, **found})


if __name__ == "__main__":
    if sys.argv[1] == "--":
        print(timed(sys.argv[2], sys.argv[3], Path(sys.argv[4])))
    else:
        main()
