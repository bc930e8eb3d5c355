"""Tuning the sentence encoder towards what candidates get right, and which kind of question a text is.

Two throwaway heads read the vectors, and what they need is pulled into them: one predicts outcomes (difficulty, and
each candidate's weight of a few skills), one names the task. The vectors are held near the published encoder's, so that
what was never trained on stays where it was (distillation). Half of the texts are read with something before or behind
them, or with lost tokens: what surrounds an instruction should not decide who answers it. A tuned
encoder costs at serving time what the published one costs.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from msat_core.checks import check_count
from msat_core.encoders.folder import EncoderFiles
from msat_core.encoders.torch_encoder import TorchEncoder
from msat_core.errors import ConfigurationError
from msat_core.records import Records
from msat_core.training.compact.perturbation import perturbed
from msat_core.training.losses import mean_of, pairwise_loss, pointwise_loss, shuffled
from msat_core.training.processes import Processes
from msat_core.training.schedule import one_cycle

BUCKET = 20  # batches among which texts are sorted by length
VECTOR_SCALE = 4.0  # entries of a unit vector are small beside what a linear layer is made for


@dataclass(frozen=True)
class TuningSettings:
    """How to tune; the defaults are those of the shipped encoder (what else was tried: examples/reproduce/LOG.md).

    Attributes:
        layers: the encoder's last ones, which are tuned whole.
        epochs, batch_size: passes over the items, items of a step of all processes.
        learning_rate, head_learning_rate: peaks, of the layers and of the heads.
        distillation: weight of 1 − cosine to the published vectors.
        pair_weight: weight of the ranking loss beside the pointwise one.
        task_weight: weight of naming the task.
        perturbed: share of the texts that are read otherwise than they are written.
        n_skills: of the head.
        dropout: of what the tuned layers add, and inside the head.
        seed: of everything random.
    """

    layers: int = 6
    epochs: int = 2
    batch_size: int = 64
    learning_rate: float = 1e-4
    head_learning_rate: float = 3e-3
    distillation: float = 0.1
    pair_weight: float = 1.0
    task_weight: float = 0.2
    perturbed: float = 0.5
    n_skills: int = 24
    dropout: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("layers", "epochs", "batch_size"):
            check_count(name, getattr(self, name))


def tune_encoder(
    records: Records,
    vectors: NDArray[np.float32],
    encoder: TorchEncoder,
    settings: TuningSettings | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
    on_loss: Callable[[float], None] | None = None,
) -> EncoderFiles:
    """The encoder with tuned upper layers; the encoder itself is left as it was.

    On a GPU the network computes in bfloat16 while it is tuned. Where ``accelerate launch`` started several processes,
    each takes its share of every batch, and all have the result.

    Args:
        records: what to learn from; leave exam items out first (``Records.without_texts``).
        vectors: embeddings of its items by the encoder, (N, D).
        encoder: to tune.
        settings: see :class:`TuningSettings`.
        progress: called with (steps done, steps in all).
        on_loss: called with each step's loss, before the step.
    """
    settings = settings or TuningSettings()
    n_layers = int(encoder.model.config.num_hidden_layers)
    if settings.layers > n_layers:
        raise ConfigurationError(f"The encoder has {n_layers} layers: {settings.layers} cannot be tuned.")
    processes = Processes(encoder.device)
    learner = copy.copy(encoder)
    learner.device = processes.device
    learner.model = copy.deepcopy(encoder.model).requires_grad_(False)
    learner.model.to(learner.device)  # type: ignore[arg-type]  # transformers wraps it
    layers: Any = learner.model.encoder.layer  # torch declares it no list of modules
    for layer in layers[n_layers - settings.layers :]:
        layer.requires_grad_(True)
        for part in (layer.attention.output, layer.output):
            part.dropout = nn.Dropout(settings.dropout)
            part.train()
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        _train(records, vectors, learner, settings, processes, progress, on_loss)
    tensors = {name: tensor.detach().cpu().numpy() for name, tensor in learner.model.state_dict().items()}
    config = encoder.files.config.changed(name=f"{encoder.files.config.name}, tuned")
    kept = {name: tensors[name] for name in encoder.files.tensors}
    return EncoderFiles.of(config, kept, encoder.files.tokenizer, encoder.files.graph)


class _Heads(nn.Module):
    """Off N vectors: logits of M candidates (difficulty + ability + skills of each), and of K tasks."""

    def __init__(self, dim: int, outcomes: Tensor, n_tasks: int, settings: TuningSettings) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, 1)
        self.curved = nn.Sequential(nn.Linear(dim, 96), nn.GELU(), nn.Dropout(settings.dropout), nn.Linear(96, 1))
        self.skills = nn.Linear(dim, settings.n_skills, bias=False)
        nn.init.normal_(self.skills.weight, std=dim**-0.5)
        self.weights = nn.Parameter(0.1 * torch.randn(len(outcomes), settings.n_skills))
        self.ability = nn.Parameter(torch.logit(outcomes.nanmean(dim=1).nan_to_num(0.5).clamp(0.02, 0.98)))
        self.tasks = nn.Linear(dim, n_tasks)

    def forward(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """(N, D) → (M, N), (N, K)."""
        x = VECTOR_SCALE * vectors
        difficulty = self.linear(x) + self.curved(x)  # (N, 1)
        logits: Tensor = difficulty.T + self.ability[:, None] + self.weights @ self.skills(x).T
        return logits, self.tasks(x)


def _train(
    records: Records,
    vectors: NDArray[np.float32],
    encoder: TorchEncoder,
    settings: TuningSettings,
    processes: Processes,
    progress: Callable[[int, int], None] | None,
    on_loss: Callable[[float], None] | None,
) -> None:
    device = encoder.device
    token_ids, _ = encoder.tokenize(records.instructions)
    published = torch.from_numpy(vectors).to(device)
    outcomes = torch.from_numpy(records.outcomes).float()
    names, task_rows = np.unique(np.array(records.tasks), return_inverse=True)
    task_of = torch.from_numpy(task_rows).to(device)
    heads = _Heads(encoder.dim, outcomes, len(names), settings).to(device)
    outcomes = outcomes.to(device)
    layers = [parameter for parameter in encoder.model.parameters() if parameter.requires_grad]
    trained = [*layers, *heads.parameters()]
    steps = settings.epochs * math.ceil(len(records) / settings.batch_size)
    optimiser = torch.optim.AdamW(
        [
            {"params": layers, "lr": settings.learning_rate, "weight_decay": 0.01},
            {"params": heads.parameters(), "lr": settings.head_learning_rate, "weight_decay": 0.05},
        ]
    )
    schedule = one_cycle(optimiser, [settings.learning_rate, settings.head_learning_rate], steps)
    lengths, pairs = np.array([len(ids) for ids in token_ids]), torch.arange(0, len(outcomes) - 1, 2, device=device)
    rng, done = np.random.default_rng(settings.seed), 0  # the same in all processes
    processes.seed(settings.seed)
    for _ in range(settings.epochs):
        for rows in _batches(lengths, settings.batch_size, rng):
            texts = [
                perturbed(token_ids[row], token_ids[rng.integers(len(token_ids))], rng, encoder.max_length)
                if rng.random() < settings.perturbed
                else token_ids[row]
                for row in rows
            ]
            order = rng.random((len(rows), len(outcomes)), dtype=np.float32)
            places = processes.share(np.arange(len(rows)))
            counts = torch.full((max(len(places), 1),), float(len(places) > 0), device=device)
            places = places if len(places) else np.zeros(1, dtype=np.intp)  # one of no weight: all take part
            own = torch.from_numpy(rows[places]).to(device)
            truth = torch.where(counts > 0, outcomes[:, own], math.nan)
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                embedded = encoder.forward([texts[place] for place in places])
            logits, task_logits = heads(embedded.float())
            loss = pointwise_loss(logits, truth, over=processes.over)
            drawn = shuffled(logits, truth, torch.from_numpy(order[places].T).to(device))
            loss = loss + settings.pair_weight * pairwise_loss(*drawn, pairs, pairs + 1, over=processes.over)
            named = cross_entropy(task_logits, task_of[own], reduction="none")
            loss = loss + settings.task_weight * mean_of(named, counts, processes.over)
            moved = 1 - (embedded * published[own]).sum(dim=1)
            loss = loss + settings.distillation * mean_of(moved, counts, processes.over)
            optimiser.zero_grad()
            loss.backward()
            processes.average_gradients(trained)
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimiser.step()
            schedule.step()
            done += 1
            if on_loss is not None:
                on_loss(float(processes.over(loss.detach())))
            if progress is not None:
                progress(done, steps)


def _batches(lengths: NDArray[np.intp], size: int, rng: np.random.Generator) -> list[NDArray[np.intp]]:
    """All rows once, in batches of similar length, in random order."""
    shuffled, batches = rng.permutation(len(lengths)), []
    for start in range(0, len(shuffled), size * BUCKET):
        bucket = shuffled[start : start + size * BUCKET]
        bucket = bucket[np.argsort(lengths[bucket], kind="stable")]
        batches += [bucket[i : i + size] for i in range(0, len(bucket), size)]
    return [batches[i] for i in rng.permutation(len(batches))]
