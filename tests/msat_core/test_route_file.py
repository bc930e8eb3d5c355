"""Files of instructions, routed in parts: what is read and written, what a cut run keeps, who is refused."""

from __future__ import annotations

import gzip
import json
import re
import sys
import tracemalloc
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import msat
from support import table_router

from msat_core import CapabilityProfile, ConfigurationError, RecordsError, Router, RoutingPolicy, Scores, route_file
from msat_core.bulk import text_files
from msat_core.bulk.input import Input
from msat_core.bulk.job import MANIFEST
from msat_core.errors import FileError
from msat_core.scoring.table_scorer import TableScorer

TEXTS = ["What is 2 + 2?", "Prove that √2 is irrational.", "Say hello.", 'A "quoted" line,\nand another one.'] * 3


def written(path: Path, rows: Sequence[Any]) -> Path:
    data = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def jsonl(path: Path, texts: Sequence[str] = TEXTS) -> Path:
    return written(path, [{"id": f"q{i}", "instruction": text} for i, text in enumerate(texts)])


def rows_in(folder: Path) -> list[dict[str, Any]]:
    """The rows of all parts, in the order of their names."""
    lines = [line for part in sorted(folder.glob("part-*.jsonl")) for line in part.read_text().splitlines()]
    tables = [pq.ParquetFile(part).read().to_pylist() for part in sorted(folder.glob("part-*.parquet"))]
    return [json.loads(line) for line in lines] + [row for table in tables for row in table]


def test_every_row_comes_out_once_and_as_the_router_says(tmp_path: Path) -> None:
    table = {text: {"good": 0.1, "fair": 0.9, "poor": 0.2} for text in TEXTS[:1]}
    router = table_router(table)
    result = route_file(jsonl(tmp_path / "in.jsonl"), tmp_path / "out", router, part_rows=5, top_scores=2, reasons=True)
    assert (result.n_rows, result.n_parts, result.n_parts_before, result.n_failed) == (12, 3, 0, 0)
    assert result.candidates == {"good": 9, "fair": 3}
    rows = rows_in(tmp_path / "out")
    assert [row["row"] for row in rows] == list(range(12)) and [row["id"] for row in rows] == [
        f"q{i}" for i in range(12)
    ]
    for row, text in zip(rows, TEXTS, strict=True):
        decision = router.route(text)
        assert (row["candidate"], row["score"], row["reason"]) == (decision.candidate, decision.score, decision.reason)
        assert row["cost_usd"] == decision.costs_usd[decision.candidate] and row["error"] is None
        assert list(row["scores"].items()) == sorted(decision.scores.items(), key=lambda pair: -pair[1])[:2]


def test_all_formats_give_the_same(tmp_path: Path) -> None:
    router = table_router()
    jsonl(tmp_path / "a.jsonl")
    jsonl(tmp_path / "b.jsonl.gz")
    cells = ['q{},"{}"'.format(i, text.replace('"', '""')) for i, text in enumerate(TEXTS)]
    written(tmp_path / "c.csv", ["id,instruction", *cells])
    written(tmp_path / "d.csv.gz", ["﻿id,instruction", *cells])
    columns = {"instruction": TEXTS, "id": [f"q{i}" for i in range(len(TEXTS))], "other": [1.5] * len(TEXTS)}
    pq.write_table(pa.table(columns), tmp_path / "e.parquet", row_group_size=7)
    found = {}
    for source in sorted(tmp_path.glob("?.*")):
        route_file(source, tmp_path / f"out-{source.name}", router, part_rows=5)
        found[source.name] = rows_in(tmp_path / f"out-{source.name}")
    expected = found.pop("a.jsonl")
    for row in found["e.parquet"]:
        row["scores"] = dict(row["scores"])
    assert len(expected) == len(TEXTS) and all(rows == expected for rows in found.values())


def test_a_folder_is_one_run_of_rows_and_columns_have_other_names(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name, ids in (("a", [1, 2]), ("b", [3])):
        table = pa.table({"key": pa.array(ids, pa.int32()), "prompt": TEXTS[: len(ids)]})
        pq.write_table(table, tmp_path / "in" / f"{name}.parquet")
    columns = {"instruction": "prompt", "id": "key"}
    result = route_file(tmp_path / "in", tmp_path / "out", table_router(), columns=columns)
    assert (result.n_rows, result.n_parts) == (3, 2)
    assert [(row["row"], row["id"]) for row in rows_in(tmp_path / "out")] == [(0, 1), (1, 2), (2, 3)]
    assert pq.ParquetFile(tmp_path / "out" / "part-000001.parquet").schema_arrow.field("id").type == pa.int32()
    assert pq.read_table(tmp_path / "out").num_rows == 3  # the manifest is no part


def test_a_row_that_cannot_be_routed_says_why(tmp_path: Path) -> None:
    rows = [{"instruction": "Hello"}, "nonsense", "", "[1]", {"instruction": " "}, {"instruction": 3}, {"other": 1}]
    result = route_file(written(tmp_path / "in.jsonl", rows), tmp_path / "out", table_router())
    assert (result.n_rows, result.n_failed, result.candidates) == (6, 5, {"good": 1})
    found = rows_in(tmp_path / "out")
    assert "id" not in found[0] and [row["candidate"] for row in found] == ["good", *[None] * 5]
    for row, words in zip(
        found[1:], ("not JSON", "not a JSON object", "is empty", "got int", "got NoneType"), strict=True
    ):
        assert words in row["error"]
    written(tmp_path / "in.csv", ["instruction,n", "Hello,1", "Hello", '"Hello'])
    route_file(tmp_path / "in.csv", tmp_path / "csv", table_router())
    assert [row["error"] for row in rows_in(tmp_path / "csv")] == [None, *["1 cells under 2 columns"] * 2]
    strict = table_router(policy=RoutingPolicy(max_usd=0.1))
    route_file(tmp_path / "in.csv", tmp_path / "strict", strict)
    assert all("No candidate is within" in row["error"] for row in rows_in(tmp_path / "strict")[:1])


def test_a_row_without_end_is_one_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_files, "MOST_LINE", 100)
    long = json.dumps({"instruction": "x" * 250})
    route_file(
        written(tmp_path / "in.jsonl", [{"instruction": "a"}, long, {"instruction": "b"}]),
        tmp_path / "out",
        table_router(),
    )
    assert [row["error"] for row in rows_in(tmp_path / "out")] == [None, "the row is longer than 100 bytes", None]


class Failing(TableScorer):
    """Fails for good at the text that is poison, as a process does that is killed there."""

    poison = TEXTS[2]

    def score(self, instructions: Sequence[str], profiles: Sequence[CapabilityProfile]) -> Scores:
        if self.poison in instructions:
            raise KeyboardInterrupt
        return super().score(instructions, profiles)


def failing_router(poison: str) -> Router:
    scorer = Failing()
    scorer.poison = poison
    return Router(scorer, table_router().zoo)


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "parquet"])
def test_a_cut_run_goes_on_where_it_stopped(tmp_path: Path, kind: str) -> None:
    texts = [f"Question {i}" for i in range(23)]
    source = tmp_path / f"in.{kind}"
    if kind == "parquet":
        pq.write_table(pa.table({"instruction": texts}), source, row_group_size=11)
    else:
        jsonl(source, texts)
    with pytest.raises(KeyboardInterrupt):
        route_file(source, tmp_path / "out", failing_router(texts[12]), part_rows=4)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("part-*")}
    assert len(before) == 3 and not (tmp_path / "out" / "_SUCCESS").exists()
    (tmp_path / "out" / ".0.aside").write_text("half")  # what kill -9 leaves
    result = route_file(source, tmp_path / "out", failing_router(""), part_rows=4)
    assert result.n_parts_before == 3 and result.n_rows == 23
    assert before.items() <= {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("part-*")}.items()
    whole = route_file(source, tmp_path / "whole", failing_router(""), part_rows=4)
    for path in (tmp_path / "whole").glob("part-*"):
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()
    assert not list((tmp_path / "out").glob(".*")) and whole.candidates == result.candidates


def test_another_job_is_refused(tmp_path: Path) -> None:
    source, out = jsonl(tmp_path / "in.jsonl"), tmp_path / "out"
    route_file(source, out, table_router(), part_rows=5)
    zoo = table_router(candidates=table_router().zoo.candidates[:2])
    changes: list[tuple[str, dict[str, Any]]] = [
        ("policy", {"router": table_router(policy=RoutingPolicy(deny=frozenset({"good"})))}),
        ("zoo", {"router": zoo}),
        ("settings", {"part_rows": 6}),
        ("settings", {"reasons": True}),
    ]
    for difference, change in changes:
        with pytest.raises(FileError, match=f"another job, which differs in {difference}: name another folder"):
            route_file(source, out, **{"router": table_router(), "part_rows": 5, **change})
    jsonl(source, [*TEXTS, "One more."])
    with pytest.raises(FileError, match="differs in input: name"):
        route_file(source, out, table_router(), part_rows=5)
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "letter.txt").write_text("Dear")
    with pytest.raises(FileError, match="already holds something else"):
        route_file(source, tmp_path / "else", table_router())
    (out / MANIFEST).write_text("{}")
    with pytest.raises(FileError, match="expected a JSON object of kind 'routed-files'"):
        route_file(source, out, table_router(), part_rows=5)


def test_two_runs_at_once_are_refused(tmp_path: Path) -> None:
    source, out = jsonl(tmp_path / "in.jsonl"), tmp_path / "out"

    class Nested(TableScorer):
        def score(self, instructions: Sequence[str], profiles: Sequence[CapabilityProfile]) -> Scores:
            with pytest.raises(FileError, match="in use by another run"):
                route_file(source, out, Router(TableScorer(), zoo))
            return super().score(instructions, profiles)

    zoo = table_router().zoo
    Nested.__name__ = "TableScorer"  # the same digest
    assert route_file(source, out, Router(Nested(), zoo)).n_rows == 12


def test_wrong_inputs_are_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = jsonl(tmp_path / "in.jsonl")
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(good.read_bytes())[:-20])
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no")
    (tmp_path / "empty.csv").touch()
    written(tmp_path / "words.jsonl", ["a", "b"])
    (tmp_path / "notes.txt").write_text("x")
    wrong: list[tuple[str, dict[str, str], str]] = [
        ("none.jsonl", {}, "neither a file nor a folder with files"),
        ("cut.jsonl.gz", {}, "cannot be read"),
        ("bad.parquet", {}, "cannot be read"),
        ("empty.csv", {}, "is empty"),
        ("words.jsonl", {}, "none of its first lines is a JSON object"),
        ("notes.txt", {}, "is none of .jsonl"),
        ("in.jsonl", {"instruction": "prompt"}, "has no column 'prompt', it has id, instruction"),
        ("in.jsonl", {"text": "prompt"}, "There is no field 'text'"),
    ]
    for name, columns, words in wrong:
        with pytest.raises((RecordsError, ConfigurationError), match=re.escape(words)):
            route_file(tmp_path / name, tmp_path / "out", table_router(), columns=columns)
        assert not (tmp_path / "out").exists()
    code, _, said = msat(capsys, "route-file", str(good), "--map", "id=key", "--out", str(tmp_path / "out"))
    assert code == 2 and "has no column 'key'" in said and len(said.strip().splitlines()) == 1


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = jsonl(tmp_path / "in.jsonl")
    pq.write_table(pa.table({"instruction": TEXTS}), tmp_path / "in.parquet")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigurationError, match=r"needs `ray`: pip install \"model-sat-router\[ray\]\""):
        route_file(source, tmp_path / "out", table_router(), ray=True)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    route_file(source, tmp_path / "plain", table_router())
    with pytest.raises(ConfigurationError, match=r"Parquet needs `pyarrow`: pip install \"model-sat-router\[eval\]\""):
        route_file(tmp_path / "in.parquet", tmp_path / "table", table_router())


def test_an_input_that_changes_meanwhile_is_refused(tmp_path: Path) -> None:
    source = jsonl(tmp_path / "in.jsonl")
    with closing(Input.open(source, {}, 5)) as given:
        parts = list(given.plan(5))
        source.write_bytes(source.read_bytes()[:100])
        with pytest.raises(RecordsError, match="has changed while it was routed"):
            given.read(parts[-1])


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".csv"])
def test_reading_holds_one_part_at_a_time(tmp_path: Path, suffix: str) -> None:
    text = "why " * 250
    rows = [f"{i},{text}" for i in range(2_000)] if suffix == ".csv" else [{"instruction": text}] * 2_000
    source = written(tmp_path / f"in{suffix}", ["id,instruction", *rows] if suffix == ".csv" else rows)
    tracemalloc.start()
    with closing(Input.open(source, {}, 50)) as given:
        n_rows = sum(len(given.read(part)) for part in list(given.plan(50)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert n_rows == 2_000 and peak < 0.5e6  # of 2 MB


def test_the_command_routes_with_the_shipped_router(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = jsonl(tmp_path / "in.jsonl")
    code, said, _ = msat(
        capsys, "route-file", str(source), "--out", str(tmp_path / "out"), "--json", "--top-scores", "1"
    )
    result = json.loads(said)
    assert code == 0 and result["n_rows"] == 12 and sum(result["candidates"].values()) == 12
    assert all(len(row["scores"]) == 1 for row in rows_in(tmp_path / "out"))
    code, said, _ = msat(capsys, "route-file", str(source), "--out", str(tmp_path / "out"), "--top-scores", "1")
    assert code == 0 and "12 rows in 1 parts" in said
    code, _, said = msat(capsys, "route-file", str(source), "--out", str(tmp_path / "out"))
    assert code == 2 and "differs in settings" in said
