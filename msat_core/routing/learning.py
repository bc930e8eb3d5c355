"""What one router learns from the outcomes of its traffic."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence

from msat_core.forking import Lock
from msat_core.profiles import CapabilityProfile
from msat_core.routing.feedback import FeedbackLog, FeedbackSource
from msat_core.scoring.base import Learner, Scorer


class Learning:
    """Keeps a learner level with a log of outcomes; thread-safe.

    Args:
        scorer: whose learner it is.
        feedback: the outcomes.
    """

    def __init__(self, scorer: Scorer, feedback: FeedbackLog) -> None:
        self._scorer, self.feedback = scorer, feedback
        self.learner: Learner | None = None  # once there is something to learn from
        self._learnt: deque[int] = deque()  # numbers of the log's outcomes that it has taken in
        self._n_seen = 0  # of the log's outcomes, those forgotten too
        self.version = 0  # changes with what is learnt
        self._lock = Lock()

    def record(
        self,
        instruction: str,
        candidate: str,
        outcome: float,
        *,
        source: FeedbackSource,
        at: float | None,
        decision: str | None,
    ) -> None:
        """Keep an outcome; see :meth:`msat_core.Router.record`."""
        learner = self._ready()
        vector = learner.vector(instruction)
        self.feedback.add(candidate, vector, outcome, key=learner.key, source=source, at=at, decision=decision)

    def catch_up(self, profiles: Sequence[CapabilityProfile]) -> None:
        """Take in what the log has and the learner has not, and take back what the log forgot."""
        learner = self._ready()
        with self._lock:
            first, last, new = self.feedback.after(self._n_seen)
            numbered = [(last - len(new) + i, outcome) for i, outcome in enumerate(new) if outcome.key == learner.key]
            now = time.time()
            learner.learn([outcome.weighted(now) for _, outcome in numbered], profiles)
            self._n_seen = last
            self._learnt.extend(number for number, _ in numbered)
            n_forgotten = sum(number < first for number in self._learnt)
            learner.forget(n_forgotten)
            for _ in range(n_forgotten):
                self._learnt.popleft()
            self.version += 1  # last: what is scored from now on has learnt it

    def _ready(self) -> Learner:
        with self._lock:
            if self.learner is None:
                self.learner = self._scorer.learner()
            return self.learner
