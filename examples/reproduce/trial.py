"""What a trial of 200 own questions is worth: its advice held against questions that it never saw.

    python examples/reproduce/trial.py [--seed 7] [--draws 20]

Each of five sets plays the user's own questions. A draw takes five candidates at random (of which the best is less than
25 points ahead of the second), 200 questions that all of them answered, and runs the trial with their recorded outcomes
exactly as `msat trial` does; the advice is then followed on the questions left over. The shipped scorer is used: it has
never seen `reasoning_gym` and `mixed_qa`, while questions and candidates of the other three were part of its training.

Gains are in points over the candidate that is best on the same 200 questions, mean over draws with the 95% interval of
that mean. *Right* is the share of the times "use X alone" was said in which routing would not have been better by more
than 0.05 points.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from common import records_folder
from numpy.typing import NDArray

from msat_core import Contender, Records, Trial, load_scorer
from msat_core.encoders.cache import EmbeddingCache, embeddings_folder
from msat_core.pretrained import SCORER
from msat_core.routing.choice import choose
from msat_core.scoring.base import EmbeddingScorer
from msat_core.trial.questions import read_questions

RESULT = Path(__file__).parent / "results" / "trial.json"
N_OWN, N_TEST, N_CANDIDATES, MAX_LEAD = 200, 1500, 5, 0.25
POOLS = {"reasoning_gym": 2400, "mixed_qa": 1800, "gsm8k": None, "mmlu_pro": None, "cruxeval": None}
LAW = ("law", "jurisprudence")
MIN_KNOWN = 9  # candidates that know an item of reasoning_gym, for zoos to have items in common
NOTICED = 0.0005


def main() -> None:
    """Every set in turn; print and keep one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--draws", type=int, default=20)
    arguments = parser.parse_args()
    table = {name: rows_of(name, arguments.seed, arguments.draws) for name in POOLS}
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps({"seed": arguments.seed, "draws": arguments.draws, "sets": table}, indent=1) + "\n")
    print(json.dumps(table, indent=1))


def rows_of(name: str, seed: int, draws: int) -> dict[str, Any]:
    """One row of the table."""
    pool, scorer = pool_of(name), load_scorer(SCORER)
    assert isinstance(scorer, EmbeddingScorer)
    vectors = EmbeddingCache(scorer.encoder, embeddings_folder()).encode(pool.instructions).vectors
    prices = prices_of(name)
    found = [draw(pool, vectors, prices, scorer, np.random.default_rng([seed, number])) for number in range(draws)]
    gains = np.array([one["gain"] for one in found])
    alone = [one for one in found if one["alone"]]
    half = 1.96 * gains.std(ddof=1) / np.sqrt(len(gains))
    savings = [one["saving"] for one in found if one["saving"] is not None]
    row = {
        "gain": [round(100 * float(v), 2) for v in (gains.mean(), gains.mean() - half, gains.mean() + half)],
        "worst": round(100 * float(gains.min()), 2),
        "always routed": round(100 * float(np.mean([one["routed"] for one in found])), 2),
        "alone": len(alone) / len(found),
        "right": round(float(np.mean([one["routed"] <= NOTICED for one in alone])), 2) if alone else None,
        "saving": round(float(np.mean(savings)), 3) if savings else None,
        "promise kept": round(float(np.mean([one["kept"] for one in found])), 2),
    }
    print(name, json.dumps(row), flush=True)
    return row


def pool_of(name: str) -> Records:
    """The set's items, or as many of them as are embedded for this study."""
    records = Records.load(records_folder() / name)
    rows = np.arange(len(records))
    if name == "mmlu_pro":
        rows = np.array([i for i in rows if any(word in records.tasks[i] for word in LAW)])
    if name == "reasoning_gym":
        rows = np.flatnonzero((~np.isnan(records.outcomes)).sum(axis=0) >= MIN_KNOWN)
    size = POOLS[name]
    if size is not None:
        rows = np.sort(np.random.default_rng(0).choice(rows, min(size, len(rows)), replace=False))
    return records.select_items(rows)


def prices_of(name: str) -> Mapping[str, dict[str, float]]:
    """Indicative prices, where the records state them."""
    file = records_folder() / name / "models.json"
    keys = ("usd_per_mtok_in", "usd_per_mtok_out")
    rows = json.loads(file.read_text()) if file.is_file() else []
    return {row["model"]: {key: row[key] for key in keys} for row in rows if all(row.get(k) is not None for k in keys)}


def draw(
    pool: Records,
    vectors: NDArray[np.float32],
    prices: Mapping[str, dict[str, float]],
    scorer: EmbeddingScorer,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """One trial, and what following its advice brings on the questions left over."""
    zoo, rows = lineup(pool, rng)
    own, test = rows[:N_OWN], rows[N_OWN : N_OWN + N_TEST]
    names = [pool.candidates[m] for m in zoo]
    lines = [
        {
            "instruction": pool.instructions[i],
            "task": pool.tasks[i],
            "scores": {name: float(pool.outcomes[m, i]) for m, name in zip(zoo, names, strict=True)},
        }
        for i in own
    ]
    trial = Trial(
        read_questions(lines), [Contender.of(None, name, **prices.get(name, {})) for name in names], scorer=scorer
    )
    with tempfile.TemporaryDirectory() as folder:
        result = asyncio.run(trial.run(folder))
    profiles = [candidate.profile for candidate in result.zoo]
    scorer.add_exam(result.exam)
    scores = scorer.score_vectors(vectors[test], profiles).probabilities
    outcomes, at = pool.outcomes[zoo][:, test].T, np.arange(len(test))
    advised = [
        choose(result.policy, row.tolist(), result.zoo.candidates, instruction_chars=len(pool.instructions[i])).chosen
        for row, i in zip(scores, test, strict=True)
    ]
    best = outcomes[:, result.judgement.best].mean()
    followed = outcomes[at, advised].mean()
    saving = result.judgement.saving
    return {
        "gain": float(followed - best),
        "routed": float(outcomes[at, scores.argmax(axis=1)].mean() - best),
        "alone": result.use_alone is not None,
        "saving": saving.saving.value if saving is not None and saving.saving is not None else None,
        "kept": float(followed >= result.judgement.promise.accuracy),
    }


def lineup(pool: Records, rng: np.random.Generator) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Candidates, and the items that all of them know, in random order."""
    while True:
        zoo = rng.choice(len(pool.candidates), N_CANDIDATES, replace=False)
        known = np.flatnonzero(~np.isnan(pool.outcomes[zoo]).any(axis=0))
        if len(known) < N_OWN + 250:
            continue
        ranked = np.sort(pool.outcomes[zoo][:, known].mean(axis=1))
        if ranked[-1] - ranked[-2] < MAX_LEAD:
            return zoo, rng.permutation(known)


if __name__ == "__main__":
    main()
