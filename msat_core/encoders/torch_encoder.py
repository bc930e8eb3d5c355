"""The sentence encoder on torch: what trains, and what computes on a GPU."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import BertConfig, BertModel

from msat_core.encoders.base import Embeddings
from msat_core.encoders.folder import EncoderConfig, EncoderFiles
from msat_core.encoders.safe_exit import PASSES
from msat_core.encoders.tokens import Tokens, alike
from msat_core.errors import ArtefactError, ConfigurationError
from msat_core.tensor_files import Tensor as StoredTensor


class TorchEncoder:
    """Mean-pooled, normalised sentence embeddings, computed in fp32.

    Args:
        files: of the encoder.
        device: where it computes, as torch names it; None for the GPU if there is one, else the CPU.

    Attributes:
        files: as given.
        digest: SHA-256 (hex), of ``files.config``.
        dim: D.
        max_length: tokens of a text that are read.
        device: where it computes.
        model: the transformers encoder.
    """

    def __init__(self, files: EncoderFiles, *, device: str | None = None) -> None:
        config = files.config
        self.files = files
        self.digest, self.dim, self.max_length = config.digest, config.dim, config.max_length
        self.device = torch_device(device)
        self._tokens = Tokens(files.tokenizer, max_length=config.max_length, tail_share=config.tail_share)
        self.model = _network(config, files.tensors)
        self.model.to(self.device)  # type: ignore[arg-type]  # transformers wraps it
        self._process = os.getpid()

    def encode(self, texts: Sequence[str], *, batch_size: int = 32) -> Embeddings:
        """Encode texts in batches of similar length; row i belongs to texts[i].

        Raises:
            ConfigurationError: this process was forked from one that used the GPU.
        """
        self._process = adapted_to_fork(self._process, self.device)
        rows, truncated = self.tokenize(texts)
        vectors = np.empty((len(texts), self.dim), dtype=np.float32)
        for batch in alike(rows, batch_size):
            with PASSES, torch.inference_mode():
                vectors[batch] = self.forward([rows[i] for i in batch]).cpu().numpy()
        return Embeddings(vectors, truncated, self.unread(texts))

    def unread(self, texts: Sequence[str]) -> tuple[str, ...]:
        """The script of each text that the encoder has not learnt to read, empty for other texts."""
        return self.files.config.unread(texts)

    def tokenize(self, texts: Sequence[str]) -> tuple[list[list[int]], NDArray[np.int64]]:
        """Token ids of each text, and how many were cut: :meth:`msat_core.encoders.tokens.Tokens.read`."""
        return self._tokens.read(texts)

    def forward(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Unit vectors (N, D) of N texts' token ids, in one pass; with gradients where the model wants them."""
        width = max(len(row) for row in rows)
        padded = [[*row, *[0] * (width - len(row))] for row in rows]
        ids = torch.tensor(padded, dtype=torch.long, device=self.device)  # (N, T)
        lengths = torch.tensor([len(row) for row in rows], device=self.device)  # (N,)
        mask = (torch.arange(width, device=self.device) < lengths[:, None]).long()  # (N, T)
        hidden = self.model(input_ids=ids, attention_mask=mask).last_hidden_state  # (N, T, D)
        weights = mask.unsqueeze(-1).to(hidden.dtype)  # (N, T, 1)
        pooled = (hidden * weights).sum(1) / weights.sum(1)  # (N, D)
        return torch.nn.functional.normalize(pooled, dim=-1)


def empty_network(config: EncoderConfig) -> BertModel:
    """The network of these sizes, with random weights."""
    sizes = BertConfig(
        vocab_size=config.n_tokens,
        hidden_size=config.dim,
        num_hidden_layers=config.n_layers,
        num_attention_heads=config.n_heads,
        intermediate_size=config.intermediate,
        max_position_embeddings=config.n_positions,
        layer_norm_eps=config.eps,
    )
    return BertModel(sizes, add_pooling_layer=False)


def _network(config: EncoderConfig, tensors: Mapping[str, StoredTensor]) -> BertModel:
    model = empty_network(config)
    model.train(False)
    try:
        model.load_state_dict({name: torch.from_numpy(tensor).float() for name, tensor in tensors.items()})
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise ArtefactError(f"The encoder's weights do not fit ({reason}): copy its folder again.") from None
    return model


def torch_device(name: str | None) -> torch.device:
    """The named device; None for the GPU if there is one, else the CPU.

    Raises:
        ConfigurationError: torch knows no such device, or it is not there.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type != "meta":
            torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigurationError(
            f"There is no device {name!r} here ({str(error).splitlines()[0]}): expected 'cpu', 'cuda' or none."
        ) from None
    return device


def adapted_to_fork(home: int, device: torch.device) -> int:
    """Make torch work in a forked child, which has no GPU, and not the threads for which torch would wait.

    Args:
        home: the process that was last seen.
        device: where the network is.

    Returns:
        This process.

    Raises:
        ConfigurationError: the network is on a GPU that this process cannot use.
    """
    if home != os.getpid():
        if device.type == "cuda":
            raise ConfigurationError(
                "A process forked after the network was loaded on a GPU cannot use it: start workers with the method "
                "'spawn', or load the router in each worker."
            )
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        torch.set_num_threads(1)
    return os.getpid()
