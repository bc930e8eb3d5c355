"""The router: score every candidate for an instruction, then choose by policy."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msat_core import pretrained
from msat_core.candidates import Candidate
from msat_core.errors import ArtefactError, ConfigurationError, InstructionError, MsatError, ZooError
from msat_core.exam import Exam, exams_beside
from msat_core.forking import Lock
from msat_core.routing.batching import MicroBatcher
from msat_core.routing.choice import Choice, choose
from msat_core.routing.conversation import size_of
from msat_core.routing.cooldown import Cooldown
from msat_core.routing.feedback import FeedbackLog, Source
from msat_core.routing.policy import RoutingDecision, RoutingPolicy, RoutingRequest
from msat_core.scoring import loading
from msat_core.scoring.base import Learner, Scorer, Scores, check_instructions
from msat_core.zoo import Zoo

ZOO_FILE, POLICY_FILE = "zoo.json", "policy.json"  # of a trial's folder
REASON_TASKS = 3  # tasks named in a decision's reason
SCORE_DIGITS = 6  # beyond them, batching changes a float32 score


@dataclass(frozen=True)
class _Scored:
    """One instruction's row of scores, with the candidates its columns belong to."""

    candidates: tuple[Candidate, ...]
    row: NDArray[np.float32]  # (M,)
    truncated_tokens: int
    task_weights: Mapping[str, float]  # heaviest first


class Router:
    """Sends each instruction to the candidate most likely to answer it well.

    Thread-safe; concurrent calls of :meth:`route` and :meth:`aroute` share scorer calls.

    Args:
        scorer: predicts P(correct).
        zoo: who may be chosen; may change while routing.
        policy: how scores become a choice, unless a call brings its own; a mapping or a file of settings serves too.
            Whom a policy names must be in the zoo, or have been when the router was made: candidates may leave.
        max_batch: most instructions in one shared scorer call.
        feedback: outcomes recorded earlier, and where :meth:`record` keeps further ones; default: in memory.
    """

    def __init__(
        self,
        scorer: Scorer,
        zoo: Zoo,
        policy: RoutingPolicy | Mapping[str, Any] | str | Path | None = None,
        *,
        max_batch: int = 32,
        feedback: FeedbackLog | None = None,
    ) -> None:
        if max_batch < 1:
            raise ConfigurationError(f"max_batch must be at least 1, got {max_batch}.")
        self.scorer = scorer
        self.zoo = zoo
        self.policy = RoutingPolicy.of(policy)
        self.policy.check(zoo.candidates, scorer.digest)
        self.policy.check_names(zoo)
        self._known = frozenset(name for c in zoo for name in (c.name, *c.aliases))
        self._max_batch = max_batch
        self._scored = MicroBatcher(self._score_rows, max_batch=max_batch)
        self.feedback = FeedbackLog() if feedback is None else feedback
        self.cooldown = Cooldown()  # which candidates rest, for whoever dispatches to them
        self._learner: Learner | None = None  # once there is something to learn from
        self._learnt: deque[int] = deque()  # numbers of the log's outcomes that it has taken in
        self._n_seen = 0  # of the log's outcomes, those forgotten too
        self._learning = Lock()
        if len(self.feedback):
            self._learn()

    def __repr__(self) -> str:
        policy = "" if self.policy == RoutingPolicy() else f", policy {self.policy.objective}"
        return f"Router({self.scorer!r}, {self.zoo!r}{policy})"

    def __getstate__(self) -> dict[str, Any]:
        """For another process: the same scorer, zoo, policy and outcomes, with a queue of its own."""
        return {name: value for name, value in vars(self).items() if name != "_scored"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._scored = MicroBatcher(self._score_rows, max_batch=self._max_batch)

    def __deepcopy__(self, memo: dict[int, object]) -> Router:
        """Itself: copies of what holds a router share its scorer, its zoo and its batches."""
        return self

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path | None = None,
        *,
        zoo: Zoo | Sequence[str] | str | Path | None = None,
        policy: RoutingPolicy | Mapping[str, Any] | str | Path | None = None,
        exams: Sequence[Exam] = (),
        feedback: str | Path | None = None,
        device: str | None = None,
    ) -> Router:
        """A router with a saved scorer and zoo; without arguments, the shipped ones.

        Args:
            path: a scorer folder written by ``msat train``, or ``owner/name@commit`` of one on the Hugging Face hub.
            zoo: candidates to use instead of the shipped zoo: a zoo, a list of names of the shipped zoo, a zoo file
                with its exams beside it (``exam/``, ``exams/*/``), or a folder of a trial, whose policy is then used
                unless one is given.
            policy: see :class:`Router`.
            exams: exams of one's own that profiles in the zoo were made with.
            feedback: a file in which :meth:`record` keeps outcomes, and from which those of earlier runs are read.
            device: where the scorer computes, as torch names it; None for the GPU if there is one, else the CPU.

        Raises:
            ArtefactError: the scorer or an exam is missing, damaged, or made with another encoder.
            ZooError: the zoo file is missing or damaged.
        """
        scorer = loading.load(pretrained.SCORER if path is None else path, device=device)
        for exam in map(Exam.load, pretrained.EXAMS):
            scorer.add_exam(exam)
        if not isinstance(zoo, (Zoo, str, Path, type(None))):
            zoo = _shipped(zoo)
        if not isinstance(zoo, Zoo):
            file = pretrained.ZOO if zoo is None else Path(zoo)
            if file.is_dir():
                advised, file = file / POLICY_FILE, file / ZOO_FILE
                policy = RoutingPolicy.load(advised) if policy is None and advised.is_file() else policy
            zoo, exams = Zoo.load(file), [*exams, *exams_beside(file.parent)]
        for exam in exams:
            if not scorer.add_exam(exam):
                raise ArtefactError(
                    f"The exam {exam.sheet.name!r} has no shot embeddings that this scorer can read: "
                    "make it again with this scorer's encoder."
                )
        return cls(scorer, zoo, policy, feedback=FeedbackLog(feedback))

    def score(self, instructions: Sequence[str]) -> Scores:
        """Scores of N instructions for the zoo's M candidates, in one scorer call."""
        return self._score(instructions, self._candidates())

    def route(
        self, instruction: str, *, policy: RoutingPolicy | None = None, request: RoutingRequest | None = None
    ) -> RoutingDecision:
        """Choose a candidate for one instruction.

        Raises:
            InstructionError: the instruction is blank or not a string.
            ZooError: the zoo is empty.
            NoCandidateError: the limits exclude everybody and the policy names no default.
        """
        check_instructions([instruction])
        return self._decide(instruction, self._scored(instruction), policy, request)

    async def aroute(
        self, instruction: str, *, policy: RoutingPolicy | None = None, request: RoutingRequest | None = None
    ) -> RoutingDecision:
        """Like :meth:`route`; the scorer runs off the event loop."""
        check_instructions([instruction])
        return self._decide(instruction, await self._scored.acall(instruction), policy, request)

    def route_batch(
        self,
        instructions: Sequence[str],
        *,
        policy: RoutingPolicy | None = None,
        requests: Sequence[RoutingRequest | None] | None = None,
    ) -> list[RoutingDecision]:
        """Choose for N instructions with one scorer call; decision i belongs to instruction i.

        Raises as :meth:`route` does, where one of them cannot be routed.
        """
        instructions = _listed(instructions)
        check_instructions(instructions)
        decisions: list[RoutingDecision] = []
        for found in self.route_each(instructions, policies=[policy] * len(instructions), requests=requests):
            if isinstance(found, Exception):
                raise found
            decisions.append(found)
        return decisions

    def route_each(
        self,
        instructions: Sequence[str],
        *,
        policies: Sequence[RoutingPolicy | None] | None = None,
        requests: Sequence[RoutingRequest | None] | None = None,
    ) -> list[RoutingDecision | MsatError]:
        """Like :meth:`route_batch`, each with its own policy; one that cannot be routed has its error in its place."""
        instructions = _listed(instructions)
        n = len(instructions)
        policies, requests = policies or [None] * n, requests or [None] * n
        if len(policies) != n or len(requests) != n:
            raise ConfigurationError(f"Got {len(policies)} policies and {len(requests)} requests for {n} instructions.")
        found: list[RoutingDecision | MsatError | None] = [_unusable(text) for text in instructions]
        usable = [i for i in range(n) if found[i] is None]
        scored = self._score_rows([instructions[i] for i in usable]) if usable else []
        for i, row in zip(usable, scored, strict=True):
            try:
                found[i] = self._decide(instructions[i], row, policies[i], requests[i])
            except MsatError as error:
                found[i] = error
        return [one for one in found if one is not None]

    async def aroute_batch(
        self,
        instructions: Sequence[str],
        *,
        policy: RoutingPolicy | None = None,
        requests: Sequence[RoutingRequest | None] | None = None,
    ) -> list[RoutingDecision]:
        """Like :meth:`route_batch`, in a thread of its own."""
        return await asyncio.to_thread(self.route_batch, instructions, policy=policy, requests=requests)

    def record(
        self, instruction: str, candidate: str, outcome: float, *, source: Source = "user", at: float | None = None
    ) -> None:
        """Learn from how right a candidate's answer was: further evidence about it, without training.

        What is kept is the instruction's embedding, not its text. It is learnt when this returns, by this router
        alone. Outcomes of one candidate on the same or nearly the same instruction are one experience, which never
        counts for more than one exam shot.

        Args:
            instruction: as it was routed.
            candidate: who answered, by name or alias.
            outcome: in [0, 1]: a test's verdict, a judge's grade, a thumb (0 or 1).
            source: ``test``, ``judge`` or ``user``; see :mod:`msat_core.routing.feedback` for what each is worth.
            at: seconds since the epoch; default: now.

        Raises:
            ConfigurationError: an outcome, source or time that cannot be, or a scorer that cannot learn from it.
            FeedbackError: the feedback file cannot be written, or is damaged.
            ZooError: the candidate is not in the zoo.
        """
        name = self.zoo[candidate].name
        check_instructions([instruction])
        learner = self._learner or self._new_learner()
        self.feedback.add(name, learner.vector(instruction), outcome, key=learner.key, source=source, at=at)
        self._learn()

    async def arecord(
        self, instruction: str, candidate: str, outcome: float, *, source: Source = "user", at: float | None = None
    ) -> None:
        """Like :meth:`record`; the event loop stays free."""
        await asyncio.to_thread(self.record, instruction, candidate, outcome, source=source, at=at)

    def _new_learner(self) -> Learner:
        with self._learning:
            if self._learner is None:
                self._learner = self.scorer.learner()
            return self._learner

    def _learn(self) -> None:
        """Take in what the log has and the learner has not, and take back what the log forgot."""
        learner = self._learner or self._new_learner()
        with self._learning:
            first, last, new = self.feedback.after(self._n_seen)
            numbered = [(last - len(new) + i, one) for i, one in enumerate(new) if one.key == learner.key]
            now = time.time()
            profiles = [candidate.profile for candidate in self.zoo.candidates]
            learner.learn([one.observation(now) for _, one in numbered], profiles)
            self._n_seen = last
            self._learnt.extend(number for number, _ in numbered)
            n_forgotten = sum(number < first for number in self._learnt)
            learner.forget(n_forgotten)
            for _ in range(n_forgotten):
                self._learnt.popleft()

    def _score(self, instructions: Sequence[str], candidates: Sequence[Candidate]) -> Scores:
        scorer = self._learner or self.scorer
        return scorer.score(instructions, [candidate.profile for candidate in candidates])

    def decide_unscored(
        self, *, policy: RoutingPolicy | None = None, request: RoutingRequest | None = None
    ) -> RoutingDecision:
        """Choose where there is no text to score (an image alone, say): the default, else by aptitude."""
        policy = self._policy(policy)
        candidates = _among(self._candidates(), request)
        aptitude = [candidate.profile.accuracy for candidate in candidates]
        choice = choose(policy, aptitude, candidates, instruction_chars=0, request=_dated(request))
        named = [i for i in choice.ranking if policy.default in (candidates[i].name, *candidates[i].aliases)]
        if named:
            order = (*named, *(i for i in choice.ranking if i not in named))
            choice = replace(choice, chosen=named[0], ranking=order, why="the default", notes=())
        said = f"no text to score; chosen as {choice.why} by exam accuracy"
        reason = f"{'; '.join([f'{candidates[choice.chosen].name}: {said}', *choice.notes])}."
        return _decision(choice, candidates, None, {}, reason, 0)

    def _policy(self, own: RoutingPolicy | None) -> RoutingPolicy:
        """A call's own policy, with its names checked, else the router's."""
        if own is None:
            return self.policy
        policy = RoutingPolicy.of_call(own)
        self.check_names(policy)
        return policy

    def check_names(self, policy: RoutingPolicy) -> None:
        """Raise PolicyError where a policy for this router names nobody that it has, or had when it was made."""
        policy.check_names(self.zoo, self._known)

    def _candidates(self) -> tuple[Candidate, ...]:
        candidates = self.zoo.candidates
        if not candidates:
            raise ZooError("The zoo is empty: add a candidate with Zoo.add(Candidate(profile=…)) before routing.")
        return candidates

    def _score_rows(self, instructions: Sequence[str]) -> list[_Scored]:
        candidates = self._candidates()
        scores = self._score(instructions, candidates)
        weights = _weights_of_tasks(scores)
        return [
            _Scored(candidates, scores.probabilities[n], int(scores.truncated_tokens[n]), weights[n])
            for n in range(len(instructions))
        ]

    def _decide(
        self, instruction: str, scored: _Scored, policy: RoutingPolicy | None, request: RoutingRequest | None
    ) -> RoutingDecision:
        candidates = _among(scored.candidates, request)
        rounded = [round(score, SCORE_DIGITS) for score in scored.row.tolist()]
        by_name = dict(zip((c.name for c in scored.candidates), rounded, strict=True))
        row = [by_name[candidate.name] for candidate in candidates]
        rule = self._policy(policy)
        weights = scored.task_weights
        choice = choose(
            rule, row, candidates, instruction_chars=size_of(instruction), request=_dated(request), task_weights=weights
        )
        elsewhere = rule.differences(candidates, self.scorer.digest)
        scores = {candidate.name: by_name[candidate.name] for candidate in candidates}
        reason = _reason(choice, candidates, row, tuple(weights), elsewhere)
        return _decision(choice, candidates, row[choice.chosen], scores, reason, scored.truncated_tokens)


def _shipped(names: object) -> Zoo:
    if isinstance(names, Sequence) and all(isinstance(name, str) for name in names):
        return Zoo.load(pretrained.ZOO).subset(names)
    raise ConfigurationError(
        f"Expected as zoo a Zoo, a zoo file or a list of names of the shipped zoo, got {type(names).__name__}: make "
        "one of your own candidates with Zoo.of([…])."
    )


def _listed(instructions: Sequence[str]) -> Sequence[str]:
    """Instructions that come from a generator, say, as a list; one string stays, to be refused."""
    return instructions if isinstance(instructions, (str, Sequence)) else list(instructions)


def _unusable(instruction: str) -> InstructionError | None:
    try:
        check_instructions([instruction])
    except InstructionError as error:
        return error
    return None


def _among(candidates: tuple[Candidate, ...], request: RoutingRequest | None) -> tuple[Candidate, ...]:
    if request is None:
        return candidates
    among = request.among
    kept = candidates if among is None else tuple(c for c in candidates if among & {c.name, *c.aliases})
    if among is not None and not kept:
        raise ZooError(f"None of {', '.join(sorted(among))} is in the zoo: add their profiles first.")
    facts = request.facts
    return kept if facts is None else tuple(map(facts.over, kept))


def _dated(request: RoutingRequest | None) -> RoutingRequest:
    """The request with its instant: now, where it names none."""
    request = request or RoutingRequest()
    return request if request.at is not None else replace(request, at=datetime.now(timezone.utc))


def _decision(
    choice: Choice,
    candidates: Sequence[Candidate],
    score: float | None,
    scores: dict[str, float],
    reason: str,
    truncated_tokens: int,
) -> RoutingDecision:
    return RoutingDecision(
        candidate=candidates[choice.chosen].name,
        score=score,
        scores=scores,
        costs_usd={c.name: usd for c, usd in zip(candidates, choice.costs_usd, strict=True)},
        list_usd={c.name: cost.list_usd for c, cost in zip(candidates, choice.costs, strict=True)},
        ranking=tuple(candidates[i].name for i in choice.ranking),
        excluded={candidates[i].name: why for i, why in choice.excluded.items()},
        reason=reason,
        truncated_tokens=truncated_tokens,
    )


def _weights_of_tasks(scores: Scores) -> list[dict[str, float]]:
    """How much each task counted for each instruction, heaviest first."""
    if scores.task_weights is None:
        return [{}] * len(scores.probabilities)
    order = np.argsort(-scores.task_weights, axis=1, kind="stable")
    weights = np.take_along_axis(scores.task_weights, order, axis=1).tolist()
    return [{scores.tasks[k]: w for k, w in zip(row, ws, strict=True)} for row, ws in zip(order, weights, strict=True)]


def _reason(
    choice: Choice,
    candidates: Sequence[Candidate],
    row: Sequence[float],
    tasks: Sequence[str],
    elsewhere: Sequence[str],
) -> str:
    chosen = candidates[choice.chosen]
    results = {result.task: result for result in chosen.profile.results if result.n_shots}
    own = [task for task in tasks if task in results][:REASON_TASKS]
    known = [f"{one.about} ({one.n_correct:g} of {one.n_shots} right)" for one in map(results.__getitem__, own)]
    near = f"; nearest in its exam: {'; '.join(known)}" if known else ""
    results_from = "" if chosen.has_results else f" (no results yet: as {chosen.profile.provenance.borrowed_from})"
    lost = [f"outside of what the policy was calibrated for ({'; '.join(elsewhere)})"] if elsewhere else []
    said = f"{chosen.name}: P(correct) {row[choice.chosen]:.2f}{results_from}, {choice.why}{near}"
    return f"{'; '.join([said, *choice.notes, *lost])}."
