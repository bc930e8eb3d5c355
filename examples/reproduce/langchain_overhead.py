"""What `ChatMSAT.batch` adds to scoring and calling: 256 inputs, interleaved in one run.

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

    def pairs(decisions: list) -> list[tuple[str, str]]:
        return [(decision.candidate, text) for decision, text in zip(decisions, texts, strict=True)]

    times: dict[str, list[float]] = {"apart_s": [], "batch_s": []}
    for round_number in range(ROUNDS + 1):
        for name, call in (("apart_s", apart), ("batch_s", lambda: chat.batch(texts))):
            taken = _seconds(call)
            if round_number:
                times[name].append(taken)
    result = {name: round(statistics.median(values), 3) for name, values in times.items()}
    print(json.dumps({**result, "ratio": round(result["batch_s"] / result["apart_s"], 3)}))


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
