"""One call on its way from its messages to a candidate."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.instrumentation.span import active_span_id

from llamaindex_msat.authors import Authors
from llamaindex_msat.candidates import with_settings_of
from llamaindex_msat.events import MSATRouteEvent, dispatcher, from_handlers
from llamaindex_msat.messages import Said, finish_reason, says_something, tagged, turns_of
from llamaindex_msat.questions import unframed
from llamaindex_msat.readable_messages import readable
from llamaindex_msat.setup import Setup, Wishes
from llamaindex_msat.usage import conversation, usage_of
from msat_core import (
    Attempt,
    Attempts,
    ConfigurationError,
    EmptyAnswerError,
    RoutingAsk,
    RoutingDecision,
    RoutingPolicy,
    Turn,
    afirst_answer,
    afirst_stream,
    believed,
    first_answer,
    first_stream,
    tag_of,
)

Out = TypeVar("Out")


@dataclass(frozen=True)
class PreparedCandidate:
    """Who is called: a candidate made ready, and how it reads a conversation."""

    name: str
    llm: Any
    authors: Authors

    def reads(self, messages: Sequence[ChatMessage]) -> list[ChatMessage]:
        """The messages as this candidate can read them."""
        return readable(messages, self.name, self.llm, self.authors.of)


class RoutedCall:
    """One call: what it asks of the router, and how candidates are called until one has answered.

    Args:
        setup: the router.
        messages: everything that is sent.
        wishes: what the caller says outright.
        turns: the messages as turns, where the caller of this class knows them better.
        tools: whether tools are offered.
        extra_chars: size of what is sent beside the messages.
    """

    def __init__(
        self,
        setup: Setup,
        messages: Sequence[ChatMessage],
        wishes: Wishes,
        *,
        turns: Sequence[Turn] | None = None,
        tools: bool = False,
        extra_chars: int = 0,
    ) -> None:
        self.setup = setup
        if turns is None:
            turns = unframed(turns_of(messages, setup.authors.of), setup.authors.of_text)
        instruction = wishes.instruction
        if instruction is None and setup.instruction_of is not None:
            instruction = setup.instruction_of(list(messages))
        able = self._able(tools)
        usual = setup.router.policy if setup.policy is None else setup.policy
        policy = usual if wishes.policy is None else RoutingPolicy.of_call(wishes.policy).within(usual)
        holding = setup.candidates.that_hold(able, (message.content or "" for message in messages), extra_chars)
        self.ask = RoutingAsk.of(
            setup.router,
            [*self._conversation(turns), *turns],
            sticky=setup.sticky,
            tools=tools,
            among=holding or able,  # where nobody's own window holds it, its own server decides
            policy=policy,
            forced=wishes.candidate,
            instruction=instruction,
            extra_chars=extra_chars,
            conversation=conversation(),
            observers=setup.observers,
            facts=setup.candidates.facts(windows=bool(holding)),
        )
        self._span = active_span_id.get()
        self._held = self._who_holds(turns)

    def _able(self, tools: bool) -> list[str]:
        candidates = self.setup.candidates
        names = candidates.with_tools() if tools else list(candidates.llms)
        if not names:
            raise ConfigurationError(f"None of {', '.join(candidates.llms)} can call functions.")
        return names

    def _conversation(self, turns: Sequence[Turn]) -> list[Turn]:
        """Who condensed the question, where a candidate did: the conversation it came from is not in the prompt."""
        last = next((turn.text for turn in reversed(turns) if turn.role == "user"), "")
        tag = self.setup.authors.of_text(last) if self.setup.sticky == "conversation" else None
        return [Turn("assistant", candidate=tag["candidate"], turn=tag["turn"])] if tag else []

    def _who_holds(self, turns: Sequence[Turn]) -> Mapping[str, Any] | None:
        """The decision of the candidate that already works on this, with the scores it was made by."""
        if self.setup.sticky == "never" or self.ask.forced is not None:
            return None
        reading, authors = self.ask.reading, self.setup.authors
        if reading.held is not None:
            return authors.of_turn(reading.turn, reading.held)
        tag = authors.of_span(self._span, reading.turn) if self._span else None
        if tag is None and turns and not _asks(turns[-1], reading.instruction):
            tag = authors.of_turn(reading.turn)  # half-way in a turn whose answers an agent has rewritten
        if tag is not None and believed(tag):
            self.ask = replace(self.ask, reading=replace(reading, held=str(tag["candidate"])))
            return tag
        return None

    # --- who is tried ---

    def attempts(self) -> Attempts:
        """The candidates to try; blocks while the scorer runs."""
        return self._attempts(self.ask.decide())

    async def aattempts(self) -> Attempts:
        """The candidates to try; the event loop stays free."""
        return self._attempts(await self.ask.adecide())

    def _attempts(self, decision: RoutingDecision) -> Attempts:
        decision = self._as_scored(decision)
        return self.ask.attempts(decision, self.setup.fallback, passes=from_handlers, usage_of=usage_of)

    def _as_scored(self, decision: RoutingDecision) -> RoutingDecision:
        """A decision about a held turn with the turn's scores: fallback goes by them, and not by exam accuracy."""
        if self._held is None or decision.scores or self.ask.reading.held is None:
            return decision
        zoo = self.setup.router.zoo
        scores = {zoo[n].name: s for n, s in (self._held.get("scores") or {}).items() if n in zoo}
        scores = {name: score for name, score in scores.items() if name in decision.costs_usd}
        ranked = [zoo[name].name for name in self._held.get("ranking") or scores if name in zoo]
        ranking = [name for name in ranked if name in decision.ranking]
        order = tuple(dict.fromkeys((decision.candidate, *ranking, *decision.ranking)))
        return decision.model_copy(update={"scores": scores, "score": scores.get(decision.candidate), "ranking": order})

    def prepared(self, attempt: str) -> PreparedCandidate:
        """A candidate, made ready."""
        setup, name = self.setup, self.setup.name_of(str(attempt))
        timed = setup.fallback.timeout_s is not None or setup.fallback.deadline_s is not None
        ends = attempt if timed and isinstance(attempt, Attempt) else None
        return PreparedCandidate(name, with_settings_of(setup.llm, setup.candidates.llms[name], ends), setup.authors)

    # --- calling ---

    def answer(self, call: Callable[[PreparedCandidate], Out]) -> Out:
        """The first answer that a candidate gives."""
        attempts = self.attempts()
        with self._failure_told(attempts):
            output = first_answer(
                attempts, lambda attempt: self._checked(call(self.prepared(attempt)), attempt, attempts)
            )
        return self._told(output, attempts)

    async def aanswer(self, call: Callable[[PreparedCandidate], Awaitable[Out]]) -> Out:
        """Like :meth:`answer`."""
        attempts = await self.aattempts()

        async def outcome(attempt: Attempt) -> Out:
            return self._checked(await call(self.prepared(attempt)), attempt, attempts)

        with self._failure_told(attempts):
            output = await afirst_answer(attempts, outcome)
        return self._told(output, attempts)

    def chunks(self, call: Callable[[PreparedCandidate], Iterator[Out]]) -> Generator[Out, None, None]:
        """The first stream whose first token comes; it is open when this returns."""
        attempts = self.attempts()
        with self._failure_told(attempts):
            opened = first_stream(attempts, lambda attempt: iter(call(self.prepared(attempt))), says_something)
        tag = self._event(attempts)

        def stream() -> Generator[Out, None, None]:
            answer = Said()
            with contextlib.closing(cast("Generator[Out, None, None]", iter(opened))) as chunks:
                for chunk in chunks:
                    yield cast("Out", answer.heard(tagged(chunk, tag)))
            self.setup.authors.remember(answer.whole, tag)

        return stream()

    async def achunks(
        self, call: Callable[[PreparedCandidate], Awaitable[AsyncIterator[Out]]]
    ) -> AsyncGenerator[Out, None]:
        """Like :meth:`chunks`."""
        attempts = await self.aattempts()
        with self._failure_told(attempts):
            opened = await afirst_stream(attempts, lambda attempt: call(self.prepared(attempt)), says_something)
        tag = self._event(attempts)

        async def stream() -> AsyncGenerator[Out, None]:
            answer = Said()
            async with contextlib.aclosing(aiter(opened)) as chunks:
                async for chunk in chunks:
                    yield cast("Out", answer.heard(tagged(chunk, tag)))
            self.setup.authors.remember(answer.whole, tag)

        return stream()

    def _checked(self, output: Out, attempt: Attempt, attempts: Attempts) -> Out:
        """The answer, unless it is empty or cut off and the settings send such to the next candidate."""
        fallback, name = attempts.fallback, self.setup.name_of(str(attempt))
        if fallback.empty == "next" and not says_something(output):
            raise EmptyAnswerError(f"{name} gave an empty answer.", output)
        if fallback.cut == "next" and hasattr(output, "raw") and finish_reason(output) is None:
            raise EmptyAnswerError(f"{name} gave no finish reason.", output, "cut")
        return output

    # --- telling ---

    def _told(self, output: Out, attempts: Attempts) -> Out:
        tag = self._event(attempts)
        self.setup.authors.remember(output, tag)
        return cast("Out", tagged(output, tag))

    def _event(self, attempts: Attempts) -> dict[str, Any]:
        """Tell who answered, now that it is known; returns the decision for the answer."""
        setup = self.setup
        tag = tag_of(attempts, self.ask, setup.name_of, top_scores=setup.top_scores)
        keys = ("candidate", "score", "reason", "cost_usd", "path", "instruction", "elapsed_s")
        scores = self._send(attempts, **{key: tag[key] for key in keys})
        kept = {**tag, "scores": scores, "ranking": [setup.name_of(name) for name in attempts.decision.ranking]}
        if self._span:
            setup.authors.remember_in(self._span, kept)
        setup.authors.remember_turn(kept)
        return tag

    @contextlib.contextmanager
    def _failure_told(self, attempts: Attempts) -> Iterator[None]:
        """Tell that nobody answered, where all that were asked have failed."""
        try:
            yield
        except Exception:
            if attempts.path and all("error" in step for step in attempts.path):
                self._send(
                    attempts,
                    candidate=None,
                    reason=attempts.decision.reason,
                    path=[{**step, "candidate": self.setup.name_of(step["candidate"])} for step in attempts.path],
                    instruction=self.ask.reading.instruction or "",
                    elapsed_s=round(attempts.elapsed_s, 3),
                )
            raise

    def _send(self, attempts: Attempts, **details: Any) -> dict[str, float]:
        """Send the event of a route; returns the scores by the caller's names."""
        decision = attempts.decision
        scores = {self.setup.name_of(name): score for name, score in decision.scores.items()}
        dispatcher.event(MSATRouteEvent(scores=scores, truncated_tokens=decision.truncated_tokens, **details))
        return scores


def _asks(last: Turn, instruction: str | None) -> bool:
    """Whether the last message is the instruction itself, and not a step after it."""
    return last.role == "user" and (instruction or "").endswith(last.text)
