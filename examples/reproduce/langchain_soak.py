"""20,000 calls of `ChatMSAT` with random faults, hangs and cancellations in its candidates.

    python examples/reproduce/langchain_soak.py [--calls 20000]

Checks that no answer is lost or doubled, that usage adds up exactly, and that memory stays level. Every call has a
handler of its own, which sees the LLM runs that ended inside it: one for a right answer; none, or one that came too
late to be used, for a call that was cancelled or failed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
from collections import Counter
from typing import Any

from langchain_core.callbacks import AsyncCallbackHandler, AsyncCallbackManagerForLLMRun, UsageMetadataCallbackHandler
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult, LLMResult
from soaking import UNANSWERED, resident_kib

from langchain_msat import ChatMSAT
from msat_core import CapabilityProfile, Fallback, Provenance, Router, TableScorer, TaskResult, Zoo

CONCURRENCY = 64
FAULTS, HANGS = 0.05, 0.01  # of a candidate's calls
TIMEOUT_S = 3.0
TOKENS = 5  # of each answer


class Faulty(BaseChatModel):
    """Answers, fails or hangs at random."""

    name: str

    @property
    def _llm_type(self) -> str:
        return "faulty"

    def _generate(self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any) -> Any:
        raise NotImplementedError("the soak is asynchronous")

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        draw = random.random()
        if draw < FAULTS:
            raise ConnectionError("down")
        await asyncio.sleep(600 if draw < FAULTS + HANGS else 0.001)
        usage = {"input_tokens": 3, "output_tokens": TOKENS - 3, "total_tokens": TOKENS}
        metadata = {"model_name": self.name}
        message = AIMessage(str(messages[-1].text), usage_metadata=usage, response_metadata=metadata)
        return ChatResult(generations=[ChatGeneration(message=message)])


class Ended(AsyncCallbackHandler):
    """Keeps the texts of the LLM runs that ended."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    async def on_llm_end(self, response: LLMResult, **kwargs: Any) -> None:
        """Note what was said."""
        self.texts.append(response.generations[0][0].text)


def router() -> Router:
    """Three candidates of fixed score."""
    scores = {"a": 0.9, "b": 0.8, "c": 0.7}
    profiles = [
        CapabilityProfile(
            candidate=name,
            results=(TaskResult(task="t", n_shots=10, n_correct=10 * score),),
            provenance=Provenance(source="soak"),
        )
        for name, score in scores.items()
    ]
    return Router(TableScorer(otherwise=scores), Zoo.of(profiles))


async def main() -> None:
    """Run, check, print one object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=20_000)
    n_calls = parser.parse_args().calls
    random.seed(0)
    routing = router()
    table = routing.scorer
    assert isinstance(table, TableScorer)
    chat = ChatMSAT(
        candidates={name: Faulty(name=name) for name in "abc"}, router=routing, fallback=Fallback(timeout_s=TIMEOUT_S)
    )
    usage, gate, memory = UsageMetadataCallbackHandler(), asyncio.Semaphore(CONCURRENCY), []
    found: Counter[str] = Counter()

    async def one(i: int) -> None:
        ended, outcome = Ended(), "wrong"
        async with gate:
            table.calls.clear()  # the fake scorer keeps every call; that is not what is measured
            call = asyncio.ensure_future(chat.ainvoke(f"call {i}", {"callbacks": [usage, ended]}))
            if i % 50 == 0:
                await asyncio.sleep(random.random() / 50)
                call.cancel()
            try:
                answer = await call
                if answer.content == f"call {i}" and dict(answer.usage_metadata or {})["total_tokens"] == TOKENS:
                    outcome = "right"
            except asyncio.CancelledError:
                outcome = "cancelled"
            except UNANSWERED:
                outcome = "all_failed"
        found[outcome] += 1
        right_runs = ended.texts.count(f"call {i}") == len(ended.texts)
        if not right_runs or (outcome == "right") > len(ended.texts):
            found["lost_or_doubled"] += 1
        found["dropped"] += len(ended.texts) - (outcome == "right")
        if i % (n_calls // 40) == 0:
            memory.append(resident_kib())

    started = time.perf_counter()
    await asyncio.gather(*(one(i) for i in range(n_calls)))
    quarter = len(memory) // 4
    first, last = sum(memory[1 : quarter + 1]) / quarter, sum(memory[-quarter:]) / quarter
    counted = sum(row["total_tokens"] for row in usage.usage_metadata.values())
    outcomes = {name: found[name] for name in ("right", "wrong", "cancelled", "all_failed")}
    report = {
        "calls": n_calls,
        **outcomes,
        "lost": n_calls - sum(outcomes.values()),
        "lost_or_doubled": found["lost_or_doubled"],
        "answered_too_late": found["dropped"],
        "usage_tokens": counted,
        "usage_is_exact": counted == TOKENS * (found["right"] + found["dropped"]),
        "memory_growth": round(last / first - 1, 4),
        "seconds": round(time.perf_counter() - started, 1),
        "tasks_left": len(asyncio.all_tasks()) - 1,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    asyncio.run(main())
