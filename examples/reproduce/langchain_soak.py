"""20,000 calls of `ChatMSAT` with random faults, timeouts and cancellations in its candidates.

    python examples/reproduce/langchain_soak.py [--calls 20000]

Checks that no answer is lost or doubled, that usage adds up exactly, and that memory stays level.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
from collections import Counter
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, UsageMetadataCallbackHandler
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult

from langchain_msat import ChatMSAT
from msat_core import CapabilityProfile, Router, TableScorer, TaskResult, Zoo
from msat_core.errors import DispatchError
from msat_core.profiles import Provenance
from msat_core.routing.dispatch import Fallback

CONCURRENCY = 64
ANSWERED: Counter[str] = Counter()


class Faulty(BaseChatModel):
    """Answers, fails or hangs at random; counts what it answered."""

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
        if draw < 0.05:
            raise ConnectionError("down")
        await asyncio.sleep(1.0 if draw < 0.06 else 0.001)
        text = str(messages[-1].text)
        ANSWERED[self.name] += 1
        usage = {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5}
        message = AIMessage(text, usage_metadata=usage, response_metadata={"model_name": self.name})
        return ChatResult(generations=[ChatGeneration(message=message)])


def resident_kb() -> int:
    """Resident memory of this process."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))


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
    chat = ChatMSAT(
        candidates={name: Faulty(name=name) for name in "abc"}, router=router(), fallback=Fallback(timeout_s=0.3)
    )
    usage, gate, found, memory = UsageMetadataCallbackHandler(), asyncio.Semaphore(CONCURRENCY), Counter(), []

    async def one(i: int) -> None:
        async with gate:
            chat.router.scorer.calls.clear()  # the fake scorer keeps every call; that is not what is measured
            call = asyncio.ensure_future(chat.ainvoke(f"call {i}", {"callbacks": [usage]}))
            if i % 100 == 0:
                await asyncio.sleep(0)
                call.cancel()
            try:
                answer = await call
                found["right" if answer.content == f"call {i}" else "wrong"] += 1
            except asyncio.CancelledError:
                found["cancelled"] += 1
            except DispatchError:
                found["all failed"] += 1
        if i % (n_calls // 40) == 0:
            memory.append(resident_kb())

    started = time.perf_counter()
    await asyncio.gather(*(one(i) for i in range(n_calls)))
    quarter = len(memory) // 4
    first, last = sum(memory[1 : quarter + 1]) / quarter, sum(memory[-quarter:]) / quarter
    counted = {name: row["total_tokens"] for name, row in usage.usage_metadata.items()}
    report = {
        "calls": n_calls,
        **found,
        "lost": n_calls - found.total(),
        "usage_is_exact": counted == {name: 5 * n for name, n in ANSWERED.items()},
        "memory_growth": round(last / first - 1, 4),
        "seconds": round(time.perf_counter() - started, 1),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    asyncio.run(main())
