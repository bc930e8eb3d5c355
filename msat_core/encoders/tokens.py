"""From texts to token ids: what of a text an encoder reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import inf

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from msat_core.encoders.safe_exit import PASSES
from msat_core.texts import replace_surrogates

CHARS_PER_TOKEN = 16  # looked at, at either end of a longer text: more than any language takes


def alike(
    rows: Sequence[Sequence[int]], size: int, *, most_tokens: float = inf, most_padding: float = inf
) -> Iterator[list[int]]:
    """Positions of texts, the longest first, in batches of similar length.

    Args:
        rows: token ids of each text.
        size: most texts in a batch.
        most_tokens: of a batch, with what is padded; a longer text is a batch of its own.
        most_padding: of those, how many tokens may be padding.
    """
    batch, padding, longest = list[int](), 0, 0
    for i in sorted(range(len(rows)), key=lambda i: len(rows[i]), reverse=True):
        padding += longest - len(rows[i])
        if len(batch) == size or (len(batch) + 1) * longest > most_tokens or padding > most_padding:
            yield batch
            batch = []
        if not batch:
            padding, longest = 0, len(rows[i])
        batch.append(i)
    if batch:
        yield batch


class Tokens:
    """A tokenizer and how much of a text is read. Thread-safe.

    Args:
        tokenizer: of the ``tokenizers`` library, as JSON.
        max_length: tokens kept of each text, with the two at its ends; what is cut is counted, never hidden.
        tail_share: of what is read of a longer text, how much comes from its end.
    """

    def __init__(self, tokenizer: bytes, *, max_length: int, tail_share: float) -> None:
        self._tokenizer = Tokenizer.from_buffer(tokenizer)
        self._tokenizer.no_truncation()  # published files have truncation and padding baked in
        self._tokenizer.no_padding()
        self._first, self._last = self._tokenizer.encode("").ids  # [CLS], [SEP]
        self._most = max_length - 2
        self._n_tail = int(tail_share * self._most)
        self._window = CHARS_PER_TOKEN * max_length

    def read(self, texts: Sequence[str]) -> tuple[list[list[int]], NDArray[np.int64]]:
        """Token ids of each text, and how many tokens of each were cut.

        Of a text that is too long its beginning and its end are read. Where it is much too long, no more of it than
        that is looked at, and what was cut is estimated.
        """
        pieces, sizes = list[str](), list[int]()
        for text in texts:
            bare = text.strip() if len(text) > 2 * self._window else text
            pieces.extend([bare] if len(bare) <= 2 * self._window else [bare[: self._window], bare[-self._window :]])
            sizes.append(len(bare))
        ids = iter(self._ids_of(pieces))
        rows, truncated = list[list[int]](), np.zeros(len(sizes), dtype=np.int64)
        for i, size in enumerate(sizes):
            head = tail = next(ids)
            n = len(head)
            if size > 2 * self._window:
                tail = next(ids)
                n = max(round((n + len(tail)) * size / (2 * self._window)), n)
            kept = head if size <= 2 * self._window and n <= self._most else self._both_ends(head, tail)
            rows.append([self._first, *kept, self._last])
            truncated[i] = max(n - len(kept), 0)
        return rows, truncated

    def _both_ends(self, head: list[int], tail: list[int]) -> list[int]:
        from_tail = min(len(tail), max(self._n_tail, self._most - len(head)))
        return [*head[: self._most - from_tail], *tail[len(tail) - from_tail :]]

    def _ids_of(self, texts: Sequence[str]) -> list[list[int]]:
        cleaned = [replace_surrogates(text) for text in texts]
        with PASSES:
            encodings = self._tokenizer.encode_batch_fast(cleaned, add_special_tokens=False)
        return [encoding.ids for encoding in encodings]
