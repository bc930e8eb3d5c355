from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from msat_core import (
    AptitudeTest,
    Candidate,
    CapabilityProfile,
    CompactScorer,
    Exam,
    Records,
    Router,
    RoutingPolicy,
    TableScorer,
    Zoo,
)
from msat_core.encoders.cache import EmbeddingCache
from msat_core.encoders.hashed import HashEncoder
from msat_core.encoders.loading import shipped_digest
from msat_core.errors import ArtefactError, ConfigurationError
from msat_core.scoring import loading
from msat_core.scoring.base import CONFIG_FILE
from msat_core.scoring.compact import kernel as serving
from msat_core.scoring.compact.scorer import WEIGHTS_FILE
from msat_core.training.compact import kernel as learnt
from msat_core.training.compact.kernel import EvidencePoints, TrainableKernel, posterior, posterior_weights

Trained = tuple[CompactScorer, AptitudeTest]


def profiles_of(trained: Trained, records: Records) -> list[CapabilityProfile]:
    return [trained[1].profile_from_records(records, name) for name in records.candidates]


def test_batch_equals_one_by_one(trained: Trained, records: Records) -> None:
    profiles, texts = profiles_of(trained, records), list(records.instructions[:9])
    batch = trained[0].score(texts, profiles).probabilities
    single = np.concatenate([trained[0].score([text], profiles).probabilities for text in texts])
    np.testing.assert_allclose(batch, single, atol=1e-5)
    assert batch.shape == (9, len(profiles))
    assert ((batch > 0) & (batch < 1)).all()


def test_permuting_candidates_permutes_columns(trained: Trained, records: Records) -> None:
    profiles, texts = profiles_of(trained, records), list(records.instructions[:5])
    order = [3, 1, 7, 0, 2, 6, 5, 4]
    plain = trained[0].score(texts, profiles).probabilities
    moved = trained[0].score(texts, [profiles[i] for i in order]).probabilities
    np.testing.assert_allclose(moved, plain[:, order], atol=1e-6)


def test_order_of_tasks_changes_nothing(trained: Trained, records: Records) -> None:
    one = profiles_of(trained, records)[0]
    turned = one.changed(results=tuple(reversed(one.results)))
    scores = trained[0].score(records.instructions[:4], [one, turned]).probabilities
    np.testing.assert_allclose(scores[:, 0], scores[:, 1], atol=1e-6)


def test_it_learns_who_is_good_at_what(trained: Trained, records: Records) -> None:
    scorer, test = trained
    profiles = profiles_of(trained, records)
    rows = [i for i, text in enumerate(records.text_sha256) if text not in test.exam.text_hashes]
    scores = scorer.score([records.instructions[i] for i in rows], profiles).probabilities
    truth = records.outcomes[:, rows].T
    assert ((scores - truth) ** 2).mean() < 0.95 * truth.var()
    routed = truth[np.arange(len(rows)), scores.argmax(axis=1)].mean()
    assert routed > truth.mean(axis=0).max()


def test_more_evidence_narrows_less_shrinks(trained: Trained, records: Records) -> None:
    """A profile of few shots is drawn towards the average candidate."""
    scorer, test = trained
    full = test.profile_from_records(records, records.candidates[-1])
    few = full.changed(
        results=tuple(
            r.model_copy(
                update={
                    "shots": dict(list(r.shots.items())[:1]),
                    "n_shots": 1,
                    "n_correct": next(iter(r.shots.values())),
                }
            )
            for r in full.results
        )
    )
    texts = list(records.instructions[:60])
    scores = scorer.score(texts, [full, few])
    assert scores.probabilities[:, 0].mean() > scores.probabilities[:, 1].mean()
    assert scores.deviations is not None and scores.levels is not None
    assert (scores.deviations[:, 0] < scores.deviations[:, 1]).all()  # a longer exam leaves less open
    assert scores.levels[0] > scores.levels[1]


def test_an_unsure_lead_stays_with_the_best_by_exam(trained: Trained, records: Records) -> None:
    """And the decision says so."""
    scorer, _ = trained
    router = Router(scorer, Zoo.of(Candidate(profile=one) for one in profiles_of(trained, records)))
    strongest = max(router.zoo, key=lambda one: one.profile.accuracy).name
    texts = list(records.instructions[:60])
    careful, bold = RoutingPolicy(margin=3.0), RoutingPolicy(margin=0.0)
    assert {router.route(text, policy=careful).candidate for text in texts} == {strongest}
    led = [text for text in texts if router.route(text, policy=bold).candidate != strongest]
    assert led
    assert ", the best by exam, " in router.route(led[0], policy=careful).reason


def test_save_and_load_give_the_same_scores(trained: Trained, records: Records, tmp_path: Path) -> None:
    scorer, test = trained
    loaded = loading.load(scorer.save(tmp_path / "scorer"))
    assert isinstance(loaded, CompactScorer)
    again = CompactScorer(loaded.config, loaded.kernel, encoder=HashEncoder)
    exam = Exam.load(test.exam.save(tmp_path / "exam"))
    assert exam.digest == test.exam.digest
    again.add_exam(exam)
    profiles = profiles_of(trained, records)
    expected = scorer.score(records.instructions[:5], profiles).probabilities
    np.testing.assert_array_equal(again.score(records.instructions[:5], profiles).probabilities, expected)


def test_damaged_folders_are_one_sentence(trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="is not a scorer folder"):
        loading.load(tmp_path / "none")
    folder = trained[0].save(tmp_path / "scorer")
    data = (folder / WEIGHTS_FILE).read_bytes()
    (folder / WEIGHTS_FILE).write_bytes(data[:-100])
    with pytest.raises(ArtefactError, match="damaged or cut short"):
        loading.load(folder)
    (folder / WEIGHTS_FILE).unlink()
    with pytest.raises(ArtefactError, match="cannot be read"):
        loading.load(folder)
    config = (folder / CONFIG_FILE).read_text()
    (folder / CONFIG_FILE).write_text(config.replace('"hidden": 8', '"hidden": 9'))
    with pytest.raises(ArtefactError, match="has been changed"):
        loading.load(folder)
    (folder / CONFIG_FILE).write_text(config.replace("compact-scorer", "pickled-scorer"))
    with pytest.raises(ArtefactError, match="of kind 'pickled-scorer'"):
        loading.load(folder)
    (folder / CONFIG_FILE).write_text("{")
    with pytest.raises(ArtefactError, match="cannot be read"):
        loading.load(folder)


def test_another_encoder_is_refused(trained: Trained, records: Records) -> None:
    scorer = CompactScorer(trained[0].config, trained[0].kernel, encoder=lambda: HashEncoder(16))
    with pytest.raises(ArtefactError, match="was trained on encoder"):
        scorer.score(["q"], profiles_of(trained, records))


def test_a_profile_of_an_unknown_exam_is_read_by_its_keywords(trained: Trained, records: Records) -> None:
    scorer = CompactScorer(trained[0].config, trained[0].kernel, encoder=HashEncoder)
    profiles = profiles_of(trained, records)
    scores = scorer.score(records.instructions[:20], profiles)
    assert np.corrcoef(scores.probabilities.mean(0), [p.accuracy for p in profiles])[0, 1] > 0.8
    assert set(scores.tasks) == {"algebra", "law", "biology"}


def test_exams_may_be_mixed_in_one_zoo(trained: Trained, records: Records) -> None:
    profiles = profiles_of(trained, records)
    foreign = profiles[0].changed(candidate="foreign", exam_digest="")
    scores = trained[0].score(records.instructions[:3], [foreign, profiles[1]])
    alone = trained[0].score(records.instructions[:3], [profiles[1]])
    np.testing.assert_allclose(scores.probabilities[:, 1:], alone.probabilities, atol=1e-6)
    assert scores.task_weights is not None
    np.testing.assert_allclose(scores.task_weights.sum(axis=1), 1, atol=1e-5)


def test_posterior_of_a_constant_kernel_is_the_map_of_a_logistic_model() -> None:
    """f constant with prior N(0, s²): its mode solves Σ(y − σ(f + b)) = f / s²."""
    outcomes = torch.tensor([[1.0, 1.0, 0.0, 1.0, 1.0]], dtype=torch.float64)
    offset = torch.tensor([0.3, -0.2, 0.1, 0.0, -1.0], dtype=torch.float64)
    variance = 0.7
    covariance = torch.full((5, 5), variance, dtype=torch.float64)
    found = (posterior_weights(covariance, offset, outcomes, torch.ones_like(outcomes)) @ covariance)[0, 0].item()
    low, high = -5.0, 5.0
    for _ in range(80):
        middle = (low + high) / 2
        gradient = (outcomes[0] - torch.sigmoid(middle + offset)).sum().item() - middle / variance
        low, high = (middle, high) if gradient > 0 else (low, middle)
    assert found == pytest.approx(low, abs=1e-5)


@pytest.mark.parametrize("right", ["some", "all", "none"])
def test_the_serving_posterior_is_the_learnt_one_at_its_fixed_point(
    right: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learnt, "NEWTON_STEPS", 40)
    torch.manual_seed(0)
    kernel = TrainableKernel(8, hidden=4, n_skills=2).eval().requires_grad_(False)
    vectors = torch.nn.functional.normalize(torch.randn(30, 8), dim=1)
    membership = torch.eye(3)[torch.arange(30) % 3]
    points = EvidencePoints(vectors, membership, torch.nn.functional.normalize(membership.T @ vectors, dim=1))
    outcomes = {"some": (torch.rand(30) > 0.4).float(), "all": torch.ones(30), "none": torch.zeros(30)}[right]
    covariance, broad = kernel.prior_covariance(points)
    scale = kernel.log_scale[3].exp() ** 2
    expected = posterior(covariance, broad, kernel.base(vectors), outcomes[None], torch.ones(1, 30), scale)
    served = kernel.frozen()
    numbers = serving.EvidencePoints(*(one.numpy() for one in (points.vectors, points.membership, points.centroids)))
    features = served.features(numbers.vectors, served.own_tasks(numbers))
    nearness = served.nearness(numbers.vectors, numbers.vectors)
    found = serving.posterior(
        features,
        nearness,
        served.base(numbers.vectors),
        outcomes.numpy(),
        np.ones(30, np.float32),
        shot_variance=float(served.shot_variance),
    )
    at = torch.nn.functional.normalize(torch.randn(5, 8), dim=1)
    np.testing.assert_allclose(
        served.cross_covariance(at.numpy(), numbers) @ found.weights,
        (kernel.cross_covariance(at, points) @ expected.weights[0]).numpy(),
        atol=1e-4,
    )
    assert found.variance == pytest.approx(expected.variance.item(), abs=1e-4)


def test_no_evidence_leaves_the_prior() -> None:
    covariance = torch.eye(3)
    solved = posterior(covariance, covariance, torch.zeros(3), torch.zeros(1, 3), torch.zeros(1, 3), torch.tensor(0.5))
    torch.testing.assert_close(solved.weights, torch.zeros(1, 3), atol=1e-4, rtol=0)
    assert solved.variance.item() == pytest.approx(1.5, abs=1e-4)


def test_gradient_of_the_posterior_is_the_true_one() -> None:
    """The one differentiable Newton step carries the whole derivative at the fixed point."""
    torch.manual_seed(0)
    root = torch.randn(4, 4, dtype=torch.float64)
    outcomes = torch.tensor([[1.0, 0.0, 1.0, 1.0]], dtype=torch.float64)
    ones = torch.ones_like(outcomes)

    def value(scale: torch.Tensor) -> torch.Tensor:
        covariance = scale * (root @ root.T)
        return (posterior_weights(covariance, torch.zeros(4, dtype=torch.float64), outcomes, ones) @ covariance).sum()

    scale = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(value(scale), scale)
    step = 1e-5
    numeric = (value(scale.detach() + step) - value(scale.detach() - step)) / (2 * step)
    assert slope.item() == pytest.approx(numeric.item(), rel=1e-3)


def test_kernel_is_positive_and_symmetric() -> None:
    torch.manual_seed(0)
    kernel = TrainableKernel(8, hidden=4, n_skills=2).eval()
    vectors = torch.nn.functional.normalize(torch.randn(12, 8), dim=1)
    membership = torch.eye(3)[torch.arange(12) % 3]
    points = EvidencePoints(vectors, membership, torch.nn.functional.normalize(membership.T @ vectors, dim=1))
    with torch.no_grad():
        covariance, broad = kernel.prior_covariance(points)
    torch.testing.assert_close(covariance, covariance.T)
    assert torch.linalg.eigvalsh(covariance.double()).min() > -1e-6
    assert (torch.diagonal(covariance) > torch.diagonal(broad)).all()


def test_cache_encodes_each_text_once(tmp_path: Path) -> None:
    encoder = HashEncoder()
    cache = EmbeddingCache(encoder, tmp_path)
    first = cache.encode(["a b", "c", "a b"])
    assert encoder.encoded == 2
    again = EmbeddingCache(encoder, tmp_path).encode(["c", "d"])
    assert encoder.encoded == 3
    np.testing.assert_array_equal(first.vectors[1], again.vectors[0])
    np.testing.assert_allclose(first.vectors, HashEncoder().encode(["a b", "c", "a b"]).vectors, atol=1e-3)


def test_the_shipped_encoder_is_the_scorers(shipped: Router) -> None:
    scorer = shipped.scorer
    assert isinstance(scorer, CompactScorer) and scorer.encoder_files is None
    encoder = scorer.encoder
    assert encoder.digest == shipped_digest() == scorer.encoder_digest
    found = encoder.encode(["a short text", "word " * 2000])
    assert found.truncated_tokens.tolist() == [0, pytest.approx(2002 - 256, rel=0.01)]  # of a long text, an estimate
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), 1, atol=1e-5)
    alone = encoder.encode(["a short text"]).vectors
    np.testing.assert_allclose(found.vectors[:1], alone, atol=1e-5)  # padding changes nothing


def test_table_scorer_checks_its_table() -> None:
    with pytest.raises(ConfigurationError, match="lies outside"):
        TableScorer({"q": {"a": 1.5}})


@pytest.mark.parametrize("outcome", [0.0, 1.0])
def test_newtons_method_reaches_the_mode_of_a_candidate_that_is_all_right_or_all_wrong(outcome: float) -> None:
    """At the mode the weights are the counts' residuals: far off where it stops after a few steps."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(200, 6)).astype(np.float32)
    covariance = features @ features.T + np.eye(200, dtype=np.float32)
    offset, outcomes, counts = np.zeros(200, np.float32), np.full(200, outcome, np.float32), np.ones(200, np.float32)
    weights = serving.posterior_weights(covariance, offset, outcomes, counts)
    p = 1 / (1 + np.exp(-(covariance @ weights)))
    np.testing.assert_allclose(weights, outcomes - p, atol=1e-3)
