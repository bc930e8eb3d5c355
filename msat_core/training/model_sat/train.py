"""`msat train --scorer model-sat`: split, train, calibrate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from msat_core.errors import RecordsError
from msat_core.records import Records
from msat_core.scoring.model_sat.assembly import Assembly, assemble
from msat_core.scoring.model_sat.representations import level_of
from msat_core.scoring.model_sat.scorer import ModelSATScorer
from msat_core.training.calibration import PlattScaling, fit_platt
from msat_core.training.compact.train import candidate_folds
from msat_core.training.model_sat.groups import ExamSampler
from msat_core.training.model_sat.loop import OnMetrics, TrainingLoop
from msat_core.training.model_sat.settings import TrainingSettings

CALIBRATION_EXAMS = 2  # random exams of each held-out candidate


@dataclass(frozen=True)
class Split:
    """What is trained on and what calibration is fitted on.

    Attributes:
        kept: bool (N,), items of training and of all exams; the others are calibrated on.
        new: names of the candidates of the calibration alone.
    """

    kept: NDArray[np.bool_]
    new: tuple[str, ...]


def train_model_sat(
    records: Records,
    settings: TrainingSettings,
    folder: Path,
    *,
    assembly: Assembly | None = None,
    resume: bool = False,
    on_metrics: OnMetrics | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> ModelSATScorer | None:
    """Train on the records and calibrate on candidates and items kept from training.

    Args:
        records: what to learn from; leave exam items out first (``Records.without_texts``).
        settings: the run.
        folder: where checkpoints and logs go.
        assembly: what to train; default: what ``settings.model`` says.
        resume: go on from the newest checkpoint in the folder.
        on_metrics: called after each optimiser step.
        progress: called with (what, done, total).

    Returns:
        The scorer on the main process, None on the others.

    Raises:
        RecordsError: too few records.
        ConfigurationError: settings that cannot work.
        ArtefactError: a backbone cannot be loaded, or a checkpoint is of another run.
    """
    split = split_of(records, settings)
    torch.manual_seed(settings.seed)
    assembly = assembly or assemble(settings.model)
    learnt = records.select_items(split.kept)
    learnt = learnt.select_candidates([name for name in records.candidates if name not in split.new])
    total = sum(stage.steps for stage in settings.stages)

    def report(metrics: dict[str, float]) -> None:
        if progress is not None:
            progress("training", int(metrics["step"]), total)
        if on_metrics is not None:
            on_metrics(metrics)

    loop = TrainingLoop(assembly, learnt, settings, folder, report)
    loop.run(resume=resume)
    tensors = loop.final_tensors()
    if not loop.accelerator.is_main_process:
        return None
    if loop.is_sharded:
        assembly = assemble(settings.model)
    assembly.module.load_state_dict(tensors)
    scorer = ModelSATScorer(assembly, device=loop.accelerator.device)
    calibration = calibrate(scorer, records, split, settings, progress)
    return scorer.changed(**asdict(calibration), trained_on=_about(learnt, split, settings))


def split_of(records: Records, settings: TrainingSettings) -> Split:
    """Held-out candidates by family and held-out items by text, from the seed."""
    if not settings.held_out_candidates:
        return Split(np.ones(len(records), dtype=bool), ())
    folds = candidate_folds(records.candidates, max(2, round(1 / settings.held_out_candidates)), settings.seed)
    new = folds[settings.seed % len(folds)]
    if len(new) == len(records.candidates):
        raise RecordsError("All candidates are of one family: set held_out_candidates to 0, or add other families.")
    texts = np.array(records.text_sha256)
    unique = np.random.default_rng(settings.seed).permutation(np.unique(texts))
    held = unique[: max(1, round(settings.held_out_items * len(unique)))]
    return Split(~np.isin(texts, held), tuple(records.candidates[i] for i in new))


def calibrate(
    scorer: ModelSATScorer,
    records: Records,
    split: Split,
    settings: TrainingSettings,
    progress: Callable[[str, int, int], None] | None = None,
) -> PlattScaling:
    """Fit slope, level and intercept on held-out candidates and items, after exams on the items kept."""
    if not split.new:
        return PlattScaling(level=settings.level)
    return fit_platt(*calibration_pairs(scorer, records.select_candidates(split.new), split, settings, progress))


def calibration_pairs(
    scorer: ModelSATScorer,
    records: Records,
    split: Split,
    settings: TrainingSettings,
    progress: Callable[[str, int, int], None] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Logits, levels and outcomes (P,) of the records' candidates on held-out items, after exams on the items kept."""
    rng = np.random.default_rng(settings.seed)
    exams = ExamSampler(records.select_items(split.kept), settings.exam_tasks, settings.exam_shots)
    asked = records.select_items(~split.kept)
    logits, levels, outcomes = [], [], []
    for number in range(len(records.candidates)):
        rows = rng.permutation(np.flatnonzero(~np.isnan(asked.outcomes[number])))[: settings.calibration_items]
        profiles = [exams.profile(number, exams.draw(number, rng)) for _ in range(CALIBRATION_EXAMS)]
        row_logits = scorer.logits(scorer.prompts([asked.instructions[i] for i in rows]), profiles)
        logits.append(row_logits.ravel())
        levels.append(np.tile([level_of(profile) for profile in profiles], len(rows)))
        outcomes.append(np.repeat(asked.outcomes[number][rows], CALIBRATION_EXAMS))
        if progress is not None:
            progress("calibration", number + 1, len(records.candidates))
    return np.concatenate(logits), np.concatenate(levels), np.concatenate(outcomes)


def _about(learnt: Records, split: Split, settings: TrainingSettings) -> dict[str, str | int | float]:
    return {
        "benchmarks": ", ".join(dict.fromkeys(learnt.benchmarks)),
        "n_items": len(learnt),
        "n_candidates": len(learnt.candidates),
        "n_outcomes": int((~np.isnan(learnt.outcomes)).sum()),
        "calibrated_on": ", ".join(split.new),
        "steps": " + ".join(f"{stage.steps} ({stage.train})" for stage in settings.stages),
        "loss": settings.loss,
        "group_size": settings.group_size,
        "seed": settings.seed,
    }
