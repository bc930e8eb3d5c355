"""A sentence encoder as files: what it is, its weights in half precision, its tokenizer, and its graph.

An encoder folder holds ``encoder.json`` (:class:`EncoderConfig`), ``encoder.safetensors`` (float16, named as in Hugging
Face's ``BertModel``), ``tokenizer.json`` and ``graph.onnx`` (without weights, for ONNX Runtime). Who computes with them
is :mod:`msat_core.encoders.onnx_encoder` or :mod:`msat_core.encoders.torch_encoder`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field
from typing_extensions import Self

from msat_core.documents import Document
from msat_core.errors import ArtefactError, MsatError
from msat_core.files import write_bytes
from msat_core.tensor_files import Tensor, read_checked, read_tensors, save_tensors, tensor_bytes
from msat_core.texts import script_of

CONFIG_FILE = "encoder.json"
WEIGHTS_FILE = "encoder.safetensors"
TOKENIZER_FILE = "tokenizer.json"
GRAPH_FILE = "graph.onnx"


class EncoderConfig(Document):
    """What an encoder is; its digest names the weights, the tokenizer and the way of reading and pooling.

    Attributes:
        name: for people.
        dim, n_layers, n_heads, intermediate, n_positions, n_tokens: sizes of the network, as BERT has them.
        eps: of the layer normalisations.
        max_length: tokens of a text that are read, with the two at its ends.
        tail_share: of what is read of a longer text, how much comes from its end.
        pooling: the tokens' mean, scaled to unit length.
        weights_sha256, tokenizer_sha256, graph_sha256: of the files.
        derived_from: whose weights these were before tuning, for people.
        scripts: that it has learnt to read, as Unicode names them; empty for all.
    """

    kind: ClassVar[str] = "encoder"
    error: ClassVar[type[MsatError]] = ArtefactError
    unnamed: ClassVar[frozenset[str]] = frozenset({"name", "graph_sha256", "derived_from", "scripts"})

    name: str
    dim: int = Field(gt=0)
    n_layers: int = Field(gt=0)
    n_heads: int = Field(gt=0)
    intermediate: int = Field(gt=0)
    n_positions: int = Field(gt=0)
    n_tokens: int = Field(gt=0)
    eps: float = Field(default=1e-12, gt=0)
    max_length: int = Field(default=256, ge=8)
    tail_share: float = Field(default=0.25, ge=0, le=0.5)
    pooling: Literal["mean"] = "mean"
    weights_sha256: str = ""
    tokenizer_sha256: str = ""
    graph_sha256: str = ""
    derived_from: str = ""
    scripts: tuple[str, ...] = ("Latin",)

    def unread(self, texts: Sequence[str]) -> tuple[str, ...]:
        """The script of each text where it has not learnt to read it; empty for other texts."""
        scripts = map(script_of, texts)
        return tuple("" if not self.scripts or script in self.scripts else script for script in scripts)


@dataclass(frozen=True)
class EncoderFiles:
    """An encoder folder in memory.

    Attributes:
        config: with the SHA-256 of everything else.
        tensors: by name as in ``BertModel``, float16; without the pooler, which nothing here reads.
        tokenizer: of the ``tokenizers`` library, as JSON.
        graph: serialised ONNX.
    """

    config: EncoderConfig
    tensors: Mapping[str, Tensor]
    tokenizer: bytes
    graph: bytes

    @classmethod
    def of(cls, config: EncoderConfig, tensors: Mapping[str, Tensor], tokenizer: bytes, graph: bytes) -> Self:
        """An encoder of these weights, rounded to half precision."""
        halved = {name: np.asarray(tensor, dtype=np.float16) for name, tensor in sorted(tensors.items())}
        sums = {
            "weights_sha256": hashlib.sha256(tensor_bytes(halved)).hexdigest(),
            "tokenizer_sha256": hashlib.sha256(tokenizer).hexdigest(),
            "graph_sha256": hashlib.sha256(graph).hexdigest(),
        }
        return cls(config.changed(**sums), halved, tokenizer, graph)

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read an encoder folder. Raises ArtefactError if a file is missing or damaged."""
        folder = Path(folder)
        config = EncoderConfig.load(folder / CONFIG_FILE)
        return cls(
            config,
            read_tensors(folder / WEIGHTS_FILE, config.weights_sha256),
            read_checked(folder / TOKENIZER_FILE, config.tokenizer_sha256),
            read_checked(folder / GRAPH_FILE, config.graph_sha256),
        )

    def save(self, folder: str | Path) -> Path:
        """Write the folder, ``encoder.json`` last."""
        folder = Path(folder)
        save_tensors(folder / WEIGHTS_FILE, self.tensors)
        write_bytes(folder / TOKENIZER_FILE, self.tokenizer)
        write_bytes(folder / GRAPH_FILE, self.graph)
        self.config.save(folder / CONFIG_FILE)
        return folder
