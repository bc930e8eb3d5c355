"""Scores of instructions for whoever is in the zoo now: in shared scorer calls, or as they were kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from msat_core.candidates import Candidate
from msat_core.errors import ZooError
from msat_core.profiles import CapabilityProfile
from msat_core.routing.batching import MicroBatcher
from msat_core.routing.columns import columns_of
from msat_core.routing.deciding import Scored, rows_of
from msat_core.routing.feedback import FeedbackLog
from msat_core.routing.learning import Learning
from msat_core.routing.repeats import Repeats
from msat_core.scoring.base import Scorer, Scores
from msat_core.zoo import Zoo

Out = TypeVar("Out")


class ScoredRows:
    """What a router knows of an instruction; thread-safe, and in another process with a queue of its own.

    Args:
        scorer: predicts P(correct).
        zoo: whom to score; may change.
        max_batch: most instructions in one shared scorer call.
        repeats: how many instructions' scores are kept.
        feedback: outcomes to learn from.

    Attributes:
        learning: from the outcomes.
        repeats: what is kept.
        batcher: of concurrent calls.
    """

    def __init__(self, scorer: Scorer, zoo: Zoo, *, max_batch: int, repeats: int, feedback: FeedbackLog) -> None:
        self.scorer, self.zoo = scorer, zoo
        self._max_batch = max_batch
        self.batcher = MicroBatcher(self._score_rows, max_batch=max_batch)
        self.learning = Learning(scorer, feedback)
        self.repeats: Repeats[Scored] = Repeats(repeats)
        if len(feedback):
            self.catch_up()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "batcher"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.batcher = MicroBatcher(self._score_rows, max_batch=self._max_batch)

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """Who is in the zoo now. Raises ZooError where it is empty."""
        candidates = self.zoo.candidates
        if not candidates:
            raise ZooError("The zoo is empty: add a candidate with Zoo.add(Candidate(profile=…)) before routing.")
        return candidates

    @property
    def state(self) -> tuple[tuple[Candidate, ...], int, int]:
        """What scores depend on beside the instruction."""
        return self.zoo.candidates, self.learning.version, self.scorer.version

    def catch_up(self) -> None:
        """Learn what outcomes say that are new."""
        self.learning.catch_up(self._profiles)

    def scores(self, instructions: Sequence[str]) -> Scores:
        """Of N instructions for the zoo's M candidates, in one scorer call."""
        return self._score(instructions, self.candidates)

    def call(self, instruction: str, finish: Callable[[Scored], Out]) -> Out:
        """What ``finish`` makes of one instruction's scores; blocks while the scorer runs."""
        scored = self.repeats.get(instruction, self.state)
        return self.batcher.call(instruction, finish) if scored is None else finish(scored)

    async def acall(self, instruction: str, finish: Callable[[Scored], Out]) -> Out:
        """Like :meth:`call`; the event loop stays free."""
        scored = self.repeats.get(instruction, self.state)
        return await self.batcher.acall(instruction, finish) if scored is None else finish(scored)

    def of(self, instructions: Sequence[str]) -> list[Scored]:
        """The scores of each instruction, with one scorer call for those that were not kept."""
        if not self.repeats.size:
            return self._score_rows(instructions)
        state = self.state
        rows = {text: row for text in instructions if (row := self.repeats.get(text, state)) is not None}
        new = [text for text in dict.fromkeys(instructions) if text not in rows]
        rows |= zip(new, self._score_rows(new) if new else (), strict=True)
        return [rows[text] for text in instructions]

    @property
    def _profiles(self) -> tuple[CapabilityProfile, ...]:
        return columns_of(self.zoo.candidates).profiles

    def _score(self, instructions: Sequence[str], candidates: Sequence[Candidate]) -> Scores:
        scorer = self.learning.learner or self.scorer
        return scorer.score(instructions, columns_of(candidates).profiles)

    def _score_rows(self, instructions: Sequence[str]) -> list[Scored]:
        state, candidates = self.state, self.candidates
        rows = rows_of(self._score(instructions, candidates), candidates)
        for instruction, row in zip(instructions, rows, strict=True):
            self.repeats.put(instruction, state, row)
        return rows
