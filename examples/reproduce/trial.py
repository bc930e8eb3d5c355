"""What a trial of 200 own questions is worth: its advice held against questions that it never saw.

    python examples/reproduce/trial.py --split development    # what the rule of the advice was chosen on
    python examples/reproduce/trial.py                        # the reported figures, once

Each set plays the user's own questions. A draw takes five candidates at random (of which the best is less than 25
points ahead of the second), 200 questions that all of them answered, and judges them exactly as `msat trial` does; the
advice is then followed on up to 1,500 questions left over. Development and report share no question: the sets of few
candidates are cut in two by the questions' hashes, the others are different benchmarks. The shipped scorer has never
seen `reasoning_gym`, `mixed_qa` and `farel`; the three others of the report are scored by one that knows neither their
questions nor the candidates (`held_out.py`), and their candidates all have prices.

Gains are in points over the candidate that is best on the same 200 questions, mean over draws with the 95% interval of
that mean. *Right* is the share of the times "use X alone" was said in which routing would not have been better by more
than 0.05 points. *Saved* is what routing for equal quality saves on the questions left over, with the accuracy that it
changes; costs are those that the router expects, from prices and each candidate's mean length of an answer.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import candidate_facts, records_folder
from held_out import LAW, PSYCHOLOGY, held_out
from numpy.typing import NDArray

from msat_core import Contender, Records, Zoo, load_scorer, pretrained
from msat_core.aptitude.journal import Answer
from msat_core.encoders.cache import EmbeddingCache, embeddings_folder
from msat_core.routing.choice import choose
from msat_core.routing.cost import expected_costs
from msat_core.scoring.base import EmbeddingScorer
from msat_core.trial.questions import read_questions
from msat_core.trial.scoring import TrialScoring
from msat_core.trial.trial import policy_of
from msat_core.trial.verdict import verdict_of

RESULT = Path(__file__).parent / "results" / "trial.json"
N_OWN, N_TEST, MIN_TEST, N_CANDIDATES, MAX_LEAD = 200, 1500, 190, 5, 0.25
POOL_SIZE = 2000  # questions of a large set that are looked at
MIN_KNOWN = 9  # candidates that know an item of reasoning_gym, for zoos to have items in common
SEEDS = {"development": 101, "report": 7}
NOTICED = 0.0005
PRICES = ("usd_per_mtok_in", "usd_per_mtok_out")


@dataclass(frozen=True)
class Own:
    """A set that plays the user's own questions.

    Attributes:
        records: their folder.
        words: of the tasks that are kept; all where empty.
        half: which half of the questions, by their hash; None for both.
        new: whether candidates and questions are new to the scorer, and all candidates have prices.
    """

    records: str
    words: tuple[str, ...] = ()
    half: int | None = None
    new: bool = False


SPLITS: Mapping[str, Mapping[str, Own]] = {
    "development": {
        "reasoning_gym": Own("reasoning_gym", half=0),
        "mixed_qa": Own("mixed_qa", half=0),
        "math_l5": Own("math_l5"),
        "psychology": Own("mmlu_pro", words=PSYCHOLOGY),
        "farel": Own("farel"),
    },
    "report": {
        "reasoning_gym": Own("reasoning_gym", half=1),
        "mixed_qa": Own("mixed_qa", half=1),
        "gsm8k": Own("gsm8k", new=True),
        "mmlu_pro, law": Own("mmlu_pro", words=LAW, new=True),
        "cruxeval": Own("cruxeval", new=True),
    },
}


def main() -> None:
    """Every set in turn; print and keep one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--split", choices=tuple(SPLITS), default="report")
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--scorer", type=Path, help="a folder to keep the held-out scorer in")
    arguments = parser.parse_args()
    shipped, prices = load_scorer(pretrained.SCORER), prices_by_name()
    table = {}
    for name, own in SPLITS[arguments.split].items():
        pool, scorer = pool_of(own), shipped
        if own.new:
            left_out = held_out(arguments.scorer)
            scorer = left_out.scorer
            kept = [one for one in pool.candidates if left_out.is_new(one) and one.lower() in prices]
            pool = pool.select_candidates(kept)
        assert isinstance(scorer, EmbeddingScorer)
        table[name] = rows_of(pool, scorer, prices, SEEDS[arguments.split], arguments.draws)
        print(name, json.dumps(table[name]), flush=True)
    if arguments.split == "report":
        RESULT.write_text(json.dumps({"draws": arguments.draws, "sets": table}, indent=1) + "\n")
    print(markdown(table))


def pool_of(own: Own) -> Records:
    """The set's items, or as many of them as are looked at."""
    records = Records.load(records_folder() / own.records)
    rows = np.arange(len(records))
    if own.words:
        rows = np.array([i for i in rows if any(word in records.tasks[i] for word in own.words)])
    if own.records == "reasoning_gym":
        rows = np.flatnonzero((~np.isnan(records.outcomes)).sum(axis=0) >= MIN_KNOWN)
    if own.half is not None:
        if len(rows) > POOL_SIZE:
            rows = np.sort(np.random.default_rng(0).choice(rows, POOL_SIZE, replace=False))
        rows = np.array([i for i in rows if int(records.text_sha256[i], 16) % 2 == own.half])
    return records.select_items(rows)


def prices_by_name() -> dict[str, tuple[float, float]]:
    """USD per million tokens, in and out: of the shipped zoo and of the records."""
    stated = {name: row for name, row in candidate_facts().items() if row.get("usd_per_mtok_in") is not None}
    found = {name.lower(): (row["usd_per_mtok_in"], row["usd_per_mtok_out"]) for name, row in stated.items()}
    for one in Zoo.load(pretrained.ZOO):
        if one.usd_per_mtok_in is not None and one.usd_per_mtok_out is not None:
            found |= {name.lower(): (one.usd_per_mtok_in, one.usd_per_mtok_out) for name in (one.name, *one.aliases)}
    return found


def rows_of(
    pool: Records, scorer: EmbeddingScorer, prices: Mapping[str, tuple[float, float]], seed: int, draws: int
) -> dict[str, Any]:
    """One row of the table."""
    vectors = EmbeddingCache(scorer.encoder, embeddings_folder()).encode(pool.instructions).vectors
    found = []
    for number in range(draws):
        found.append(draw(pool, vectors, scorer, prices, np.random.default_rng([seed, number])))
        print(f"draw {number + 1} of {draws}", end="\r", file=sys.stderr, flush=True)
    alone = [one for one in found if one["alone"]]
    saved = [one for one in found if one["saved"] is not None]
    return {
        "gain": interval([100 * one["gain"] for one in found]),
        "worst": round(100 * min(one["gain"] for one in found), 2),
        "always routed": interval([100 * one["routed"] for one in found]),
        "alone": len(alone) / len(found),
        "right": round(float(np.mean([one["routed"] <= NOTICED for one in alone])), 2) if alone else None,
        "saved": interval([100 * one["saved"] for one in saved]) if saved else None,
        "accuracy changed": interval([100 * one["changed"] for one in saved]) if saved else None,
        "promise kept": round(float(np.mean([one["kept"] for one in found])), 2),
        "draws": [
            {key: value if value is None else round(float(value), 5) for key, value in one.items()} for one in found
        ],
    }


def interval(values: Sequence[float]) -> list[float]:
    """Mean, and the 95% interval of the mean."""
    half = 1.96 * float(np.std(values, ddof=1)) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    return [round(float(np.mean(values)) + part, 2) for part in (0.0, -half, half)]


def draw(
    pool: Records,
    vectors: NDArray[np.float32],
    scorer: EmbeddingScorer,
    prices: Mapping[str, tuple[float, float]],
    rng: np.random.Generator,
) -> dict[str, Any]:
    """One trial, and what following its advice brings on the questions left over."""
    members, rows = lineup(pool, rng)
    own, test = rows[:N_OWN], rows[N_OWN : N_OWN + N_TEST]
    names = [pool.candidates[m] for m in members]
    lines = [
        {
            "instruction": pool.instructions[i],
            "task": pool.tasks[i],
            "scores": {name: float(pool.outcomes[m, i]) for m, name in zip(members, names, strict=True)},
        }
        for i in own
    ]
    questions = read_questions(lines).questions
    row_of = {pool.instructions[i].strip(): i for i in own}
    asked = [row_of[one.question.text.strip()] for one in questions]
    contenders = [contender(name, prices) for name in names]
    answers = {
        name: lengths(pool, m, {one.item_id: i for one, i in zip(questions, asked, strict=True)})
        for m, name in zip(members, names, strict=True)
    }
    study = TrialScoring(
        contenders, questions, pool.outcomes[members][:, asked].astype(float), answers, "records", scorer
    )
    judgement = verdict_of(study.table())
    exam, candidates = study.handed_over
    scorer.add_exam(exam)
    scores = scorer.score_vectors(vectors[test], [candidate.profile for candidate in candidates]).probabilities
    zoo = Zoo.of(candidates)
    policy = policy_of(judgement, zoo, scorer.digest)
    chars = [len(pool.instructions[i]) for i in test]
    advised = [
        choose(policy, row.tolist(), zoo.candidates, instruction_chars=n).chosen
        for row, n in zip(scores, chars, strict=True)
    ]
    outcomes = pool.outcomes[members][:, test].T
    mean = mean_of(outcomes)
    best = float(outcomes[:, judgement.best].mean())
    saved = changed = None
    if judgement.saving is not None and judgement.saving.knob is not None:
        costs = np.array([expected_costs(zoo.candidates, chars=n).ranked_usd for n in chars])
        chosen = (scores - judgement.saving.knob * costs).argmax(axis=1)
        saved = 1 - mean_of(costs)(chosen) / float(costs[:, judgement.best].mean())
        changed = mean(chosen) - best
    return {
        "gain": mean(advised) - best,
        "routed": mean(scores.argmax(axis=1)) - best,
        "alone": judgement.advised is None,
        "lead": judgement.believed_lead,
        "saved": saved,
        "changed": changed,
        "kept": mean(advised) >= judgement.promise.accuracy,
    }


def mean_of(table: NDArray[np.floating]) -> Callable[[Any], float]:
    """The mean of what is chosen in each row of a table, (N, M), by positions (N,)."""
    return lambda chosen: float(table[np.arange(len(table)), np.asarray(chosen)].mean())


def contender(name: str, prices: Mapping[str, tuple[float, float]]) -> Contender:
    """A candidate whose outcomes are recorded, with its price where it is known."""
    price: Any = prices.get(name.lower())
    return Contender.of(None, name, **({} if price is None else dict(zip(PRICES, price, strict=True))))


def lengths(pool: Records, m: int, asked: Mapping[str, int]) -> dict[str, Answer]:
    """Answers as long as the recorded ones, which are not kept; none where nobody knows how long they were."""
    chars = {item_id: pool.output_chars[m, i] for item_id, i in asked.items()}
    return {item_id: Answer(item_id, 0, "." * int(n)) for item_id, n in chars.items() if not np.isnan(n)}


def lineup(pool: Records, rng: np.random.Generator) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Candidates, and the items that all of them know, in random order."""
    while True:
        members = rng.choice(len(pool.candidates), N_CANDIDATES, replace=False)
        known = np.flatnonzero(~np.isnan(pool.outcomes[members]).any(axis=0))
        if len(known) < N_OWN + MIN_TEST:
            continue
        ranked = np.sort(pool.outcomes[members][:, known].mean(axis=1))
        if ranked[-1] - ranked[-2] < MAX_LEAD:
            return members, rng.permutation(known)


def markdown(table: Mapping[str, Mapping[str, Any]]) -> str:
    """The table as it stands in LOG.md."""
    head = ["own questions", "gain", "worst draw", "always routing", "alone", "right", "saved, %", "accuracy", "kept"]
    lines = [head, ["---"] * len(head)]
    for name, row in table.items():
        shown = [
            name,
            spread_of(row["gain"]),
            f"{row['worst']:+.1f}",
            spread_of(row["always routed"]),
            f"{row['alone']:.0%}",
        ]
        shown += ["–" if row["right"] is None else f"{row['right']:.0%}"]
        shown += [spread_of(row["saved"]), spread_of(row["accuracy changed"]), f"{row['promise kept']:.0%}"]
        lines.append(shown)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def spread_of(values: Sequence[float] | None) -> str:
    """A mean with its interval."""
    return "–" if values is None else "{:+.2f} [{:+.2f}, {:+.2f}]".format(*values)


if __name__ == "__main__":
    main()
