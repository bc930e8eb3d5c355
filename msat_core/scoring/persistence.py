"""Reading and writing scorer folders: safetensors and JSON, never pickle.

A scorer folder holds a ``scorer.json`` (a versioned document whose kind says which scorer it is) and
the tensors it names. ``scorer.json`` is written last, so a folder that has one is whole.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as dump_tensors
from torch import Tensor

from msat_core.errors import ArtefactError
from msat_core.scoring.base import Scorer

CONFIG_FILE = "scorer.json"
WEIGHTS_FILE = "weights.safetensors"
DELTA_FILE = "encoder_delta.safetensors"

_SCORERS = {
    "compact-scorer": "msat_core.scoring.compact:CompactScorer",
    "model-sat-scorer": "msat_core.scoring.model_sat.scorer:ModelSATScorer",
}
_HUB_ID = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)@(?P<revision>[0-9a-f]{40})")
_HUB_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]


def load_scorer(folder: Path) -> Scorer:
    """Load whatever scorer the folder holds. Raises ArtefactError naming what is wrong.

    Args:
        folder: a scorer folder, or ``owner/name@commit`` of one on the Hugging Face hub.
    """
    hub_id = _HUB_ID.fullmatch(folder.as_posix())
    if hub_id and not folder.exists():
        folder = _download(hub_id["repo"], hub_id["revision"])
    kind = _kind(folder)
    if kind not in _SCORERS:
        raise ArtefactError(f"{folder} holds a scorer of kind {kind!r}; this msat knows {', '.join(_SCORERS)}.")
    module, name = _SCORERS[kind].split(":")
    scorer: Scorer = getattr(importlib.import_module(module), name).load(folder)
    return scorer


def _download(repo: str, revision: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repo, revision=revision, allow_patterns=_HUB_FILES))
    except Exception as error:
        raise ArtefactError(
            f"{repo} at {revision[:12]}… cannot be had from the Hugging Face hub ({type(error).__name__}): "
            "check the name and the network, or give a folder."
        ) from error


def _kind(folder: Path) -> Any:  # noqa: ANN401 - whatever the file says
    path = folder / CONFIG_FILE
    if not folder.is_dir() or not path.is_file():
        raise ArtefactError(
            f"{folder} is not a scorer folder: expected one with a {CONFIG_FILE}, as `msat train --out` writes, "
            "or a Hugging Face id with its commit, owner/name@<40 hex digits>."
        )
    try:
        return json.loads(path.read_text(encoding="utf-8")).get("kind")
    except (ValueError, AttributeError, OSError) as error:
        raise ArtefactError(f"{path} cannot be read ({error}): copy the scorer folder again.") from None


def save_weights(folder: Path, tensors: Mapping[str, Tensor]) -> str:
    """Write a scorer's tensors and return the file's SHA-256."""
    return save_tensors(folder / WEIGHTS_FILE, tensors)


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """Write a safetensors file aside, rename, and return its SHA-256."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = tensor_bytes(tensors)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_bytes(data)
    os.replace(aside, path)
    return hashlib.sha256(data).hexdigest()


def tensor_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """Tensors as the content of a safetensors file."""
    return dump_tensors({name: tensor.detach().contiguous() for name, tensor in tensors.items()})


def load_weights(folder: Path, expected_sha256: str) -> dict[str, Tensor]:
    """Read the tensors. Raises ArtefactError if the file is missing, cut short or changed."""
    return read_tensors(folder / WEIGHTS_FILE, expected_sha256)


def read_tensors(path: Path, expected_sha256: str) -> dict[str, Tensor]:
    """Read one safetensors file. Raises ArtefactError like :func:`load_weights`."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ArtefactError(f"{path} cannot be read ({error}): copy the scorer folder again.") from None
    if (found := hashlib.sha256(data).hexdigest()) != expected_sha256:
        raise ArtefactError(
            f"{path} is damaged or cut short ({len(data)} bytes, SHA-256 {found[:12]}…, expected "
            f"{expected_sha256[:12]}…): copy the scorer folder again."
        )
    try:
        tensors: dict[str, Tensor] = load_tensors(data)
    except SafetensorError as error:
        raise ArtefactError(f"{path} is not a safetensors file ({error}): copy the scorer folder again.") from None
    return tensors
