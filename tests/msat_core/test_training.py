from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from support import synthetic_records

from msat_core import Records
from msat_core.encoders.hashed import HashEncoder
from msat_core.errors import ConfigurationError, RecordsError
from msat_core.families import family_of
from msat_core.training.calibration import LEAST_SLOPE, slope_fit
from msat_core.training.compact.episodes import EpisodeSampler
from msat_core.training.compact.train import CompactSettings, calibration_folds, candidate_folds, train_compact
from msat_core.training.losses import pairwise_loss, pointwise_loss

NAN = float("nan")


def test_zero_logits_cost_log_two() -> None:
    outcomes = torch.tensor([[1.0, 0.0, NAN], [NAN, 1.0, 1.0]])
    logits = torch.zeros(2, 3)
    assert pointwise_loss(logits, outcomes).item() == pytest.approx(math.log(2))
    assert pairwise_loss(logits, outcomes, torch.tensor([0]), torch.tensor([1])).item() == pytest.approx(math.log(2))


def test_pairwise_loss_by_hand() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 0.0]])
    first, second = torch.tensor([0]), torch.tensor([1])
    right_first = torch.tensor([[1.0, 1.0], [0.0, 1.0]])  # the second item decides nothing
    assert pairwise_loss(logits, right_first, first, second).item() == pytest.approx(math.log1p(math.exp(-2)))
    assert pairwise_loss(logits, 1 - right_first, first, second).item() == pytest.approx(math.log1p(math.exp(2)))
    agreed = torch.ones(2, 2)
    assert pairwise_loss(logits, agreed, first, second).item() == 0


def test_common_difficulty_does_not_move_the_pairwise_loss() -> None:
    torch.manual_seed(0)
    logits, outcomes = torch.randn(4, 6), (torch.rand(4, 6) > 0.5).float()
    first, second = torch.tensor([0, 1, 2]), torch.tensor([3, 2, 1])
    moved = pairwise_loss(logits + torch.randn(6), outcomes, first, second)
    torch.testing.assert_close(moved, pairwise_loss(logits, outcomes, first, second))


def test_episodes_ask_about_texts_that_the_exam_lacks(records: Records) -> None:
    twin = records.text_sha256[0]
    doubled = Records(
        records.item_ids,
        records.benchmarks,
        records.tasks,
        records.instructions,
        tuple(twin if i % 5 == 0 else text for i, text in enumerate(records.text_sha256)),
        records.candidates,
        records.outcomes,
        records.output_chars,
    )
    sampler, texts = EpisodeSampler(doubled, seed=3), np.array(doubled.text_sha256)
    for _ in range(20):
        episode = sampler.draw()
        assert not set(texts[episode.shots]) & set(texts[episode.queries])
        assert episode.shot_outcomes.shape == (8 + 8, len(episode.shots))
        real = records.outcomes[:, episode.queries]
        np.testing.assert_array_equal(episode.query_outcomes[:8], real)


def test_groups_are_equated_by_their_common_candidate() -> None:
    """Two groups of equal accuracy that share one candidate, strong in the first and average in the second."""
    rng = np.random.default_rng(0)
    n = 800
    easy = synthetic_records(n)
    abilities = np.array([-1.0, 0.0, 1.5])  # of the first group; its last candidate is also in the second
    second = abilities + 1.5  # the second group: stronger candidates asked harder questions
    logits = np.full((5, n), np.nan)
    logits[:3, : n // 2] = abilities[:, None]
    logits[[2, 3, 4], n // 2 :] = (second[[0, 1, 2]] - 1.5)[[1, 0, 2], None]
    outcomes = np.where(np.isnan(logits), np.nan, rng.random((5, n)) < 1 / (1 + np.exp(-logits))).astype(np.float32)
    records = Records(
        easy.item_ids,
        ("a",) * (n // 2) + ("b",) * (n // 2),
        easy.tasks,
        easy.instructions,
        easy.text_sha256,
        ("x", "y", "link", "z", "w"),
        outcomes,
        np.full((5, n), np.nan, dtype=np.float32),
    )
    sampler = EpisodeSampler(records, seed=0)
    means = {round(sampler.draw().mean_ability, 6) for _ in range(30)}
    assert 0.0 in means
    (other,) = means - {0.0}
    assert other == pytest.approx(1.5 - 0.0, abs=0.45)  # the link is 1.33 above its group's mean there, 0.17 below here


def test_training_is_deterministic_and_calibrated(records: Records) -> None:
    vectors = HashEncoder().encode(records.instructions).vectors
    settings = CompactSettings(steps=3, folds=2, n_skills=2, hidden=8)
    one, two = (train_compact(records, vectors, HashEncoder().digest, settings) for _ in range(2))
    for key, tensor in one.kernel.tensors.items():
        np.testing.assert_allclose(tensor, two.kernel.tensors[key], rtol=0, atol=1e-5)
    assert one.config.slope == pytest.approx(two.config.slope, abs=1e-4)
    assert one.config.slope > 0
    assert one.config.trained_on["n_items"] == len(records)


def test_settings_and_too_few_records() -> None:
    with pytest.raises(ConfigurationError, match="steps must be a whole number"):
        CompactSettings(steps=0)
    with pytest.raises(RecordsError, match="Too few records"):
        EpisodeSampler(synthetic_records(n_items=60), seed=0)


def test_folds_keep_families_together() -> None:
    names = ("Mistral-7B", "mathstral-7B", "Llama-2-7b", "Llama-2-13b", "gemma-7b", "Yi-6B", "Qwen1.5-7B", "gpt-4o")
    folds = candidate_folds(names, 3, seed=0)
    assert sorted(i for fold in folds for i in fold) == list(range(len(names)))
    for fold in folds:
        for other in folds:
            if fold is not other:
                assert not {family_of(names[i]) for i in fold} & {family_of(names[i]) for i in other}
    assert max(map(len, folds)) - min(map(len, folds)) <= 1


def test_one_family_is_held_out_candidate_by_candidate(records: Records) -> None:
    kin = replace(records, candidates=tuple(f"yi-{i}b" for i in range(len(records.candidates))))
    assert calibration_folds(kin.candidates, 4, seed=0) == [[i] for i in range(len(kin.candidates))]
    vectors = HashEncoder().encode(kin.instructions).vectors
    settings = CompactSettings(steps=1, n_skills=2, hidden=8)
    few = kin.select_candidates(kin.candidates[:3])
    assert train_compact(few, vectors, HashEncoder().digest, settings).config.slope > 0
    with pytest.raises(RecordsError, match="add the outcomes of other candidates"):
        train_compact(kin.select_candidates(kin.candidates[:2]), vectors, HashEncoder().digest, settings)


def test_a_fold_leaves_two_candidates_to_train_on() -> None:
    assert calibration_folds(("yi-1", "yi-2", "yi-3", "gemma-1"), 2, seed=0) == [[3]]


def test_logits_that_rank_backwards_are_flattened_to_the_mean() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(1, 2, 4000)
    truth = (rng.random(4000) < 1 / (1 + np.exp(logits))).astype(float)
    slope, intercept = slope_fit(logits, truth)
    assert slope == LEAST_SLOPE
    assert (1 / (1 + np.exp(-(slope * logits + intercept)))).mean() == pytest.approx(truth.mean(), abs=1e-3)
    assert slope_fit(logits, np.ones(4000)) == (1.0, 0.0)
