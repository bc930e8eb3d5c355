"""Scores that are kept for instructions that come again: never stale, bounded, shared by threads, gone in a pickle."""

from __future__ import annotations

import asyncio
import os
import pickle
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import profile, table_router

from msat_core import AptitudeTest, CompactScorer, ConfigurationError, Router, RoutingPolicy, TableScorer, Zoo
from msat_core.encoders.hashed import HashEncoder
from msat_core.routing.repeats import Repeats


def router_with(size: int = 8) -> tuple[Router, TableScorer]:
    scorer = TableScorer()
    return Router(scorer, table_router().zoo, repeats=size), scorer


async def test_a_repeated_instruction_is_scored_once() -> None:
    router, scorer = router_with()
    first = router.route("Hello")
    assert router.route("Hello") == first == await router.aroute("Hello")
    assert router.route_batch(["Hello", "New", "Hello", "New"])[::2] == [first, first]
    assert scorer.calls == [("Hello",), ("New",)]
    router.route("hello")
    assert scorer.calls[-1] == ("hello",)  # to the letter
    plain = table_router()
    assert [plain.route("Hello"), plain.route("Hello")] == [first, first]
    assert isinstance(plain.scorer, TableScorer) and len(plain.scorer.calls) == 2  # off unless asked for


def test_another_policy_chooses_anew_from_the_same_scores() -> None:
    router, scorer = router_with()
    assert router.route("Hello").candidate == "good"
    assert router.route("Hello", policy=RoutingPolicy(deny=frozenset({"good"}))).candidate == "fair"
    router.policy = RoutingPolicy(allow=frozenset({"poor"}))
    assert router.route("Hello").candidate == "poor"
    assert len(scorer.calls) == 1


def test_another_zoo_is_scored_anew() -> None:
    router, scorer = router_with()
    router.route("Hello")
    router.zoo.add(profile("best", 0.9))
    assert router.route("Hello").candidate == "best"
    router.zoo.remove("best")
    router.zoo.add(profile("best", 0.1))
    assert (router.route("Hello").candidate, router.route("Hello").scores["best"]) == ("good", 0.1)
    router.zoo = Zoo.of([profile("good", 0.3)])
    assert router.route("Hello").score == pytest.approx(0.3)
    assert len(scorer.calls) == 4


def test_what_was_learnt_and_new_exams_are_in_the_next_score(trained: tuple[CompactScorer, AptitudeTest]) -> None:
    scorer, test = trained
    zoo = Zoo.of([profile("a", 0.6), profile("b", 0.5)])
    kept, plain = Router(scorer, zoo, repeats=8), Router(scorer, zoo)
    text = "equation polynomial root"
    before = kept.route(text)
    for outcome in (1.0, 0.0, 0.0):
        for router in (kept, plain):
            router.record(text, "a", outcome, source="test")
        assert kept.route(text).scores == pytest.approx(plain.route(text).scores, abs=2e-6)
    assert kept.route(text).scores != before.scores
    fresh = CompactScorer(scorer.config, scorer.kernel, encoder=HashEncoder)
    router = Router(fresh, zoo, repeats=8)
    router.route(text)
    assert router._rows.repeats.get(text, router._rows.state) is not None
    assert fresh.add_exam(test.exam) and router._rows.repeats.get(text, router._rows.state) is None


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 1)), max_size=40), st.integers(0, 4))
def test_it_is_an_lru_of_its_size(asked: list[tuple[int, int]], size: int) -> None:
    repeats: Repeats[tuple[int, int]] = Repeats(size)
    model: dict[int, int] = {}
    for text, state in asked:
        hit = model.get(text) == state and size > 0
        assert repeats.get(str(text), state) == ((text, state) if hit else None)
        if not hit:
            repeats.put(str(text), state, (text, state))
        model.pop(text, None)
        model[text] = state
        model = dict(list(model.items())[-size:]) if size else {}
        assert len(repeats) == len(model) <= size


def test_threads_and_tasks_share_it_while_the_zoo_changes() -> None:
    """Whoever is answered gets the scores of a zoo that there was, never of one that had gone before it asked."""
    router, _ = router_with(4)

    def ask(i: int) -> bool:
        accuracy = 0.3 + i % 50 / 100
        own = Router(TableScorer(), Zoo.of([profile("only", accuracy)]), repeats=2)
        router.route(f"text {i % 6}")
        first = own.route("x").score
        own.zoo.add(profile("only", accuracy / 2), replace=True)
        return own.route("x").score == pytest.approx(accuracy / 2) and first == pytest.approx(accuracy)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(200)))

    async def tasks() -> list[str]:
        return [d.candidate for d in await asyncio.gather(*(router.aroute(f"text {i % 6}") for i in range(60)))]

    assert asyncio.run(tasks()) == ["good"] * 60


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_finds_it_open() -> None:
    router, _ = router_with()
    router.route("Hello")
    with router._rows.repeats._lock:  # as if another thread held it
        child = os.fork()
        if not child:
            os._exit(0 if router.route("Hello").candidate == "good" else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_another_process_begins_with_nothing_and_sizes_are_checked() -> None:
    router, scorer = router_with()
    router.route("Hello")
    again: Router = pickle.loads(pickle.dumps(router))
    assert len(again._rows.repeats) == 0 and again._rows.repeats.size == 8
    again.route("Hello")
    assert isinstance(again.scorer, TableScorer) and again.scorer.calls == [*scorer.calls, ("Hello",)]
    with pytest.raises(ConfigurationError, match=r"repeats.* -1"):
        Router(TableScorer(), router.zoo, repeats=-1)


def test_a_score_that_was_begun_before_a_change_is_not_given_after_it() -> None:
    class Slow(TableScorer):
        def score(self, instructions: Sequence[str], profiles: Sequence[object]) -> object:  # type: ignore[override]
            scores = super().score(instructions, profiles)  # type: ignore[arg-type]
            if len(self.calls) == 1:
                router.zoo.add(profile("new", 0.95))  # in the middle of it
            return scores

    router = Router(Slow(), Zoo.of([profile("old", 0.5)]), repeats=4)
    assert set(router.route("Hello").scores) == {"old"}
    assert router.route("Hello").candidate == "new"
    np.testing.assert_allclose(list(router.route("Hello").scores.values()), [0.5, 0.95])
