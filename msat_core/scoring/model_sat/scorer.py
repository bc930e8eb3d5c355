"""The Model-SAT scorer: one forward pass for the whole zoo."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from msat_core.checks import check_count
from msat_core.encoders.torch_encoder import adapted_to_fork, torch_device
from msat_core.errors import ConfigurationError, InstructionError
from msat_core.forking import Lock
from msat_core.profiles import CapabilityProfile
from msat_core.scoring.base import Scorer, Scores, check_instructions
from msat_core.scoring.model_sat.assembly import Assembly, load_assembly, save_assembly
from msat_core.scoring.model_sat.backbones import decoder_of
from msat_core.scoring.model_sat.config import ModelSATConfig
from msat_core.scoring.model_sat.layouts import Tokens
from msat_core.scoring.model_sat.prompts import Prompt, PromptBatch, truncated_of
from msat_core.scoring.model_sat.representations import level_of, represent

TOKEN_BUDGET = 16_384  # of one forward pass; chosen
COMPILED_MULTIPLE = 64  # prompt widths are rounded up to it once compiled


class ModelSATScorer(Scorer):
    """Capability encoder, connector and capability LLM. Thread-safe: one forward pass at a time.

    A candidate's capability tokens are encoded when its profile is first seen and kept by the profile's digest.

    Args:
        assembly: network and tokenizers.
        token_budget: tokens of one forward pass, padding included; a single instruction may exceed it.
        device: default: the first GPU, else the CPU.
    """

    def __init__(
        self, assembly: Assembly, *, token_budget: int = TOKEN_BUDGET, device: torch.device | str | None = None
    ) -> None:
        check_count("token_budget", token_budget)
        self._assembly = assembly
        self._device = device if isinstance(device, torch.device) else torch_device(device)
        self._budget, self._multiple = token_budget, 1
        self._tokens: dict[str, tuple[Tokens, ...]] = {}
        self._lock = Lock()
        self._process = os.getpid()
        self.module = assembly.module.to(self._device).eval()

    @property
    def digest(self) -> str:
        """Of its configuration, and through it of its tensors."""
        return self.config.digest

    @property
    def config(self) -> ModelSATConfig:
        """What the scorer is made of."""
        return self._assembly.config

    def score(
        self,
        instructions: Sequence[str],
        profiles: Sequence[CapabilityProfile],
        *,
        images: Sequence[Sequence[Any]] | None = None,
    ) -> Scores:
        """Score N instructions for M profiles.

        Args:
            instructions: N texts.
            profiles: M candidates.
            images: N lists of PIL images, for an image-text llm.

        Raises:
            InstructionError: an instruction is blank or not a string, or lists of images are missing.
            ConfigurationError: there is no profile, or the llm reads no images.
        """
        check_instructions(instructions)
        if images is not None and len(images) != len(instructions):
            raise InstructionError(f"Got images for {len(images)} of {len(instructions)} instructions.")
        prompts = self.prompts(instructions, images)
        logits = self.logits(prompts, profiles)
        levels = np.array([level_of(profile) for profile in profiles])
        calibrated = self.config.slope * logits + self.config.level * levels + self.config.intercept
        probabilities = (1 / (1 + np.exp(-calibrated))).astype(np.float32)
        return Scores(probabilities, truncated_of(prompts))

    def prompts(self, instructions: Sequence[str], images: Sequence[Sequence[Any]] | None = None) -> list[Prompt]:
        """Instructions as φ's tokens."""
        self._process = adapted_to_fork(self._process, self._device)
        return self._assembly.prompts.build(instructions, images)

    def logits(self, prompts: Sequence[Prompt], profiles: Sequence[CapabilityProfile]) -> NDArray[np.float32]:
        """Uncalibrated logits, (N, M), averaged over ``config.perturbations`` orders of the tasks."""
        if not profiles:
            raise ConfigurationError("There is nobody to score: give at least one profile.")
        total = np.zeros((len(prompts), len(profiles)), dtype=np.float32)
        with self._lock, torch.inference_mode():
            orders = list(zip(*map(self._tokens_of, profiles), strict=True))
            for tokens in orders:
                capability = _side_by_side(tokens)
                for rows in self._batches(prompts, capability.mask.numel()):
                    batch = PromptBatch.of([prompts[i] for i in rows], multiple=self._multiple).to(self._device)
                    total[rows] += self._all_columns(batch, capability).cpu().numpy() / len(orders)
        return total

    def changed(self, **fields: Any) -> ModelSATScorer:  # noqa: ANN401 - whatever the configuration holds
        """A scorer on the same network with parts of its configuration replaced: a calibration, say."""
        assembly = replace(self._assembly, config=self.config.changed(**fields))
        return ModelSATScorer(assembly, token_budget=self._budget, device=self._device)

    def compile(self) -> None:
        """Compile φ (torch.compile); prompt widths become multiples of 64, so that few graphs are made.

        The first passes are slow. Meant for a GPU and short prompts, where launching kernels takes longer than
        running them; ``examples/reproduce/model_sat_speed.py`` measures whether it pays.
        """
        self._multiple = COMPILED_MULTIPLE
        decoder_of(self.module.llm).compile(dynamic=True)

    def save(self, folder: str | Path) -> Path:
        """Write the scorer; its configuration last."""
        save_assembly(self._assembly, Path(folder))
        return Path(folder)

    @classmethod
    def load(cls, folder: str | Path, *, device: str | None = None) -> ModelSATScorer:
        """Read a scorer that :meth:`save` wrote. Raises ArtefactError if a file is missing or damaged."""
        return cls(load_assembly(Path(folder)), device=device)

    def _tokens_of(self, profile: CapabilityProfile) -> tuple[Tokens, ...]:
        """The candidate's capability tokens, (1, L, H), for each order of its tasks."""
        if profile.digest not in self._tokens:
            config, tokenizer = self.config, self._assembly.representation_tokenizer
            seed = int(profile.digest[:8], 16)
            shuffles: list[np.random.Generator | None] = [
                np.random.default_rng([seed, n]) for n in range(config.perturbations)
            ]
            self._tokens[profile.digest] = tuple(
                self.module.capability_tokens(represent([profile], config, tokenizer, rng=rng).to(self._device))
                for rng in (shuffles or [None])
            )
        return self._tokens[profile.digest]

    def _batches(self, prompts: Sequence[Prompt], n_capability: int) -> Iterator[list[int]]:
        """Positions of prompts of similar length, longest first, as many as the token budget allows."""
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i].ids), reverse=True)
        first = self.config.layout == "instruction-first"
        start = 0
        while start < len(order):
            width = len(prompts[order[start]].ids)
            cost = width + n_capability if first else width
            yield order[start : start + max(1, self._budget // cost)]
            start += max(1, self._budget // cost)

    def _all_columns(self, batch: PromptBatch, capability: Tokens) -> Tensor:
        """Logits of all candidates: in one pass, or in as many as the budget asks of ``capability-first``."""
        n, m = len(batch.ids), len(capability.mask)
        columns = torch.arange(m, device=self._device).expand(n, m)
        if self.config.layout == "instruction-first":
            return self.module.logits(batch, capability, columns)
        at_once = max(1, self._budget // (n * (batch.ids.shape[1] + capability.mask.shape[1])))
        return torch.cat(
            [self.module.logits(batch, capability, part) for part in torch.split(columns, at_once, dim=1)], dim=1
        )


def _side_by_side(tokens: Sequence[Tokens]) -> Tokens:
    """Candidates' tokens, each (1, L_m, H), as one (M, L, H), padded on the right."""
    width = max(part.mask.shape[1] for part in tokens)
    short = [width - part.mask.shape[1] for part in tokens]
    return Tokens(
        torch.cat(
            [torch.nn.functional.pad(part.embeddings, (0, 0, 0, n)) for part, n in zip(tokens, short, strict=True)]
        ),
        torch.cat([torch.nn.functional.pad(part.mask, (0, n)) for part, n in zip(tokens, short, strict=True)]),
    )
