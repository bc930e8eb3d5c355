from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from msat_core.encoders import loading
from msat_core.encoders.base import Encoder
from msat_core.encoders.folder import EncoderConfig, EncoderFiles
from msat_core.encoders.graph import encoder_graph
from msat_core.encoders.hashed import HashEncoder
from msat_core.encoders.loading import load_encoder
from msat_core.encoders.onnx_encoder import OnnxEncoder
from msat_core.encoders.tokens import alike
from msat_core.encoders.torch_encoder import TorchEncoder, empty_network, torch_device
from msat_core.errors import ArtefactError, ConfigurationError
from msat_core.pretrained import ENCODER

TEXTS = [
    "What is the capital of France?",
    "x",
    "Prove that there are infinitely many primes. " * 9,
    "word " * 900,
    "请仔细回答这个问题。",
]


@pytest.fixture(scope="module")
def files() -> EncoderFiles:
    return EncoderFiles.load(ENCODER)


@pytest.fixture(scope="module")
def onnx(files: EncoderFiles) -> OnnxEncoder:
    return OnnxEncoder(files, threads=1)


def test_onnx_runtime_and_torch_agree(files: EncoderFiles, onnx: OnnxEncoder) -> None:
    by_onnx, by_torch = onnx.encode(TEXTS), TorchEncoder(files, device="cpu").encode(TEXTS)
    np.testing.assert_allclose(by_onnx.vectors, by_torch.vectors, atol=2e-6)
    np.testing.assert_array_equal(by_onnx.truncated_tokens, by_torch.truncated_tokens)


@pytest.mark.gpu
def test_a_gpu_agrees(files: EncoderFiles, onnx: OnnxEncoder) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    on_gpu = load_encoder(files, device="cuda").encode(TEXTS).vectors
    np.testing.assert_allclose(on_gpu, onnx.encode(TEXTS).vectors, atol=1e-4)


def test_a_batch_is_its_texts_one_by_one(onnx: OnnxEncoder) -> None:
    together = onnx.encode(TEXTS, batch_size=3).vectors
    np.testing.assert_allclose(together, [onnx.encode([text]).vectors[0] for text in TEXTS], atol=1e-6)
    assert onnx.encode([]).vectors.shape == (0, 384)


@given(st.lists(st.integers(1, 300), max_size=60), st.integers(1, 40), st.integers(1, 600), st.integers(0, 50))
def test_batches_hold_each_text_once_and_pad_little(
    lengths: list[int], size: int, most_tokens: int, most_padding: int
) -> None:
    rows = [[0] * n for n in lengths]
    batches = list(alike(rows, size, most_tokens=most_tokens, most_padding=most_padding))
    assert sorted(i for batch in batches for i in batch) == list(range(len(rows)))
    for batch in batches:
        sizes = [lengths[i] for i in batch]
        assert sizes == sorted(sizes, reverse=True) and len(batch) <= size
        assert len(batch) == 1 or len(batch) * sizes[0] <= most_tokens
        assert sum(sizes[0] - n for n in sizes) <= most_padding


@pytest.mark.parametrize("sizes", [(2, 4, 12, 16), (1, 2, 8, 40)])
def test_the_graph_fits_encoders_of_other_sizes(sizes: tuple[int, int, int, int], files: EncoderFiles) -> None:
    made = small_encoder(*sizes, files.tokenizer)
    by_onnx, by_torch = OnnxEncoder(made).encode(TEXTS).vectors, TorchEncoder(made, device="cpu").encode(TEXTS).vectors
    assert by_onnx.shape == (len(TEXTS), sizes[2])
    np.testing.assert_allclose(by_onnx, by_torch, atol=1e-5)


def small_encoder(n_layers: int, n_heads: int, dim: int, wide: int, tokenizer: bytes) -> EncoderFiles:
    """Random weights."""
    config = EncoderConfig(
        name="small",
        dim=dim,
        n_layers=n_layers,
        n_heads=n_heads,
        intermediate=wide,
        n_positions=64,
        n_tokens=30522,
        max_length=48,
    )
    rng = np.random.default_rng(0)
    shapes = {name: tuple(parameter.shape) for name, parameter in empty_network(config).named_parameters()}
    tensors = {name: rng.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}
    return EncoderFiles.of(config, tensors, tokenizer, encoder_graph(config))


def test_a_folder_is_read_as_it_was_written(files: EncoderFiles, tmp_path: Path) -> None:
    files.save(tmp_path)
    again = EncoderFiles.load(tmp_path)
    assert again.config == files.config and again.graph == files.graph and again.tokenizer == files.tokenizer
    assert all((again.tensors[name] == tensor).all() for name, tensor in files.tensors.items())
    other = EncoderFiles.of(files.config.changed(name="another"), files.tensors, files.tokenizer, b"another graph")
    assert other.config.digest == files.config.digest  # neither changes a vector
    shorter = files.config.changed(max_length=128)
    assert shorter.digest != files.config.digest


@pytest.mark.parametrize("name", ["encoder.safetensors", "tokenizer.json", "graph.onnx"])
def test_a_damaged_folder_is_refused(files: EncoderFiles, tmp_path: Path, name: str) -> None:
    files.save(tmp_path)
    data = bytearray((tmp_path / name).read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ArtefactError, match="is damaged or cut short"):
        EncoderFiles.load(tmp_path)


def test_weights_that_do_not_fit_the_graph_are_one_sentence(files: EncoderFiles) -> None:
    narrow = small_encoder(6, 2, 8, 16, files.tokenizer)
    with pytest.raises(ArtefactError, match="graph and weights do not fit"):
        OnnxEncoder(EncoderFiles(narrow.config, narrow.tensors, narrow.tokenizer, files.graph))
    with pytest.raises(ArtefactError, match="weights do not fit"):
        TorchEncoder(EncoderFiles(files.config, narrow.tensors, narrow.tokenizer, files.graph), device="cpu")


def test_it_goes_to_other_processes(onnx: OnnxEncoder) -> None:
    expected = onnx.encode(TEXTS[:2]).vectors
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(onnx)).encode(TEXTS[:2]).vectors, expected)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_encodes_with_many_threads_open() -> None:
    code = (
        "import os, sys, json; from msat_core.encoders.loading import load_encoder\n"
        "from msat_core.encoders.onnx_encoder import OnnxEncoder; from msat_core.encoders.folder import EncoderFiles\n"
        "from msat_core.pretrained import ENCODER\n"
        "encoder = OnnxEncoder(EncoderFiles.load(ENCODER), threads=4)\n"
        "texts = ['a question'] * 8 + ['word ' * 200]\n"
        "before = encoder.encode(texts).vectors\n"
        "read, write = os.pipe()\n"
        "if os.fork() == 0:\n"
        "    os.write(write, json.dumps(encoder.encode(texts).vectors[:, :4].tolist()).encode()); os._exit(0)\n"
        "os.wait(); found = json.loads(os.read(read, 1 << 16))\n"
        "print(float(abs(before[:, :4] - found).max()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and float(done.stdout) < 1e-6 and done.stderr == ""


def test_a_child_that_encodes_nothing_opens_nothing(files: EncoderFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = OnnxEncoder(files, threads=2)
    expected = encoder.encode(TEXTS[:2]).vectors
    opened: list[int] = []
    open_ = OnnxEncoder._open
    monkeypatch.setattr(OnnxEncoder, "_open", lambda self: opened.append(self._threads) or open_(self))  # type: ignore[func-returns-value]
    encoder.renew()
    assert opened == []
    for _ in range(2):
        np.testing.assert_array_equal(encoder.encode(TEXTS[:2]).vectors, expected)
    assert opened == [1]


def test_the_cpu_is_onnx_runtimes_and_the_rest_is_torchs(files: EncoderFiles) -> None:
    assert isinstance(load_encoder(files), OnnxEncoder) and isinstance(load_encoder(files, device="cpu"), OnnxEncoder)
    assert isinstance(load_encoder(files, device="meta"), TorchEncoder)
    with pytest.raises(ConfigurationError, match="no device 'gpu'"):
        loading.check_device("gpu")


def test_nothing_is_computed_beside_the_encoders_device(files: EncoderFiles) -> None:
    """A tensor made on the CPU would not meet one of the device: `meta` refuses it as a GPU does."""
    encoder = TorchEncoder(files, device="meta")
    assert {parameter.device.type for parameter in encoder.model.parameters()} == {"meta"}
    rows, _ = encoder.tokenize(["a short text", "a text that is somewhat longer than the other one"])
    # transformers looks into the attention mask, which has no values here; its embeddings do not.
    encoder.model.forward = lambda input_ids, attention_mask: SimpleNamespace(
        last_hidden_state=encoder.model.embeddings(input_ids=input_ids) * attention_mask[..., None]
    )
    with torch.inference_mode():
        assert encoder.forward(rows).device.type == "meta"


def test_the_device_is_the_gpu_if_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert torch_device(None) == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert torch_device(None) == torch.device("cuda")


@pytest.mark.parametrize("name", ["gpu", "cuda:77", ""])
def test_a_device_that_is_not_there_is_one_sentence(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"no device {name!r}"):
        torch_device(name)


def test_the_hash_encoder_is_an_encoder() -> None:
    encoder: Encoder = HashEncoder(16, max_length=3)
    found = encoder.encode(["one two", "two one", "one two three four five"])
    assert found.vectors.shape == (3, 16)
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(found.vectors[0], found.vectors[1], atol=1e-6)
    assert found.truncated_tokens.tolist() == [0, 0, 2]
    assert encoder.digest != HashEncoder(16).digest


def test_routing_loads_none_of_the_heavy_libraries() -> None:
    code = (
        "import sys, msat_core.scoring.table_scorer; from msat_core import Router;"
        "Router.from_pretrained().route('Hello?');"
        "heavy = 'torch', 'transformers', 'scipy', 'sklearn', 'pyarrow', 'genai_prices';"
        "print([n for n in heavy if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
