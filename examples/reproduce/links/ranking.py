"""Does a later, better model of a family rank above the earlier one? Over pairs of the zoo, on mixed instructions."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from msat_core import Zoo
from msat_core.training.score_scale.fit import Cell

BETTER, COMMON = 0.05, 5  # points, common tasks


def family(name: str) -> str:
    """The line of models a name belongs to: the name without its numbers, dates and effort."""
    base = re.sub(r"(preview|latest|exp)", "", name.split(":")[0].lower())
    return re.sub(r"[\d.]+[a-z]?(?=-|$)|-+", " ", base).strip()


def later_and_better(
    zoo: Zoo, names: dict[str, str], published: Sequence[Cell], released: dict[str, str]
) -> list[tuple[str, str]]:
    """Pairs (earlier, later) of one family, the later ≥ 5 points better on average over ≥ 5 common tasks.

    Args:
        zoo: the candidates.
        names: a candidate's name in the table, where it differs.
        published: the table.
        released: ISO dates by base name.
    """
    accuracies: dict[str, dict[tuple[str, str], float]] = {}
    for cell in published:
        accuracies.setdefault(cell.candidate, {})[cell.source, cell.task] = cell.accuracy
    known = [(n, names.get(n, n)) for n in zoo.names if names.get(n, n) in accuracies]
    dated = [(n, s, released[s.split(":")[0]]) for n, s in known if s.split(":")[0] in released]
    pairs = []
    for early, a, first in dated:
        for late, b, second in dated:
            common = accuracies[a].keys() & accuracies[b].keys()
            if first < second and family(a) == family(b) and len(common) >= COMMON:
                if np.mean([accuracies[b][t] - accuracies[a][t] for t in sorted(common)]) >= BETTER:
                    pairs.append((early, late))
    return pairs


def in_order(zoo: Zoo, pairs: Sequence[tuple[str, str]], scores: NDArray[np.float32]) -> list[bool]:
    """Whether the later of each pair has the higher mean score; scores (N, M) of the zoo."""
    mean = dict(zip(zoo.names, scores.mean(axis=0), strict=True))
    return [bool(mean[late] > mean[early]) for early, late in pairs]
