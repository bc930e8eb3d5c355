from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from support import table_router

from msat_core import AptitudeTest, Candidate, CompactScorer, Records, Router, WeightedOutcome, Zoo
from msat_core.encoders.hashed import HashEncoder
from msat_core.errors import ConfigurationError, FeedbackError, InstructionError, ZooError
from msat_core.routing.feedback import HALF_LIFE_DAYS, FeedbackLog

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


def test_who_judged_and_when_decides_what_it_counts() -> None:
    now = time.time()
    log = FeedbackLog()
    log.add("a", VECTOR, 1.0, key="k", source="test", at=now)
    log.add("a", VECTOR, 0.5, key="k", source="user", at=now)
    first, last, outcomes = log.after(0)
    assert (first, last) == (0, 2)
    assert [one.weight(now) for one in outcomes] == [1.0, 0.5]
    assert [one.weight(now + HALF_LIFE_DAYS * DAY) for one in outcomes] == [0.5, 0.25]
    assert outcomes[0].weight(1e15) == 0.0
    np.testing.assert_array_equal(outcomes[0].weighted(now).vector, VECTOR)
    assert log.after(1)[2] == outcomes[1:]
    assert log.after(2)[2] == []


def test_the_log_is_bounded_and_survives(tmp_path: Path) -> None:
    path = tmp_path / "feedback.jsonl"
    log = FeedbackLog(path, max_outcomes=5)
    for i in range(23):
        log.add("a", VECTOR, i % 2, key="k")
    assert len(path.read_text().splitlines()) <= 11
    again = FeedbackLog(path, max_outcomes=5)
    assert len(log) == len(again) == 5
    assert [one.outcome for one in again.after(0)[2]] == [0, 1, 0, 1, 0]
    assert log.after(0)[:2] == (18, 23)


def test_what_another_process_adds_and_compacts_away_is_met_once(tmp_path: Path) -> None:
    path = tmp_path / "feedback.jsonl"
    ours, theirs = FeedbackLog(path, max_outcomes=5), FeedbackLog(path, max_outcomes=5)
    met: list[str] = []
    seen = 0
    for i in range(40):
        (ours if i % 3 == 0 else theirs).add(f"c{i}", VECTOR, 1.0, key="k")
        _, seen, new = ours.after(seen)
        met.extend(one.candidate for one in new)
    assert met == [f"c{i}" for i in range(40)]
    assert len(ours) == 5


@pytest.mark.parametrize("at", [0, 0.0, 12_345.6, -1, math.nan, math.inf, 1e300, "now"])
def test_a_time_of_another_clock_is_refused_and_nothing_is_written(tmp_path: Path, router: Router, at: object) -> None:
    path = tmp_path / "feedback.jsonl"
    mine = Router(router.scorer, router.zoo, feedback=FeedbackLog(path))
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match="seconds since the epoch"):
        mine.record("a question", mine.zoo.names[0], 1.0, at=at)  # type: ignore[arg-type]
    assert path.read_bytes() == before and len(mine.feedback) == 0
    assert law(mine) == law(router)


@pytest.mark.parametrize("outcome", [math.nan, math.inf, -0.1, "1", None])
def test_an_outcome_that_cannot_be_is_refused(router: Router, outcome: object) -> None:
    with pytest.raises(ConfigurationError, match=r"lies in \[0, 1\]"):
        router.record("a question", router.zoo.names[0], outcome)  # type: ignore[arg-type]
    assert len(router.feedback) == 0


@pytest.mark.parametrize("vector", [[], [math.nan, 1], [1e9, 0], [[1.0, 0.0]]])
def test_a_vector_that_cannot_be_is_refused(vector: list[float]) -> None:
    log = FeedbackLog()
    with pytest.raises(ConfigurationError, match="one row of finite numbers"):
        log.add("a", np.array(vector), 1.0, key="k")
    assert len(log) == 0


@pytest.mark.parametrize("key, value", [("outcome", math.nan), ("at", math.nan), ("at", math.inf), ("vector", "/n4=")])
def test_a_number_that_is_none_is_refused_with_its_line(tmp_path: Path, key: str, value: object) -> None:
    path = tmp_path / "feedback.jsonl"
    log = FeedbackLog(path)
    for _ in range(3):
        log.add("a", VECTOR, 1.0, key="k")
    lines = path.read_text().splitlines()
    lines[2] = json.dumps({**json.loads(lines[2]), key: value})
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(FeedbackError, match="line 3 is damaged"):
        FeedbackLog(path)


def test_outcomes_so_old_that_they_weigh_nothing_change_nothing(router: Router, tmp_path: Path) -> None:
    path = tmp_path / "feedback.jsonl"
    first = Router(router.scorer, router.zoo, feedback=FeedbackLog(path))
    first.record("contract tort liability question", router.zoo.names[0], 0.0, source="test")
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], json.dumps({**json.loads(lines[1]), "at": 0.0})]) + "\n")
    assert law(Router(router.scorer, router.zoo, feedback=FeedbackLog(path))) == pytest.approx(law(router), abs=1e-5)


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
    assert law(router) == pytest.approx(before, abs=1e-5)
    assert law(Router(router.scorer, router.zoo, feedback=FeedbackLog(tmp_path / "f.jsonl"))) == pytest.approx(
        learnt,
        abs=0.01,  # it learns all at once what came one by one
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


def test_repeated_reports_are_one_experience(router: Router) -> None:
    name = router.zoo.names[1]
    router.record("contract tort liability question about law", name, 0.0, source="test")
    once = law(router), router.route("equation polynomial root question").scores
    for _ in range(19):
        router.record("contract tort liability question about law", name, 0.0, source="test")
    again = law(router), router.route("equation polynomial root question").scores
    for before, after in zip(once, again, strict=True):
        assert after == pytest.approx(before, abs=2e-3)


def test_repeated_failures_leave_unrelated_questions_alone_and_different_ones_teach() -> None:
    """On the shipped scorer: bounds that hold for every candidate, whoever is asked."""
    router = Router.from_pretrained()
    unrelated = ["How many primes are there below 100?", "If a contract is void, who bears the loss?"]
    name = router.zoo["gpt-4o"].name
    before = router.score(unrelated).probabilities
    for i in range(20):
        router.record(f"Which enzyme unwinds the DNA double helix{'?' * (i % 3)}", name, 0.0, source="test")
    moved = np.abs(router.score(unrelated).probabilities - before)  # (2, M)
    own = router.zoo.names.index(name)
    assert moved[:, own].max() < 0.02
    assert np.delete(moved, own, axis=1).max() < 0.005
    for i, topic in enumerate(TOPICS * 5):
        router.record(f"{topic}, case {i * 37}: what follows from it in practice?", name, 0.0, source="test")
    learnt = router.score(unrelated).probabilities - before
    assert learnt[:, own].max() < -0.1


TOPICS = (
    "The law of torts", "Photosynthesis in algae", "Matrix inversion", "The Peace of Westphalia", "Red giant stars",
    "Supply and demand", "Hash tables", "Kant on duty", "Bridge trusses", "Cell membranes", "French verbs",
    "Chess endgames", "Soil erosion", "Tax of companies", "Renal failure", "Bond prices", "Compiler passes",
    "Trade winds", "Sonata form", "Vaccination",
)  # fmt: skip


def test_two_routers_on_one_scorer_are_two_tenants(router: Router) -> None:
    other = Router(router.scorer, router.zoo)
    before = law(other)
    for i in range(10):
        router.record(f"contract tort liability question {i}", router.zoo.names[0], 0.0, source="test")
    assert law(router) != before
    assert law(other) == before
    assert law(Router(router.scorer, router.zoo)) == before


def test_what_the_log_forgets_is_unlearnt(router: Router) -> None:
    short = Router(router.scorer, router.zoo, feedback=FeedbackLog(max_outcomes=2))
    for i in range(12):
        short.record(f"contract tort liability question {i}", router.zoo.names[0], 0.0, source="test")
    fresh = Router(router.scorer, router.zoo)
    for i in (10, 11):
        fresh.record(f"contract tort liability question {i}", router.zoo.names[0], 0.0, source="test")
    assert law(short) == pytest.approx(law(fresh), abs=5e-3)


def test_the_order_of_outcomes_matters_little(router: Router) -> None:
    outcomes = [
        (f"contract tort liability question {i}", router.zoo.names[i % 2], float(i % 3 == 0)) for i in range(24)
    ]
    turned = Router(router.scorer, router.zoo)
    for one in outcomes:
        router.record(*one, source="test")
    for one in reversed(outcomes):
        turned.record(*one, source="test")
    assert law(turned) == pytest.approx(law(router), abs=0.01)


def test_a_candidate_that_leaves_and_comes_back_keeps_what_was_learnt(router: Router) -> None:
    name = router.zoo.names[0]
    for i in range(10):
        router.record(f"contract tort liability question {i}", name, 0.0, source="test")
    learnt = law(router)
    gone = router.zoo.remove(name)
    router.record("contract tort liability question 11", router.zoo.names[0], 1.0, source="test")
    router.zoo.add(gone)
    assert law(router)[name] == pytest.approx(learnt[name], abs=0.02)


def test_vectors_of_another_width_are_refused_by_the_learner(trained: Trained) -> None:
    learner = trained[0].learner()
    with pytest.raises(ConfigurationError, match="unit vector of"):
        learner.learn([WeightedOutcome("a", np.ones(3, np.float16), 1.0, 1.0)], [])


def test_recording_and_zoo_changes_cost_few_routes() -> None:
    """120 candidates and 5,000 outcomes: at most two routes a record, five a change of the zoo (medians of one run)."""
    shipped = Router.from_pretrained()
    rng = np.random.default_rng(0)
    profiles = [candidate.profile for candidate in shipped.zoo.candidates]
    many = [
        Candidate(profile=profiles[i % len(profiles)].model_copy(update={"candidate": f"c{i}"})) for i in range(120)
    ]
    router = Router(shipped.scorer, Zoo(candidates=tuple(many)))
    vectors = rng.normal(size=(5000, shipped.scorer.kernel.dim))  # type: ignore[attr-defined]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    for i, vector in enumerate(vectors):
        router.feedback.add(f"c{i % 120}", vector, float(i % 3 == 0), key=router.scorer.learner().key)
    router.record("the first", "c0", 1.0)  # learns them all
    text = "Which enzyme unwinds the DNA double helix, and what happens to the strands afterwards?"
    router.route(text)
    route, record, change = [], [], []
    for i in range(25):
        route.append(_seconds(lambda: router.route(text)))
        new = f"Question {i} of biology: {text}"
        record.append(_seconds(partial(router.record, new, "c3", 1.0)))
        gone = router.zoo.remove("c7")
        change.append(_seconds(lambda: router.route(text)))
        router.zoo.add(gone)
        change.append(_seconds(lambda: router.route(text)))
    assert np.median(record) <= 2 * np.median(route)
    assert np.median(change) <= 5 * np.median(route)


def _seconds(action: Callable[[], object]) -> float:
    """Of all threads' work: what else the machine does in the meantime is not the router's."""
    started = time.process_time()
    action()
    return time.process_time() - started
