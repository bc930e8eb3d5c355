"""`msat train`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from msat_core.cli.shared import (
    Device,
    Json,
    RecordsFolder,
    check_output,
    errors,
    out,
    print_json,
    progress_bars,
    split_names,
)
from msat_core.encoders.folder import EncoderFiles
from msat_core.errors import ConfigurationError
from msat_core.exam import Exam
from msat_core.records import Records
from msat_core.training.calibration import LEAST_SLOPE

SHOWN_EVERY = 10  # optimiser steps between two lines of metrics


def train(
    records: RecordsFolder,
    out_folder: Annotated[Path, typer.Option("--out", help="Folder for the trained scorer.")],
    scorer: Annotated[Literal["compact", "model-sat"], typer.Option(help="Which scorer.")] = "compact",
    config: Annotated[Path | None, typer.Option(help="model-sat: the run as a YAML file.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="model-sat: go on from the last checkpoint.")] = False,
    exam: Annotated[list[Path] | None, typer.Option(help="Leave the items of this exam out too (repeat).")] = None,
    leave_out: Annotated[Path | None, typer.Option(help="A table with an item_id column to leave out.")] = None,
    without: Annotated[list[str] | None, typer.Option(help="Candidates to leave out (repeat, or A,B).")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="compact: episodes.")] = None,
    encoder: Annotated[
        str, typer.Option(help="compact: a folder, `shipped`, or `published` (all-MiniLM-L6-v2 before tuning).")
    ] = "shipped",
    tune: Annotated[bool, typer.Option("--tune-encoder", help="compact: tune the encoder first (slow).")] = False,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Of everything random; default: 0, or the configuration's.")
    ] = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Train a scorer. The shipped exams' items are always left out, by text.

    Under `accelerate launch` several processes train together: a model-sat scorer, or the encoder (--tune-encoder).
    """
    if scorer == "compact" and (config is not None or resume):
        raise ConfigurationError("--config and --resume belong to --scorer model-sat.")
    if scorer == "model-sat" and (steps is not None or tune or encoder != "shipped"):
        raise ConfigurationError(
            "--steps, --encoder and --tune-encoder belong to --scorer compact; --config states a run."
        )
    if scorer == "model-sat" and device is not None:
        raise ConfigurationError(
            "--device belongs to --scorer compact; accelerate decides where a model-sat run computes."
        )
    from msat_core.training.holdout import items_listed_in, training_items
    from msat_core.training.processes import is_main

    if is_main():
        check_output(out_folder, folder=True, fresh=not resume)

    listed = set() if leave_out is None else items_listed_in(leave_out)
    loaded = training_items(Records.load(records), map(Exam.load, exam or []), listed)
    dropped = set(split_names(without or []))
    loaded = loaded.select_candidates(name for name in loaded.candidates if name not in dropped)
    if scorer == "model-sat":
        _train_model_sat(loaded, out_folder, config, seed, resume, as_json)
        return
    from msat_core.training.compact.encoder_tuning import TuningSettings
    from msat_core.training.compact.run import train_on_records
    from msat_core.training.compact.train import CompactSettings

    stated = {name: value for name, value in (("steps", steps), ("seed", seed)) if value is not None}
    settings = CompactSettings(**stated)
    tuning = TuningSettings(seed=settings.seed) if tune else None
    files = _encoder_named(encoder)
    with progress_bars() as advance:
        trained = train_on_records(loaded, settings, encoder=files, tuning=tuning, device=device, progress=advance)
    if not is_main():
        return
    trained.save(out_folder)
    _warn_if_flat(trained.config.slope)
    if as_json:
        print_json({"out": str(out_folder), "scorer": scorer, **trained.config.trained_on})
    else:
        out().print(f"trained on {len(loaded)} items × {len(loaded.candidates)} candidates, written to {out_folder}")


def _encoder_named(name: str) -> EncoderFiles | None:
    """None for the one that msat ships."""
    if name == "published":
        from msat_core.encoders.published import published_encoder

        return published_encoder()
    return None if name == "shipped" else EncoderFiles.load(name)


def _train_model_sat(
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
    _warn_if_flat(trained.config.slope)
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


def _warn_if_flat(slope: float) -> None:
    if slope <= LEAST_SLOPE:
        errors.print(
            "Note: on candidates and questions that training had not seen the scores ranked no better than by chance, "
            "so they are all but the same for every question: give more records, or other benchmarks.",
            highlight=False,
            soft_wrap=True,
        )
