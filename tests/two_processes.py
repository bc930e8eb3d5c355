"""Run by `torchrun` in two processes, and in one: writes the losses of a small training run.

python two_processes.py {model-sat,encoder} FOLDER
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch
from support import synthetic_records
from tiny import bert, tiny_assembly, tiny_config

from msat_core import StageSettings, TrainingSettings, TuningSettings, tune_encoder
from msat_core.training.model_sat.loop import TrainingLoop

STEADY = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}  # each process would draw its own


def model_sat(folder: Path, n_processes: int) -> list[float]:
    """Groups of different sizes of evidence, all losses, both stages; four groups a step between the processes."""
    encoder = bert()
    encoder = encoder.model_copy(update={"config": {**(encoder.config or {}), **STEADY}, "tuning": "full"})
    settings = TrainingSettings(
        model=tiny_config(encoder=encoder),
        stages=(
            StageSettings(steps=2, train="connector", connector_learning_rate=1e-2),
            StageSettings(steps=4, learning_rate=3e-4, connector_learning_rate=3e-4),
        ),
        loss="both",
        level=1.0,
        candidates_per_group=2,
        group_size=4,
        groups_per_step=4 // n_processes,
        exam_tasks=2,
        exam_shots=5,
        shuffle_tasks=False,
    )
    losses: list[float] = []
    records = synthetic_records()
    loop = TrainingLoop(
        tiny_assembly(encoder=encoder), records, settings, folder, lambda metrics: losses.append(metrics["loss"])
    )
    loop.run()
    return losses


def encoder(folder: Path, n_processes: int) -> list[float]:
    """Seven steps, one of a single row, of which the second process has none."""
    from msat_core.encoders.published import published_encoder
    from msat_core.encoders.torch_encoder import TorchEncoder

    records = synthetic_records().select_items(range(97))
    device = "cpu" if "ACCELERATE_USE_CPU" in os.environ else None
    published = TorchEncoder(published_encoder(), device=device)
    losses: list[float] = []
    settings = TuningSettings(layers=1, rank=4, batch_size=16, dropout=0.0)
    vectors = published.encode(records.instructions).vectors
    tune_encoder(records, vectors, published, settings, on_loss=losses.append)
    return losses


if __name__ == "__main__":
    torch.set_num_threads(1)
    place = Path(sys.argv[2])
    count, rank = int(os.environ.get("WORLD_SIZE", "1")), os.environ.get("RANK", "0")
    found = {"model-sat": model_sat, "encoder": encoder}[sys.argv[1]](place, count)
    (place / f"losses-{count}-{rank}.json").write_text(json.dumps(found))
