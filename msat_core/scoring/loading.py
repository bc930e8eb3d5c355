"""Reading and writing scorer folders: safetensors and JSON, never pickle.

A scorer folder holds a ``scorer.json`` (a versioned document whose kind says which scorer it is) and
the tensors it names. ``scorer.json`` is written last, so a folder that has one is whole.
"""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

from msat_core.errors import ArtefactError, extras
from msat_core.reading import parse_json, read_bytes
from msat_core.scoring.base import CONFIG_FILE, Scorer

_SCORERS = {
    "compact-scorer": "msat_core.scoring.compact.scorer:CompactScorer",
    "model-sat-scorer": "msat_core.scoring.model_sat.scorer:ModelSATScorer",
}
_HUB_ID = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)@(?P<revision>[0-9a-f]{40})")
_HUB_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]


def load(path: str | Path, *, device: str | None = None) -> Scorer:
    """Load the scorer saved in a folder, of whatever kind it is; what the scorer needs is imported only now.

    Args:
        path: a scorer folder, or ``owner/name@commit`` of one on the Hugging Face hub.
        device: where it computes, as torch names it; None for the CPU.

    Raises:
        ArtefactError: not a scorer folder, a damaged file, or a kind that this msat does not know.
    """
    folder = Path(path)
    hub_id = _HUB_ID.fullmatch(folder.as_posix())
    if hub_id and not folder.exists():
        folder = _download(hub_id["repo"], hub_id["revision"])
    kind = _kind(folder)
    if kind not in _SCORERS:
        raise ArtefactError(f"{folder} holds a scorer of kind {kind!r}; this msat knows {', '.join(_SCORERS)}.")
    module, name = _SCORERS[kind].split(":")
    with extras():
        kind_of = getattr(importlib.import_module(module), name)
    scorer: Scorer = kind_of.load(folder, device=device)
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
        return parse_json(read_bytes(path)).get("kind")
    except (ValueError, AttributeError, OSError) as error:
        raise ArtefactError(f"{path} cannot be read ({error}): copy the scorer folder again.") from None
