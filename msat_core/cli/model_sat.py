"""`msat train --scorer model-sat`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msat_core.cli.shared import errors, out, print_json, progress_bars

if TYPE_CHECKING:
    from msat_core.records import Records

SHOWN_EVERY = 10  # optimiser steps between two lines of metrics


def train_model_sat_command(
    records: Records, out_folder: Path, config: Path | None, seed: int | None, resume: bool, as_json: bool
) -> None:
    """Train, save, report. Under ``accelerate launch`` only the main process saves and speaks."""
    from msat_core.training.model_sat.checkpoint import discard
    from msat_core.training.model_sat.settings import TrainingSettings
    from msat_core.training.model_sat.train import train_model_sat

    settings = TrainingSettings() if config is None else TrainingSettings.load(config)
    if seed is not None:
        settings = settings.model_copy(update={"seed": seed})
    console = errors if as_json else out()

    def show(metrics: dict[str, float]) -> None:
        if metrics["step"] % SHOWN_EVERY == 0 or metrics["step"] == 1:
            line = json.dumps({name: float(f"{value:.6g}") for name, value in metrics.items()})
            console.print(line, soft_wrap=True, highlight=False)

    with progress_bars() as advance:
        trained = train_model_sat(records, settings, out_folder, resume=resume, on_metrics=show, progress=advance)
        if trained is None:
            return
        trained.save(out_folder)
        discard(out_folder)
    about: dict[str, Any] = {
        **trained.config.trained_on,
        "slope": trained.config.slope,
        "level": trained.config.level,
        "intercept": trained.config.intercept,
    }
    if as_json:
        print_json({"out": str(out_folder), "scorer": "model-sat", **about})
    else:
        out().print(
            f"trained on {about['n_items']} items × {about['n_candidates']} candidates, "
            f"calibrated on {about['calibrated_on'] or 'nobody'}, written to {out_folder}"
        )
