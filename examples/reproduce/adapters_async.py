"""What concurrent calls cost: scorer calls, and how long a timer on the same event loop is held up.

    python examples/reproduce/adapters_async.py

The shipped scorer at work. 100 concurrent `ChatMSAT.ainvoke`; one `MSATSelector.aselect`; 200 concurrent calls of
`MSATRouterLLM`, of four kinds. `stall_s` is the timer's longest delay, `scorer_s` the scorer's own time in that run.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from langchain_core.language_models.fake_chat_models import FakeListChatModel
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.llms import MockLLM

from langchain_msat import ChatMSAT
from llamaindex_msat import MSATRouterLLM, MSATSelector
from msat_core import CapabilityProfile, Router, Scorer, Scores

NAMES = ("gemini-1.5-pro-002", "DeepSeek-Coder-V2", "Meta-Llama-3.1-70B-Instruct")
TICK_S = 0.002


class Timed(Scorer):
    """The shipped scorer, with its calls and their time counted."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer
        self.durations: list[float] = []  # seconds

    def score(self, instructions: Sequence[str], profiles: Sequence[CapabilityProfile]) -> Scores:
        """Scores of the wrapped scorer."""
        start = time.perf_counter()
        scores = self._scorer.score(instructions, profiles)
        self.durations.append(time.perf_counter() - start)
        return scores


async def measured(scorer: Timed, work: Callable[[], Awaitable[Any]]) -> tuple[Any, dict[str, float]]:
    """The work's result, and what it cost."""
    scorer.durations.clear()
    task, stall, started = asyncio.ensure_future(work()), 0.0, time.perf_counter()
    while not task.done():
        before = time.perf_counter()
        await asyncio.sleep(TICK_S)
        stall = max(stall, time.perf_counter() - before - TICK_S)
    seconds, scorer_s = time.perf_counter() - started, sum(scorer.durations)
    cost = {"seconds": seconds, "scorer_calls": len(scorer.durations), "scorer_s": scorer_s, "stall_s": stall}
    return task.result(), {**{k: round(v, 4) for k, v in cost.items()}, "stall_of_scorer": round(stall / scorer_s, 3)}


def texts(n: int, kind: str) -> list[str]:
    """N different questions."""
    return [f"{kind} question {i}: what is the sum of the first {i} odd numbers, and why?" for i in range(n)]


def chosen(selection: Any) -> str:
    """The candidate of an :class:`MSATSelectorResult`, which LlamaIndex's selectors type as any selector's."""
    return str(selection.candidate)


async def main() -> None:
    """Print one object."""
    router = Router.from_pretrained()
    router.scorer = scorer = Timed(router.scorer)
    chat = ChatMSAT(candidates={n: FakeListChatModel(responses=[n]) for n in NAMES}, router=router)
    llm = MSATRouterLLM({n: MockLLM() for n in NAMES}, router=router)
    selector = MSATSelector(router)
    router.route_batch(texts(3, "warm-up"))

    asked = texts(100, "chat")
    answers, chat_cost = await measured(scorer, lambda: asyncio.gather(*map(chat.ainvoke, asked)))
    chat_cost["right"] = [a.content for a in answers] == [chat.invoke(text).content for text in asked]

    _, select_cost = await measured(scorer, lambda: selector.aselect(list(NAMES), texts(1, "selector")[0]))

    async def mixed(i: int, text: str) -> str:
        messages = [ChatMessage(role="user", content=text)]
        if i % 4 == 0:
            return str((await llm.achat(messages)).message.additional_kwargs["msat_candidate"])
        if i % 4 == 1:
            return str((await llm.acomplete(text)).additional_kwargs["msat_candidate"])
        if i % 4 == 2:
            chunks = [chunk async for chunk in await llm.astream_chat(messages)]
            return str(chunks[-1].message.additional_kwargs["msat_candidate"])
        return chosen(await selector.aselect(list(NAMES), text))

    asked = texts(200, "mixed")
    found, mixed_cost = await measured(scorer, lambda: asyncio.gather(*(mixed(i, t) for i, t in enumerate(asked))))
    mixed_cost["right"] = found == [chosen(selector.select(list(NAMES), text)) for text in asked]
    print(json.dumps({"chat_100": chat_cost, "select_1": select_cost, "llama_200": mixed_cost}, indent=1))


if __name__ == "__main__":
    asyncio.run(main())
