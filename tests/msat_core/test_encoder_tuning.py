from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from support import profile

from msat_core import CompactScorer, Records
from msat_core.encoders.folder import EncoderFiles
from msat_core.encoders.loading import load_encoder
from msat_core.encoders.published import published_encoder
from msat_core.encoders.torch_encoder import TorchEncoder
from msat_core.errors import ArtefactError, ConfigurationError
from msat_core.training.compact.encoder_tuning import TuningSettings, tune_encoder
from msat_core.training.compact.kernel import TrainableKernel
from msat_core.training.compact.train import uncalibrated_scorer
from msat_core.training.schedule import one_cycle

TEXTS = ["What is the boiling point of water?", "Prove that the square root of two is irrational."]


@pytest.fixture(scope="module")
def encoder() -> TorchEncoder:
    return TorchEncoder(published_encoder(), device="cpu")


@pytest.fixture(scope="module")
def tuned(records: Records, encoder: TorchEncoder) -> EncoderFiles:
    """After two epochs on a toy whose candidates are good at different kinds of question."""
    own = records.select_items(np.arange(len(records) // 3))
    before = encoder.encode(own.instructions).vectors
    settings = TuningSettings(layers=2, rank=4, epochs=2, batch_size=32)
    found = tune_encoder(own, before, encoder, settings)
    after = encoder.encode(own.instructions).vectors
    np.testing.assert_array_equal(after, before)  # the encoder itself is left as it was
    return found


def test_the_change_is_of_the_upper_layers_alone(encoder: TorchEncoder, tuned: EncoderFiles) -> None:
    before = encoder.files.tensors
    assert before.keys() == tuned.tensors.keys()
    changed = {name for name, tensor in tuned.tensors.items() if (tensor != before[name]).any()}
    assert len(changed) == 2 * 6 and all(name.endswith(".weight") for name in changed)
    assert {name.split(".")[2] for name in changed} == {"4", "5"}
    for name in changed:  # of rank 4, as far as half precision shows
        change = tuned.tensors[name].astype(np.float32) - before[name].astype(np.float32)
        sizes = np.linalg.svd(change, compute_uv=False)
        assert sizes[4] < 0.2 * sizes[0]


def test_a_tuned_encoder_tells_the_kinds_of_question_further_apart(
    records: Records, encoder: TorchEncoder, tuned: EncoderFiles
) -> None:
    """On items that tuning has not seen; and it stays near the published one."""
    fresh = records.select_items(np.arange(len(records) // 3, len(records)))
    kinds = np.array(fresh.tasks)

    def apart(vectors: np.ndarray) -> float:
        near = vectors @ vectors.T
        same = kinds[:, None] == kinds[None, :]
        return float(near[same].mean() - near[~same].mean())

    old, new = encoder.encode(fresh.instructions).vectors, load_encoder(tuned).encode(fresh.instructions).vectors
    assert apart(new) > apart(old)
    assert float((old * new).sum(axis=1).mean()) > 0.7


def test_a_scorer_carries_its_encoder(encoder: TorchEncoder, tuned: EncoderFiles, tmp_path: Path) -> None:
    assert tuned.config.digest != encoder.digest
    torch.manual_seed(0)
    kernel = TrainableKernel(384, hidden=8, n_skills=2)
    scorer = uncalibrated_scorer(kernel, tuned.config.digest, encoder_files=tuned)
    scorer.save(tmp_path / "scorer")
    loaded = CompactScorer.load(tmp_path / "scorer")
    assert loaded.encoder.digest == scorer.encoder_digest == tuned.config.digest
    expected = scorer.score(TEXTS, [profile("a")]).probabilities
    np.testing.assert_array_equal(loaded.score(TEXTS, [profile("a")]).probabilities, expected)
    shutil.copytree(tmp_path / "scorer", tmp_path / "cut")
    (tmp_path / "cut" / "encoder" / "encoder.safetensors").write_bytes(b"short")
    with pytest.raises(ArtefactError, match=r"encoder.safetensors is damaged or cut short"):
        CompactScorer.load(tmp_path / "cut")
    shutil.rmtree(tmp_path / "scorer" / "encoder")
    with pytest.raises(ArtefactError, match="copy the scorer folder again, with its encoder"):
        _ = CompactScorer.load(tmp_path / "scorer").encoder


@pytest.mark.parametrize("steps", range(1, 31))
def test_every_number_of_steps_has_a_schedule(steps: int) -> None:
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule, rates = one_cycle(optimiser, 0.5, steps), []
    for _ in range(steps):
        optimiser.step()
        rates.append(schedule.get_last_lr()[0])
        schedule.step()
    assert 0 < max(rates) <= 0.5
    assert steps < 3 or rates[-1] < max(rates)


def test_what_cannot_be_tuned_is_refused(records: Records, encoder: TorchEncoder) -> None:
    with pytest.raises(ConfigurationError, match="has 6 layers: 7 cannot be tuned"):
        tune_encoder(records, np.zeros((len(records), 384), np.float32), encoder, TuningSettings(layers=7))
    with pytest.raises(ConfigurationError, match="rank must be a whole number"):
        TuningSettings(rank=0)
