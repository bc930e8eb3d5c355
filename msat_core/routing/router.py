"""The router: score every candidate for an instruction, then choose by policy."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from msat_core.checks import check_count
from msat_core.errors import ConfigurationError, InstructionError, MsatError
from msat_core.exam import Exam
from msat_core.routing.cooldown import Cooldown
from msat_core.routing.deciding import Scored, decided, decided_unscored
from msat_core.routing.decision import RoutingDecision, RoutingRequest
from msat_core.routing.feedback import FeedbackLog, FeedbackSource
from msat_core.routing.loading import load_parts
from msat_core.routing.observing import Asked, Decisions, observers_of, recorded
from msat_core.routing.policy import RoutingPolicy
from msat_core.routing.scored_rows import ScoredRows
from msat_core.scoring.base import Scorer, Scores, check_instructions
from msat_core.zoo import Zoo


class Router:
    """Sends each instruction to the candidate most likely to answer it well.

    Thread-safe; concurrent calls of :meth:`route` and :meth:`aroute` share scorer calls.

    Args:
        scorer: predicts P(correct).
        zoo: who may be chosen; may change while routing.
        policy: how scores become a choice, unless a call brings its own; a mapping or a file of settings serves too.
            Whom a policy names must be in the zoo, or have been when the router was made: candidates may leave.
        max_batch: most instructions in one shared scorer call.
        repeats: how many instructions' scores are kept for when the same text comes again, to the letter; 0 for none.
            Candidates, exams and outcomes that are new make them be scored again.
        feedback: outcomes recorded earlier, and where :meth:`record` keeps further ones; default: in memory.
        decisions: where every route is recorded: a file, a :class:`DecisionLog`, a :class:`DecisionTelemetry`, or
            several of them; None for nowhere. Adapters tell what became of a decision, too.
    """

    def __init__(
        self,
        scorer: Scorer,
        zoo: Zoo,
        policy: RoutingPolicy | Mapping[str, Any] | str | Path | None = None,
        *,
        max_batch: int = 64,
        repeats: int = 0,
        feedback: FeedbackLog | None = None,
        decisions: Decisions = None,
    ) -> None:
        check_count("max_batch", max_batch)
        check_count("repeats", repeats, least=0)
        self.policy = RoutingPolicy.of(policy)
        self.policy.check(zoo.candidates, scorer.digest)
        self.policy.check_names(zoo)
        self._names = frozenset(name for c in zoo for name in (c.name, *c.aliases))
        log = FeedbackLog() if feedback is None else feedback
        self._rows = ScoredRows(scorer, zoo, max_batch=max_batch, repeats=repeats, feedback=log)
        self.cooldown = Cooldown()  # which candidates rest, for whoever dispatches to them
        self.observers = observers_of(decisions)

    def __repr__(self) -> str:
        policy = "" if self.policy == RoutingPolicy() else f", policy {self.policy.objective}"
        return f"Router({self.scorer!r}, {self.zoo!r}{policy})"

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
        decisions: Decisions = None,
        repeats: int = 0,
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
            repeats: see :class:`Router`.
            decisions: see :class:`Router`.
            device: where the scorer computes, as torch names it; None for the CPU.

        Raises:
            ArtefactError: the scorer or an exam is missing, damaged, or made with another encoder.
            ZooError: the zoo file is missing or damaged.
        """
        parts = load_parts(path, zoo=zoo, policy=policy, exams=exams, device=device)
        return cls(*parts, repeats=repeats, feedback=FeedbackLog(feedback), decisions=decisions)

    @property
    def scorer(self) -> Scorer:
        """Predicts P(correct); another one may take its place."""
        return self._rows.scorer

    @scorer.setter
    def scorer(self, scorer: Scorer) -> None:
        self._rows.scorer = scorer

    @property
    def zoo(self) -> Zoo:
        """Who may be chosen; another one may take its place."""
        return self._rows.zoo

    @zoo.setter
    def zoo(self, zoo: Zoo) -> None:
        self._rows.zoo = zoo

    @property
    def feedback(self) -> FeedbackLog:
        """The outcomes that it learns from."""
        return self._rows.learning.feedback

    def score(self, instructions: Sequence[str]) -> Scores:
        """Scores of N instructions for the zoo's M candidates, in one scorer call."""
        return self._rows.scores(instructions)

    def route(
        self, instruction: str, *, policy: RoutingPolicy | None = None, request: RoutingRequest | None = None
    ) -> RoutingDecision:
        """Choose a candidate for one instruction.

        Raises:
            InstructionError: the instruction is blank or not a string.
            ZooError: the zoo is empty.
            NoCandidateError: the limits exclude everybody and the policy names no default.
        """
        began = time.monotonic()
        decision = self.decide(instruction, policy=policy, request=request)
        return self.told(decision, instruction, policy=policy, request=request, began=began)

    async def aroute(
        self, instruction: str, *, policy: RoutingPolicy | None = None, request: RoutingRequest | None = None
    ) -> RoutingDecision:
        """Like :meth:`route`; the scorer runs off the event loop."""
        began = time.monotonic()
        decision = await self.adecide(instruction, policy=policy, request=request)
        return self.told(decision, instruction, policy=policy, request=request, began=began)

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
        for decision in self.route_each(instructions, policies=[policy] * len(instructions), requests=requests):
            if isinstance(decision, Exception):
                raise decision
            decisions.append(decision)
        return decisions

    def route_each(
        self,
        instructions: Sequence[str],
        *,
        policies: Sequence[RoutingPolicy | None] | None = None,
        requests: Sequence[RoutingRequest | None] | None = None,
    ) -> list[RoutingDecision | MsatError]:
        """Like :meth:`route_batch`, each with its own policy; one that cannot be routed has its error in its place."""
        began, instructions = time.monotonic(), _listed(instructions)
        results = self.decide_each(instructions, policies=policies, requests=requests)
        if not self.observers:
            return results
        n = len(results)
        rows = zip(results, instructions, policies or [None] * n, requests or [None] * n, strict=True)
        return [
            self.told(result, text, policy=rule, request=request, began=began)
            if isinstance(result, RoutingDecision)
            else result
            for result, text, rule, request in rows
        ]

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
        self,
        instruction: str,
        candidate: str,
        outcome: float,
        *,
        source: FeedbackSource = "user",
        at: float | None = None,
        decision: str | None = None,
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
            decision: id of the decision, so that ``msat trial --from-log`` finds its outcome.

        Raises:
            ConfigurationError: an outcome, source or time that cannot be, or a scorer that cannot learn from it.
            FeedbackError: the feedback file cannot be written, or is damaged.
            ZooError: the candidate is not in the zoo.
        """
        name = self.zoo[candidate].name
        check_instructions([instruction])
        self._rows.learning.record(instruction, name, outcome, source=source, at=at, decision=decision)
        self._rows.catch_up()

    async def arecord(
        self,
        instruction: str,
        candidate: str,
        outcome: float,
        *,
        source: FeedbackSource = "user",
        at: float | None = None,
        decision: str | None = None,
    ) -> None:
        """Like :meth:`record`; the event loop stays free."""
        await asyncio.to_thread(self.record, instruction, candidate, outcome, source=source, at=at, decision=decision)

    # --- for whoever dispatches, and tells what came of it: see msat_core.routing.dispatch ---

    def decide(
        self, instruction: str, *, policy: RoutingPolicy | None = None, request: RoutingRequest | None = None
    ) -> RoutingDecision:
        """Like :meth:`route`, without a record."""
        check_instructions([instruction])
        return self._rows.call(instruction, partial(self._decided, instruction, policy, request))

    async def adecide(
        self, instruction: str, *, policy: RoutingPolicy | None = None, request: RoutingRequest | None = None
    ) -> RoutingDecision:
        """Like :meth:`aroute`, without a record."""
        check_instructions([instruction])
        return await self._rows.acall(instruction, partial(self._decided, instruction, policy, request))

    def decide_each(
        self,
        instructions: Sequence[str],
        *,
        policies: Sequence[RoutingPolicy | None] | None = None,
        requests: Sequence[RoutingRequest | None] | None = None,
    ) -> list[RoutingDecision | MsatError]:
        """Like :meth:`route_each`, without records."""
        n = len(instructions)
        policies, requests = policies or [None] * n, requests or [None] * n
        if len(policies) != n or len(requests) != n:
            raise ConfigurationError(f"Got {len(policies)} policies and {len(requests)} requests for {n} instructions.")
        results: list[RoutingDecision | MsatError | None] = [_unusable(text) for text in instructions]
        usable = [i for i in range(n) if results[i] is None]
        scored = self._rows.of([instructions[i] for i in usable]) if usable else []
        for i, row in zip(usable, scored, strict=True):
            try:
                results[i] = self._decided(instructions[i], policies[i], requests[i], row)
            except MsatError as error:
                results[i] = error
        return [result for result in results if result is not None]

    def decide_unscored(
        self, *, policy: RoutingPolicy | None = None, request: RoutingRequest | None = None
    ) -> RoutingDecision:
        """Choose where there is no text to score (an image alone, say): the default, else by aptitude. No record."""
        return decided_unscored(self._rows.candidates, self._policy(policy), request)

    def asked(
        self, instruction: str | None, policy: RoutingPolicy | None, request: RoutingRequest | None, began: float
    ) -> Asked:
        """What a decision of this router was made by."""
        return Asked(
            self.zoo, policy or self.policy, self.scorer.digest, instruction, request or RoutingRequest(), began
        )

    def told(
        self,
        decision: RoutingDecision,
        instruction: str | None,
        *,
        policy: RoutingPolicy | None,
        request: RoutingRequest | None,
        began: float,
    ) -> RoutingDecision:
        """The decision with its id, recorded as one of which nothing more will be heard."""
        if not self.observers:
            return decision
        return recorded(decision, self.asked(instruction, policy, request, began), self.observers)

    # --- how ---

    def _decided(
        self, instruction: str, policy: RoutingPolicy | None, request: RoutingRequest | None, scored: Scored
    ) -> RoutingDecision:
        return decided(instruction, scored, self._policy(policy), request, self.scorer.digest)

    def _policy(self, stated: RoutingPolicy | None) -> RoutingPolicy:
        """A call's own policy, with its names checked, else the router's."""
        if stated is None:
            return self.policy
        policy = RoutingPolicy.of_call(stated)
        self.check_names(policy)
        return policy

    def check_names(self, policy: RoutingPolicy) -> None:
        """Raise PolicyError where a policy for this router names nobody that it has, or had when it was made."""
        policy.check_names(self.zoo, self._names)


def _listed(instructions: Sequence[str]) -> Sequence[str]:
    """Instructions that come from a generator, say, as a list; one string, or a number, stays, to be refused."""
    is_listed = isinstance(instructions, (str, Sequence)) or not isinstance(instructions, Iterable)
    return instructions if is_listed else list(instructions)


def _unusable(instruction: str) -> InstructionError | None:
    try:
        check_instructions([instruction])
    except InstructionError as error:
        return error
    return None
