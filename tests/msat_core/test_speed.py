from __future__ import annotations

import threading

import numpy as np
import pytest

from msat_core import AptitudeTest, CompactScorer, Records, Router, Zoo
from msat_core.encoders.folder import EncoderFiles
from msat_core.encoders.tokens import Tokens
from msat_core.evaluation.speed import bench
from msat_core.evaluation.speed.callers import throughput_rows, waiting_rows
from msat_core.evaluation.speed.peers import torch_forward
from msat_core.evaluation.speed.timing import rows_of, take_turns
from msat_core.pretrained import ENCODER


@pytest.fixture
def router(trained: tuple[CompactScorer, AptitudeTest], records: Records) -> Router:
    scorer, test = trained
    return Router(scorer, Zoo.of(test.profile_from_records(records, name) for name in records.candidates))


def test_calls_take_turns() -> None:
    order: list[str] = []
    times = take_turns({name: (lambda name=name: order.append(name)) for name in "ab"}, 3)  # type: ignore[misc]
    assert order == list("ab") * 5  # two rounds to warm up
    assert {name: len(one) for name, one in times.items()} == {"a": 3, "b": 3}
    wait = threading.Event().wait
    first, second = rows_of("s", "n", {"short": lambda: wait(0.002), "long": lambda: wait(0.02)}, 5)
    assert first.ratio == 1 and second.ratio > 2
    assert first.p50_ms <= first.p99_ms


def test_many_callers_get_what_one_batch_gets(router: Router) -> None:
    routed: list[str] = []
    route, aroute, route_batch = router.route, router.aroute, router.route_batch
    texts = [f"question {i}" for i in range(80)]

    class Counting:
        def route(self, text: str) -> object:
            routed.append(text)
            return route(text)

        async def aroute(self, text: str) -> object:
            routed.append(text)
            return await aroute(text)

        def route_batch(self, many: list[str]) -> object:
            routed.extend(many)
            return route_batch(many)

    rows = throughput_rows(Counting(), texts, 1)  # type: ignore[arg-type]
    assert [row.what for row in rows] == ["one batch", "64 threads", "64 tasks"]
    assert sorted(routed) == sorted(texts * 9)  # each call routes each text once, in each of three rounds
    alone, beside = waiting_rows(router, "short", "long " * 300, 5)
    assert alone.ratio == 1 and beside.p99_ms > 0


def test_texts_are_as_long_as_they_say() -> None:
    files = EncoderFiles.load(ENCODER)
    tokens = Tokens(files.tokenizer, max_length=256, tail_share=0.25)
    rows, cut = tokens.read([bench.text_of(n) for n in bench.LENGTHS])
    assert tuple(map(len, rows)) == bench.LENGTHS and not cut.any()


def test_the_bare_forward_is_of_the_same_encoder(shipped: Router) -> None:
    scorer = shipped.scorer
    assert isinstance(scorer, CompactScorer)
    forward = torch_forward(EncoderFiles.load(ENCODER), "cpu")
    texts = [bench.text_of(16), bench.text_of(64)]
    np.testing.assert_allclose(np.asarray(forward(texts)), scorer.encoder.encode(texts).vectors, atol=1e-5)


def test_the_bench_has_every_section(shipped: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    """In small: one length, one round, and no process of its own."""
    monkeypatch.setattr(bench, "LENGTHS", (16,))
    monkeypatch.setattr(bench, "BATCH", 3)
    monkeypatch.setattr(bench, "ZOO_SIZES", (2, 4))
    monkeypatch.setattr(bench, "installed", lambda library: library == "torch")
    monkeypatch.setattr(bench, "_run", lambda code: lambda: None)
    monkeypatch.setattr(Router, "from_pretrained", lambda device=None: shipped)
    told: list[str] = []
    rows = bench.run_bench(2, tell=told.append)
    assert list(dict.fromkeys(row.section for row in rows)) == [
        "one text",
        "batch",
        "zoo",
        "callers",
        "waiting (ratio of p99)",
        "cold start",
    ]
    assert [row.what for row in rows if row.section == "one text"] == ["torch forward, fp32", "our encoder", "route"]
    assert all(np.isfinite([row.p50_ms, row.p99_ms]).all() for row in rows)
    assert len(told) == 5
