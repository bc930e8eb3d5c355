"""Model-SAT scorers small enough for tests: backbones built from configurations, tokenizers trained in place."""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from msat_core import CapabilityProfile, ModelSATScorer, TaskResult
from msat_core.profiles import Provenance
from msat_core.scoring.model_sat.assembly import Assembly, assemble
from msat_core.scoring.model_sat.config import Backbone, ModelSATConfig

CORPUS = [
    "Instruction: Which enzyme unwinds the double helix? Predict whether the model can answer. Prediction: Yes No",
    "The model achieves accuracy 85% on the task algebra (equation, root). 0 1 2 3 4 5 6 7 8 9",
] * 4
VOCABULARY = 400

torch.set_num_threads(1)  # networks this small only wait for each other's threads


def byte_tokenizer(*, bos: bool = True) -> PreTrainedTokenizerFast:
    """Byte-level BPE with a leading-space marker, as Llama 3's or GPT-2's."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<s>", "</s>", "<image>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>")


def piece_tokenizer() -> PreTrainedTokenizerFast:
    """Characters behind a piece of its own for the space: "Yes" is ▁ Y e s, "No" is ▁ N o."""
    letters = sorted(set("".join(CORPUS)) | {"▁"})
    tokenizer = Tokenizer(models.WordLevel({c: i for i, c in enumerate(["<unk>", *letters])}, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<unk>")


def cls_tokenizer() -> PreTrainedTokenizerFast:
    """With an opening and a closing token, as BERT's."""
    tokenizer = byte_tokenizer(bos=False)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    return tokenizer


def llama(**changes: Any) -> Backbone:
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = {"model_type": "llama", "vocab_size": VOCABULARY, "max_position_embeddings": 512, **sizes}
    return Backbone(config={**config, "num_key_value_heads": 2, "initializer_range": 0.2}, **changes)


def phi3(**changes: Any) -> Backbone:
    return Backbone(
        config={**(llama().config or {}), "model_type": "phi3", "pad_token_id": 1, "sliding_window": 300}, **changes
    )


def bert(**changes: Any) -> Backbone:
    sizes = {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = {"model_type": "bert", "vocab_size": VOCABULARY, "max_position_embeddings": 256, **sizes}
    return Backbone(config={**config, "initializer_range": 0.2}, **changes)


def tiny_config(**changes: Any) -> ModelSATConfig:
    fields: dict[str, Any] = {"encoder": bert(), "llm": llama(), "n_capability_tokens": 3, "max_length": 160}
    return ModelSATConfig(**{**fields, **changes})


def tiny_assembly(seed: int = 0, **changes: Any) -> Assembly:
    config = tiny_config(**changes)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return assemble(
            config,
            llm_tokenizer=cls_tokenizer() if config.llm_kind == "bidirectional" else byte_tokenizer(),
            encoder_tokenizer=cls_tokenizer() if config.encoder else None,
        )


def tiny_scorer(seed: int = 0, **changes: Any) -> ModelSATScorer:
    return ModelSATScorer(tiny_assembly(seed, **changes), device="cpu")


def tiny_profiles(n: int = 4) -> list[CapabilityProfile]:
    """Profiles with unequal numbers of tasks and shots."""
    tasks = ("algebra", "biology", "law", "history", "physics")
    return [
        CapabilityProfile(
            candidate=f"candidate-{m}",
            results=tuple(
                TaskResult(task=task, keywords=("root", task[:3]), n_shots=10 + k, n_correct=(3 * m + 2 * k) % 10)
                for k, task in enumerate(tasks[: 2 + m % 4])
            ),
            provenance=Provenance(source="test"),
        )
        for m in range(n)
    ]
