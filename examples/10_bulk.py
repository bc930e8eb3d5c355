"""A file of any size, routed in parts that a cut run keeps; and the same function in Spark's workers.

python examples/10_bulk.py
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pandas as pd

from msat_core import Router, route_file

ZOO = ["gpt-6.1-sol", "gemini-3.8-flash", "deepseek-v4-flash"]


@cache
def router() -> Router:
    """One router a process: it is loaded with the first batch that a worker is given."""
    return Router.from_pretrained(zoo=ZOO)


def route_frames(frames: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
    """What Spark's ``mapInPandas`` takes, with the schema "id string, candidate string, score double"."""
    for frame in frames:
        decisions = router().route_batch(frame["instruction"].tolist())
        yield pd.DataFrame(
            {"id": frame["id"], "candidate": [d.candidate for d in decisions], "score": [d.score for d in decisions]}
        )


def main() -> None:
    """Forty questions from a file, then four from a data frame, as Spark would hand them over."""
    questions = [{"id": f"q{i}", "instruction": f"Question {i}: what follows from {i} + {i}?"} for i in range(40)]
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "questions.jsonl"
        source.write_text("".join(json.dumps(question) + "\n" for question in questions))
        # ray=True routes with Ray's workers; the same call again goes on where it stopped.
        result = route_file(source, Path(folder) / "routed", router(), part_rows=16)
        print(f"{result.n_rows} rows in {result.n_parts} parts: {result.candidates}")
        print((Path(folder) / "routed" / "part-000000.jsonl").read_text().splitlines()[0])
    for routed in route_frames(iter([pd.DataFrame(questions[:4])])):
        print(routed.to_string(index=False))


if __name__ == "__main__":
    main()
