"""Backbones by name and revision, from a folder, from the embedded package, or built from a configuration.

What is particular to transformers and peft stays in this file. Remote code never runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging

from msat_core.encoders.published import published_folder
from msat_core.errors import ArtefactError, ConfigurationError
from msat_core.scoring.model_sat.config import EMBEDDED, Backbone

_CLASSES = {
    "encoder": AutoModel,
    "bidirectional": AutoModel,
    "causal": AutoModelForCausalLM,
    "image-text": AutoModelForImageTextToText,
}
ADAPTER = "default"


def load_backbone(backbone: Backbone, kind: str, *, with_weights: bool = True) -> PreTrainedModel:
    """The network, with adapters where they are asked for.

    Args:
        backbone: which one.
        kind: ``encoder``, ``causal``, ``bidirectional`` or ``image-text``.
        with_weights: False: random weights from ``backbone.config``, for weights that are about to be read.

    Raises:
        ArtefactError: it cannot be found or read.
    """
    dtype = getattr(torch, backbone.dtype)
    common = {"attn_implementation": "sdpa", "trust_remote_code": False}
    try:
        with _quiet():
            if backbone.config is not None and not (backbone.source and with_weights):
                built = AutoConfig.for_model(**dict(backbone.config))
                model: PreTrainedModel = _CLASSES[kind].from_config(built, dtype=dtype, **common)
            else:
                model = _CLASSES[kind].from_pretrained(
                    _place(backbone.source),
                    revision=backbone.revision or "main",
                    dtype=dtype,
                    use_safetensors=True,
                    **common,
                )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ArtefactError(
            f"The backbone {backbone.source or 'built from config'!r} cannot be loaded "
            f"({str(error).splitlines()[0]}): expected a Hugging Face id or a folder with safetensors weights."
        ) from None
    if getattr(model, "pooler", None) is not None:
        setattr(model, "pooler", None)  # noqa: B010 - BERT's; nothing here reads it, and it would train on nothing
    _add_adapters(model, backbone)
    return model


def _add_adapters(model: PreTrainedModel, backbone: Backbone) -> None:
    if backbone.tuning != "lora":
        model.requires_grad_(backbone.tuning == "full")
        return
    from peft import LoraConfig, inject_adapter_in_model

    lora, targets = backbone.lora, backbone.lora.targets
    settings = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
    )
    inject_adapter_in_model(settings, model, adapter_name=ADAPTER)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(".lora_" in name)
        if parameter.requires_grad:
            parameter.data = parameter.data.float()  # adapters train in fp32 beside a bf16 backbone


def described(backbone: Backbone, model: PreTrainedModel) -> Backbone:
    """The backbone with its configuration and the commit that it was loaded from."""
    config = {k: v for k, v in model.config.to_diff_dict().items() if k not in ("_name_or_path", "dtype")}
    commit = getattr(model.config, "_commit_hash", None) or ""
    return backbone.model_copy(
        update={"config": {**config, "model_type": model.config.model_type}, "revision": backbone.revision or commit}
    )


def load_tokenizer(backbone: Backbone, folder: Path | None = None) -> PreTrainedTokenizerBase:
    """The backbone's tokenizer, from a folder that holds it or from where the backbone comes from."""
    source = str(folder) if folder else backbone.tokenizer or backbone.source
    place = _place(source)
    try:
        if source == EMBEDDED:
            tokenizer: PreTrainedTokenizerBase = PreTrainedTokenizerFast(
                tokenizer_file=str(Path(place) / "tokenizer.json"), pad_token="[PAD]"
            )
        else:
            tokenizer = AutoTokenizer.from_pretrained(
                place, revision=backbone.revision or "main", trust_remote_code=False
            )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ArtefactError(f"No tokenizer in {place!r} ({str(error).splitlines()[0]}).") from None
    if isinstance(tokenizer, PreTrainedTokenizerFast):
        tokenizer.backend_tokenizer.no_truncation()  # some tokenizer.json files have both baked in
        tokenizer.backend_tokenizer.no_padding()
    tokenizer.model_max_length = int(1e9)  # lengths are ours to keep, without a warning
    return tokenizer


def load_processor(backbone: Backbone, folder: Path | None = None) -> Any:  # noqa: ANN401 - any processor class
    """The image-text backbone's processor, images and text together."""
    place = _place(str(folder) if folder else backbone.tokenizer or backbone.source)
    try:
        return AutoProcessor.from_pretrained(place, revision=backbone.revision or "main", trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ArtefactError(f"No processor in {place!r} ({str(error).splitlines()[0]}).") from None


def checkpoint_activations(model: PreTrainedModel) -> None:
    """Compute activations again in the backward pass instead of keeping them."""
    newer = getattr(model, "activation_checkpointing_enable", None)  # transformers 6 drops the old name
    (newer or model.gradient_checkpointing_enable)({"use_reentrant": False})


def decoder_of(model: PreTrainedModel) -> nn.Module:
    """The network without its language-modelling head."""
    decoder: nn.Module = model.base_model
    return decoder


def embedding_weight(model: PreTrainedModel) -> Tensor:
    """The token embeddings, (vocabulary, D or H)."""
    weight: Tensor = model.get_input_embeddings().weight  # type: ignore[assignment]  # a module's attribute, to mypy
    return weight


def check_window(model: PreTrainedModel, n_tokens: int) -> None:
    """Raise ConfigurationError if the network cannot attend over so many tokens at once."""
    config = model.config.get_text_config()
    limits = [getattr(config, name, None) for name in ("max_position_embeddings", "sliding_window")]
    shortest = min((int(limit) for limit in limits if limit), default=n_tokens)
    if n_tokens > shortest:
        raise ConfigurationError(
            f"max_length and capability tokens come to {n_tokens}, more than the {shortest} that this llm attends "
            "over: lower max_length."
        )


def _place(source: str) -> str:
    return str(published_folder()) if source == EMBEDDED else source


@contextmanager
def _quiet() -> Iterator[None]:
    """Loading prints bars and reports of unused heads; neither belongs on a user's terminal."""
    bar, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()
