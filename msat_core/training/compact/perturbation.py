"""A text as others might send it: with something before or behind it, or with tokens lost."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

SURROUNDED = (10, 64)  # tokens of another text that are put before or behind
REPLACED = 0.1  # of the tokens, where some are lost
KINDS = (0.4, 0.67)  # up to the first: something before; up to the second: something behind; else lost tokens


def perturbed(ids: Sequence[int], other: Sequence[int], rng: np.random.Generator, max_length: int) -> list[int]:
    """The token ids of a text, perturbed in one of three ways; the first and the last token stay where they are.

    Args:
        ids: of the text.
        other: of another text, where what is put in comes from.
        rng: decides.
        max_length: what is longer loses its end.
    """
    first, *body, last = ids
    foreign, kind = list(other[1:-1]), rng.random()
    if kind < KINDS[1]:
        n_put = int(rng.integers(*SURROUNDED))
        start = int(rng.integers(max(1, len(foreign) - n_put)))
        stretch = foreign[start : start + n_put]
        body = [*stretch, *body] if kind < KINDS[0] else [*body, *stretch]
    elif foreign:
        lost = rng.random(len(body)) < REPLACED
        put = rng.integers(len(foreign), size=len(body))
        body = [foreign[i] if gone else token for token, gone, i in zip(body, lost, put, strict=True)]
    return [first, *body[: max_length - 2], last]
