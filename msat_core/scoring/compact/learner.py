"""What one router's outcomes add to the compact scorer.

An outcome at instruction x is evidence about s(x) + d_m(x): how much harder x is for everybody than the kernel
expects, and how far candidate m lies off what its exam says. Both are Gaussian fields of bounded size, and each
experience is one *site* in each of them (expectation propagation with a Laplace step): a message with a precision
and a target, found from what the two fields say without it. The field that was less sure moves more. A further
outcome of the same experience, a doubt about an old one, or its end replaces the messages, at a cost that does not
grow with the experiences; after each change a few old sites are looked at again, in turn.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from msat_core.forking import Lock
from msat_core.profiles import CapabilityProfile
from msat_core.scoring.base import Learner, Scores, WeightedOutcome, check_instructions
from msat_core.scoring.compact.field import Field, Wide
from msat_core.scoring.compact.kernel import Array
from msat_core.scoring.compact.lineup import Lineup, Stack
from msat_core.scoring.compact.posterior import CapabilityPosterior, PosteriorCovariance, SharedShift, shared_features
from msat_core.scoring.compact.sites import Experience, Experiences, Site, cavity, laplace, unit_vector
from msat_core.scoring.compact.support import Support

if TYPE_CHECKING:
    from msat_core.scoring.compact.scorer import CompactScorer

SHARED = (0.004, 0.03, 0.4)  # s's prior variance as a share of the kernel's: everywhere, by skill, near the instruction
REVISITED = 4  # sites looked at again after each change, or as many as changed
LEAST_WEIGHT = 1e-3  # of an exam shot; what is older says nothing
MOST_EVERYWHERE = 0.05  # chosen: weight × variance everywhere; more of one question moves scores by over .02 everywhere


@dataclass(frozen=True)
class _Learnt:
    """How sure a candidate's exam was, and how far outcomes moved it."""

    covariance: PosteriorCovariance
    field: Field

    @property
    def most_weight(self) -> float:
        """What one experience may count, in exam shots: less where so little is known that it would move everything."""
        return min(1.0, MOST_EVERYWHERE / float(self.covariance.matrix[0, 0]))


@dataclass
class _Candidate:
    """One candidate as its profile and outcomes have it; ``learnt`` only once there are outcomes."""

    profile: CapabilityProfile
    support: Support
    posterior: CapabilityPosterior
    learnt: _Learnt | None = None
    at: dict[int, tuple[float, Wide, float]] = field(default_factory=dict)  # prior logit, features, rest

    def moved(self, shot_variance: float) -> CapabilityPosterior:
        """The posterior after all outcomes."""
        if self.learnt is None or not self.at:
            return self.posterior
        return self.posterior.moved(self.learnt.field, self.learnt.covariance.moments, shot_variance)


class CompactLearner(Learner):
    """See the module.

    Args:
        scorer: whose encoder, exams and posteriors it shares.
    """

    def __init__(self, scorer: CompactScorer) -> None:
        self._scorer = scorer
        kernel = scorer.kernel
        everywhere, skill, near = SHARED
        prior = np.diag([everywhere, *[skill] * kernel.n_skills])
        self._shift = Field(kernel, prior, near)
        self._experiences = Experiences(kernel.dim)
        self._candidates: dict[str, _Candidate] = {}
        self._came: deque[tuple[int, WeightedOutcome]] = deque()
        self._turns: deque[tuple[int, str]] = deque()  # sites, the one to be looked at next first
        self._lineup: Lineup | None = None
        self._version = scorer.version
        self._lock = Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_lineup": None}

    @property
    def key(self) -> str:
        """The encoder's digest."""
        return self._scorer.encoder_digest

    def vector(self, instruction: str) -> NDArray[np.float16]:
        """The instruction's embedding, (D,)."""
        check_instructions([instruction])
        return np.asarray(self._scorer.encoder.encode([instruction]).vectors[0], dtype=np.float16)

    def learn(self, outcomes: Sequence[WeightedOutcome], profiles: Sequence[CapabilityProfile]) -> None:
        """Take in further outcomes; until that is done, others are scored as before."""
        vectors = [unit_vector(outcome, self._scorer.kernel.dim) for outcome in outcomes]
        with self._lock:
            self._meet(profiles)
            changed = dict.fromkeys(map(self._take, outcomes, vectors))
            rows_of: dict[str, list[int]] = {}
            for row, name in changed:
                rows_of.setdefault(name, []).append(row)
            for name, rows in rows_of.items():
                if name in self._candidates:
                    self._read(self._candidates[name], rows)
            self._settle(list(changed))
            self._lineup = None  # scored with what is known now from the next call on
            if profiles:
                self._publish(profiles)

    def forget(self, n: int) -> None:
        """Take back the n outcomes that came first."""
        with self._lock:
            changed: dict[tuple[int, str], None] = {}
            for _ in range(min(n, len(self._came))):
                row, outcome = self._came.popleft()
                self._experiences[row].sites[outcome.candidate].add(outcome, -1)
                changed[row, outcome.candidate] = None
            self._settle(list(changed))
            self._lineup = None

    def score(self, instructions: Sequence[str], profiles: Sequence[CapabilityProfile]) -> Scores:
        """As the scorer does, with what was learnt."""
        check_instructions(instructions)
        embedded = self._scorer.encoder.encode(instructions)
        return self.score_vectors(
            embedded.vectors, profiles, truncated_tokens=embedded.truncated_tokens, unread=embedded.unread
        )

    def score_vectors(
        self,
        vectors: NDArray[np.float32],
        profiles: Sequence[CapabilityProfile],
        *,
        truncated_tokens: NDArray[np.int64] | None = None,
        unread: tuple[str, ...] = (),
    ) -> Scores:
        """Like :meth:`score`, for instructions already embedded: (N, D) unit vectors of the scorer's encoder."""
        lineup = self._lineup
        if lineup is None or self._version != self._scorer.version or not lineup.is_of(profiles):
            self._scorer.posteriors(profiles)  # solved while others go on
            with self._lock:
                self._meet(profiles)
                lineup = self._publish(profiles)
        return lineup.score(self._scorer.kernel, vectors, truncated_tokens, unread)

    def _take(self, outcome: WeightedOutcome, vector: Array) -> tuple[int, str]:
        """Add an outcome to its experience; the site that it changes."""
        row = self._experiences.row_of(vector, self._experience)
        site = self._experiences[row].sites.setdefault(outcome.candidate, Site())
        if site.n == 0:
            self._turns.append((row, outcome.candidate))
        site.add(outcome, 1)
        self._came.append((row, outcome))
        return row, outcome.candidate

    def _experience(self, vector: Array) -> Experience:
        kernel = self._scorer.kernel
        features, rest = self._shift.features(shared_features(kernel, vector[None])[0], vector)
        return Experience(vector, float(kernel.base(vector[None])[0]), features, rest)

    def _meet(self, profiles: Sequence[CapabilityProfile]) -> None:
        """Start, or start again, with candidates whose profile is new; what they were told before is kept."""
        if self._version != self._scorer.version:  # other exams: other supports
            self._version = self._scorer.version
            self._candidates.clear()
        names = {profile.candidate for profile in profiles}
        for name in [name for name, old in self._candidates.items() if not old.at and name not in names]:
            del self._candidates[name]
        new = [profile for profile in profiles if not self._knows(profile)]
        supports, posteriors = self._scorer.posteriors(new)
        for profile, support, posterior in zip(new, supports, posteriors, strict=True):
            candidate = _Candidate(profile, support, posterior)
            self._candidates[profile.candidate] = candidate
            rows = [row for row, name in self._turns if name == profile.candidate]
            self._read(candidate, rows)
            for row in rows:
                message = self._experiences[row].sites[profile.candidate].message
                if message is None:
                    self._look_at(row, profile.candidate)
                else:
                    prior, features, _ = candidate.at[row]
                    precision, target = message
                    self._learnt_of(candidate).field.add(features, precision, precision * (target - prior))

    def _knows(self, profile: CapabilityProfile) -> bool:
        candidate = self._candidates.get(profile.candidate)
        return candidate is not None and (candidate.profile is profile or candidate.profile.digest == profile.digest)

    def _settle(self, changed: Sequence[tuple[int, str]]) -> None:
        """Look at these sites, and at some others in turn; drop those of which nothing is left."""
        again = [self._turns[i] for i in range(min(max(REVISITED, len(changed)), len(self._turns)))]
        self._turns.rotate(-len(again))
        for row, name in dict.fromkeys([*changed, *again]):
            self._look_at(row, name)
        for row, name in changed:
            experience = self._experiences[row]
            if experience.sites[name].n:
                continue
            del experience.sites[name]
            self._turns.remove((row, name))
            if name in self._candidates:
                self._candidates[name].at.pop(row, None)
            self._tell_shift(experience)
            if not experience.sites:
                self._experiences.drop(row)

    def _look_at(self, row: int, name: str) -> None:
        """Find a site's messages anew from what the fields say without it."""
        candidate = self._candidates.get(name)
        if candidate is None:
            return
        experience = self._experiences[row]
        site = experience.sites[name]
        self._read(candidate, [row])
        prior, features, rest = candidate.at[row]
        site_precision, site_target = site.message or (0.0, 0.0)
        site_linear = site_precision * (site_target - prior)
        learnt = self._learnt_of(candidate)
        mean, variance = cavity(*learnt.field.moments(features), site_precision, site_linear)
        share = 1 / max(sum(other.message is not None for other in experience.sites.values()), 1)
        shared_precision, shared_target = site.shared_message[0] * share, site.shared_message[1]
        moments = self._shift.moments(experience.features)
        shared_mean, shared_variance = cavity(*moments, shared_precision, shared_precision * shared_target)
        variance, shared_variance = variance + rest, shared_variance + experience.rest
        weight = min(site.weight, learnt.most_weight)
        if site.n == 0 or weight < LEAST_WEIGHT:
            noise, target = math.inf, 0.0
        else:
            expected = experience.base + prior + mean + shared_mean
            noise, target = laplace(expected, variance + shared_variance, site.right / site.weight, weight)
        precision = 1 / (noise + shared_variance + rest)
        site.message = precision, target - experience.base - shared_mean
        linear = precision * (site.message[1] - prior)
        learnt.field.add(features, precision - site_precision, linear - site_linear)
        site.shared_message = 1 / (noise + variance + experience.rest), target - experience.base - prior - mean
        self._tell_shift(experience)

    def _tell_shift(self, experience: Experience) -> None:
        """Several candidates' outcomes on one instruction tell s their mean."""
        messages = [site.shared_message for site in experience.sites.values() if site.message is not None]
        n = max(len(messages), 1)
        precision, linear = sum(p for p, _ in messages) / n, sum(p * target for p, target in messages) / n
        before = experience.message
        self._shift.add(experience.features, precision - before[0], linear - before[1])
        experience.message = precision, linear

    def _read(self, candidate: _Candidate, rows: Sequence[int]) -> None:
        """What the exam says of a candidate at experiences that are new to it, and its features there."""
        new = [row for row in rows if row not in candidate.at]
        if not new:
            return
        kernel, x = self._scorer.kernel, np.stack([self._experiences[row].vector for row in new])
        stack = Stack.of(candidate.support, [candidate.posterior])
        capability, attention = stack.capability(kernel, x, x @ stack.vectors.T)
        broad, moved = kernel.features(x, attention), self._learnt_of(candidate).field
        for i, row in enumerate(new):
            candidate.at[row] = float(capability[i, 0]), *moved.features(broad[i], x[i])

    def _learnt_of(self, candidate: _Candidate) -> _Learnt:
        if candidate.learnt is None:
            covariance = self._scorer.covariance(candidate.support, candidate.profile, candidate.posterior)
            candidate.learnt = _Learnt(covariance, Field(self._scorer.kernel, covariance.matrix))
        return candidate.learnt

    def _publish(self, profiles: Sequence[CapabilityProfile]) -> Lineup:
        shot_variance = float(self._scorer.kernel.shot_variance)
        candidates = [self._candidates[profile.candidate] for profile in profiles]
        everywhere, near = self._shift.weights()
        self._lineup = Lineup.of(
            profiles,
            [candidate.support for candidate in candidates],
            [candidate.moved(shot_variance) for candidate in candidates],
            slope=self._scorer.config.slope,
            intercept=self._scorer.config.intercept,
            shift=SharedShift(self._shift.vectors, near, everywhere),
        )
        return self._lineup
