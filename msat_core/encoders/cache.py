"""Embeddings kept on disk, so that a text is encoded once per encoder and not once per run.

Layout: ``<folder>/<encoder digest>/<n>.safetensors``, each shard holding ``keys`` (uint8 (n, 32), the
SHA-256 of each text), ``vectors`` (float16 (n, D)) and ``truncated`` (int32 (n,)). A shard is written
aside and renamed, so an interrupted run loses at most the shard it was encoding.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from msat_core.encoders.base import Embeddings, Encoder
from msat_core.files import cache_root, write_bytes
from msat_core.reading import read_bytes

SHARD_TEXTS = 1024  # texts a file; chosen: what is lost where a run is killed
MOST_SHARD = 256 << 20  # bytes


def embeddings_folder() -> Path:
    """Where embeddings are kept unless somebody says otherwise: in the user's cache."""
    return cache_root() / "embeddings"


class EmbeddingCache:
    """Encode through a cache on disk.

    Args:
        encoder: makes what is missing; its digest names the cache's folder.
        folder: where all caches live.
        progress: called with (texts done, texts to do) after each shard.
    """

    def __init__(self, encoder: Encoder, folder: Path, progress: Callable[[int, int], None] | None = None) -> None:
        self._encoder = encoder
        self._folder = folder / encoder.digest[:16]
        self._progress = progress

    def encode(self, texts: Sequence[str]) -> Embeddings:
        """Embeddings of the texts, float32 (N, D), rounded to float16 whether cached or new."""
        keys = [hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() for text in texts]
        entries = self._read()
        missing = [i for i, key in enumerate(dict.fromkeys(keys)) if key not in entries]
        unique = list(dict.fromkeys(keys))
        text_of = dict(zip(keys, texts, strict=True))
        for start in range(0, len(missing), SHARD_TEXTS):
            shard = [unique[i] for i in missing[start : start + SHARD_TEXTS]]
            embeddings = self._encoder.encode([text_of[key] for key in shard])
            entries.update(self._write(shard, embeddings))
            if self._progress is not None:
                self._progress(min(start + SHARD_TEXTS, len(missing)), len(missing))
        vectors = np.stack([entries[key][0] for key in keys]) if keys else np.zeros((0, self._encoder.dim), np.float16)
        truncated = np.array([entries[key][1] for key in keys], dtype=np.int64)
        return Embeddings(vectors.astype(np.float32), truncated, self._encoder.unread(texts))

    def _read(self) -> dict[bytes, tuple[NDArray[np.float16], int]]:
        entries: dict[bytes, tuple[NDArray[np.float16], int]] = {}
        for path in sorted(self._folder.glob("*.safetensors")):
            try:
                shard = load(read_bytes(path, most=MOST_SHARD))
                keys, vectors, truncated = (shard[name] for name in ("keys", "vectors", "truncated"))
            except (OSError, SafetensorError, KeyError, TypeError):  # damaged: what it held is made again
                continue
            n = len(keys)
            if keys.shape != (n, 32) or vectors.shape != (n, self._encoder.dim) or truncated.shape != (n,):
                continue
            if vectors.dtype != np.float16 or not np.isfinite(vectors).all():
                continue
            entries.update({keys[i].tobytes(): (vectors[i], int(truncated[i])) for i in range(n)})
        return entries

    def _write(self, keys: list[bytes], embeddings: Embeddings) -> dict[bytes, tuple[NDArray[np.float16], int]]:
        vectors = embeddings.vectors.astype(np.float16)
        shard: dict[str, NDArray[np.generic]] = {
            "keys": np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(len(keys), 32),
            "vectors": vectors,
            "truncated": embeddings.truncated_tokens.astype(np.int32),
        }
        name = f"{hashlib.sha256(b''.join(keys)).hexdigest()[:16]}.safetensors"
        write_bytes(self._folder / name, save(shard))
        return {key: (vectors[i], int(embeddings.truncated_tokens[i])) for i, key in enumerate(keys)}
