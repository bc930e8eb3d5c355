from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support import table_router

from msat_core import AptitudeTest, CompactScorer, Records, Router, Zoo
from msat_core.encoders.hashed import HashEncoder
from msat_core.errors import ConfigurationError, FeedbackError, InstructionError, ZooError
from msat_core.routing.feedback import HALF_LIFE_DAYS, FeedbackLog
from msat_core.scoring.compact.posterior import shared_shift

Trained = tuple[CompactScorer, AptitudeTest]
VECTOR = np.arange(4, dtype=np.float16)
DAY = 86400.0


@pytest.fixture
def router(trained: Trained, records: Records) -> Router:
    """A router of its own: what it learns stays with it."""
    shared, test = trained
    scorer = CompactScorer(shared.config, shared.kernel, encoder=HashEncoder)
    scorer.add_exam(test.exam)
    return Router(scorer, Zoo.of(test.profile_from_records(records, name) for name in records.candidates))


def law(router: Router) -> dict[str, float]:
    return router.route("contract tort liability question about law").scores


def test_outcomes_move_their_candidate_where_they_were_seen(router: Router) -> None:
    name, other = router.zoo.names[1], router.zoo.names[2]
    before = law(router)
    algebra = router.route("equation polynomial root question").scores[name]
    for i in range(30):
        router.record(f"contract tort liability question {i}", name, 0.0, source="test")
        router.record(f"contract tort liability question {i}", other, 1.0, source="test")
    after = law(router)
    assert after[name] < before[name] - 0.05
    assert after[other] > before[other]
    moved = abs(router.route("equation polynomial root question").scores[name] - algebra)
    assert moved < before[name] - after[name]


def test_failures_of_one_alone_count_against_the_instructions_too(router: Router) -> None:
    """Feedback comes of the chosen candidate only: hard traffic must not look like a weak candidate."""
    name = router.zoo.names[1]
    before = law(router)
    for i in range(30):
        router.record(f"contract tort liability question {i}", name, 0.0, source="test")
    after = law(router)
    assert after[name] < before[name]
    assert all(after[other] < before[other] for other in router.zoo.names)


def test_who_judged_and_when_decides_what_it_counts(router: Router) -> None:
    log = FeedbackLog()
    log.add("a", VECTOR, 1.0, key="k", source="test", at=0.0)
    log.add("a", VECTOR, 0.5, key="k", source="user", at=0.0)
    log.add("a", VECTOR, 0.5, key="another encoder", source="test", at=0.0)
    fresh, old = log.observations("k", now=0.0)["a"], log.observations("k", now=HALF_LIFE_DAYS * DAY)["a"]
    assert fresh.weights.tolist() == [1.0, 0.5]
    assert old.weights.tolist() == [0.5, 0.25]
    np.testing.assert_array_equal(fresh.vectors, [VECTOR, VECTOR])
    assert log.observations("nobody's") == {}


def test_the_log_is_bounded_and_survives(tmp_path: Path) -> None:
    path = tmp_path / "feedback.jsonl"
    log = FeedbackLog(path, max_outcomes=5)
    for i in range(23):
        log.add("a", VECTOR, i % 2, key="k", at=float(i))
    assert len(path.read_text().splitlines()) <= 10
    again = FeedbackLog(path, max_outcomes=5)
    assert len(log) == len(again) == 5
    np.testing.assert_array_equal(again.observations("k", now=0.0)["a"].outcomes, [0, 1, 0, 1, 0])


def test_a_cut_last_line_is_dropped_and_another_file_refused(tmp_path: Path) -> None:
    path = tmp_path / "feedback.jsonl"
    FeedbackLog(path).add("a", VECTOR, 1.0, key="k")
    whole = path.read_text()
    path.write_text(whole + whole[:30])
    assert len(FeedbackLog(path)) == 1
    assert path.read_text() == whole
    path.write_text('{"something": "else"}\n')
    with pytest.raises(FeedbackError, match="is not a feedback file"):
        FeedbackLog(path)


def test_a_router_reads_what_an_earlier_one_recorded(router: Router, tmp_path: Path) -> None:
    before = law(router)
    first = Router(router.scorer, router.zoo, feedback=FeedbackLog(tmp_path / "f.jsonl"))
    for i in range(20):
        first.record(f"contract tort liability question {i}", router.zoo.names[0], 1.0)
    learnt = law(first)
    router.scorer.observe({})
    assert law(router) == pytest.approx(before, abs=1e-5)
    assert law(Router(router.scorer, router.zoo, feedback=FeedbackLog(tmp_path / "f.jsonl"))) == pytest.approx(
        learnt, abs=1e-3
    )


async def test_recording_off_the_event_loop_is_recording(router: Router) -> None:
    before = law(router)
    for i in range(5):
        await router.arecord(f"contract tort liability question {i}", router.zoo.names[0], 0.0, source="test")
    assert law(router)[router.zoo.names[0]] < before[router.zoo.names[0]]
    assert len(router.feedback) == 5


def test_bad_feedback_is_one_sentence(router: Router) -> None:
    with pytest.raises(ConfigurationError, match=r"lies in \[0, 1\]"):
        router.record("x", router.zoo.names[0], 1.5)
    with pytest.raises(ConfigurationError, match="test, judge, user; got the source 'rumour'"):
        router.record("x", router.zoo.names[0], 1.0, source="rumour")  # type: ignore[arg-type]
    with pytest.raises(ZooError, match="no candidate 'nobody'"):
        router.record("x", "nobody", 1.0)
    with pytest.raises(InstructionError, match="is empty"):
        router.record(" ", router.zoo.names[0], 1.0)
    with pytest.raises(ConfigurationError, match="TableScorer learns nothing from feedback"):
        table_router().record("x", "good", 1.0)
    assert len(router.feedback) == 0


def test_a_shared_shift_counts_an_instruction_once(trained: Trained) -> None:
    kernel = trained[0].kernel
    vectors = HashEncoder().encode(["tort law", "polynomial root", "tort law"]).vectors
    logits, outcomes = np.zeros(3, np.float32), np.array([0.0, 1.0, 0.0], np.float32)
    thrice = shared_shift(kernel, vectors, logits, outcomes, np.ones(3, np.float32))
    merged = shared_shift(kernel, vectors[:2], logits[:2], outcomes[:2], np.array([2.0, 1.0], np.float32))
    assert len(thrice.vectors) == 2
    np.testing.assert_allclose(thrice.at(kernel, vectors), merged.at(kernel, vectors), atol=1e-4)
    assert thrice.at(kernel, vectors)[0] < thrice.at(kernel, vectors)[1]
