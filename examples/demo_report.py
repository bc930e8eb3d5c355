"""What the demo prints: a handful of decisions, one table, and what the figures say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
from demo_sets import THINKING, DemoSet
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from rich.text import Text

SHOWN = 6
RESAMPLES = 2000
console = Console(width=110, highlight=False, markup=False)


@dataclass(frozen=True)
class Application:
    """Whom an application took, by position, for each of N questions."""

    name: str
    taken: list[int]

    def of(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """(N,): the value, of (N, M), of whoever was taken."""
        return values[np.arange(len(values)), self.taken]


def show_choices(questions: DemoSet, decisions: Sequence[dict[str, Any]]) -> None:
    """A handful of decisions, one from each stretch of the list."""
    every = max(1, len(decisions) // SHOWN)
    for i in range(0, every * SHOWN, every):
        outcomes = dict(zip(questions.names, questions.outcomes[i], strict=True))
        taken = decisions[i]["candidate"]
        better = [name for name, outcome in outcomes.items() if outcome > outcomes[taken]]
        console.print(Text(questions.texts[i].strip().splitlines()[0][:100], style="bold"))
        console.print(f"  → {decisions[i]['reason']}")
        console.print(f"  right: {outcomes[taken]:.2f}; better: {', '.join(better) or 'nobody'}\n")


def report(questions: DemoSet, applications: Sequence[Application]) -> None:
    """One table of the applications and of each candidate alone, and each application against the best of these."""
    n_questions = len(questions.texts)
    columns = ["application", "right", "USD per 1,000"]
    columns += [] if questions.usd_thinking is None else [f"if thinking is {THINKING}×"]
    table = Table(*columns)
    alone = [Application(f"{name} alone", [m] * n_questions) for m, name in enumerate(questions.names)]
    for one in (*applications, *alone):
        style = "bold" if one in applications else None
        prices = [usd_text(one.of(usd)) for usd in (questions.usd, questions.usd_thinking) if usd is not None]
        table.add_row(one.name, f"{one.of(questions.outcomes).mean():.1%}", *prices, style=style)
    table.add_row("the best for each question (oracle)", f"{questions.outcomes.max(axis=1).mean():.1%}")
    console.print(table)
    best = alone[int(questions.outcomes.mean(axis=0).argmax())]
    console.print(f"\nBeside {best.name}, the best in hindsight (95% intervals by bootstrap over questions):")
    for one in applications:
        console.print("\n".join([f"  {one.name}", *(f"    {line}" for line in beside(questions, one, best))]))
    console.print()


def beside(questions: DemoSet, one: Application, best: Application) -> list[str]:
    """The difference in outcome and the saving, each with its interval."""
    draws = np.random.default_rng(0).integers(len(questions.texts), size=(RESAMPLES, len(questions.texts)))
    lead, low, high = points(one.of(questions.outcomes) - best.of(questions.outcomes), draws)
    verdict = "better" if low > 0 else "worse" if high < 0 else "may be chance"
    lines = [f"{lead:+.1f} points [{low:+.1f}, {high:+.1f}]: {verdict}"]
    if unpriced := int(np.isnan(one.of(questions.usd) + best.of(questions.usd)).sum()):
        return [*lines, f"saving unknown: {unpriced} calls went to candidates of unknown price"]
    for supposed, usd in (("", questions.usd), (f", if thinking is {THINKING}×", questions.usd_thinking)):
        if usd is None:
            continue
        mine, theirs = one.of(usd), best.of(usd)
        low, high = np.percentile(1 - mine[draws].sum(axis=1) / theirs[draws].sum(axis=1), (2.5, 97.5))
        lines.append(f"saves {1 - mine.sum() / theirs.sum():.0%} [{low:.0%}, {high:.0%}]{supposed}")
    if (toss := coin_toss(questions, float(one.of(questions.usd).mean()))) is not None:
        lead, low, high = points(one.of(questions.outcomes) - toss.outcomes, draws)
        lines.append(f"{lead:+.1f} points [{low:+.1f}, {high:+.1f}] over {toss.name} at the same bill")
    return lines


def points(leads: NDArray[np.float64], draws: NDArray[np.int64]) -> tuple[float, float, float]:
    """The mean of N leads and its interval over resamples, in points."""
    low, high = np.percentile(100 * leads[draws].mean(axis=1), (2.5, 97.5))
    return 100 * float(leads.mean()), float(low), float(high)


@dataclass(frozen=True)
class CoinToss:
    """Two candidates, drawn at random for each of N questions: the outcomes that are to be expected."""

    name: str
    outcomes: NDArray[np.float64]


def coin_toss(questions: DemoSet, usd: float) -> CoinToss | None:
    """The best of those that cost so much a call; None where no two candidates' prices lie around it."""
    prices, outcomes = questions.usd.mean(axis=0), questions.outcomes
    tosses = []
    for cheap, dear in permutations(range(len(prices)), 2):
        if prices[cheap] <= usd <= prices[dear] and prices[cheap] < prices[dear]:  # not so where one is unknown
            share = (usd - prices[cheap]) / (prices[dear] - prices[cheap])
            name = f"a coin toss between {questions.names[dear]} ({share:.0%}) and {questions.names[cheap]}"
            tosses.append(CoinToss(name, share * outcomes[:, dear] + (1 - share) * outcomes[:, cheap]))
    return max(tosses, key=lambda toss: float(toss.outcomes.mean()), default=None)


def usd_text(usd: NDArray[np.float64]) -> str:
    """USD per 1,000 calls; "?" with the calls of unknown price."""
    unknown = int(np.isnan(usd).sum())
    if unknown == len(usd):
        return "?"
    known = f"{1000 * np.nanmean(usd):.2f}"
    return known if not unknown else f"{known} (+ {unknown} at ?)"
