"""How much faster two of Ray's workers route a file than one, and one process; the results must be the same bytes.

python examples/reproduce/route_file_scaling.py [--rows 2000]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import ray

from msat_core import Router, route_file

PART_ROWS = 64


def main() -> None:
    """Each kind on the same file with Ray running, timed from the first quarter on: workers have loaded by then."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2000)
    options = parser.parse_args()
    router = Router.from_pretrained()
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = folder / "in.jsonl"
        texts = [f"Question {i}: {'why does an enzyme bind so tightly? ' * (1 + i % 9)}" for i in range(options.rows)]
        source.write_text("".join(json.dumps({"instruction": text}) + "\n" for text in texts))
        seconds = {}
        kinds: dict[str, dict[str, Any]] = {"one worker": {"workers": 1}, "two workers": {"workers": 2}, "no Ray": {}}
        for kind, how in kinds.items():
            times: list[float] = []

            def note(what: str, done: int, total: int, times: list[float] = times) -> None:
                times.append(time.perf_counter())

            route_file(source, folder / kind, router, part_rows=PART_ROWS, ray=bool(how), progress=note, **how)
            n_parts = len(times) // 4  # from when a quarter is done: workers are loaded
            seconds[kind] = (times[-1] - times[n_parts]) / (len(times) - 1 - n_parts)
            print(f"{kind}: {PART_ROWS / seconds[kind]:.0f} rows per second", flush=True)
        print(f"two workers / one: {seconds['one worker'] / seconds['two workers']:.2f}")
        for part in (folder / "no Ray").glob("part-*"):
            assert all((folder / kind / part.name).read_bytes() == part.read_bytes() for kind in seconds)
        print("the same bytes")


if __name__ == "__main__":
    main()
