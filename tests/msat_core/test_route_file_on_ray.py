"""Routing on a real local Ray, in a process of its own: the same bytes, also where a worker is killed."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from msat_core import Router, route_file

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed: the extra `ray`"),
    pytest.mark.timeout(600),
]

ZOO = ["gpt-5-mini", "Meta-Llama-3.1-70B-Instruct", "DeepSeek-Coder-V2"]
N_ROWS, PART_ROWS = 90, 9
RUN = f"""
import sys
from msat_core import Router, route_file
router = Router.from_pretrained(zoo={ZOO!r})
result = route_file(sys.argv[1], sys.argv[2], router, part_rows={PART_ROWS}, ray=True, workers=2)
assert (result.n_rows, result.n_parts, result.n_failed) == ({N_ROWS}, {N_ROWS // PART_ROWS}, 0)
"""


def worker_of(process: subprocess.Popen[bytes]) -> psutil.Process:
    """One of the processes that hold a router."""
    children = psutil.Process(process.pid).children(recursive=True)
    return next(child for child in children if "PartRouter" in "".join(child.cmdline()))


def test_a_killed_worker_loses_and_doubles_nothing(tmp_path: Path) -> None:
    texts = [f"Question {i}: {'explain how an enzyme binds ' * (5 + i % 20)}" for i in range(N_ROWS)]
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps({"id": i, "instruction": text}) + "\n" for i, text in enumerate(texts)))
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-c", RUN, source, tmp_path / "ray"], stdout=log, stderr=log)
    while process.poll() is None and not list((tmp_path / "ray").glob("part-*")):
        time.sleep(0.01)
    assert process.poll() is None, (tmp_path / "log").read_text()
    killed = worker_of(process)
    os.kill(killed.pid, signal.SIGKILL)
    n_parts = len(list((tmp_path / "ray").glob("part-*")))
    assert n_parts < N_ROWS // PART_ROWS  # it had work to do
    assert process.wait() == 0, (tmp_path / "log").read_text()
    assert not killed.is_running() or killed.status() == psutil.STATUS_ZOMBIE
    alone = Router.from_pretrained(zoo=ZOO)
    route_file(source, tmp_path / "alone", alone, part_rows=PART_ROWS)
    parts = sorted(path.name for path in (tmp_path / "alone").glob("part-*"))
    assert (
        parts == sorted(path.name for path in (tmp_path / "ray").glob("part-*")) and len(parts) == N_ROWS // PART_ROWS
    )
    for name in parts:
        assert (tmp_path / "ray" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()
