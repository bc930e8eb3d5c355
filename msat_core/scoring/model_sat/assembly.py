"""From a configuration to a network with its tokenizers, and from a folder back to both.

A scorer folder holds ``scorer.json``, weight shards (``weights*.safetensors``: what was trained; a frozen
backbone, or the one under adapters, is loaded from its source at its revision) and the tokenizers' files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load as load_tensors
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from msat_core.errors import ArtefactError
from msat_core.files import move, scratch_folder, sha256_of
from msat_core.scoring.base import CONFIG_FILE
from msat_core.scoring.model_sat.backbones import (
    check_window,
    described,
    load_backbone,
    load_processor,
    load_tokenizer,
)
from msat_core.scoring.model_sat.config import Backbone, ModelSATConfig
from msat_core.scoring.model_sat.module import ModelSAT
from msat_core.scoring.model_sat.prompts import PromptBuilder
from msat_core.tensor_files import read_checked

MAX_SHARD_SIZE = "2GB"
LLM_TOKENIZER, ENCODER_TOKENIZER = "llm_tokenizer", "encoder_tokenizer"


@dataclass(frozen=True)
class Assembly:
    """A network and what turns texts into its tensors."""

    config: ModelSATConfig
    module: ModelSAT
    prompts: PromptBuilder
    llm_tokenizer: PreTrainedTokenizerBase
    encoder_tokenizer: PreTrainedTokenizerBase | None = None
    processor: Any = None

    @property
    def representation_tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer of whoever reads capability representations."""
        return self.encoder_tokenizer or self.llm_tokenizer


def assemble(
    config: ModelSATConfig,
    *,
    folder: Path | None = None,
    llm_tokenizer: PreTrainedTokenizerBase | None = None,
    encoder_tokenizer: PreTrainedTokenizerBase | None = None,
    processor: Any = None,  # noqa: ANN401 - any processor class
) -> Assembly:
    """Load or build backbones and tokenizers.

    Args:
        config: what of.
        folder: a scorer folder whose own weights are about to be read, with its tokenizers.
        llm_tokenizer, encoder_tokenizer, processor: instead of those that the backbones come with.

    Raises:
        ArtefactError: a backbone or tokenizer cannot be loaded.
        ConfigurationError: the lengths do not fit φ, or its tokenizer has no two words for the answer.
    """
    llm_folder = None if folder is None else folder / LLM_TOKENIZER
    if config.llm_kind == "image-text" and processor is None:
        processor = load_processor(config.llm, llm_folder)
    if processor is not None:
        llm_tokenizer = llm_tokenizer or processor.tokenizer
    llm_tokenizer = llm_tokenizer or load_tokenizer(config.llm, llm_folder)
    llm = load_backbone(config.llm, config.llm_kind, with_weights=_needs_source(config.llm, folder))
    encoder = None
    if config.encoder is not None:
        encoder = load_backbone(config.encoder, "encoder", with_weights=_needs_source(config.encoder, folder))
        encoder_folder = None if folder is None else folder / ENCODER_TOKENIZER
        encoder_tokenizer = encoder_tokenizer or load_tokenizer(config.encoder, encoder_folder)
    prompts = PromptBuilder(config, llm_tokenizer, processor)
    alone = config.max_capability_length if config.encoder is None else (config.n_capability_tokens or 1)
    check_window(llm, config.max_length + alone)
    module = ModelSAT(config, llm, encoder, inquiry=prompts.inquiry, n_start=prompts.n_start)
    config = config.changed(
        llm=described(config.llm, llm), encoder=config.encoder and encoder and described(config.encoder, encoder)
    )
    return Assembly(config, module, prompts, llm_tokenizer, encoder_tokenizer, processor)


def _needs_source(backbone: Backbone, folder: Path | None) -> bool:
    return folder is None or not _is_own(backbone)


def _is_own(backbone: Backbone) -> bool:
    """Whether the artefact holds all of the backbone's weights."""
    return backbone.tuning == "full" or not backbone.source


def owned_tensors(config: ModelSATConfig, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of a network's tensors, those that a scorer's folder must hold: not the weights that its sources hold."""
    borrowed = {"llm.": config.llm, "encoder.": config.encoder}
    kept = {}
    for name, tensor in tensors.items():
        backbone = next((b for prefix, b in borrowed.items() if name.startswith(prefix)), None)
        if backbone is None or _is_own(backbone) or ".lora_" in name:
            kept[name] = tensor
    return kept


def save_assembly(assembly: Assembly, folder: Path) -> ModelSATConfig:
    """Write the scorer folder aside, move it in place, the configuration last; the configuration as written."""
    from huggingface_hub import save_torch_state_dict

    with scratch_folder(folder) as aside:
        save_torch_state_dict(
            owned_tensors(assembly.config, assembly.module.state_dict()),
            aside,
            filename_pattern="weights{suffix}.safetensors",
            max_shard_size=MAX_SHARD_SIZE,
        )
        (assembly.processor or assembly.llm_tokenizer).save_pretrained(aside / LLM_TOKENIZER)
        if assembly.encoder_tokenizer is not None:
            assembly.encoder_tokenizer.save_pretrained(aside / ENCODER_TOKENIZER)
        files = {str(path.relative_to(aside)): sha256_of(path) for path in sorted(aside.rglob("*")) if path.is_file()}
        (folder / CONFIG_FILE).unlink(missing_ok=True)  # nobody shall read old words over new weights
        for name in files:
            move(aside / name, folder / name)
        config = assembly.config.changed(files=files)
        config.save(folder / CONFIG_FILE)
    return config


def load_assembly(folder: Path) -> Assembly:
    """Read a scorer folder. Raises ArtefactError if a file is missing, damaged or does not fit."""
    config = ModelSATConfig.load(folder / CONFIG_FILE)
    for name, expected in config.files.items():
        path = folder / name
        if not path.is_file() or (not name.endswith(".safetensors") and sha256_of(path) != expected):
            raise ArtefactError(f"{path} is missing or has been changed: copy the scorer folder again.")
    assembly = assemble(config, folder=folder)
    wanted, tensors = owned_tensors(config, assembly.module.state_dict()), _read_shards(folder, config.files)
    missing = [name for name in wanted if name not in tensors and not _is_tied(name, wanted, tensors)]
    unknown = [name for name in tensors if name not in wanted]
    if missing or unknown:
        raise ArtefactError(
            f"{folder}: the tensors do not fit the configuration ({(missing or unknown)[0]} is "
            f"{'missing' if missing else 'not expected'}): copy the scorer folder again."
        )
    try:
        assembly.module.load_state_dict(tensors, strict=False)
    except RuntimeError as error:
        raise ArtefactError(f"{folder}: the tensors do not fit the configuration ({error}).") from None
    return assembly


def _is_tied(name: str, wanted: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> bool:
    """Tensors that share memory are written once."""
    address = wanted[name].data_ptr()
    return any(twin in tensors and wanted[twin].data_ptr() == address for twin in wanted)


def _read_shards(folder: Path, files: Mapping[str, str]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for name, sha256 in files.items():
        if name.endswith(".safetensors"):
            tensors.update(load_tensors(read_checked(folder / name, sha256)))
    return tensors
