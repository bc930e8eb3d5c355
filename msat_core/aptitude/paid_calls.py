"""Calls to an endpoint: each in its time, paid for by itself, and tried again while that may help."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from msat_core.aptitude.budget import Account
from msat_core.aptitude.clients import ExamClient, Reply, is_refusal, is_transient, is_unreachable, may_have_cost
from msat_core.aptitude.journal import Answer
from msat_core.aptitude.paper import CHARS_PER_TOKEN_AT_WORST
from msat_core.aptitude.sitting import RunSettings
from msat_core.http_errors import retry_after_s
from msat_core.scrubbing import kept_text

MAX_BACKOFF_S = 20.0  # chosen, as is the first: a tired endpoint rests, and the run goes on soon after
FIRST_BACKOFF_S = 0.5  # doubled at each try
MAX_RETRY_AFTER_S = 60.0  # of what an endpoint asks for; chosen: limits are by the minute as a rule
UNREACHABLE_FOR_S = 5.0  # a host that nobody has reached yet is a wrong one, not a tired one
FAILURES_IN_A_ROW = 10  # then the endpoint, not a question, is taken to be at fault

PaidAnswer = tuple[Answer, float]  # an answer, and the USD that were set aside for it


class NotAskedError(Exception):
    """The budget allows no further call, or the run is over."""


@dataclass(frozen=True)
class Asking:
    """One question at one turn, in its words."""

    item_id: str
    rotation: int
    prompt: str
    tools: Sequence[Mapping[str, Any]]

    async def of(self, client: ExamClient) -> Reply:
        """The client's reply."""
        return await (client.ask_with_tools(self.prompt, self.tools) if self.tools else client.ask(self.prompt))

    def answered(self, reply: Reply, limit: int | None, seconds: float) -> Answer:
        """The reply as the journal keeps it."""
        tokens = reply.input_tokens, reply.output_tokens
        return Answer(self.item_id, self.rotation, reply.text, *tokens, reply.ended, limit, round(seconds, 3))


class EndpointHealth:
    """Whether an endpoint answers at all.

    Attributes:
        reached: whether a question has been answered.
        fault: what it does that makes further questions pointless; None while it is well.
    """

    def __init__(self) -> None:
        self.reached = False
        self.fault: str | None = None
        self._n_in_a_row = 0

    def answered(self) -> None:
        """A question was answered."""
        self.reached, self._n_in_a_row = True, 0

    def failed(self, error: Exception) -> None:
        """A question was given up."""
        self._n_in_a_row += 1
        reason = kept_text(error)
        if is_refusal(error) and not self.reached:
            self.fault = f"refuses ({reason})"
        elif is_unreachable(error) and not self.reached:
            self.fault = f"cannot be reached ({reason}): is the --base-url right, and is somebody listening there"
        elif self._n_in_a_row >= FAILURES_IN_A_ROW:
            self.fault = f"failed {self._n_in_a_row} questions in a row ({reason})"


class PaidCalls:
    """Calls of one sitting.

    Args:
        client: who is called.
        settings: times and prices.
        account: what calls are paid from.
        health: of the endpoint.
        over: whether nothing more may be asked.
        lose: notes on disk what a call that failed may have cost, in USD.
    """

    def __init__(
        self,
        client: ExamClient,
        settings: RunSettings,
        account: Account,
        health: EndpointHealth,
        over: Callable[[], bool],
        lose: Callable[[float], None],
    ) -> None:
        self._client, self._settings, self._account, self._health = client, settings, account, health
        self._over, self._lose = over, lose

    async def reply(self, asking: Asking) -> PaidAnswer:
        """The answer to a question, tried again for as long as the settings allow.

        Raises:
            NotAskedError: no call may be made.
            Exception: the last try's.
        """
        import tenacity

        backoff = tenacity.wait_random_exponential(multiplier=FIRST_BACKOFF_S, max=MAX_BACKOFF_S)

        def wait(state: tenacity.RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            wait_s = (error and retry_after_s(error)) or 0.0
            return max(float(backoff(state)), min(wait_s, MAX_RETRY_AFTER_S))

        def enough(state: tenacity.RetryCallState) -> bool:
            error = state.outcome.exception() if state.outcome else None
            never_reached = error is not None and is_unreachable(error) and not self._health.reached
            longest = min(self._settings.retry_for_s, UNREACHABLE_FOR_S if never_reached else float("inf"))
            return (state.seconds_since_start or 0.0) >= longest

        attempts = tenacity.AsyncRetrying(
            stop=enough,
            wait=wait,
            retry=tenacity.retry_if_exception(lambda error: not self._over() and is_transient(error)),
            reraise=True,
        )
        return await attempts(self._attempt, asking)

    async def _attempt(self, asking: Asking) -> PaidAnswer:
        """One call, paid for by itself: a retry is another call, and a failed one may have been charged for."""
        import anyio

        most = self._settings.prices.usd(
            len(asking.prompt) / CHARS_PER_TOKEN_AT_WORST, self._client.max_output_tokens or 0
        )
        if not await self._account.reserve(most):
            raise NotAskedError
        if self._over():  # it may have come to that while the money was waited for
            await self._account.settle(most, 0.0)
            raise NotAskedError
        began = time.monotonic()
        try:
            with anyio.fail_after(self._settings.timeout_s):  # without a task for each call, unlike wait_for
                reply = await asking.of(self._client)
            if not isinstance(reply.text, str):
                raise TypeError(f"expected a reply of text, got {type(reply.text).__name__}")
        except Exception as error:
            usd = most if may_have_cost(error) else 0.0
            await self._account.settle(most, usd, lost=True)
            if usd:
                await asyncio.to_thread(self._lose, usd)
            raise
        return asking.answered(reply, self._client.max_output_tokens, time.monotonic() - began), most
