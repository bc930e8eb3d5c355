"""Makes `examples/data/reasoning_outcomes.json`: the recorded outcomes that the demo replays. Figures only, no text.

    python examples/reproduce/demo_outcomes.py

Of every task of reasoning-gym whose answer is one text, the first questions that the library makes again word for word
from the records' seed, that are in no shipped exam, and on which all nine candidates have an outcome.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections import defaultdict

import pyarrow.parquet as pq
from common import ROOT, records_folder
from reasoning_gym.factory import DATASETS, create_dataset

from msat_core import Exam, pretrained
from msat_core.aptitude.reasoning_gym import SEED, SIZE, VERSION, item_id_of

CANDIDATES = (
    "openai/o3-mini",
    "qwen/qwen3-30b-a3b",
    "anthropic/claude-3.7-sonnet",
    "qwen/qwq-32b",
    "anthropic/claude-3.5-sonnet",
    "openrouter/quasar-alpha",
    "meta-llama/llama-4-scout",
    "meta-llama/llama-3.3-70b-instruct",
    "meta-llama/llama-3.1-8b-instruct",
)
A_TASK = 5
# Words or answers that come out of a set, in another order in every process.
UNSTABLE = {
    "composite",  # of other tasks; has none by itself
    *("codeio", "intermediate_integration", "isomorphic_strings", "knight_swap"),
    *("polynomial_multiplication", "ransom_note", "word_ladder"),
}
OUT = ROOT / "examples" / "data" / "reasoning_outcomes.json"


def main() -> None:
    """Choose the questions and write their outcomes."""
    folder = records_folder() / "reasoning_gym"
    items = pq.read_table(folder / "items.parquet", columns=["item_id", "instruction"]).to_pylist()
    recorded = {row["item_id"]: item_id_of(row["instruction"]) for row in items}
    scores: dict[str, dict[str, float]] = defaultdict(dict)
    for row in pq.read_table(folder / "outcomes.parquet").to_pylist():
        scores[recorded[row["item_id"]]][row["model"]] = row["score"]
    in_exam = {shot.item_id for shot in Exam.load(pretrained.EXAM_REASONING).sheet.shots}
    tasks = {}
    for task in sorted(set(DATASETS) - UNSTABLE):
        with contextlib.redirect_stdout(io.StringIO()):  # some print while they make
            dataset = create_dataset(task, size=SIZE, seed=SEED)
            entries = [dataset[i] for i in range(SIZE)]
        chosen: dict[str, int] = {}
        for i, entry in enumerate(entries):
            item_id = item_id_of(entry["question"])
            known = all(name in scores[item_id] for name in CANDIDATES)
            if known and isinstance(entry["answer"], str) and item_id not in in_exam:
                chosen.setdefault(item_id, i)
        if chosen:
            tasks[task] = [
                {"index": i, "id": item_id, "scores": [round(scores[item_id][name], 3) for name in CANDIDATES]}
                for item_id, i in list(chosen.items())[:A_TASK]
            ]
    head = {
        "source": f"reasoning-gym's public evaluations (Apache-2.0): means of three samples in [0, 1]; questions made "
        f"by reasoning-gym {VERSION}, size {SIZE}, seed {SEED}, named by the hash of their text",
        "library": {"version": VERSION, "size": SIZE, "seed": SEED},
        "candidates": CANDIDATES,
    }
    rows = ",\n".join(f"  {json.dumps(task)}: {json.dumps(row)}" for task, row in sorted(tasks.items()))
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(head, indent=1)[:-2] + f',\n "tasks": {{\n{rows}\n }}\n}}\n', encoding="utf-8")
    print(f"{sum(map(len, tasks.values()))} questions of {len(tasks)} tasks: {OUT}")


if __name__ == "__main__":
    main()
