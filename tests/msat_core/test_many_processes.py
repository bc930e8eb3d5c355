"""Training on two processes has the losses of training on one (accelerate, gloo, fp32)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

pytestmark = pytest.mark.timeout(600)  # six interpreters load torch

SCRIPT = Path(__file__).parents[1] / "two_processes.py"
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def losses(what: str, folder: Path, *launcher: str, device: str = "cpu") -> dict[str, list[float]]:
    """Of each process, by its number."""
    folder.mkdir(exist_ok=True)
    alone = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
    env = {**alone, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    env |= {"ACCELERATE_USE_CPU": "true"} if device == "cpu" else {}
    command = [sys.executable, *launcher, str(SCRIPT), what, str(folder)]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    count = 2 if launcher else 1
    return {path.stem[-1]: json.loads(path.read_text()) for path in folder.glob(f"losses-{count}-*.json")}


@pytest.mark.parametrize("what", ["model-sat", "encoder"])
def test_two_processes_have_the_losses_of_one(tmp_path: Path, what: str) -> None:
    (expected,) = losses(what, tmp_path).values()
    both = losses(what, tmp_path, *TORCHRUN)
    assert sorted(both) == ["0", "1"] and len(expected) >= 6
    np.testing.assert_allclose(both["0"], expected, rtol=0, atol=1e-5)
    assert both["1"] == (both["0"] if what == "encoder" else [])  # the main process alone reports
    assert len({round(loss, 4) for loss in expected}) == len(expected)  # it moves, so that equal losses say something


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.parametrize("what", ["model-sat", "encoder"])
def test_two_gpus_have_the_losses_of_one(tmp_path: Path, what: str) -> None:
    (expected,) = losses(what, tmp_path, device="cuda").values()
    np.testing.assert_allclose(losses(what, tmp_path, *TORCHRUN, device="cuda")["0"], expected, rtol=0, atol=1e-3)
