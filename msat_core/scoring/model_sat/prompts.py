"""Instructions and the inquiry as φ's tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from msat_core.errors import ConfigurationError
from msat_core.scoring.model_sat.config import ModelSATConfig
from msat_core.scoring.model_sat.inquiry import Inquiry, tokenised_inquiry
from msat_core.scoring.model_sat.representations import padded
from msat_core.texts import replace_surrogates

_TEXT_ONLY = {"input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids"}


@dataclass(frozen=True)
class Prompt:
    """One instruction and the inquiry as tokens, with what φ's vision tower reads beside them."""

    ids: tuple[int, ...]
    truncated_tokens: int
    vision: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class PromptBatch:
    """Prompts side by side.

    Attributes:
        ids, mask: (N, T), padded on the right.
        vision: for each name the tensors of the prompts that have images, in their order; empty without images.
    """

    ids: Tensor
    mask: Tensor
    vision: Mapping[str, tuple[Tensor, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, prompts: Sequence[Prompt], *, multiple: int = 1) -> PromptBatch:
        """Pad prompts to the longest, rounded up to a multiple (few widths keep compiled graphs few)."""
        ids, mask = padded([prompt.ids for prompt in prompts])
        short = -ids.shape[1] % multiple
        ids, mask = (torch.nn.functional.pad(tensor, (0, short)) for tensor in (ids, mask))
        names = dict.fromkeys(name for prompt in prompts for name in prompt.vision)
        vision = {name: tuple(p.vision[name] for p in prompts if name in p.vision) for name in names}
        return cls(ids, mask, vision)

    def to(self, device: torch.device) -> PromptBatch:
        """The same on another device."""
        vision = {name: tuple(tensor.to(device) for tensor in tensors) for name, tensors in self.vision.items()}
        return replace(self, ids=self.ids.to(device), mask=self.mask.to(device), vision=vision)


class PromptBuilder:
    """Builds prompts as a configuration says.

    Args:
        config: the texts and limits.
        tokenizer: φ's.
        processor: φ's, if it reads images.
    """

    def __init__(
        self,
        config: ModelSATConfig,
        tokenizer: PreTrainedTokenizerBase,
        processor: Any = None,  # noqa: ANN401
    ) -> None:
        self._config, self._tokenizer, self._processor = config, tokenizer, processor
        start, end = _special_ids(tokenizer)
        if config.head == "verdict":
            inquiry = tokenised_inquiry(tokenizer, config.inquiry, config.yes, config.no)
        else:
            inquiry = Inquiry(tuple(tokenizer(config.inquiry, add_special_tokens=False)["input_ids"]), (), 0, 0)
        self.inquiry = inquiry
        self.n_start = len(start)
        self._start = start
        # A causal φ answers where the text breaks off, so no closing token; a bidirectional one expects it.
        self._tail = (*inquiry.ids, *(end if config.llm_kind == "bidirectional" else ()))
        if config.layout == "capability-first":
            self._tail = (*self._tail, *inquiry.lead_ids)
        self._room = config.max_length - len(start) - len(self._tail)
        if self._room < 1:
            raise ConfigurationError(
                f"The inquiry alone takes {len(start) + len(self._tail)} tokens: raise max_length "
                f"from {config.max_length}, or shorten the inquiry."
            )

    def build(self, instructions: Sequence[str], images: Sequence[Sequence[Any]] | None = None) -> list[Prompt]:
        """Tokenise N instructions, with a list of images (PIL) for each where φ reads images."""
        texts = [self._config.instruction_prefix + replace_surrogates(text) for text in instructions]
        if images is None:
            return [self._prompt(body, {}) for body in self._bodies(texts)]
        if self._processor is None:
            raise ConfigurationError("This scorer's llm reads no images: train one with llm_kind 'image-text'.")
        return [self._with_images(text, pictures) for text, pictures in zip(texts, images, strict=True)]

    def _bodies(self, texts: list[str]) -> list[list[int]]:
        """Tokens of texts; a special token that a user has typed is plain text."""
        if not texts:
            return []
        bodies: list[list[int]] = self._tokenizer(texts, add_special_tokens=False, split_special_tokens=True)[
            "input_ids"
        ]
        return bodies

    def _with_images(self, text: str, images: Sequence[Any]) -> Prompt:
        if not images:
            return self._prompt(self._bodies([text])[0], {})
        token = self._processor.image_token
        marked = token * len(images) + "\n" + text.replace(token, "")
        processed = self._processor(text=[marked], images=list(images), add_special_tokens=False, return_tensors="pt")
        vision = {name: value for name, value in processed.items() if name not in _TEXT_ONLY}
        return self._prompt(processed["input_ids"][0].tolist(), vision)

    def _prompt(self, body: Sequence[int], vision: Mapping[str, Tensor]) -> Prompt:
        cut = max(0, len(body) - self._room)
        return Prompt((*self._start, *body[: self._room], *self._tail), cut, vision)


def truncated_of(prompts: Sequence[Prompt]) -> NDArray[np.int64]:
    """Tokens of each instruction that φ does not read, (N,)."""
    return np.array([prompt.truncated_tokens for prompt in prompts], dtype=np.int64)


def _special_ids(tokenizer: PreTrainedTokenizerBase) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What the tokenizer puts before and after a text."""
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    marked = tokenizer("a", add_special_tokens=True)["input_ids"]
    at = next(i for i in range(len(marked)) if marked[i : i + len(plain)] == plain)
    return tuple(marked[:at]), tuple(marked[at + len(plain) :])
