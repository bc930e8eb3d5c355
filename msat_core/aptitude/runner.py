"""Sitting an exam: questions asked concurrently, bounded, retried, under a spending cap, resumable.

The journal is the only state. A question's mark is read off the journal's answers, so a run that
was killed and one that was not end in the same profile, and changing how answers are read needs no
new asking.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from msat_core.aptitude.budget import Account, Budget
from msat_core.aptitude.clients import ExamClient
from msat_core.aptitude.journal import Answer, Journal
from msat_core.aptitude.marking import Mark, tokens_of
from msat_core.aptitude.paid_calls import Asking, EndpointHealth, NotAskedError, PaidAnswer, PaidCalls
from msat_core.aptitude.sitting import AllAtOnce, Paper, Progress, QuestionOrder, RunSettings, SittingResult
from msat_core.errors import ConfigurationError, ExamError
from msat_core.scrubbing import kept_text

MAX_UNWRITTEN = 2  # answers for each call allowed at once; beyond it, asking waits for the disk


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
        self._n_planned: int | None = None
        self._n_right = self._n_resumed = 0
        self._unwritten: list[PaidAnswer] = []
        self._arrived = asyncio.Event()
        self._room = asyncio.Semaphore(MAX_UNWRITTEN * settings.concurrency)
        self._unwritable: ExamError | None = None
        asked = set(paper.item_ids)
        paid = (self._usd_of(answer) for answer in journal.answers.values() if answer.item_id in asked)
        self._account = Account(budget, sum(paid, journal.usd_lost), journal.usd_lost)
        self._health = EndpointHealth()
        self._calls = PaidCalls(client, settings, self._account, self._health, self._over, self._write_loss)

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
        if self._health.fault is not None:
            raise ExamError(
                f"{self._client.source} {self._health.fault}. {len(self._journal.answers)} answers are safe in "
                f"{self._journal.path}: put it right and run the same command again to go on."
            )
        marks = {item_id: self._marks[item_id] for item_id in self._paper.item_ids if item_id in self._marks}
        account = self._account
        return SittingResult(marks, self._failures, self._n_planned, account.exhausted, account.usd, account.usd_lost)

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

    async def _ask(self, item_id: str) -> PaidAnswer | None:
        """Ask a question at its next turn; None if it failed or the budget does not allow it."""
        rotation = self._mark(item_id).rotation
        prompt = self._paper.prompt(item_id, rotation)
        try:
            answered = await self._calls.reply(Asking(item_id, rotation, prompt, self._paper.tools(item_id)))
        except NotAskedError:
            return None
        except Exception as error:
            self._failures[item_id] = kept_text(error)
            self._health.failed(error)
            self._tell()
            return None
        self._health.answered()
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
                await self._account.settle(reserved, self._usd_of(answer))
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

    def _write_loss(self, usd: float) -> None:
        """Note on disk what a call that failed may have cost."""
        try:
            self._journal.write_loss(usd)
        except ExamError as error:
            self._unwritable = error

    def _usd_of(self, answer: Answer) -> float:
        return self._settings.prices.usd(*tokens_of(self._paper, answer))

    def _mark(self, item_id: str) -> Mark:
        return self._paper.mark(item_id, self._journal.answers, self._client.max_output_tokens)

    def _take(self, item_id: str, mark: Mark) -> None:
        self._marks[item_id] = mark
        self._n_right += mark.score == 1

    def _over(self) -> bool:
        return self._health.fault is not None or self._unwritable is not None or self._account.exhausted

    def _tell(self) -> None:
        if self._report is not None:
            self._report(
                Progress(
                    n_done=len(self._marks),
                    n_right=self._n_right,
                    n_failed=len(self._failures),
                    n_planned=self._n_planned,
                    n_resumed=self._n_resumed,
                    usd=self._account.usd,
                )
            )
