"""An encoder without weights: for tests, documentation and dry runs, as :class:`TableScorer` is a scorer for them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from msat_core.encoders.base import Embeddings


class HashEncoder:
    """Bag of words, each word a fixed random direction: alike texts get alike vectors, and nothing is loaded.

    Args:
        dim: D.
        max_length: words of a text that are read.

    Attributes:
        encoded: texts encoded so far.
    """

    def __init__(self, dim: int = 32, *, max_length: int = 256) -> None:
        self.dim = dim
        self.max_length = max_length
        self.encoded = 0

    @property
    def digest(self) -> str:
        """Names the dimension and the length."""
        return hashlib.sha256(f"hash encoder|{self.dim}|{self.max_length}".encode()).hexdigest()

    def encode(self, texts: Sequence[str]) -> Embeddings:
        """Unit vectors, (N, D)."""
        self.encoded += len(texts)
        words = [text.lower().split() or [""] for text in texts]
        rows = [np.sum([self._direction(word) for word in row[: self.max_length]], axis=0) for row in words]
        vectors = np.array(rows, dtype=np.float32).reshape(len(texts), self.dim)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        cut = np.array([max(0, len(row) - self.max_length) for row in words], dtype=np.int64)
        return Embeddings(vectors, cut)

    def _direction(self, word: str) -> NDArray[np.float64]:
        seed = int.from_bytes(hashlib.sha256(word.encode("utf-8", "surrogatepass")).digest()[:4], "big")
        return np.random.default_rng(seed).normal(size=self.dim)

    def unread(self, texts: Sequence[str]) -> tuple[str, ...]:
        """Words of every script are hashed alike."""
        return ()
