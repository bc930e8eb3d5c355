"""Attack the shipped router with texts that shall make it choose a dearer candidate, and count what noise alone does.

    python examples/reproduce/redteam.py [--n 300] [--queries 200] [--seed 5]

Every attack is one *gadget*, a text set before (or behind) any instruction for every sub-zoo and policy, chosen by
scores that it got with a budget of queries; random texts as long may choose the best of as many. `up` is the share of
the routes that could go to a dearer candidate (a stronger one where a price is unknown) and did, `down` the share of
those that could go to a cheaper one, `shift` the mean change of the score that the attack is after. `auc` says whether
the instruction is still read: of the scores of the attacked text against who is right, mean over the candidates with
outcomes. `same` is the share of unchanged choices, under noise that means nothing *robustness* as RouterArena counts
it (Lu et al. 2025). Gadgets in front: Shafran et al. 2025; suffixes, as in R2A: optimised word by word on a few
instructions, appended to others. 95% intervals over instructions.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from common import CACHE, load_records, sat
from numpy.typing import NDArray
from redteam_texts import KINDS, WORDS, Array, Source, best_of, greedy, noisy, repeated
from scipy.stats import rankdata

from msat_core import CompactScorer, Exam, Records, Router, RoutingPolicy
from msat_core.encoders.base import Embeddings, Encoder
from msat_core.encoders.cache import EmbeddingCache
from msat_core.evaluation.metrics import bootstrap_interval
from msat_core.pretrained import EXAMS

RESULT = Path(__file__).parent / "results" / "redteam.json"
PROBED = 4  # instructions that a suffix is optimised on
BULK = 1000  # texts that are worth keeping on disk
MOST_CHARS = 600  # of an instruction: two of three records
FILL_CHARS = 1100  # with any instruction behind it, about as much as the encoder reads of a text
OVERFILL = 10  # times as much
REPLICATES = 200  # of the bootstrap of an AUC
ROUTES = {  # sub-zoo and policy; every member's price is known but that of DeepSeek-Coder-V2
    "near-equal, quality": (["Meta-Llama-3.1-70B-Instruct", "DeepSeek-Coder-V2"], {}),
    "mixed, target .6": (
        ["Mistral-7B-Instruct-v0.2", "c4ai-command-r-v01", "Meta-Llama-3.1-70B-Instruct", "gemini-1.5-pro-002"],
        {"objective": "target", "target": 0.6},
    ),
    "mixed, value 200": (
        ["Mistral-7B-Instruct-v0.2", "c4ai-command-r-v01", "Meta-Llama-3.1-70B-Instruct", "gemini-1.5-pro-002"],
        {"objective": "value", "usd_weight": 200.0},
    ),
    "2025, target .8": (
        ["gpt-5-nano", "deepseek-v3.2", "gpt-5-mini", "claude-haiku-4.5", "gpt-5", "claude-opus-4.5"],
        {"objective": "target", "target": 0.8},
    ),
}


class Kept:
    """An encoder that remembers; what comes in bulk is kept on disk."""

    def __init__(self, encoder: Encoder) -> None:
        self.digest, self.dim, self.max_length = encoder.digest, encoder.dim, encoder.max_length
        self._encoder, self._disk = encoder, EmbeddingCache(encoder, CACHE)
        self._known: dict[str, tuple[Array, int]] = {}

    def encode(self, texts: Sequence[str]) -> Embeddings:
        """As the encoder does."""
        missing = [text for text in dict.fromkeys(texts) if text not in self._known]
        if missing:
            made = (self._disk if len(missing) >= BULK else self._encoder).encode(missing)
            self._known |= zip(missing, zip(made.vectors, made.truncated_tokens.tolist(), strict=True), strict=True)
        found = [self._known[text] for text in texts]
        cut = np.array([tokens for _, tokens in found])
        return Embeddings(np.stack([vector for vector, _ in found]), cut, self.unread(texts))

    def unread(self, texts: Sequence[str]) -> tuple[str, ...]:
        """As the encoder says."""
        return self._encoder.unread(texts)


@dataclass
class Target:
    """One sub-zoo under one policy, and what an attack on it is after."""

    router: Router
    policy: RoutingPolicy

    def __post_init__(self) -> None:
        members = self.router.zoo.candidates
        priced = all(one.is_priced for one in members)
        dear = [one.cost_usd(1000) if priced else one.profile.accuracy for one in members]
        self.place = {members[i].name: place for place, i in enumerate(np.argsort(np.array(dear, dtype=float)))}
        self.top = len(members) - 1

    def places(self, texts: Sequence[str]) -> NDArray[np.intp]:
        """(N,), how dear the chosen candidates are: 0 is the cheapest."""
        return np.array([self.place[one.candidate] for one in self.router.route_batch(texts, policy=self.policy)])

    def aim(self, texts: Sequence[str]) -> Array:
        """(N,), what drives a choice up: the dear half's lead, or, for a target, that nobody cheaper reaches it."""
        scores = self.router.score(texts).probabilities
        places = np.array([self.place[name] for name in self.router.zoo.names])
        if self.policy.objective == "target":
            return np.asarray(-scores[:, places < self.top].max(axis=1))
        dear = 2 * places > self.top
        return np.asarray(scores[:, dear].max(axis=1) - scores[:, ~dear].max(axis=1))


def attacks(
    targets: Sequence[Target], source: Source, instructions: Sequence[str], queries: int
) -> dict[str, list[str]]:
    """The texts of every attack: one for each instruction, the same for all targets."""
    plain = [target.aim(instructions) for target in targets]
    probes = source.rng.sample(source.questions, PROBED)

    def up(texts: Sequence[str]) -> Array:
        """(N,), the mean of the targets' aims, each in its own standard deviations."""
        aimed = [target.aim(texts) / aims.std() for target, aims in zip(targets, plain, strict=True)]
        return np.asarray(np.mean(aimed, axis=0))

    def down(texts: Sequence[str]) -> Array:
        return -up(texts)

    def behind(gadgets: Sequence[str]) -> Array:
        """As `up`, of gadgets behind the probed instructions: PROBED queries each."""
        lifts = up([f"{text}\n{gadget}" for gadget in gadgets for text in probes])
        return np.asarray(lifts.reshape(-1, PROBED).mean(axis=1))

    shorts = [source.text(WORDS) for _ in range(queries)]
    questions = source.rng.sample(source.questions, queries)
    hardest, easiest = best_of(up, questions), best_of(down, questions)
    filling = repeated(best_of(up, [one for one in questions if len(one) > FILL_CHARS // 4]), FILL_CHARS)
    as_record = best_of(up, [source.like(hardest) for _ in range(queries)])
    as_filling = best_of(up, [source.like(filling) for _ in range(queries)])
    gadgets: dict[str, str | Callable[[], str]] = {
        f"{WORDS} random words": lambda: source.text(WORDS),
        "best random text": best_of(up, shorts),
        "greedy": greedy(up, source, queries),
        "best random text, down": best_of(down, shorts),
        "greedy, down": greedy(down, source, queries),
        "random, as a record": lambda: source.like(hardest),
        "best random, as a record": as_record,
        "hardest record": hardest,
        "easiest record": easiest,
        "best random filling": as_filling,
        "filling": filling,
        f"filling, {OVERFILL} times": repeated(filling, OVERFILL * FILL_CHARS),
        **{f"kind: {kind}": text for kind, text in KINDS.items()},
    }
    suffixes: dict[str, str | Callable[[], str]] = {
        f"behind: {WORDS} random words": lambda: source.text(WORDS),
        "behind: best random text": best_of(behind, shorts[: queries // PROBED]),
        "behind: greedy": greedy(behind, source, queries // PROBED),
    }
    return {
        **{name: [f"{_drawn(gadget)}\n{text}" for text in instructions] for name, gadget in gadgets.items()},
        **{name: [f"{text}\n{_drawn(gadget)}" for text in instructions] for name, gadget in suffixes.items()},
    }


def _drawn(gadget: str | Callable[[], str]) -> str:
    return gadget if isinstance(gadget, str) else gadget()


def measured(target: Target, clean: Sequence[str], texts: Sequence[str], seed: int) -> dict[str, list[float]]:
    """Shares of routes that went up and down, of those that could, and the mean shift; each with its interval."""
    was, now = target.places(clean), target.places(texts)
    shift = target.aim(texts) - target.aim(clean)
    values = {"up": (now > was)[was < target.top], "down": (now < was)[was > 0], "shift": shift, "same": now == was}
    return {
        name: [round(float(one), 3) for one in (row.mean(), *bootstrap_interval(row.astype(float), seed=seed))]
        for name, row in values.items()
        if len(row)
    }


def mean_auc(router: Router, records: Records, texts: Sequence[str], rows: Sequence[int], seed: int) -> list[float]:
    """Mean AUC over the candidates with outcomes on most of the records, with its interval."""
    names = [name for name in sat(records) if name in router.zoo.names]
    scores = router.score(texts).probabilities[:, [router.zoo.names.index(name) for name in names]]
    outcomes = records.select_candidates(names).outcomes[:, rows].T

    def mean(drawn: NDArray[np.intp]) -> float:
        known = [drawn[~np.isnan(outcomes[drawn, m])] for m in range(len(names))]
        return float(np.nanmean([rank_auc(scores[one, m], outcomes[one, m] > 0.5) for m, one in enumerate(known)]))

    rng, n = np.random.default_rng(seed), len(texts)
    draws = [mean(rng.integers(n, size=n)) for _ in range(REPLICATES)]
    return [round(value, 3) for value in (mean(np.arange(n)), *map(float, np.quantile(draws, (0.025, 0.975))))]


def rank_auc(scores: Array, right: NDArray[np.bool_]) -> float:
    """The chance that a right answer's score is above a wrong one's; NaN where there are not both."""
    n = int(right.sum())
    if n in (0, len(right)):
        return float("nan")
    return float((rankdata(scores)[right].mean() - (n + 1) / 2) / (len(right) - n))


def main() -> None:
    """Every attack on every target, and noise; print and keep one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=300, help="instructions")
    parser.add_argument("--queries", type=int, default=200, help="of the router, a gadget")
    parser.add_argument("--seed", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    router, rng = with_memory(Router.from_pretrained()), random.Random(options.seed)
    records = load_records().without_texts({one for exam in map(Exam.load, EXAMS) for one in exam.text_hashes})
    short = [i for i, text in enumerate(records.instructions) if len(text) <= MOST_CHARS]
    shuffled = rng.sample(short, len(short))
    rows = shuffled[: options.n]
    instructions = [records.instructions[i] for i in rows]
    others = [records.instructions[i] for i in shuffled[options.n :]]
    counts = Counter(word for text in others for word in re.findall(r"[A-Za-z]{3,}", text))
    source = Source(sorted(word for word, n in counts.items() if n > 2), others, rng)
    zoos = {name: Router(router.scorer, router.zoo.subset(members)) for name, (members, _) in ROUTES.items()}
    targets = {name: Target(zoos[name], RoutingPolicy(**settings)) for name, (_, settings) in ROUTES.items()}
    variants = [noisy(text, rng) for text in instructions]
    made = {
        "clean": instructions,
        **attacks(list(targets.values()), source, instructions, options.queries),
        **{f"noise: {kind}": [one[kind] for one in variants] for kind in variants[0]},
    }
    texts = [text for texts in made.values() for text in texts]
    print(f"{len(texts)} texts to score", file=sys.stderr, flush=True)
    router.score(texts)  # encodes them all at once
    table: dict[str, dict[str, dict[str, list[float]] | list[float]]] = {}
    table["auc"] = {name: mean_auc(router, records, texts, rows, options.seed) for name, texts in made.items()}
    for name, target in targets.items():
        table[name] = {row: measured(target, instructions, texts, options.seed) for row, texts in made.items()}
    for name, lines in table.items():
        print(f"\n{name}", *(f"{row:>28} {figures}" for row, figures in lines.items()), sep="\n", flush=True)
    RESULT.write_text(json.dumps({"n": options.n, "queries": options.queries, "seed": options.seed, **table}, indent=1))


def with_memory(router: Router) -> Router:
    """The same router, on an encoder that remembers."""
    shipped = router.scorer
    if not isinstance(shipped, CompactScorer):
        raise TypeError(f"Expected the compact scorer, got {type(shipped).__name__}.")
    scorer = CompactScorer(shipped.config, shipped.kernel, encoder=lambda: Kept(shipped.encoder))
    for exam in map(Exam.load, EXAMS):
        scorer.add_exam(exam)
    return Router(scorer, router.zoo)


if __name__ == "__main__":
    main()
