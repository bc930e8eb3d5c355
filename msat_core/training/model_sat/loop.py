"""The training loop (accelerate): one process or many, sharded or not, resumable at every checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.utils import DistributedType
from torch import Tensor

from msat_core.documents import digest_of
from msat_core.records import Records
from msat_core.scoring.model_sat.assembly import Assembly, owned_tensors
from msat_core.scoring.model_sat.backbones import checkpoint_activations
from msat_core.scoring.model_sat.prompts import Prompt, PromptBatch
from msat_core.scoring.model_sat.representations import Representations, level_of, represent
from msat_core.training.losses import listwise_loss, pointwise_loss
from msat_core.training.model_sat import checkpoint
from msat_core.training.model_sat.groups import GroupBatch, GroupSampler
from msat_core.training.model_sat.settings import TrainingSettings
from msat_core.training.model_sat.stages import (
    Position,
    make_optimiser,
    position_of,
    set_rates,
    trained_names,
    tuned_parameters,
)
from msat_core.training.processes import over_all

OnMetrics = Callable[[dict[str, float]], None]


class TrainingLoop:
    """Runs the stages over an assembly, in place.

    Args:
        assembly: what to train.
        records: instructions and outcomes to learn from; exams are drawn from them too.
        settings: see :class:`TrainingSettings`.
        folder: for checkpoints and logs.
        on_metrics: called on the main process after each optimiser step.
    """

    def __init__(
        self,
        assembly: Assembly,
        records: Records,
        settings: TrainingSettings,
        folder: Path,
        on_metrics: OnMetrics | None = None,
    ) -> None:
        self._assembly, self._records, self._settings = assembly, records, settings
        self._folder, self._on_metrics = folder, on_metrics
        self._run = digest_of([settings.model_dump(mode="json"), list(records.text_sha256), list(records.candidates)])
        self._samplers = [GroupSampler(records, settings, stage.task_prefix) for stage in settings.stages]
        self._prompts: dict[int, Prompt] = {}
        self._vectors: dict[str, Tensor] = {}
        self._tuned = tuned_parameters(assembly.module)
        self._prepare()

    def _prepare(self) -> None:
        settings, module = self._settings, self._assembly.module
        if settings.gradient_checkpointing:
            for backbone in filter(None, (module.llm, module.encoder)):
                checkpoint_activations(backbone)
        self.accelerator = Accelerator(
            mixed_precision=settings.mixed_precision,
            gradient_accumulation_steps=settings.gradient_accumulation,
            log_with="tensorboard" if settings.tensorboard else None,
            project_dir=self._folder,
            # The first stage gives most parameters no gradient.
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
        )
        self._over = over_all(self.accelerator)
        if settings.tensorboard:
            self.accelerator.init_trackers("logs")
        self._model, self._optimiser = self.accelerator.prepare(
            module, make_optimiser(self._tuned, settings.weight_decay)
        )
        prepared = dict(self._bare.named_parameters())  # sharding replaces them
        self._tuned = {name: prepared[name] for name in self._tuned}
        self.is_sharded = self.accelerator.distributed_type == DistributedType.FSDP

    def run(self, *, resume: bool = False, stop_after: int | None = None) -> None:
        """Train to the end, or until so many steps are done in all.

        Args:
            resume: go on from the newest checkpoint, if there is one.
            stop_after: leave early; the last checkpoint stays.
        """
        stages = self._settings.stages
        total = sum(stage.steps for stage in stages)
        start = self._resume() if resume else 0
        for step in range(start, total if stop_after is None else min(total, stop_after)):
            position = position_of(step, stages)
            self._enter(position)
            loss = self._step(step, position)
            self._report(step, position, loss)
            if self._settings.checkpoint_every and (step + 1) % self._settings.checkpoint_every == 0:
                self._checkpoint(step + 1)
        for parameter in self._tuned.values():
            parameter.requires_grad_(True)  # as it was found: another run on this network may train it all
        self.accelerator.wait_for_everyone()
        if self._settings.tensorboard:
            self.accelerator.end_training()

    def final_tensors(self) -> dict[str, Tensor]:
        """The network's tensors after training, by the names of the bare module."""
        return checkpoint.whole_state(self._model) if self.is_sharded else dict(self._bare.state_dict())

    @property
    def _bare(self) -> torch.nn.Module:
        bare: torch.nn.Module = self.accelerator.unwrap_model(self._model)
        return bare

    def _enter(self, position: Position) -> None:
        trained = frozenset(trained_names(list(self._tuned), position.settings.train))
        for name, parameter in self._tuned.items():
            parameter.requires_grad_(name in trained)
        self._model.train()

    def _step(self, step: int, position: Position) -> float:
        """One optimiser step; the mean loss over passes and processes."""
        losses = []
        set_rates(self._optimiser, position)
        for part in range(self._settings.gradient_accumulation):
            number = position.within * self._settings.gradient_accumulation + part
            batch = self._samplers[position.stage].draw(position.stage, number, self.accelerator.process_index)
            seed = [self._settings.seed, step, part, self.accelerator.process_index]
            torch.manual_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))  # dropout, the same on resuming
            with self.accelerator.accumulate(self._model):
                loss = self.loss(batch, np.random.default_rng(seed))
                self.accelerator.backward(loss)
                if self.accelerator.sync_gradients:
                    trained = [p for p in self._tuned.values() if p.requires_grad]
                    self.accelerator.clip_grad_norm_(trained, self._settings.max_grad_norm)
                self._optimiser.step()
                self._optimiser.zero_grad()
            losses.append(loss.detach())
        return float(self._over(torch.stack(losses).mean()))

    def loss(self, batch: GroupBatch, rng: np.random.Generator) -> Tensor:
        """The settings' loss of some groups; its mean over the processes is that of all their groups together."""
        settings, device = self._settings, self.accelerator.device
        prompts = PromptBatch.of([self._prompt(int(row)) for row in batch.items]).to(device)
        shuffle = rng if settings.shuffle_tasks else None
        representations = represent(
            batch.profiles, self._assembly.config, self._assembly.representation_tokenizer, rng=shuffle
        ).to(device)
        columns = torch.from_numpy(batch.columns).to(device)
        logits = self._model(prompts, self._encoded(representations), columns)
        if settings.level:
            levels = torch.tensor([level_of(profile) for profile in batch.profiles], device=device)
            logits = logits + settings.level * levels[columns]
        outcomes, weights = (torch.from_numpy(a).to(device) for a in (batch.outcomes, batch.weights))
        logits = logits.reshape(outcomes.shape)
        total: Tensor = logits.new_zeros(())
        if settings.loss != "pointwise":
            total = total + listwise_loss(logits, outcomes, weights, over=self._over)
        if settings.loss != "listwise":
            total = total + pointwise_loss(logits, outcomes, weights, over=self._over)
        return total

    def _prompt(self, row: int) -> Prompt:
        if row not in self._prompts:
            self._prompts[row] = self._assembly.prompts.build([self._records.instructions[row]])[0]
        return self._prompts[row]

    def _encoded(self, representations: Representations) -> Representations:
        """With ψ's vectors at hand where ψ is not being trained: it reads each text once."""
        bare = self._assembly.module
        if bare.encoder is None or self.is_sharded or any(p.requires_grad for p in bare.encoder.parameters()):
            return representations
        bare.encoder.train(False)
        with torch.no_grad():
            for row, text in enumerate(representations.texts):
                if text not in self._vectors:  # each by itself: the same to the last bit, whatever came before
                    self._vectors[text] = bare.encode(representations.of_text(row))[0]
        bare.encoder.train()
        return representations.with_vectors(torch.stack([self._vectors[text] for text in representations.texts]))

    def _report(self, step: int, position: Position, loss: float) -> None:
        rates = {("llm_rate" if g["of_llm"] else "connector_rate"): g["lr"] for g in self._optimiser.param_groups}
        metrics = {"step": float(step + 1), "stage": float(position.stage + 1), "loss": loss, **rates}
        if self._settings.tensorboard:
            self.accelerator.log(metrics, step=step + 1)
        if self._on_metrics is not None and self.accelerator.is_main_process:
            self._on_metrics(metrics)

    def _checkpoint(self, step: int) -> None:
        tensors = checkpoint.whole_state(self._model)
        optimiser = checkpoint.optimiser_state(self._model, self._optimiser.optimizer)
        if self.accelerator.is_main_process:
            kept = {name: tensors[name] for name in owned_tensors(self._assembly.config, tensors)}
            scaler = self.accelerator.scaler
            extra: dict[str, Any] = {"scaler": scaler.state_dict()} if scaler is not None else {}
            checkpoint.write(checkpoint.Snapshot(step, self._run, kept, optimiser, extra), self._folder)
        self.accelerator.wait_for_everyone()

    def _resume(self) -> int:
        snapshot = checkpoint.read_latest(self._folder, self._run)
        if snapshot is None:
            return 0
        self._enter(position_of(snapshot.step - 1, self._settings.stages))
        checkpoint.restore(self._model, self._optimiser.optimizer, snapshot)
        if self.accelerator.scaler is not None and "scaler" in snapshot.extra:
            self.accelerator.scaler.load_state_dict(snapshot.extra["scaler"])
        return snapshot.step
