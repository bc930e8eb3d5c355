"""The sentence encoder on ONNX Runtime, on a CPU: what routing uses."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from threading import BoundedSemaphore

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from msat_core.encoders.base import Embeddings
from msat_core.encoders.folder import EncoderConfig, EncoderFiles
from msat_core.encoders.safe_exit import PASSES
from msat_core.encoders.tokens import Tokens, alike
from msat_core.errors import ArtefactError
from msat_core.forking import Lock, renew_in_children
from msat_core.tensor_files import Tensor

MOST_THREADS = 8  # chosen; one and two were measured (LOG, "The encoder on ONNX Runtime")
PASS_TOKENS = 512  # in one pass, padding included; what lies between its layers still fits a processor's cache (LOG)
PASS_PADDING = 24  # tokens that take as long to compute as a pass takes to begin (LOG)
MOST_PASSES = 4  # at the same time: each computes on all threads, so that more only take memory
ERRORS_ONLY = 3  # of ONNX Runtime's log levels
_left_behind: list[ort.InferenceSession | None] = []  # of a parent: their threads are not here to be waited for


class OnnxEncoder:
    """Mean-pooled, normalised sentence embeddings, computed in fp32. Thread-safe; also in a forked child.

    Args:
        files: of the encoder.
        threads: that one pass computes on; None for the CPUs of this process (``OMP_NUM_THREADS`` is heeded), at most
            ``MOST_THREADS``.

    Attributes:
        digest: SHA-256 (hex), of ``files.config``.
        dim: D.
        max_length: tokens of a text that are read.
    """

    def __init__(self, files: EncoderFiles, *, threads: int | None = None) -> None:
        config = files.config
        self.digest, self.dim, self.max_length = config.digest, config.dim, config.max_length
        self._files = files
        self._tokens = Tokens(files.tokenizer, max_length=config.max_length, tail_share=config.tail_share)
        self._words = files.tensors["embeddings.word_embeddings.weight"]  # (V, D), float16: rows are widened when read
        places = files.tensors["embeddings.position_embeddings.weight"]
        kinds = files.tensors["embeddings.token_type_embeddings.weight"]
        self._places = places.astype(np.float32) + kinds[0].astype(np.float32)  # (P, D)
        self._threads = threads or _cpus()
        self._session: ort.InferenceSession | None = self._open()
        self._opening = Lock()
        self._passes = BoundedSemaphore(MOST_PASSES)
        renew_in_children(self)

    def renew(self) -> None:
        """In a forked child: without the parent's threads, and without a session until there is something to encode."""
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        _left_behind.append(self._session)
        self._session, self._threads = None, 1
        self._passes = BoundedSemaphore(MOST_PASSES)

    def __reduce__(self) -> tuple[type[OnnxEncoder], tuple[EncoderFiles]]:
        return OnnxEncoder, (self._files,)

    def encode(self, texts: Sequence[str], *, batch_size: int = 32) -> Embeddings:
        """Encode texts, those of similar length in one pass; row i belongs to texts[i]."""
        rows, truncated = self._tokens.read(texts)
        vectors = np.empty((len(rows), self.dim), dtype=np.float32)
        for batch in alike(rows, batch_size, most_tokens=PASS_TOKENS, most_padding=PASS_PADDING):
            with self._passes, PASSES:
                vectors[batch] = self._forward([rows[i] for i in batch])
        return Embeddings(vectors, truncated, self.unread(texts))

    def unread(self, texts: Sequence[str]) -> tuple[str, ...]:
        """The script of each text that the encoder has not learnt to read, empty for other texts."""
        return self._files.config.unread(texts)

    def _forward(self, rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Unit vectors (N, D) of N texts' token ids, in one pass."""
        lengths = np.array([len(row) for row in rows])
        width = int(lengths.max())
        ids = np.zeros((len(rows), width), dtype=np.int64)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = row
        mask = (np.arange(width) < lengths[:, None]).astype(np.int32)  # (N, T)
        embedded = self._words[ids].astype(np.float32) + self._places[:width]  # (N, T, D)
        (hidden,) = self._ready().run(["hidden"], {"embedded": embedded, "mask": mask})
        pooled = np.einsum("ntd,nt->nd", hidden, mask.astype(np.float32)) / lengths[:, None].astype(np.float32)
        unit: NDArray[np.float32] = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
        return unit

    def _ready(self) -> ort.InferenceSession:
        if self._session is None:
            with self._opening:
                self._session = self._session or self._open()
        return self._session

    def _open(self) -> ort.InferenceSession:
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = self._threads, 1
        options.log_severity_level = ERRORS_ONLY
        options.enable_cpu_mem_arena = False  # no slower, and memory is given back
        # Threads that wait in a loop for the next text would take the CPU from the application.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        weights = dict(graph_weights(self._files.config, self._files.tensors))
        self._weights = weights  # the session reads them where they lie
        options.add_external_initializers(
            list(weights), [ort.OrtValue.ortvalue_from_numpy(weight) for weight in weights.values()]
        )
        try:
            return ort.InferenceSession(self._files.graph, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's classes of error are its C++ module's
            reason = str(error).splitlines()[0]
            raise ArtefactError(
                f"The encoder's graph and weights do not fit ({reason}): copy its folder again."
            ) from None


def graph_weights(config: EncoderConfig, tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """The weights as the graph of :mod:`msat_core.encoders.graph` names and lays them out, float32."""

    def read(name: str) -> Tensor:
        return tensors[name].astype(np.float32)

    def matrix(name: str) -> Tensor:  # torch keeps (out, in)
        return tensors[f"{name}.weight"].T.astype(np.float32, order="C")

    yield "norm.gain", read("embeddings.LayerNorm.weight")
    yield "norm.bias", read("embeddings.LayerNorm.bias")
    for layer in range(config.n_layers):
        block = f"encoder.layer.{layer}"
        parts = [f"{block}.attention.self.{part}" for part in ("query", "key", "value")]
        yield f"{layer}.qkv.weight", np.concatenate([matrix(part) for part in parts], axis=1)
        yield f"{layer}.qkv.bias", np.concatenate([read(f"{part}.bias") for part in parts])
        for ours, theirs in (
            ("attention_out", "attention.output.dense"),
            ("intermediate", "intermediate.dense"),
            ("output", "output.dense"),
        ):
            yield f"{layer}.{ours}.weight", matrix(f"{block}.{theirs}")
            yield f"{layer}.{ours}.bias", read(f"{block}.{theirs}.bias")
        for ours, theirs in (("attention_norm", "attention.output.LayerNorm"), ("output_norm", "output.LayerNorm")):
            yield f"{layer}.{ours}.gain", read(f"{block}.{theirs}.weight")
            yield f"{layer}.{ours}.bias", read(f"{block}.{theirs}.bias")


def _cpus() -> int:
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return min(int(wanted) if wanted.isdecimal() and int(wanted) else available, MOST_THREADS)
