r"""Which questions make a quick exam: few, and chosen to route.

Routing to the higher score z of a rival where a new candidate would have been better, or to the new
candidate where the rival would have been, is regret. Before its first answer the candidate's logits over an exam's E
shots are Gaussian (the compact scorer's prior). Once the shots S are answered, its score at a shot x has moved from
p(x) by a deviation s_S(x), whose variance is what S explains, so that the better of the two is expected to be worth

.. math:: E[\max(p + s Z, z)] = z + (p - z)\,\Phi\left(\frac{p - z}{s}\right) + s\,\varphi\left(\frac{p - z}{s}\right).

The next question is the one that adds most to the mean of this over all shots (which stand for the instructions to
come) and all rivals: the knowledge gradient (Frazier, Powell & Dayanik 2009), one question at a time. Every task is
asked, and none much more often than others. No candidate's outcomes are looked at, so that a strong new candidate is
not taken for an average one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from msat_core.aptitude.adaptive import LogitPosterior
from msat_core.errors import ConfigurationError
from msat_core.exam import Exam, ExamShot
from msat_core.profiles import CapabilityProfile
from msat_core.scoring.base import EmbeddingScorer
from msat_core.special_functions import normal_cdf

MAX_QUESTIONS = 100  # chosen: 100 questions cost half a point to a point of routing (LOG, "The quick exam")
N_LEVELS = 64  # of the deviation, between which the worth is interpolated

Floats = NDArray[np.floating]


def choose_quick(
    exam: Exam, scorer: EmbeddingScorer, rivals: Sequence[CapabilityProfile], n: int | None = None
) -> list[ExamShot]:
    """Choose n of an exam's questions, best first; see the module.

    Args:
        exam: with embeddings of the scorer's encoder.
        scorer: whose prior it is.
        rivals: whom a new candidate may have to be told from.
        n: how many questions; at least one a task. None: 100, or all of a smaller exam.
    """
    shots, prior = exam.sheet.shots, scorer.exam_prior(exam)
    n = min(MAX_QUESTIONS, len(shots)) if n is None else n
    n_tasks = len({shot.task for shot in shots})
    if not n_tasks <= n <= len(shots):
        raise ConfigurationError(f"Expected between {n_tasks} (one a task) and {len(shots)} questions, got {n}.")
    vectors = exam.embeddings[scorer.encoder_digest].astype(np.float32)
    posterior = LogitPosterior(prior.logits.astype(float), prior.covariance.astype(float))
    worth = _Worth(posterior, scorer.score_vectors(vectors, rivals).probabilities.astype(float))
    counts: Counter[str] = Counter()
    most = 2 * math.ceil(n / n_tasks)
    chosen: list[int] = []
    while len(chosen) < n:
        only_new = n - len(chosen) <= n_tasks - len(counts)
        free = np.array(
            [i not in chosen and counts[shot.task] < (1 if only_new else most) for i, shot in enumerate(shots)]
        )
        row = worth.best(posterior, free)
        worth.explained += posterior.explained_by(row)
        posterior.condition(row)
        counts[shots[row].task] += 1
        chosen.append(row)
    return [shots[row] for row in chosen]


class _Worth:
    """Mean worth of the better of a new candidate and a rival, by how much of its logit is explained.

    Args:
        posterior: before the first answer; E shots.
        rivals: (E, J), scores.
    """

    def __init__(self, posterior: LogitPosterior, rivals: Floats) -> None:
        p = 1 / (1 + np.exp(-posterior.mean))
        self._slope = p * (1 - p)  # from a logit's deviation to that of the score
        self.explained: Floats = np.zeros(len(p))  # (E,), variance of the logit
        self._levels = np.linspace(0, np.sqrt(np.diag(posterior.covariance).max()) * self._slope.max(), N_LEVELS)
        lead = p[:, None] - rivals
        self._table = np.stack([_expected_best(lead, level).mean(axis=1) for level in self._levels], axis=1)  # (E, L)

    def best(self, posterior: LogitPosterior, free: NDArray[np.bool_]) -> int:
        """The free shot that is expected to add most."""
        gains = [
            self._mean(self.explained + posterior.explained_by(row)) if free[row] else -np.inf
            for row in range(len(free))
        ]
        return int(np.argmax(gains))

    def _mean(self, explained: Floats) -> float:
        place = np.sqrt(explained) * self._slope / self._levels[1]
        low = np.minimum(place.astype(int), N_LEVELS - 2)
        rows, share = np.arange(len(low)), place - low
        return float(((1 - share) * self._table[rows, low] + share * self._table[rows, low + 1]).mean())


def _expected_best(lead: Floats, deviation: float) -> Floats:
    """E[max(lead + deviation · Z, 0)] of a standard normal Z."""
    if deviation == 0:
        return np.maximum(lead, 0)
    u = lead / deviation
    density = np.exp(-(u**2) / 2) / math.sqrt(2 * math.pi)
    return np.asarray(lead * normal_cdf(u) + deviation * density)
