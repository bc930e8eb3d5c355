"""The grader of last resort: how near the reply's embedding is to the answer's.

Nearness of meaning is not rightness: "Paris" and "London" are near. Use it where nothing else can be had.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from msat_core.aptitude.graders.base import Grade
from msat_core.checks import check_number

if TYPE_CHECKING:
    from msat_core.aptitude.questions import Question

Embed = Callable[[Sequence[str]], NDArray[np.float32]]


class Similarity:
    """Cosine of the embeddings of reply and answer.

    Args:
        embed: N texts → (N, D) unit vectors.
        threshold: cosine from which a reply is right; None: the cosine is the score, 0 where it is negative.
    """

    def __init__(self, embed: Embed, threshold: float | None = None) -> None:
        if threshold is not None:
            check_number("The threshold of the grader `similarity`", threshold, below=1)
        self._embed, self._threshold = embed, threshold

    @property
    def name(self) -> str:
        """With its threshold, if it has one."""
        return "similarity" if self._threshold is None else f"similarity:{self._threshold:g}"

    def grade(self, question: Question, reply: str) -> Grade:
        """The cosine, or 1 or 0 by the threshold."""
        reply_vector, answer_vector = self._embed([reply, question.answer])
        cosine = float(reply_vector @ answer_vector)
        return Grade.of(cosine if self._threshold is None else cosine >= self._threshold, f"cosine {cosine:.2f}")
