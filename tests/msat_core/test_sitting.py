"""Sitting an exam: what is asked, how often, at what price, and what the profile says of it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import exam_world
import numpy as np
import pytest
from exam_world import KnowingClient, aptitude_test, paper, question_set, questions, truth

from msat_core import AptitudeTest, CapabilityProfile, CompactScorer, Exam, Router, pretrained
from msat_core.aptitude.clients import FunctionClient, Reply
from msat_core.aptitude.paper import ExamPaper, Prices, shorten
from msat_core.aptitude.protocols import FIVE_SHOT, ZERO_SHOT
from msat_core.aptitude.questions import QuestionSet
from msat_core.aptitude.sitting import Progress, RunSettings
from msat_core.errors import ConfigurationError, ExamError
from msat_core.profiles import Provenance

FAST = RunSettings(concurrency=3, retry_for_s=5)


class HttpError(Exception):
    def __init__(self, status_code: int) -> None:
        super().__init__(f"HTTP {status_code}")
        self.status_code = status_code


@pytest.fixture(autouse=True)
def quick_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("msat_core.aptitude.paid_calls.FIRST_BACKOFF_S", 0.001)


async def test_a_profile_says_what_the_candidate_knows(tmp_path: Path) -> None:
    seen: list[Progress] = []
    client = KnowingClient()
    profile = await aptitude_test().run(
        client, question_set(), protocol="zero-shot-cot", journal=tmp_path / "j", progress=seen.append
    )
    assert profile.shots == truth()
    assert profile.candidate == "toy-1"
    assert profile.exam_digest == exam_world.exam().digest
    assert profile.provenance.protocol == "zero-shot-cot"
    sitting = profile.provenance.sitting
    assert sitting is not None
    assert (sitting.questions, sitting.protocol_version, sitting.n_planned) == ("toy", 1, 12)
    assert (sitting.input_tokens, sitting.output_tokens, sitting.usd) == (1200, 120, None)
    assert sitting.warnings == ()
    assert (seen[-1].n_done, seen[-1].n_right, seen[-1].n_failed) == (12, 8, 0)
    assert CapabilityProfile.from_json(profile.to_json()) == profile


async def test_running_again_asks_nothing_and_ends_the_same(tmp_path: Path) -> None:
    first = await aptitude_test().sit(paper(), KnowingClient(), tmp_path / "j")
    again = KnowingClient()
    second = await aptitude_test().sit(paper(), again, tmp_path / "j")
    assert again.asked == []
    assert second.profile.to_json() == first.profile.to_json()


async def test_a_longer_exam_goes_on_from_a_shorter_one(tmp_path: Path) -> None:
    test, found = aptitude_test(), question_set()
    short = ExamPaper.of(test.exam, found, ZERO_SHOT, n_shots=2)
    assert (await test.sit(short, KnowingClient(), tmp_path / "j")).profile.n_shots == 6
    client = KnowingClient()
    assert (await test.sit(paper(), client, tmp_path / "j")).profile.shots == truth()
    assert len(client.asked) == 6


async def test_the_default_journal_is_the_same_for_the_same_sitting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MSAT_CACHE", str(tmp_path))
    await aptitude_test().run(KnowingClient(), question_set())
    client = KnowingClient()
    await aptitude_test().run(client, question_set())
    assert client.asked == []
    await aptitude_test().run(client, question_set(), protocol="zero-shot-cot")
    assert len(client.asked) == 12
    assert len(list((tmp_path / "journals").iterdir())) == 2


@pytest.mark.parametrize(
    "error", [HttpError(429), HttpError(503), TimeoutError(), ConnectionResetError(), HttpError(408)]
)
async def test_passing_faults_are_tried_again(tmp_path: Path, error: Exception) -> None:
    client = KnowingClient(failures=[error] * 7)
    sat = await aptitude_test().sit(paper(), client, tmp_path / "j", settings=FAST)
    assert sat.profile.shots == truth()
    assert len(client.asked) == 12


async def test_a_reply_that_is_no_text_fails_its_question_alone(tmp_path: Path) -> None:
    async def filtered(prompt: str) -> str:
        asked.append(prompt)
        return None if len(asked) == 2 else exam_world.answer_to(prompt)  # type: ignore[return-value]

    asked: list[str] = []
    sat = await aptitude_test().sit(paper(), FunctionClient("t", filtered), tmp_path / "j", settings=FAST)
    assert list(sat.result.failures.values()) == ["TypeError: expected a reply of text, got NoneType"]
    again = await aptitude_test().sit(paper(), FunctionClient("t", filtered), tmp_path / "j", settings=FAST)
    assert again.profile.shots == truth()


async def test_a_question_that_fails_is_left_for_the_next_run(tmp_path: Path) -> None:
    sat = await aptitude_test().sit(paper(), KnowingClient([HttpError(400)]), tmp_path / "j", settings=FAST)
    assert not sat.result.complete
    assert len(sat.result.failures) == 1
    assert sat.profile.n_shots == 11
    assert "11 of 12 questions were settled (1 failed)" in sat.profile.provenance.sitting.warnings[0]  # type: ignore[union-attr]
    client = KnowingClient()
    again = await aptitude_test().sit(paper(), client, tmp_path / "j", settings=FAST)
    assert len(client.asked) == 1
    assert again.profile.shots == truth()


async def test_an_endpoint_that_refuses_stops_the_run_at_once(tmp_path: Path) -> None:
    client = KnowingClient([HttpError(401)] * 20)
    with pytest.raises(ExamError, match=r"refuses \(HttpError: HTTP 401\).*run the same command again"):
        await aptitude_test().sit(paper(), client, tmp_path / "j", settings=RunSettings(concurrency=1))
    assert len(client.failures) == 19


async def test_failures_in_a_row_stop_the_run_and_keep_what_is_there(tmp_path: Path) -> None:
    async def broken_after_two(prompt: str) -> str:
        asked.append(prompt)
        if len(asked) > 2:
            raise HttpError(400)
        return exam_world.answer_to(prompt)

    asked: list[str] = []
    client = FunctionClient("toy-1", broken_after_two)
    with pytest.raises(ExamError, match=r"failed 10 questions in a row.* 2 answers are safe"):
        await aptitude_test().sit(paper(), client, tmp_path / "j", settings=RunSettings(concurrency=1))


async def test_a_full_disk_stops_the_run_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, n_syncs = os.fsync, 0

    def full_after_three(descriptor: int) -> None:
        nonlocal n_syncs
        n_syncs += 1
        if n_syncs > 3:  # the header, the folder, the first answers
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr("os.fsync", full_after_three)
    client = KnowingClient()
    with pytest.raises(ExamError, match=r"cannot be written .*No space left"):
        await aptitude_test().sit(paper(), client, tmp_path / "j", settings=RunSettings(concurrency=1))
    assert len(client.asked) < 12
    monkeypatch.setattr("os.fsync", real)
    sat = await aptitude_test().sit(paper(), client, tmp_path / "j")
    assert sat.profile.shots == truth()


async def test_an_interrupted_run_keeps_what_was_answered(tmp_path: Path) -> None:
    reached = asyncio.Event()

    async def six_then_silence(prompt: str) -> str:
        asked.append(prompt)
        if len(asked) > 6:
            reached.set()
            await asyncio.sleep(60)
        return exam_world.answer_to(prompt)

    asked: list[str] = []
    client = FunctionClient("toy-1", six_then_silence)
    run = asyncio.create_task(aptitude_test().sit(paper(), client, tmp_path / "j", settings=FAST))
    await reached.wait()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    again = KnowingClient()
    sat = await aptitude_test().sit(paper(), again, tmp_path / "j")
    assert len(again.asked) == 6
    assert sat.profile.shots == truth()


async def test_a_call_that_hangs_is_given_up_and_tried_again(tmp_path: Path) -> None:
    hung: list[str] = []

    async def hangs_once(prompt: str) -> str:
        if not hung:
            hung.append(prompt)
            await asyncio.sleep(60)
        return exam_world.answer_to(prompt)

    settings = RunSettings(concurrency=2, timeout_s=0.05, retry_for_s=5)
    sat = await aptitude_test().sit(paper(), FunctionClient("toy-1", hangs_once), tmp_path / "j", settings=settings)
    assert sat.profile.shots == truth()


async def test_no_more_calls_at_once_than_allowed(tmp_path: Path) -> None:
    now, most = 0, 0

    async def counted(prompt: str) -> str:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.001)
        now -= 1
        return exam_world.answer_to(prompt)

    await aptitude_test().sit(
        paper(), FunctionClient("t", counted), tmp_path / "j", settings=RunSettings(concurrency=4)
    )
    assert most == 4


async def test_a_spending_cap_is_never_passed_and_tells_how_to_go_on(tmp_path: Path) -> None:
    # one answer costs 100 × 10 + 10 × 10 = 0.0011 USD; the most one call can cost is reserved before it is made
    prices = Prices(usd_per_mtok_in=10, usd_per_mtok_out=10)
    client = KnowingClient()
    settings = RunSettings(concurrency=8, prices=prices, max_usd=0.006)
    sat = await aptitude_test().sit(paper(), client, tmp_path / "j", settings=settings)
    assert sat.result.out_of_budget and not sat.result.complete
    assert 0 < sat.result.usd <= 0.006
    assert len(client.asked) == round(sat.result.usd / 0.0011) == sat.profile.n_shots
    assert "the spending cap was reached" in sat.profile.provenance.sitting.warnings[0]  # type: ignore[union-attr]
    more = RunSettings(concurrency=8, prices=prices, max_usd=1.0)
    whole = await aptitude_test().sit(paper(), client, tmp_path / "j", settings=more)
    assert whole.profile.shots == truth()
    assert len(client.asked) == 12
    assert whole.profile.provenance.sitting.usd == pytest.approx(12 * 0.0011)  # type: ignore[union-attr]


async def test_nothing_is_asked_after_a_refusal_by_those_who_waited_for_money(tmp_path: Path) -> None:
    client = KnowingClient([HttpError(401)] * 20)
    assert client.max_output_tokens
    prices = Prices(usd_per_mtok_in=0, usd_per_mtok_out=1e6 / client.max_output_tokens)  # a call may cost one dollar
    with pytest.raises(ExamError, match="refuses"):
        settings = RunSettings(concurrency=8, prices=prices, max_usd=1.0)
        await aptitude_test().sit(paper(), client, tmp_path / "j", settings=settings)
    assert len(client.failures) == 19


async def test_a_capped_circle_test_is_not_left_with_the_wrong_answers_alone(tmp_path: Path) -> None:
    """Right questions take two calls and wrong ones one: each is seen through before the next."""
    prices = Prices(usd_per_mtok_in=10, usd_per_mtok_out=10)
    settings = RunSettings(concurrency=1, prices=prices, max_usd=0.0132)
    sat = await aptitude_test().sit(paper(n_rotations=1), KnowingClient(), tmp_path / "j", settings=settings)
    assert sat.result.out_of_budget
    assert 0 < sat.profile.n_shots < 12
    assert sat.profile.accuracy >= 0.4  # the whole exam: two thirds; all first turns first would leave a fifth


async def test_a_cap_needs_prices_and_a_longest_reply(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="needs prices"):
        RunSettings(max_usd=1.0)
    client = FunctionClient("t", KnowingClient()._say)
    settings = RunSettings(prices=Prices(1, 1), max_usd=1.0)
    with pytest.raises(ConfigurationError, match="longest reply"):
        await aptitude_test().sit(paper(), client, tmp_path / "j", settings=settings)


async def test_unreadable_replies_count_as_wrong_and_are_told(tmp_path: Path) -> None:
    async def mumbles(prompt: str) -> str:
        return "I cannot say." if "algebra" in prompt else exam_world.answer_to(prompt)

    sat = await aptitude_test().sit(paper(), FunctionClient("t", mumbles), tmp_path / "j")
    sitting = sat.profile.provenance.sitting
    assert sitting is not None
    assert sitting.n_unreadable == 4
    assert "4 of 12 questions got replies that state no answer" in sitting.warnings[0]
    assert {r.task: r.n_correct for r in sat.profile.results}["algebra"] == 0


async def test_the_circle_test_keeps_only_consistent_answers(tmp_path: Path) -> None:
    async def always_b(prompt: str) -> str:
        return "The answer is (B)."

    lucky = await aptitude_test().sit(paper(), FunctionClient("t", always_b), tmp_path / "once")
    assert lucky.profile.n_shots == 12
    assert sum(lucky.profile.shots.values()) == sum(q.answer == "B" for q in questions()) > 0
    turned = await aptitude_test().sit(paper(n_rotations=1), FunctionClient("t", always_b), tmp_path / "twice")
    assert sum(turned.profile.shots.values()) == 0
    assert turned.profile.provenance.sitting.n_inconsistent == sum(lucky.profile.shots.values())  # type: ignore[union-attr]
    client = KnowingClient()
    knows = await aptitude_test().sit(paper(n_rotations=3), client, tmp_path / "knows")
    assert knows.profile.shots == truth()
    assert len(client.asked) == 8 * 4 + 4  # the right ones four times, the wrong ones once


def test_rotation_moves_the_answer_with_its_option() -> None:
    for question in questions():
        for places in range(6):
            turned = question.rotated(places)
            assert turned.options["ABCD".index(turned.answer)] == question.options["ABCD".index(question.answer)]
            assert turned.text_sha256 == question.text_sha256
        assert question.rotated(4) == question


def test_an_estimate_counts_calls_tokens_and_cost() -> None:
    once = paper().estimate(Prices())
    assert (once.n_calls, once.usd) == (12, None)
    assert once.output_tokens == 12 * ZERO_SHOT.expected_output_tokens
    turned = paper(n_rotations=2).estimate(Prices(1.0, 2.0))
    assert turned.n_calls == 36
    assert turned.usd == pytest.approx((turned.input_tokens + 2 * turned.output_tokens) / 1e6)


def test_shorter_exams_are_parts_of_longer_ones() -> None:
    exam = AptitudeTest.load().exam
    whole = [shot.item_id for shot in shorten(exam)]
    assert sorted(whole) == sorted(shot.item_id for shot in exam.sheet.shots)
    assert len({shot.task for shot in shorten(exam)[:50]}) == 50
    five = {shot.item_id for shot in shorten(exam, n_shots=5)}
    assert len(five) == 250
    assert five < {shot.item_id for shot in shorten(exam, n_shots=10)}
    few = shorten(exam, n_tasks=20, n_shots=3)
    assert len(few) == 60
    assert len({shot.task for shot in few}) == 20
    with pytest.raises(ConfigurationError, match="n_shots must be a whole number from 1"):
        shorten(exam, n_shots=0)


def test_five_shot_prompts_show_five_examples_of_the_category() -> None:
    asked = ExamPaper.of(exam_world.exam(), question_set(), FIVE_SHOT)
    prompt = asked.prompt("q1")
    assert prompt.count("of law?") == 5
    assert "of algebra?" not in prompt
    assert prompt.index("Example 4 of law?") < prompt.index("Question number 1 about law?")
    assert "A. yes\nB. no\nAnswer: So. The answer is (A)." in prompt
    without = QuestionSet.of("bare", questions())
    with pytest.raises(ExamError, match="shows 5 worked examples, but the question source has 0"):
        ExamPaper.of(exam_world.exam(), without, FIVE_SHOT)


def test_fewer_answers_are_trusted_less(shipped: Router) -> None:
    """The scorer uses the counts: the more of the exam was got right, the further the scores go up."""
    scorer, test = shipped.scorer, AptitudeTest.load()
    assert isinstance(scorer, CompactScorer)
    vectors = test.exam.embeddings[scorer.config.encoder_digest][:60].astype(np.float32)

    def mean_score(n_shots: int, score: float) -> float:
        answers = {shot.item_id: score for shot in shorten(test.exam, n_shots=n_shots)}
        profile = test.profile_of_scores(answers, "new", provenance=Provenance(source="test"))
        assert profile.n_shots == 50 * n_shots
        return float(scorer.score_vectors(vectors, [profile]).probabilities.mean())

    right, wrong = ([mean_score(n, score) for n in (1, 2, 4)] for score in (1.0, 0.0))
    assert wrong[2] < wrong[1] < wrong[0] < right[0] < right[1] < right[2]


async def test_replies_may_say_what_they_cost(tmp_path: Path) -> None:
    async def silent(prompt: str) -> Reply:
        return Reply(exam_world.answer_to(prompt))

    sat = await aptitude_test().sit(paper(), FunctionClient("t", silent), tmp_path / "j")
    sitting = sat.profile.provenance.sitting
    assert sitting is not None
    assert sitting.input_tokens == sum(round(len(paper().prompt(q.item_id)) / 4) for q in questions())


async def test_nothing_answered_makes_no_profile(tmp_path: Path) -> None:
    settings = RunSettings(prices=Prices(1, 1), max_usd=0.0)
    with pytest.raises(ExamError, match="the spending cap allows no call"):
        await aptitude_test().sit(paper(), KnowingClient(), tmp_path / "j", settings=settings)


def test_a_shorter_exam_is_the_same_whichever_encoder_its_file_names_first() -> None:
    exam = Exam.load(pretrained.EXAM_REASONING)
    other = Exam(exam.sheet, dict(reversed(list(exam.embeddings.items()))))
    assert len(exam.embeddings) > 1 and shorten(exam, n_tasks=6) == shorten(other, n_tasks=6)
