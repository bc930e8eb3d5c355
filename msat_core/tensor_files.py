"""Tensors on disk: safetensors with a SHA-256, never pickle."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as dump_tensors

from msat_core.errors import ArtefactError
from msat_core.files import write_bytes
from msat_core.reading import read_bytes

Tensor = NDArray[Any]


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """Write a safetensors file aside, rename, and return its SHA-256."""
    data = tensor_bytes(tensors)
    write_bytes(path, data)
    return hashlib.sha256(data).hexdigest()


def tensor_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """Tensors as the content of a safetensors file."""
    # not np.ascontiguousarray, which makes a list of one number out of a single number
    return dump_tensors({name: np.asarray(tensor, order="C") for name, tensor in tensors.items()})


def read_tensors(path: Path, expected_sha256: str) -> dict[str, Tensor]:
    """Read one safetensors file. Raises ArtefactError if it is missing, cut short or changed."""
    try:
        tensors: dict[str, Tensor] = load_tensors(read_checked(path, expected_sha256))
    except SafetensorError as error:
        raise ArtefactError(f"{path} is not a safetensors file ({error}): copy the scorer folder again.") from None
    return tensors


def read_checked(path: Path, expected_sha256: str) -> bytes:
    """A file's content. Raises ArtefactError if it is missing, cut short or changed."""
    try:
        data = read_bytes(path, most=64 << 30)
    except OSError as error:
        raise ArtefactError(f"{path} cannot be read ({error}): copy the scorer folder again.") from None
    if (digest := hashlib.sha256(data).hexdigest()) != expected_sha256:
        raise ArtefactError(
            f"{path} is damaged or cut short ({len(data)} bytes, SHA-256 {digest[:12]}…, expected "
            f"{expected_sha256[:12]}…): copy the scorer folder again."
        )
    return data
