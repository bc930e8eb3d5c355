"""Many callers at once: throughput beside one batch, and a short instruction's p99 beside long ones.

python examples/reproduce/concurrency.py [--zoo 5]
"""

from __future__ import annotations

import argparse

from msat_core import Router
from msat_core.evaluation.concurrency import latency_of, throughput_of

SHORT = "How many prime numbers are there between one and one hundred?"  # 16 tokens with [CLS] and [SEP]
LONG = "Explain in detail how the enzyme unwinds the double helix and what holds it. " * 16  # 256 tokens


def main() -> None:
    """Print both as ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--zoo", type=int, default=0, help="how many candidates of the shipped zoo; 0: all")
    parser.add_argument("--texts", type=int, default=384)
    options = parser.parse_args()
    router = Router.from_pretrained()
    if options.zoo:
        router.zoo = router.zoo.subset(router.zoo.names[: options.zoo])
    texts = [f"{SHORT} Case {i}: {'and why is that so ' * (i % 12)}" for i in range(options.texts)]
    found = throughput_of(router, texts)
    print(f"{len(router.zoo)} candidates; one batch: {found.batch:.0f} instructions per second")
    print(f"64 threads: {found.threads / found.batch:.2f} of it; 64 tasks: {found.tasks / found.batch:.2f} of it")
    latency = latency_of(router, SHORT, LONG)
    print(
        f"short alone: p99 {1e3 * latency.alone:.1f} ms; beside long ones {latency.beside_long / latency.alone:.1f} ×"
    )


if __name__ == "__main__":
    main()
