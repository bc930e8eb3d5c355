"""Draw the README's picture from ``results/new_candidates.json`` (made by new_candidates.py).

python examples/reproduce/figure.py
"""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

RESULTS = Path(__file__).parent / "results"
KINDS = ("near-equal", "mixed", "dominant")
OVER = {
    "over_best_single": "best single in hindsight",
    "over_best_by_aptitude": "best by the same exam",
    "over_reference_winner": "mean winner of random exams",
}


def main() -> None:
    """One group of bars a kind of zoo, one bar a yardstick, whiskers the 95% intervals over items."""
    report = json.loads((RESULTS / "new_candidates.json").read_text())
    figure, axes = plt.subplots(figsize=(7.5, 3.4), layout="constrained")
    for i, (key, label) in enumerate(OVER.items()):
        means, lows, highs = zip(*(report[kind][key] for kind in KINDS), strict=True)
        below = [mean - low for mean, low in zip(means, lows, strict=True)]
        above = [high - mean for mean, high in zip(means, highs, strict=True)]
        places = [k + (i - 1) * 0.26 for k in range(len(KINDS))]
        axes.bar(places, means, 0.24, yerr=[below, above], capsize=3, label=f"over the {label}")
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xticks(range(len(KINDS)), [f"{kind} zoos" for kind in KINDS])
    axes.set_ylabel("accuracy gained by routing\n(percentage points)")
    axes.set_title("New candidates of MMLU-Pro, never seen in training: 240 zoos a kind", fontsize=10)
    axes.legend(fontsize=8, frameon=False)
    figure.savefig(RESULTS / "new_candidates.png", dpi=130)


if __name__ == "__main__":
    main()
