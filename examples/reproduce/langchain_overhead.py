"""What `ChatMSAT.batch` adds to scoring and calling: 256 inputs, interleaved in one run, by the clock and in CPU time.

python examples/reproduce/langchain_overhead.py
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from langchain_core.language_models.fake_chat_models import FakeListChatModel

from langchain_msat import ChatMSAT
from msat_core import RoutingDecision

N_INPUTS = 256
ROUNDS = 5
NAMES = ("gemini-1.5-pro-002", "DeepSeek-Coder-V2", "Meta-Llama-3.1-70B-Instruct")


def main() -> None:
    """Print medians and their ratio."""
    models = {name: FakeListChatModel(responses=["an answer"]) for name in NAMES}
    chat = ChatMSAT.from_pretrained(models)
    texts = [f"Question {i}: what is the sum of the first {i} odd numbers, and why?" for i in range(N_INPUTS)]

    def apart() -> None:
        decisions = chat.router.route_batch(texts)
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda pair: models.get(pair[0], models[NAMES[0]]).invoke(pair[1]), pairs(decisions)))

    def pairs(decisions: list[RoutingDecision]) -> list[tuple[str, str]]:
        return [(decision.candidate, text) for decision, text in zip(decisions, texts, strict=True)]

    names = ("apart_s", "batch_s", "apart_cpu_s", "batch_cpu_s")
    times: dict[str, list[float]] = {name: [] for name in names}
    for round_number in range(ROUNDS + 1):
        for name, call in (("apart_s", apart), ("batch_s", lambda: chat.batch(texts))):
            wall, cpu = _seconds(call)
            if round_number:
                times[name].append(wall)
                times[name.replace("_s", "_cpu_s")].append(cpu)
    result = {name: round(statistics.median(values), 3) for name, values in times.items()}
    ratios = {
        "ratio": round(result["batch_s"] / result["apart_s"], 3),
        "cpu_ratio": round(result["batch_cpu_s"] / result["apart_cpu_s"], 3),
    }
    print(json.dumps({**result, **ratios}))


def _seconds(call: Callable[[], object]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - wall, time.process_time() - cpu


if __name__ == "__main__":
    main()
