"""How far an instruction is from what the candidates were tested on, and what a score is worth there."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from commands import msat
from support import table_router

from msat_core import Router, RoutingPolicy
from msat_core.encoders.cache import EmbeddingCache
from msat_core.texts import script_of

FAR = ("asdf qwer zxcv hjkl", "🙂🙂🙂🔥🔥", '{"a": [1, 2, 3], "b": {"c": null}}')
UNREAD = {
    "Какой фермент раскручивает двойную спираль ДНК?": "Cyrillic",
    "在DNA复制过程中，哪种酶解开双螺旋结构？": "Han",
    "ช่วยเขียนกลอนเกี่ยวกับฝนให้หน่อย": "Thai",
    "ما هو الإنزيم الذي يفك الحلزون المزدوج؟": "Arabic",
}
NEAR = (
    "What is the pH of a 0.1 M solution of acetic acid (pKa 4.76)?",
    "Natalia sold 48 clips in April and half as many in May. How many did she sell altogether?",
    "Which of these best describes the doctrine of promissory estoppel in contract law?",
)
SAID = "far from what the candidates were tested on"


@pytest.fixture(scope="module")
def router() -> Router:
    return Router.from_pretrained()


def test_a_far_text_is_said_to_be_far(router: Router) -> None:
    for decision in router.route_batch(FAR):
        assert decision.distance is not None and decision.distance > 1
        assert SAID in decision.reason and "nearest" not in decision.reason
    for decision in router.route_batch(NEAR):
        assert decision.distance is not None and decision.distance <= 1
        assert SAID not in decision.reason


def test_a_script_that_the_encoder_has_not_learnt_is_said_and_levels_decide(router: Router) -> None:
    few = Router(router.scorer, router.zoo.subset([c.name for c in router.zoo][:12]))
    scores = few.score(list(UNREAD))
    assert scores.unread == tuple(UNREAD.values())
    orders = np.argsort(-scores.probabilities, axis=1)
    assert (orders == orders[0]).all()
    for text, script in UNREAD.items():
        assert f"in {script} script, which the scorer has not learnt to read" in few.route(text).reason
    assert few.score(NEAR).unread == ("",) * len(NEAR)
    assert "script" not in few.route(NEAR[0]).reason


def test_a_cached_embedding_says_what_was_not_read(router: Router, tmp_path: Path) -> None:
    encoder = router.scorer.encoder  # type: ignore[attr-defined]
    cache = EmbeddingCache(encoder, tmp_path)
    texts = [*UNREAD, *NEAR]
    assert cache.encode(texts).unread == cache.encode(texts).unread == encoder.encode(texts).unread
    assert any(encoder.encode(texts).unread)


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("Prove that ∑ 1/n² = π²/6.", "Latin"),
        ("Überprüfe, ob å, é und ñ als Latein gelten.", "Latin"),
        ("print('привет')  # what does this line of Python print?", "Latin"),
        ("𝐀𝐁𝐂 = 3", ""),
        ("∀x∈ℝ: α+β=γ", "Latin"),
        ("10 Ω + 5 µF", "Latin"),
        ("Ποιο ένζυμο ξετυλίγει τη διπλή έλικα;", "Greek"),
        ("12 + 7 = ?", ""),
        ("DNA複製の際に二重らせんをほどく酵素は何ですか。", "Kana"),
    ],
)
def test_the_script_of_most_letters(text: str, script: str) -> None:
    assert script_of(text) == script


def test_far_away_the_same_candidate_is_strongest_for_every_text(router: Router) -> None:
    few = Router(router.scorer, router.zoo.subset([c.name for c in router.zoo][:12]))
    scores = few.score(FAR)
    assert scores.distance is not None and (scores.distance > 1).all()
    orders = np.argsort(-scores.probabilities, axis=1)
    assert (orders == orders[0]).all()
    near = np.argsort(-few.score(NEAR).probabilities, axis=1)
    assert (near != near[0]).any()


def test_a_far_score_is_less_sure(router: Router) -> None:
    lineup = router.scorer.lineup([candidate.profile for candidate in router.zoo])  # type: ignore[attr-defined]
    vectors = router.scorer.encoder.encode([*FAR, *NEAR]).vectors  # type: ignore[attr-defined]
    for stack in lineup.stacks:
        reading = stack.reading(router.scorer.kernel, vectors, np.zeros(len(vectors), bool))  # type: ignore[attr-defined]
        far, near = reading.variance[: len(FAR)], reading.variance[len(FAR) :]
        assert (far.min(axis=0) > near.max(axis=0)).all()


def test_what_was_recorded_is_not_far_any_more(router: Router) -> None:
    mine = Router(router.scorer, router.zoo.subset(["gpt-5", "claude-sonnet-4.5"]))
    before = mine.route(FAR[0])
    for name in ("gpt-5", "claude-sonnet-4.5"):
        mine.record(FAR[0], name, 1.0, source="test")
    after = mine.route(FAR[0])
    assert before.distance is not None and before.distance > 1
    assert after.distance is not None and after.distance < 0.1
    assert SAID not in after.reason


def test_a_distance_that_nobody_knows_is_unknown() -> None:
    decision = table_router().route("anything")
    assert decision.distance is None and SAID not in decision.reason


def test_the_command_line_says_it(router: Router, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    zoo = ("--zoo", str(router.zoo.subset(["gpt-5", "claude-sonnet-4.5"]).save(tmp_path / "zoo.json")))
    _, far, _ = msat(capsys, "route", FAR[0], "--explain", *zoo)
    assert SAID in " ".join(far.split()) and "(far;" in far
    _, near, _ = msat(capsys, "route", NEAR[0], "--explain", *zoo)
    assert "(within;" in near
    _, data, _ = msat(capsys, "route", FAR[0], "--json", *zoo)
    assert json.loads(data)["distance"] > 1


def test_expected_results_are_not_told_as_an_exam(router: Router) -> None:
    expected = router.route(NEAR[0], policy=RoutingPolicy(allow=frozenset({"gpt-5"}))).reason
    assert "expected of it from published scores" in expected and "right" not in expected
    sat = router.route(NEAR[0], policy=RoutingPolicy(allow=frozenset({"gpt-4o-2024-05-13"}))).reason
    assert "nearest in its exam" in sat and " right" in sat
    assert "." not in sat.split("nearest in its exam: ")[1].rstrip(".")
