"""What records of decisions cost: CPU time of routing and dispatching with none, with a log, and with telemetry.

python examples/reproduce/decision_records.py [--off]

The candidates answer at once, and the scorer looks scores up: all that is measured is the router's own work.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from msat_core import (
    Candidate,
    CapabilityProfile,
    Provenance,
    Router,
    RoutingAsk,
    TableScorer,
    TaskResult,
    Turn,
    Zoo,
    first_answer,
)

N_CANDIDATES, N_ROUTES, ROUNDS = 10, 300, 9


def main() -> None:
    """Medians in microseconds a route, taken by turns, and their ratios to none."""
    settings: dict[str, dict[str, Any]] = {"off": {}}
    if "--off" not in sys.argv:  # versions before decision records know only this
        from msat_core import DecisionTelemetry

        settings["log"] = {"decisions": Path(tempfile.mkdtemp()) / "decisions.jsonl"}
        settings["telemetry"] = {"decisions": DecisionTelemetry()}
    routers = {name: Router(TableScorer(), zoo(), **options) for name, options in settings.items()}
    times: dict[str, list[float]] = {name: [] for name in routers}
    for _ in range(ROUNDS):
        for name, router in routers.items():
            times[name].append(per_route(router))
    medians = {name: statistics.median(found) for name, found in times.items()}
    ratios = {f"{name}_over_off": round(value / medians["off"], 3) for name, value in medians.items() if name != "off"}
    print(json.dumps({**{f"{name}_us": round(value, 1) for name, value in medians.items()}, **ratios}))


def per_route(router: Router) -> float:
    """Microseconds of CPU time."""
    began = time.process_time()
    for i in range(N_ROUTES):
        ask = RoutingAsk.of(
            router, [Turn("user", f"Question {i}: what is the sum of the first {i} odd numbers, and why?")]
        )
        first_answer(ask.attempts(ask.decide()), str)
    return 1e6 * (time.process_time() - began) / N_ROUTES


def zoo() -> Zoo:
    """Candidates with prices and nothing else."""
    return Zoo(
        candidates=tuple(
            Candidate(
                profile=CapabilityProfile(
                    candidate=f"candidate-{m}",
                    results=(TaskResult(task="general", n_shots=20, n_correct=m),),
                    provenance=Provenance(source="made up"),
                ),
                usd_per_mtok_in=1.0 + m,
                usd_per_mtok_out=2.0 + m,
            )
            for m in range(N_CANDIDATES)
        )
    )


if __name__ == "__main__":
    main()
