"""Small worlds for the tests: synthetic records, profiles, and an encoder that needs no weights."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from msat_core import Candidate, CapabilityProfile, Records, Router, RoutingPolicy, TableScorer, TaskResult, Zoo
from msat_core.profiles import Provenance
from msat_core.texts import text_sha256

RECORDS = Path(os.environ.get("MSAT_RECORDS", Path(__file__).resolve().parents[2] / "shared" / "records"))
WORDS = {"algebra": "equation polynomial root", "law": "contract tort liability", "biology": "cell enzyme membrane"}


def profile(name: str, accuracy: float = 0.5, n_shots: int = 20) -> CapabilityProfile:
    """A profile of counts in one task."""
    result = TaskResult(task="general", n_shots=n_shots, n_correct=round(accuracy * n_shots, 6))
    return CapabilityProfile(candidate=name, results=(result,), provenance=Provenance(source="test"))


def zoo_of(**accuracy: float) -> Zoo:
    """A zoo of bare profiles."""
    return Zoo.of(profile(name, value) for name, value in accuracy.items())


def table_router(
    table: Mapping[str, Mapping[str, float]] | None = None,
    policy: RoutingPolicy | None = None,
    *,
    candidates: Sequence[Candidate] | None = None,
    delay_s: float = 0.0,
    max_batch: int = 32,
) -> Router:
    """A router over good (0.8), fair (0.6) and poor (0.2), or over the given candidates."""
    zoo = Zoo(candidates=tuple(candidates)) if candidates else zoo_of(good=0.8, fair=0.6, poor=0.2)
    return Router(TableScorer(table, delay_s=delay_s), zoo, policy, max_batch=max_batch)


def scored(router: Router) -> list[tuple[str, ...]]:
    """The instructions of each call to the table of :func:`table_router`, in order."""
    assert isinstance(router.scorer, TableScorer)
    return router.scorer.calls


async def stall_share(work: Callable[[], Awaitable[object]], *, tries: int = 3) -> float:
    """The longest that a timer on this event loop was held up, as a share of the work's time; the best of some tries.

    Work that blocks the loop holds it up all the time in every try; a busy machine does so now and then.
    """
    shares = []
    for _ in range(tries):
        task, longest, started = asyncio.ensure_future(work()), 0.0, time.perf_counter()
        while not task.done():
            before = time.perf_counter()
            await asyncio.sleep(0.005)
            longest = max(longest, time.perf_counter() - before)
        await task
        shares.append(longest / (time.perf_counter() - started))
    return min(shares)


def synthetic_records(n_items: int = 480, n_candidates: int = 8, seed: int = 0) -> Records:
    """Candidates with an ability and a favourite among three tasks; items of those tasks."""
    rng = np.random.default_rng(seed)
    tasks = [list(WORDS)[i % len(WORDS)] for i in range(n_items)]
    texts = tuple(f"{WORDS[task]} question {i} {rng.integers(1000)}" for i, task in enumerate(tasks))
    ability = np.linspace(-1, 1.5, n_candidates)
    favourite = [list(WORDS)[m % len(WORDS)] for m in range(n_candidates)]
    difficulty = rng.normal(0, 0.5, n_items)
    logits = ability[:, None] - difficulty[None] + 1.5 * (np.array(favourite)[:, None] == np.array(tasks)[None])
    outcomes = (rng.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(np.float32)
    return Records(
        item_ids=tuple(f"item:{i}" for i in range(n_items)),
        benchmarks=("toy",) * n_items,
        tasks=tuple(tasks),
        instructions=texts,
        text_sha256=tuple(map(text_sha256, texts)),
        candidates=tuple(f"family{chr(97 + m)}-{m}" for m in range(n_candidates)),
        outcomes=outcomes,
        output_chars=np.full(outcomes.shape, 100.0, dtype=np.float32),
    )
