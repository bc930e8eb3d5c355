from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from msat_core.encoders.base import Encoder
from msat_core.encoders.hashed import HashEncoder
from msat_core.encoders.minilm import MiniLMEncoder, torch_device
from msat_core.errors import ConfigurationError


def test_nothing_is_computed_beside_the_encoders_device() -> None:
    """A tensor made on the CPU would not meet one of the device: `meta` refuses it as a GPU does."""
    encoder = MiniLMEncoder.embedded(device="meta")
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


def test_the_seams_and_their_fakes_load_no_torch() -> None:
    code = (
        "import sys, msat_core.encoders.hashed, msat_core.scoring.compact.scorer, msat_core.scoring.table;"
        "print([n for n in ('torch', 'transformers', 'scipy', 'sklearn', 'pyarrow') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
