"""Off-policy estimates beside a known truth: bias, spread, and how often 95% intervals hold.

python examples/reproduce/off_policy.py
"""

from __future__ import annotations

import numpy as np

from msat_core.evaluation.off_policy import Estimate, LoggedRoutes, off_policy, off_policy_gain

N_CANDIDATES, N_WORLDS = 5, 200
SIZES = ((500, 0.02), (2000, 0.02), (10_000, 0.02), (2000, 0.1), (2000, 0.5))


def main() -> None:
    """One row a size and a bias of the scores."""
    print("routes explored bias | effective none | gain: error spread held width | value held: ips snips dr")
    for n, explore in SIZES:
        for bias in (0.0, -0.2):
            row(n, explore, bias)


def row(n: int, explore: float, bias: float) -> None:
    """Simulate and print."""
    rng = np.random.default_rng(1)
    gains: list[tuple[Estimate, float]] = []
    values: dict[str, list[tuple[Estimate, float]]] = {"ips": [], "snips": [], "dr": []}
    sizes = []
    for _ in range(N_WORLDS):
        right, routes, choice, incumbent = world(rng, n, explore, bias)
        at = np.arange(n)
        truth = float(right[at, choice].mean())
        found, gain = off_policy(routes, choice), off_policy_gain(routes, choice, incumbent)
        if found is None or gain is None:
            continue
        sizes.append(found.effective_sample_size)
        gains.append((gain, truth - float(right[at, incumbent].mean())))
        for name, pairs in values.items():
            pairs.append((getattr(found, name), truth))
    errors = np.array([one.value - truth for one, truth in gains])
    width = np.median([one.high - one.low for one, _ in gains])
    shares = " ".join(f"{held(pairs):.1%}" for pairs in values.values())
    told = f"{errors.mean():+.4f} {errors.std():.4f} {held(gains):.1%} {width:.3f}"
    print(f"{n} {explore} {bias} | {np.mean(sizes):.0f} {N_WORLDS - len(gains)} | {told} | {shares}", flush=True)


def held(pairs: list[tuple[Estimate, float]]) -> float:
    """The share of intervals that hold the truth."""
    return float(np.mean([one.low <= truth <= one.high for one, truth in pairs]))


def world(
    rng: np.random.Generator, n: int, explore: float, bias: float
) -> tuple[np.ndarray, LoggedRoutes, np.ndarray, np.ndarray]:
    """P(right) (N, M), the log of an incumbent with exploration, the choices by the scores, and the incumbent's."""
    at, m = np.arange(n), N_CANDIDATES
    right = 1 / (1 + np.exp(-(np.linspace(-0.5, 1.0, m) + rng.normal(0, 0.8, (n, m)) - rng.normal(0, 1, (n, 1)))))
    scores = np.clip(right + bias + rng.normal(0, 0.15, (n, m)), 0.01, 0.99)
    incumbent = np.full(n, 3, dtype=np.intp)
    chances = np.full((n, m), explore / (m - 1))
    chances[at, incumbent] = 1 - explore
    served = (chances.cumsum(axis=1) > rng.random(n)[:, None]).argmax(axis=1)
    outcomes = (rng.random(n) < right[at, served]).astype(float)
    return right, LoggedRoutes(served, outcomes, chances, scores, at), scores.argmax(axis=1), incumbent


if __name__ == "__main__":
    main()
