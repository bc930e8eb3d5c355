"""Sitting an exam: questions asked concurrently, bounded, retried, under a spending cap, resumable.

The journal is the only state. A question's mark is read off the journal's answers, so a run that
was killed and one that was not end in the same profile, and changing how answers are read needs no
new asking.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from typing import Protocol as TypingProtocol

from msat_core.aptitude.budget import Budget
from msat_core.aptitude.clients import (
    ExamClient,
    Reply,
    is_refusal,
    is_transient,
    is_unreachable,
    may_have_cost,
)
from msat_core.aptitude.journal import Answer, Journal
from msat_core.aptitude.marking import Mark, tokens_of
from msat_core.aptitude.paper import CHARS_PER_TOKEN_AT_WORST, Prices
from msat_core.checks import check_count
from msat_core.errors import ConfigurationError, ExamError
from msat_core.http_errors import retry_after_s
from msat_core.scrubbing import kept_text

MAX_BACKOFF_S = 20.0  # chosen, as is the first: a tired endpoint rests, and the run goes on soon after
FIRST_BACKOFF_S = 0.5  # doubled at each try
MAX_RETRY_AFTER_S = 60.0  # of what an endpoint asks for; chosen: limits are by the minute as a rule
UNREACHABLE_FOR_S = 5.0  # a host that nobody has reached yet is a wrong one, not a tired one
FAILURES_IN_A_ROW = 10  # then the endpoint, not a question, is taken to be at fault
MAX_UNWRITTEN = 2  # answers for each call allowed at once; beyond it, asking waits for the disk


@dataclass(frozen=True)
class RunSettings:
    """How hard the endpoint is leant on, and what may be spent.

    Attributes:
        concurrency: most calls under way at once.
        timeout_s: seconds after which one call is given up and tried again.
        retry_for_s: seconds for which one question is tried; then it is left for the next run.
        prices: of the candidate.
        max_usd: spending cap of the whole sitting, earlier runs included; a call that could pass it is
            not made, and one that failed counts with the most it may have cost. None for no cap.
    """

    concurrency: int = 16
    timeout_s: float = 120.0
    retry_for_s: float = 300.0
    prices: Prices = field(default_factory=Prices)
    max_usd: float | None = None

    def __post_init__(self) -> None:
        check_count("The concurrency", self.concurrency)
        if not (0 < self.timeout_s < math.inf and 0 <= self.retry_for_s < math.inf):
            raise ConfigurationError(
                "The timeout must be above 0 and the time for retries at least 0 seconds, got "
                f"{self.timeout_s} and {self.retry_for_s}."
            )
        if self.max_usd is not None and not 0 <= self.max_usd < math.inf:
            raise ConfigurationError(f"The spending cap must be a number from 0, got {self.max_usd}; None for no cap.")
        if self.max_usd is not None and not self.prices.known:
            raise ConfigurationError(
                "A spending cap needs prices: give both USD per million tokens, in and out, or leave --max-usd off."
            )


class QuestionOrder(TypingProtocol):
    """Which questions come next. Asked between rounds; must depend on the scores alone, so that runs resume."""

    @property
    def name(self) -> Literal["spread", "adaptive"]:
        """What the profile says of the order."""

    @property
    def n_planned(self) -> int | None:
        """How many questions will be asked; None if that is left open."""

    def next_round(self, scores: Mapping[str, float]) -> Sequence[str]:
        """Ids to ask next, given the scores of those already asked; none when it is enough."""


class Paper(TypingProtocol):
    """What is sat: questions by id, in the words in which they are asked."""

    @property
    def item_ids(self) -> tuple[str, ...]:
        """Ids in the order of asking."""

    def prompt(self, item_id: str, rotation: int = 0) -> str:
        """The prompt that asks the question at that turn."""

    def tools(self, item_id: str) -> Sequence[Mapping[str, Any]]:
        """Tools that are offered with it."""

    def mark(self, item_id: str, answers: Mapping[tuple[str, int], Answer], limit: int | None) -> Mark:
        """What the answers so far amount to; ``limit`` is the most output tokens that would be allowed now."""


class AllAtOnce:
    """Every question of the paper, in one round."""

    name: Literal["spread", "adaptive"] = "spread"

    def __init__(self, paper: Paper) -> None:
        self._left = list(paper.item_ids)
        self.n_planned: int | None = len(self._left)

    def next_round(self, scores: Mapping[str, float]) -> Sequence[str]:
        """All, then none."""
        now, self._left = self._left, []
        return now


@dataclass(frozen=True)
class Progress:
    """How far a sitting has come.

    Attributes:
        n_done, n_right, n_failed: questions.
        n_planned: None where it is left open.
        n_resumed: of those done, how many were in the journal already.
        usd: spent so far, earlier runs included.
    """

    n_done: int
    n_right: int
    n_failed: int
    n_planned: int | None
    n_resumed: int
    usd: float


@dataclass(frozen=True)
class SittingResult:
    """What came of a run.

    Attributes:
        marks: of every question that is settled, by item id, in the order of asking.
        failures: why the others failed, by item id.
        n_planned: questions that were to be asked.
        out_of_budget: whether the spending cap ended it.
        usd: spent in the whole sitting, and set against calls that failed and may have been charged for.
        usd_lost: the second of the two.
    """

    marks: Mapping[str, Mark]
    failures: Mapping[str, str]
    n_planned: int | None
    out_of_budget: bool
    usd: float
    usd_lost: float = 0.0

    @property
    def complete(self) -> bool:
        """Was every question settled?"""
        return not self.failures and not self.out_of_budget


async def sit(
    paper: Paper,
    client: ExamClient,
    journal: Journal,
    *,
    order: QuestionOrder | None = None,
    settings: RunSettings | None = None,
    progress: Callable[[Progress], None] | None = None,
    budget: Budget | None = None,
) -> SittingResult:
    """Ask what the journal does not have yet, and mark everything.

    Args:
        paper: the questions.
        client: who answers.
        journal: opened.
        order: which questions, in rounds; None for all at once.
        settings: concurrency, retries, prices, cap.
        progress: called after every question.
        budget: shared with other sittings; None for one of its own, capped by the settings.

    Raises:
        ExamError: the endpoint refuses (key, permission, unknown name), cannot be reached, or fails question after
            question. What was answered until then is in the journal.
    """
    settings = settings or RunSettings()
    sitting = _Sitting(paper, client, journal, settings, progress, budget or Budget(settings.max_usd))
    return await sitting.run(order or AllAtOnce(paper))


_Answered = tuple[Answer, float]  # an answer, and the USD that were set aside for it


class _NotAsked(Exception):
    """The budget allows no further call, or the run is over."""


@dataclass(frozen=True)
class _Asking:
    """One question at one turn, in its words."""

    item_id: str
    rotation: int
    prompt: str
    tools: Sequence[Mapping[str, Any]]

    async def of(self, client: ExamClient) -> Reply:
        return await (client.ask_with_tools(self.prompt, self.tools) if self.tools else client.ask(self.prompt))

    def answered(self, reply: Reply, limit: int | None, seconds: float) -> Answer:
        tokens = reply.input_tokens, reply.output_tokens
        return Answer(self.item_id, self.rotation, reply.text, *tokens, reply.ended, limit, round(seconds, 3))


class _Sitting:
    """One run. Its workers share the questions, a budget and the reason to stop; one writer keeps the journal."""

    def __init__(
        self,
        paper: Paper,
        client: ExamClient,
        journal: Journal,
        settings: RunSettings,
        progress: Callable[[Progress], None] | None,
        budget: Budget,
    ) -> None:
        if budget.capped and client.max_output_tokens is None:
            raise ConfigurationError(
                f"A spending cap needs the longest reply that {client.source} can give: set its max_tokens, or leave "
                "the cap off."
            )
        self._paper, self._client, self._journal, self._settings = paper, client, journal, settings
        self._report = progress
        self._marks: dict[str, Mark] = {}
        self._failures: dict[str, str] = {}
        self._budget = budget
        self._usd = self._usd_lost = 0.0  # of this sitting
        self._n_planned: int | None = None
        self._n_right = self._n_resumed = self._n_answered = self._in_a_row = 0
        self._unwritten: list[_Answered] = []
        self._arrived = asyncio.Event()
        self._room = asyncio.Semaphore(MAX_UNWRITTEN * settings.concurrency)
        self._refused: str | None = None  # what the endpoint did that ends the run
        self._unwritable: ExamError | None = None
        asked = set(paper.item_ids)
        self._count(journal.usd_lost, lost=True)
        for answer in journal.answers.values():
            if answer.item_id in asked:
                self._count(settings.prices.usd(*tokens_of(paper, answer)))
        budget.spent += self._usd

    async def run(self, order: QuestionOrder) -> SittingResult:
        self._n_planned = order.n_planned
        while not self._over():
            scores = {i: mark.score for i, mark in self._marks.items() if mark.score is not None}
            items = await asyncio.to_thread(order.next_round, scores)
            if not items:
                break
            await self._round(items)
        if self._unwritable is not None:
            raise self._unwritable
        if self._refused is not None:
            raise ExamError(
                f"{self._client.source} {self._refused}. {len(self._journal.answers)} answers are safe in "
                f"{self._journal.path}: put it right and run the same command again to go on."
            )
        marks = {item_id: self._marks[item_id] for item_id in self._paper.item_ids if item_id in self._marks}
        return SittingResult(marks, self._failures, self._n_planned, self._budget.exhausted, self._usd, self._usd_lost)

    async def _round(self, items: Sequence[str]) -> None:
        questions: asyncio.Queue[str] = asyncio.LifoQueue()  # a question's next turn comes before the next question
        for item_id in reversed(items):
            mark = self._mark(item_id)
            if not mark.settled:
                questions.put_nowait(item_id)
            else:
                self._take(item_id, mark)
                self._n_resumed += 1
        self._tell()
        n_workers = min(self._settings.concurrency, questions.qsize())
        tasks = [asyncio.create_task(self._work(questions)) for _ in range(n_workers)]
        tasks += [asyncio.create_task(self._write(questions)), asyncio.create_task(questions.join())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            self._write_what_is_left()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _work(self, questions: asyncio.Queue[str]) -> None:
        """Ask one question after the other; the writer takes care of the answers meanwhile."""
        while True:
            item_id = await questions.get()
            await self._room.acquire()
            answered = None if self._over() else await self._ask(item_id)
            if answered is None:
                self._room.release()
                questions.task_done()
            else:
                self._unwritten.append(answered)
                self._arrived.set()

    async def _ask(self, item_id: str) -> _Answered | None:
        """Ask a question at its next turn; None if it failed or the budget does not allow it."""
        rotation = self._mark(item_id).rotation
        prompt = self._paper.prompt(item_id, rotation)
        try:
            answered = await self._reply(_Asking(item_id, rotation, prompt, self._paper.tools(item_id)))
        except _NotAsked:
            return None
        except Exception as error:
            self._note_failure(item_id, error)
            self._tell()
            return None
        self._n_answered += 1
        self._in_a_row = 0
        return answered

    async def _write(self, questions: asyncio.Queue[str]) -> None:
        """Write answers down, as many at once as are there, and mark their questions."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            group = list(self._unwritten)
            try:
                await self._journal.append([answer for answer, _ in group])
            except ExamError as error:  # nothing more may be asked
                self._unwritable = error
            del self._unwritten[: len(group)]
            for answer, reserved in group:
                usd = self._settings.prices.usd(*tokens_of(self._paper, answer))
                await self._budget.settle(reserved, usd)
                self._count(usd)
                mark = self._mark(answer.item_id)
                if mark.settled:
                    self._take(answer.item_id, mark)
                elif not self._over():
                    questions.put_nowait(answer.item_id)  # its next turn
                self._room.release()
                questions.task_done()
                self._tell()

    def _write_what_is_left(self) -> None:
        """After an interruption: what was answered is paid for. Waits for nothing that a second one could end."""
        try:
            self._journal.write([answer for answer, _ in self._unwritten])
        except ExamError as error:
            self._unwritable = error

    def _mark(self, item_id: str) -> Mark:
        return self._paper.mark(item_id, self._journal.answers, self._client.max_output_tokens)

    def _count(self, usd: float, *, lost: bool = False) -> None:
        self._usd += usd
        self._usd_lost += usd if lost else 0.0

    def _take(self, item_id: str, mark: Mark) -> None:
        self._marks[item_id] = mark
        self._n_right += mark.score == 1

    async def _reply(self, asking: _Asking) -> _Answered:
        import tenacity

        backoff = tenacity.wait_random_exponential(multiplier=FIRST_BACKOFF_S, max=MAX_BACKOFF_S)

        def wait(state: tenacity.RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            wait_s = (error and retry_after_s(error)) or 0.0
            return max(float(backoff(state)), min(wait_s, MAX_RETRY_AFTER_S))

        def enough(state: tenacity.RetryCallState) -> bool:
            error = state.outcome.exception() if state.outcome else None
            never_reached = error is not None and is_unreachable(error) and not self._n_answered
            longest = min(self._settings.retry_for_s, UNREACHABLE_FOR_S if never_reached else float("inf"))
            return (state.seconds_since_start or 0.0) >= longest

        attempts = tenacity.AsyncRetrying(
            stop=enough,
            wait=wait,
            retry=tenacity.retry_if_exception(lambda error: not self._over() and is_transient(error)),
            reraise=True,
        )
        return await attempts(self._attempt, asking)

    async def _attempt(self, asking: _Asking) -> _Answered:
        """One call, paid for by itself: a retry is another call, and a failed one may have been charged for."""
        import anyio

        most = self._settings.prices.usd(
            len(asking.prompt) / CHARS_PER_TOKEN_AT_WORST, self._client.max_output_tokens or 0
        )
        if not await self._budget.reserve(most):
            raise _NotAsked
        if self._over():  # it may have come to that while the money was waited for
            await self._budget.settle(most, 0.0)
            raise _NotAsked
        began = time.monotonic()
        try:
            with anyio.fail_after(self._settings.timeout_s):  # without a task for each call, unlike wait_for
                reply = await asking.of(self._client)
            if not isinstance(reply.text, str):
                raise TypeError(f"expected a reply of text, got {type(reply.text).__name__}")
        except Exception as error:
            await self._lose(most, most if may_have_cost(error) else 0.0)
            raise
        return asking.answered(reply, self._client.max_output_tokens, time.monotonic() - began), most

    async def _lose(self, reserved: float, usd: float) -> None:
        """Count a call that failed with what it may have cost, on disk too."""
        await self._budget.settle(reserved, usd)
        self._count(usd, lost=True)
        if usd:
            try:
                await asyncio.to_thread(self._journal.write_loss, usd)
            except ExamError as error:
                self._unwritable = error

    def _note_failure(self, item_id: str, error: Exception) -> None:
        reason = kept_text(error)
        self._failures[item_id] = reason
        self._in_a_row += 1
        if is_refusal(error) and not self._n_answered:
            self._refused = f"refuses ({reason})"
        elif is_unreachable(error) and not self._n_answered:
            self._refused = f"cannot be reached ({reason}): is the --base-url right, and is somebody listening there"
        elif self._in_a_row >= FAILURES_IN_A_ROW:
            self._refused = f"failed {self._in_a_row} questions in a row ({reason})"

    def _over(self) -> bool:
        return self._refused is not None or self._unwritable is not None or self._budget.exhausted

    def _tell(self) -> None:
        if self._report is not None:
            self._report(
                Progress(
                    n_done=len(self._marks),
                    n_right=self._n_right,
                    n_failed=len(self._failures),
                    n_planned=self._n_planned,
                    n_resumed=self._n_resumed,
                    usd=self._usd,
                )
            )
