"""How long `from langchain_msat import ChatMSAT` takes beside langchain-core's own base class, interleaved.

python examples/reproduce/import_time.py
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys

ROUNDS = 9
STATEMENTS = {
    "base_s": "from langchain_core.language_models import BaseChatModel",
    "ours_s": "from langchain_msat import ChatMSAT",
}


def main() -> None:
    """Print medians and their ratio."""
    times: dict[str, list[float]] = {name: [] for name in STATEMENTS}
    for round_number in range(ROUNDS + 1):
        for name, statement in STATEMENTS.items():
            taken = _seconds(statement)
            if round_number:
                times[name].append(taken)
    result = {name: round(statistics.median(values), 3) for name, values in times.items()}
    ratios = [ours / base for base, ours in zip(times["base_s"], times["ours_s"], strict=True)]
    print(json.dumps({**result, "ratio": round(statistics.median(ratios), 3)}))


def _seconds(statement: str) -> float:
    code = f"import time; start = time.process_time(); {statement}; print(time.process_time() - start)"
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


if __name__ == "__main__":
    main()
