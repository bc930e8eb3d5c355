"""How long routing takes beside a bare encoder forward of the same text, in one run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from msat_core.errors import ConfigurationError
from msat_core.routing.router import Router
from msat_core.scoring.base import EmbeddingScorer

SHORT = "How many prime numbers are there between one and one hundred, and which is the largest of them?"
BATCH = 64


def run_bench(repeats: int, *, device: str | None = None) -> dict[str, float]:
    """Median times in milliseconds and their ratios, the two kinds of call taking turns.

    Args:
        repeats: calls of each kind.
        device: where the encoder computes, as torch names it; None for the CPU.
    """
    router = Router.from_pretrained(device=device)
    if not isinstance(router.scorer, EmbeddingScorer):
        raise ConfigurationError("The bench compares a scorer with its encoder: it needs one that reads embeddings.")
    encoder = router.scorer.encoder
    texts = [f"{SHORT} Case {i}." for i in range(BATCH)]
    encoder_ms, route_ms = _take_turns(lambda: encoder.encode([SHORT]), lambda: router.route(SHORT), repeats)
    batch_encoder_ms, batch_route_ms = _take_turns(
        lambda: encoder.encode(texts), lambda: router.route_batch(texts), max(1, repeats // 20)
    )
    return {
        "n_candidates": float(len(router.zoo)),
        "encoder_ms": encoder_ms,
        "route_ms": route_ms,
        "route_over_encoder": route_ms / encoder_ms,
        f"encoder_batch_of_{BATCH}_ms": batch_encoder_ms,
        f"route_batch_of_{BATCH}_ms": batch_route_ms,
        "route_batch_over_encoder_batch": batch_route_ms / batch_encoder_ms,
        "instructions_per_s": 1000 * BATCH / batch_route_ms,
    }


def _take_turns(one: Callable[[], object], other: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Median milliseconds of both, after one warm-up call each."""
    times: tuple[list[float], list[float]] = ([], [])
    for round_number in range(repeats + 1):
        for call, found in zip((one, other), times, strict=True):
            start = time.perf_counter()
            call()
            if round_number:
                found.append(1000 * (time.perf_counter() - start))
    return statistics.median(times[0]), statistics.median(times[1])
