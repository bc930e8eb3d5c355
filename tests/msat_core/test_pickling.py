"""What a process pool or Ray ships: the copy routes as the original does."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from support import table_router

from msat_core import AptitudeTest, Candidate, CompactScorer, Records, Router, RoutingPolicy, Zoo
from msat_core.encoders.hashed import HashEncoder
from msat_core.routing.feedback import FeedbackLog

TEXT = "contract tort liability question about law"


def through(router: Router) -> Router:
    copied: Router = pickle.loads(pickle.dumps(router))
    return copied


@pytest.fixture
def router(trained: tuple[CompactScorer, AptitudeTest], records: Records) -> Router:
    scorer = CompactScorer(trained[0].config, trained[0].kernel, encoder=HashEncoder)
    scorer.add_exam(trained[1].exam)
    profiles = [trained[1].profile_from_records(records, name) for name in records.candidates]
    zoo = Zoo(
        candidates=tuple(
            Candidate(profile=p, usd_per_mtok_in=i + 1, usd_per_mtok_out=1) for i, p in enumerate(profiles)
        )
    )
    return Router(scorer, zoo, RoutingPolicy(objective="target", target=0.3, deny=frozenset({zoo.names[0]})))


def test_a_copy_keeps_policy_limits_and_scores(router: Router) -> None:
    expected = router.route(TEXT)
    copied = through(router)
    assert copied.route(TEXT) == expected
    assert copied.policy == router.policy and copied.zoo == router.zoo
    copied.zoo.remove(copied.zoo.names[-1])
    assert len(router.zoo) == len(copied.zoo) + 1


def test_a_copy_keeps_what_was_learnt(router: Router, tmp_path: Path) -> None:
    learning = Router(router.scorer, router.zoo, feedback=FeedbackLog(tmp_path / "feedback.jsonl"))
    for i in range(20):
        learning.record(f"contract tort liability question {i}", router.zoo.names[1], 0.0, source="test")
    copied = through(learning)
    assert len(copied.feedback) == 20
    assert copied.route(TEXT).scores == learning.route(TEXT).scores


def test_an_unused_router_and_the_fake_scorer_can_be_shipped() -> None:
    router = table_router()
    assert through(router).route("q") == router.route("q")


def test_a_copied_zoo_changes_alone(router: Router) -> None:
    for copied in (copy.copy(router.zoo), copy.deepcopy(router.zoo), pickle.loads(pickle.dumps(router.zoo))):
        assert copied == router.zoo and copied.digest == router.zoo.digest
        copied.remove(copied.names[0])
        assert copied != router.zoo and copied.digest != router.zoo.digest


def test_a_zoo_has_no_hash(router: Router) -> None:
    with pytest.raises(TypeError, match="unhashable"):
        hash(router.zoo)


def test_reprs_fit_on_a_line(router: Router) -> None:
    for shown in (repr(router), str(router.zoo), repr(router.zoo.candidates[0]), repr(router.scorer)):
        assert len(shown) < 300 and "\n" not in shown
    assert router.zoo.names[0] in repr(router)


def scores_there(router: Router) -> dict[str, float]:
    return router.route(TEXT).scores


def test_another_process_routes_the_same(shipped: Router) -> None:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        found = pool.submit(scores_there, shipped).result(timeout=120)
    assert found == pytest.approx(shipped.route(TEXT).scores, abs=1e-5)
