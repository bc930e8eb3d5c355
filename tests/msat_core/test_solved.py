from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from msat_core import AptitudeTest, CompactScorer, Exam, Records, Router, Zoo, pretrained
from msat_core.encoders.hashed import HashEncoder
from msat_core.errors import ArtefactError
from msat_core.scoring.base import WeightedOutcome
from msat_core.scoring.compact.solved import load_solved, save_solved

TEXTS = ["What is the boiling point of water?", "Prove that the square root of two is irrational."]


def with_exams(scorer: CompactScorer) -> CompactScorer:
    for folder in pretrained.EXAMS:
        scorer.add_exam(Exam.load(folder))
    return scorer


def unsolved(scorer: CompactScorer) -> CompactScorer:
    return with_exams(CompactScorer(scorer.config, scorer.kernel))


def test_the_shipped_posteriors_are_those_of_the_shipped_zoo() -> None:
    scorer = with_exams(CompactScorer.load(pretrained.SCORER))
    solved = load_solved(pretrained.SCORER, scorer.digest, scorer.kernel.dim)
    zoo = Zoo.load(pretrained.ZOO)
    assert {profile for _, profile in solved.posteriors} == {member.profile.digest for member in zoo}
    some = [member.profile for member in zoo][::40]
    vectors = np.random.default_rng(0).normal(size=(5, scorer.kernel.dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found, expected = (one.score_vectors(vectors, some).probabilities for one in (scorer, unsolved(scorer)))
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.fixture
def saved(trained: tuple[CompactScorer, AptitudeTest], records: Records, tmp_path: Path) -> tuple[Path, CompactScorer]:
    """A scorer folder with posteriors, and the scorer."""
    _, test = trained
    trained[0].save(tmp_path)
    scorer = CompactScorer.load(tmp_path)
    scorer = CompactScorer(scorer.config, scorer.kernel, encoder=HashEncoder)
    scorer.add_exam(test.exam)
    profiles = [test.profile_from_records(records, name) for name in records.candidates]
    supports, posteriors = scorer.posteriors(profiles)
    save_solved(tmp_path, scorer.digest, list(zip(supports, profiles, posteriors, strict=True)))
    return tmp_path, scorer


def test_feedback_moves_a_solved_posterior_like_any_other(
    saved: tuple[Path, CompactScorer], trained: tuple[CompactScorer, AptitudeTest], records: Records
) -> None:
    (folder, before), (_, test) = saved, trained
    profiles = [test.profile_from_records(records, name) for name in records.candidates]
    vectors = before.encoder.encode(TEXTS).vectors
    scores = []
    for scorer in (before, CompactScorer.load(folder)):
        scorer.add_exam(test.exam)
        learner = scorer.learner()
        learner.learn([WeightedOutcome(profiles[0].candidate, vectors[0].astype(np.float16), 0.0, 1.0)], profiles)
        scores.append(learner.score_vectors(vectors, profiles).probabilities)
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-6)
    plain = before.score_vectors(vectors, profiles).probabilities
    assert scores[0][0, 0] < plain[0, 0]


def test_posteriors_of_another_scorer_are_not_used(saved: tuple[Path, CompactScorer]) -> None:
    folder, scorer = saved
    assert load_solved(folder, scorer.digest, scorer.kernel.dim).posteriors
    assert load_solved(folder, "another", scorer.kernel.dim).posteriors == {}
    assert load_solved(folder / "elsewhere", scorer.digest, scorer.kernel.dim).posteriors == {}


def test_damaged_posteriors_are_refused(saved: tuple[Path, CompactScorer], tmp_path: Path) -> None:
    folder = shutil.copytree(saved[0], tmp_path / "copy")
    data = bytearray((folder / "posteriors.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "posteriors.safetensors").write_bytes(data)
    with pytest.raises(ArtefactError, match="damaged or cut short"):
        CompactScorer.load(folder)


def test_the_first_route_solves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    import msat_core.scoring.compact.scorer as module

    def refuse(*_: object) -> None:
        raise AssertionError("a posterior was solved")

    monkeypatch.setattr(module, "solve", refuse)
    assert Router.from_pretrained().route("Hello?").candidate
