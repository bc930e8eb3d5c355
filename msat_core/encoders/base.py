"""The seam between texts and vectors: who encodes, and what comes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Embeddings:
    """Encoded texts.

    Attributes:
        vectors: float32 (N, D), each row of unit length.
        truncated_tokens: int64 (N,), how many tokens of each text the encoder did not read.
        unread: length N, the script of each text that the encoder has not learnt to read, empty for other texts; empty
            in all where the encoder does not say.
    """

    vectors: NDArray[np.float32]
    truncated_tokens: NDArray[np.int64]
    unread: tuple[str, ...] = ()


class Encoder(Protocol):
    """Turns texts into unit vectors. ``encode`` may be called from several threads.

    Attributes:
        digest: SHA-256 (hex) that names the weights and the way of pooling; two encoders of one digest give the same
            vectors.
        dim: D.
        max_length: tokens of a text that are read.
    """

    @property
    def digest(self) -> str: ...  # noqa: D102 - see the class

    @property
    def dim(self) -> int: ...  # noqa: D102

    @property
    def max_length(self) -> int: ...  # noqa: D102

    def encode(self, texts: Sequence[str]) -> Embeddings:
        """Encode N texts; row i belongs to texts[i]."""

    def unread(self, texts: Sequence[str]) -> tuple[str, ...]:
        """As of :class:`Embeddings`, without encoding."""
