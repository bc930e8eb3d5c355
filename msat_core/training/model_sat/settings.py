"""A training run, stated whole in one YAML file.

The paper gives neither group size, learning rates, batch sizes nor step counts; these defaults are ours, for
E5-Large and Phi-3-Mini with LoRA on one GPU. ``examples/reproduce/model_sat.yaml`` is a commented example.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from msat_core.errors import ConfigurationError, MsatError
from msat_core.reading import parse_yaml, read_text
from msat_core.scoring.model_sat.config import ModelSATConfig


class StageSettings(BaseModel):
    """One stage.

    Attributes:
        steps: optimiser steps; 0 leaves the stage out.
        train: ``connector`` (with the regression head, if there is one: it is as new) or ``all``.
        learning_rate: peak, of φ.
        connector_learning_rate: peak, of ψ, connector and head; larger, as in the paper.
        task_prefix: only items of tasks whose name begins so ("in-domain"); empty for all.
        warm_up: share of the steps over which the rates rise; then they fall to zero along a cosine.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(ge=0)
    train: Literal["connector", "all"] = "all"
    learning_rate: float = Field(default=2e-5, gt=0)
    connector_learning_rate: float = Field(default=1e-4, gt=0)
    task_prefix: str = ""
    warm_up: float = Field(default=0.05, ge=0, lt=1)


class TrainingSettings(BaseModel):
    """Everything about a run but the records.

    Attributes:
        model: what to train; see :class:`ModelSATConfig`.
        stages: in order; the paper's two by default.
        loss: ``listwise`` (the paper's, over homogeneous groups), ``pointwise``, or ``both`` added up.
        level: coefficient of the candidate's whole exam, in log odds, that is added to its logits in the pointwise
            loss: φ then learns what departs from it. 0 is the paper's; 1 routes by the exam before any training.
        group_size: k, instructions of a group: 1 that the candidate got right and k − 1 that it got wrong.
        groups_per_step: groups of one optimiser step and process.
        candidates_per_group: 1 is the paper's group. More share a group's k instructions, drawn at random:
            with ``instruction-first`` they cost only their capability tokens, and each right answer is held
            against all wrong ones of its candidate.
        exam_tasks, exam_shots: of the random exams whose results the representations state.
        strong_candidate_weight: how many times as often the strongest candidate is drawn as the weakest.
        correct_for_guessing: weigh right answers down by how likely they were lucky (see :mod:`.refinement`).
        shuffle_tasks: new order of the tasks at every draw; per-task tokens have none.
        held_out_candidates, held_out_items: shares kept from training for the calibration, families and textual
            twins kept together; 0 candidates: no calibration.
        calibration_items: items of the calibration at most.
        weight_decay, max_grad_norm: of AdamW.
        gradient_accumulation: passes of one optimiser step, each with ``groups_per_step`` groups.
        gradient_checkpointing: trade time for memory in both backbones.
        mixed_precision: autocast of the passes.
        checkpoint_every: optimiser steps; 0: never.
        tensorboard: write scalars to ``<out>/logs``.
        seed: of everything random.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: ModelSATConfig = Field(default_factory=ModelSATConfig)
    stages: tuple[StageSettings, ...] = (
        StageSettings(steps=500, train="connector", connector_learning_rate=1e-3, task_prefix="mmlu/"),
        StageSettings(steps=3000),
    )
    loss: Literal["listwise", "pointwise", "both"] = "listwise"
    level: float = Field(default=0.0, ge=0)
    group_size: int = Field(default=8, ge=2)
    groups_per_step: int = Field(default=8, ge=1)
    candidates_per_group: int = Field(default=1, ge=1)
    exam_tasks: int = Field(default=50, ge=1)
    exam_shots: int = Field(default=20, ge=1)
    strong_candidate_weight: float = Field(default=2.0, ge=1)
    correct_for_guessing: bool = True
    shuffle_tasks: bool = True
    held_out_candidates: float = Field(default=0.2, ge=0, le=0.5)
    held_out_items: float = Field(default=0.1, gt=0, le=0.5)
    calibration_items: int = Field(default=500, ge=20)
    weight_decay: float = Field(default=0.01, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    gradient_accumulation: int = Field(default=1, ge=1)
    gradient_checkpointing: bool = False
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    checkpoint_every: int = Field(default=0, ge=0)
    tensorboard: bool = False
    seed: int = 0

    @model_validator(mode="after")
    def _trains(self) -> TrainingSettings:
        if not sum(stage.steps for stage in self.stages):
            raise ValueError("the stages have no step between them")
        return self

    @classmethod
    def load(cls, path: str | Path) -> TrainingSettings:
        """Read a YAML file. Raises ConfigurationError naming the setting that is wrong."""
        try:
            fields = parse_yaml(read_text(path))
            return cls.model_validate(fields or {})
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            raise ConfigurationError(f"{path}: {place}: {first['msg'].removeprefix('Value error, ')}.") from None
        except MsatError as error:
            raise ConfigurationError(f"{path}: {error}") from None
        except (OSError, ValueError) as error:
            raise ConfigurationError(
                f"{path} cannot be read ({str(error).splitlines()[0]}): expected a YAML file."
            ) from None
