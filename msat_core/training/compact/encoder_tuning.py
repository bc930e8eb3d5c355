"""Tuning the sentence encoder's upper layers towards what candidates get right, by LoRA (Hu et al. 2021).

The low-rank change is merged at the end: a tuned encoder costs at serving time what the published one costs.

A throwaway head (difficulty, and each candidate's weight of a few skills) reads outcomes off the vectors, and what it
needs is pulled into them. They are held near the published encoder's, so that what was never trained on stays where it
was (distillation).
"""

from __future__ import annotations

import copy
import importlib.util
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import dropout

from msat_core.checks import check_count
from msat_core.encoders.folder import EncoderFiles
from msat_core.encoders.torch_encoder import TorchEncoder
from msat_core.errors import ConfigurationError
from msat_core.records import Records
from msat_core.training.losses import mean_of, pairwise_loss, pointwise_loss
from msat_core.training.processes import Processes
from msat_core.training.schedule import one_cycle

TUNED = ("query", "key", "value", "dense")  # every matrix of a layer
BUCKET = 20  # batches among which texts are sorted by length
N_PAIRS = 200  # candidate pairs of each batch's ranking loss
VECTOR_SCALE = 4.0  # entries of a unit vector are small beside what a linear layer is made for


@dataclass(frozen=True)
class TuningSettings:
    """How to tune; the defaults are those of the shipped encoder.

    Attributes:
        layers: the encoder's last ones, which are tuned.
        rank: of each matrix's change.
        epochs, batch_size: passes over the items, items of a step of all processes.
        learning_rate, head_learning_rate: peaks, of the change and of the head.
        distillation: weight of 1 − cosine to the published vectors.
        pair_weight: weight of the ranking loss beside the pointwise one.
        n_skills: of the head.
        dropout: of what the tuned layers read, and inside the head.
        seed: of everything random.
    """

    layers: int = 3
    rank: int = 16
    epochs: int = 1
    batch_size: int = 48
    learning_rate: float = 1e-3
    head_learning_rate: float = 3e-3
    distillation: float = 0.1
    pair_weight: float = 1.0
    n_skills: int = 16
    dropout: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("layers", "rank", "epochs", "batch_size"):
            check_count(name, getattr(self, name))


def check_tuning() -> None:
    """Can an encoder be tuned here? Raises ConfigurationError saying what to install."""
    if importlib.util.find_spec("peft") is None:
        raise ConfigurationError('Tuning the encoder needs `peft`: pip install "model-sat-router[train]".')


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

    Where ``accelerate launch`` started several processes, each takes its share of every batch, and all have the result.

    Args:
        records: what to learn from; leave exam items out first (``Records.without_texts``).
        vectors: embeddings of its items by the encoder, (N, D).
        encoder: to tune.
        settings: see :class:`TuningSettings`.
        progress: called with (steps done, steps in all).
        on_loss: called with each step's loss, before the step.
    """
    check_tuning()
    import peft

    settings = settings or TuningSettings()
    n_layers = int(encoder.model.config.num_hidden_layers)
    if settings.layers > n_layers:
        raise ConfigurationError(f"The encoder has {n_layers} layers: {settings.layers} cannot be tuned.")
    processes = Processes(encoder.device)
    learner = copy.copy(encoder)
    learner.device = processes.device
    learner.model = copy.deepcopy(encoder.model).requires_grad_(False)
    learner.model.to(learner.device)  # type: ignore[arg-type]  # transformers wraps it
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        change = peft.LoraConfig(
            r=settings.rank,
            lora_alpha=2 * settings.rank,
            init_lora_weights="gaussian",
            target_modules=list(TUNED),
            layers_to_transform=list(range(n_layers - settings.layers, n_layers)),
            layers_pattern="layer",
        )
        peft.inject_adapter_in_model(change, learner.model)
        first = learner.model.encoder.layer[n_layers - settings.layers]
        first.register_forward_pre_hook(lambda _, given: (dropout(given[0], settings.dropout), *given[1:]))
        _train(records, vectors, learner, settings, processes, progress, on_loss)
    return _merged(encoder.files, learner.model)


class _Head(nn.Module):
    """Logits of M candidates off N vectors: difficulty + ability + skills of each candidate."""

    def __init__(self, dim: int, outcomes: Tensor, n_skills: int, dropout: float) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, 1)
        self.curved = nn.Sequential(nn.Linear(dim, 96), nn.GELU(), nn.Dropout(dropout), nn.Linear(96, 1))
        self.skills = nn.Linear(dim, n_skills, bias=False)
        nn.init.normal_(self.skills.weight, std=dim**-0.5)
        self.weights = nn.Parameter(0.1 * torch.randn(len(outcomes), n_skills))
        self.ability = nn.Parameter(torch.logit(outcomes.nanmean(dim=1).nan_to_num(0.5).clamp(0.02, 0.98)))

    def forward(self, vectors: Tensor) -> Tensor:
        """(N, D) → (M, N)."""
        x = VECTOR_SCALE * vectors
        difficulty = self.linear(x) + self.curved(x)  # (N, 1)
        logits: Tensor = difficulty.T + self.ability[:, None] + self.weights @ self.skills(x).T
        return logits


def _train(
    records: Records,
    vectors: NDArray[np.float32],
    encoder: TorchEncoder,
    settings: TuningSettings,
    processes: Processes,
    progress: Callable[[int, int], None] | None,
    on_loss: Callable[[float], None] | None,
) -> None:
    token_ids, _ = encoder.tokenize(records.instructions)
    published = torch.from_numpy(vectors).to(encoder.device)
    outcomes = torch.from_numpy(records.outcomes).float().to(encoder.device)
    factors = [parameter for parameter in encoder.model.parameters() if parameter.requires_grad]
    head = _Head(encoder.dim, outcomes, settings.n_skills, settings.dropout).to(encoder.device)
    trained = [*factors, *head.parameters()]
    steps = settings.epochs * math.ceil(len(records) / settings.batch_size)
    optimiser = torch.optim.AdamW(
        [
            {"params": factors, "lr": settings.learning_rate, "weight_decay": 0.01},
            {"params": head.parameters(), "lr": settings.head_learning_rate, "weight_decay": 0.05},
        ]
    )
    peaks = [settings.learning_rate, settings.head_learning_rate]
    schedule = one_cycle(optimiser, peaks, steps)
    rng, done = np.random.default_rng(settings.seed), 0  # the same in all processes
    processes.seed(settings.seed)
    for _ in range(settings.epochs):
        for rows in _batches(np.array([len(ids) for ids in token_ids]), settings.batch_size, rng):
            share = processes.share(rows)
            read = share if len(share) else rows[:1]  # a process without a row still takes part, with one of no weight
            embedded = encoder.forward([token_ids[i] for i in read])
            logits = head(embedded)
            truth = outcomes[:, read] if len(share) else torch.full_like(outcomes[:, read], math.nan)
            first, second = torch.from_numpy(rng.integers(0, len(truth), (2, N_PAIRS))).to(encoder.device)
            moved = 1 - (embedded * published[read]).sum(dim=1)
            loss = pointwise_loss(logits, truth, over=processes.over)
            loss = loss + settings.pair_weight * pairwise_loss(logits, truth, first, second, over=processes.over)
            counts = torch.full_like(moved, float(len(share) > 0))
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


def _merged(files: EncoderFiles, model: nn.Module) -> EncoderFiles:
    """The encoder's files with W + up @ down, scaled, for each matrix that peft's layers changed."""
    tensors = dict(files.tensors)
    for name, module in model.named_modules():
        if hasattr(module, "lora_A"):
            down, up = module.lora_A["default"].weight, module.lora_B["default"].weight
            merged = module.base_layer.weight + module.scaling["default"] * (up @ down)  # (out, in)
            tensors[f"{name}.weight"] = merged.detach().cpu().numpy()
    config = files.config.changed(name=f"{files.config.name}, tuned")
    return EncoderFiles.of(config, tensors, files.tokenizer, files.graph)
