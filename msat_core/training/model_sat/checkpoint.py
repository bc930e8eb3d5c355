"""Checkpoints that resume exactly: trained tensors, optimiser state and the step, without pickle.

Randomness needs no file: every pass seeds itself from (seed, step, process). State is gathered from all
processes first, so a checkpoint does not depend on how a run was sharded.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from msat_core.errors import ArtefactError
from msat_core.files import move, scratch_folder, writing
from msat_core.reading import open_regular, read_json

PREFIX = "checkpoint-"
WEIGHTS, OPTIMISER, PROGRESS = "weights.safetensors", "optimiser.safetensors", "progress.json"
_WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)
_PARTIAL = StateDictOptions(full_state_dict=True, cpu_offload=True, strict=False)


@dataclass(frozen=True)
class Snapshot:
    """A run's state on one process's CPU.

    Attributes:
        step: optimiser steps done.
        run: digest of the settings and records that the run was started with.
        tensors: the trained part of the network.
        optimiser: AdamW's ``state`` by parameter name, and its ``param_groups``.
        extra: whatever else the loop must know, as JSON.
    """

    step: int
    run: str
    tensors: Mapping[str, Tensor]
    optimiser: Mapping[str, Any]
    extra: Mapping[str, Any] = field(default_factory=dict)


def whole_state(module: nn.Module) -> dict[str, Tensor]:
    """The network's tensors, gathered from all processes; on the CPU of the first."""
    return cast(dict[str, Tensor], get_model_state_dict(module, options=_WHOLE))


def optimiser_state(module: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Any]:
    """The optimiser's state by parameter name, gathered likewise."""
    return dict(get_optimizer_state_dict(module, optimiser, options=_WHOLE))


def restore(module: nn.Module, optimiser: torch.optim.Optimizer, snapshot: Snapshot) -> None:
    """Put a snapshot back. ``requires_grad`` must stand as when it was taken."""
    set_model_state_dict(module, dict(snapshot.tensors), options=_PARTIAL)
    set_optimizer_state_dict(module, optimiser, dict(snapshot.optimiser), options=_WHOLE)


def write(snapshot: Snapshot, folder: Path) -> Path:
    """Write a checkpoint beside the older ones, which then go."""
    place = folder / f"{PREFIX}{snapshot.step:08d}"
    state = snapshot.optimiser["state"]
    moments = {f"{name}/{key}": t.contiguous() for name, tensors in state.items() for key, t in tensors.items()}
    groups = snapshot.optimiser["param_groups"]
    head = {"step": snapshot.step, "run": snapshot.run, "param_groups": groups, "extra": snapshot.extra}
    with scratch_folder(folder) as aside, writing(place):
        try:
            save_file({name: t.contiguous() for name, t in snapshot.tensors.items()}, aside / WEIGHTS)
            save_file(moments, aside / OPTIMISER)
        except SafetensorError as error:  # what it makes of a full disk
            raise OSError(str(error)) from None
        (aside / PROGRESS).write_text(json.dumps(head), encoding="utf-8")
        move(aside, place)
    for older in folder.glob(f"{PREFIX}*"):
        if older != place:
            shutil.rmtree(older)
    return place


def discard(folder: Path) -> None:
    """Remove a finished run's checkpoints: once the scorer is saved, nobody resumes it."""
    for place in folder.glob(f"{PREFIX}*"):
        shutil.rmtree(place)


def read_latest(folder: Path, run: str) -> Snapshot | None:
    """The newest checkpoint in a folder, or None.

    Raises:
        ArtefactError: it is damaged, or of a run with other settings or records.
    """
    places = sorted(folder.glob(f"{PREFIX}*"))
    if not places:
        return None
    try:
        head = read_json(places[-1] / PROGRESS)
        for name in (WEIGHTS, OPTIMISER):  # mapped, not read: they may be larger than memory
            open_regular(places[-1] / name).close()
        tensors, moments = load_file(places[-1] / WEIGHTS), load_file(places[-1] / OPTIMISER)
    except Exception as error:
        raise ArtefactError(f"{places[-1]} cannot be read ({error}): delete it, and the run starts anew.") from None
    if head["run"] != run:
        raise ArtefactError(
            f"{places[-1]} is of a run with other settings or records: delete it, or choose another --out."
        )
    state: dict[str, dict[str, Tensor]] = {}
    for name, moment in moments.items():
        parameter, key = name.rsplit("/", 1)
        state.setdefault(parameter, {})[key] = moment
    optimiser = {"state": state, "param_groups": head["param_groups"]}
    return Snapshot(head["step"], run, tensors, optimiser, head["extra"])
