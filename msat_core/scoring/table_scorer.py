"""A scorer that reads its scores from a table: for tests, documentation and dry runs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np

from msat_core.errors import ConfigurationError
from msat_core.profiles import CapabilityProfile
from msat_core.scoring.base import Scorer, Scores, check_instructions


class TableScorer(Scorer):
    """Looks every score up.

    Args:
        table: ``{instruction: {candidate: probability}}``.
        otherwise: ``{candidate: probability}`` for instructions that the table lacks; a candidate
            named in neither scores its profile's accuracy.
        delay_s: seconds each call takes, to stand in for a slow scorer.

    Attributes:
        calls: the instructions of each call to ``score``, in order.
    """

    def __init__(
        self,
        table: Mapping[str, Mapping[str, float]] | None = None,
        *,
        otherwise: Mapping[str, float] | None = None,
        delay_s: float = 0.0,
    ) -> None:
        self._table = {text: dict(row) for text, row in (table or {}).items()}
        self._otherwise = dict(otherwise or {})
        self._delay_s = delay_s
        self.calls: list[tuple[str, ...]] = []
        for row in [*self._table.values(), self._otherwise]:
            for name, value in row.items():
                if not 0 <= value <= 1:
                    raise ConfigurationError(f"Score {value!r} of {name!r} lies outside [0, 1].")

    def __repr__(self) -> str:
        return f"TableScorer({len(self._table)} instructions)"

    def score(self, instructions: Sequence[str], profiles: Sequence[CapabilityProfile]) -> Scores:
        """Look up N × M scores."""
        check_instructions(instructions)
        self.calls.append(tuple(instructions))
        if self._delay_s:
            time.sleep(self._delay_s)
        rows = [[self._lookup(text, profile) for profile in profiles] for text in instructions]
        probabilities = np.array(rows, dtype=np.float32).reshape(len(instructions), len(profiles))
        return Scores(probabilities, np.zeros(len(instructions), dtype=np.int64))

    def _lookup(self, instruction: str, profile: CapabilityProfile) -> float:
        row = self._table.get(instruction, self._otherwise)
        return row.get(profile.candidate, self._otherwise.get(profile.candidate, profile.accuracy))
