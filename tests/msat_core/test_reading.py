"""Files that others wrote: refused in one sentence, or counted row by row; never a traceback, never a hang."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import profile

from msat_core import (
    ArtefactError,
    ConfigurationError,
    Exam,
    MsatError,
    PolicyError,
    Records,
    Router,
    RoutingPolicy,
    TableScorer,
    Zoo,
    import_records,
)
from msat_core.importers.importing import Format
from msat_core.reading import parse_json, read_bytes

GOOD = {"model": "m", "item_id": "1", "score": 1, "instruction": "Which is it?"}


@pytest.mark.parametrize(
    "text",
    [
        "[NaN]",
        "[1e999]",
        '{"a": 1, "a": 1}',
        '"\\ud800"',
        "[" * 300 + "]" * 300,
        "[" * 100_000,
        "[" + "9" * 5000 + "]",
        "",
    ],
)
def test_json_that_two_readers_read_differently_is_none(text: str) -> None:
    with pytest.raises(ValueError):
        parse_json(text)


@pytest.mark.parametrize("load", [Zoo.load, RoutingPolicy.load, Exam.load, Records.load])
@pytest.mark.parametrize("what", ["pipe", "loop", "device", "deep", "folder"])
def test_odd_files_neither_hang_nor_leak_an_error(load: Callable[[Path], Any], what: str, tmp_path: Path) -> None:
    folder = tmp_path / "there"
    folder.mkdir()
    for name in ("exam.json", "items.jsonl", "outcomes.jsonl") if load in (Exam.load, Records.load) else ("file.json",):
        place = folder / name
        if what == "pipe":
            os.mkfifo(place)
        elif what == "loop":
            place.symlink_to(place)
        elif what == "device":
            place.symlink_to("/dev/zero")
        elif what == "folder":
            place.mkdir()
        else:
            place.write_text('{"a":' * 50_000)
    with pytest.raises(MsatError):
        load(folder if load in (Exam.load, Records.load) else folder / "file.json")


def test_a_version_is_a_number(tmp_path: Path) -> None:
    data = json.loads(profile("a").to_json())
    for version in (True, 1.5, "1"):
        with pytest.raises(MsatError, match="version"):
            type(profile("a")).from_json(json.dumps({**data, "version": version}))


def test_a_size_is_bounded(tmp_path: Path) -> None:
    place = tmp_path / "large"
    with place.open("wb") as file:
        file.truncate(1 << 40)  # takes no room
    with pytest.raises(OSError, match="more than"):
        read_bytes(place)


@pytest.mark.parametrize(
    ("format", "name", "line"),
    [
        ("jsonl", "a.jsonl", {**GOOD, "item_id": "2", "instruction": "half \ud800"}),
        ("jsonl", "a.jsonl", {**GOOD, "item_id": "2", "score": 10**400}),
        ("jsonl", "a.jsonl", "[" * 100_000),
        ("jsonl", "a.jsonl", '{"score": NaN}'),
    ],
)
def test_a_bad_row_is_counted_and_the_others_kept(format: Format, name: str, line: Any, tmp_path: Path) -> None:
    text = line if isinstance(line, str) else json.dumps(line)
    (tmp_path / name).write_text(f"{json.dumps(GOOD)}\n{text}\n")
    report = import_records(tmp_path / name, tmp_path / "out", format)
    assert (report.n_outcomes, report.n_bad) == (1, 1)
    assert len(Records.load(tmp_path / "out")) == 1


@pytest.mark.parametrize("content", [b"PK\x03\x04 no more", b""])
def test_a_zip_file_that_is_none_leaves_nothing(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(MsatError):
        import_records(tmp_path / "a.zip", tmp_path / "out", "mmlu-pro")
    assert not any((tmp_path / "out").iterdir()) if (tmp_path / "out").exists() else True


def test_deep_nesting_costs_the_importer_no_memory(tmp_path: Path) -> None:
    (tmp_path / "model_outputs_m_5shots.json").write_text("[" * 100_000)
    with pytest.raises(MsatError, match="nested"):
        import_records(tmp_path, tmp_path / "out", "mmlu-pro")


def test_a_zip_bomb_is_refused(tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model_outputs_m_5shots.json", "[" + " " * 30_000_000)
    with pytest.raises(MsatError, match="packed"):
        import_records(tmp_path / "a.zip", tmp_path / "out", "mmlu-pro")


def test_every_shipped_exam_names_its_embeddings() -> None:
    from msat_core import pretrained

    assert all(Exam.load(folder).sheet.embeddings_sha256 for folder in pretrained.EXAMS)


def test_only_rows_that_were_left_out_are_no_records(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("sample_id,prompt,eval_name,m,m|total_cost\n1,q,e,,0\n")
    with pytest.raises(MsatError, match="left out: no outcome of m"):
        import_records(tmp_path, tmp_path / "out", "routerbench")


def test_an_exams_embeddings_are_those_it_names(tmp_path: Path) -> None:
    from msat_core import pretrained

    shutil.copytree(pretrained.EXAM, tmp_path / "exam")
    whole = Exam.load(tmp_path / "exam")
    rolled = {key: np.roll(rows, 1, axis=0) for key, rows in whole.embeddings.items()}
    Exam(whole.sheet, rolled).save(tmp_path / "rolled")
    shutil.copy(tmp_path / "rolled" / "shot_embeddings.safetensors", tmp_path / "exam")
    with pytest.raises(ArtefactError, match="bytes"):
        Exam.load(tmp_path / "exam")
    (tmp_path / "exam" / "shot_embeddings.safetensors").unlink()
    with pytest.raises(ArtefactError):
        Exam.load(tmp_path / "exam")
    assert Exam.load(tmp_path / "rolled").digest == whole.digest  # the questions alone name an exam


@pytest.mark.parametrize("setting", [{"allow": {"Alpha"}}, {"deny": {"alfa"}}, {"default": "ALPHA"}])
def test_a_policy_that_names_nobody_is_an_error(setting: dict[str, Any]) -> None:
    zoo = Zoo.of([profile("alpha"), profile("beta")])
    scorer = TableScorer()
    with pytest.raises(PolicyError, match="did you mean alpha"):
        Router(scorer, zoo, RoutingPolicy(**setting))
    with pytest.raises(PolicyError, match="did you mean alpha"):
        Router(scorer, zoo).route("Which?", policy=RoutingPolicy(**setting))


def test_a_name_stays_right_when_its_candidate_leaves() -> None:
    zoo = Zoo.of([profile("alpha"), profile("beta")])
    router = Router(TableScorer(), zoo, RoutingPolicy(deny={"alpha"}))
    zoo.remove("alpha")
    assert router.route("Which?").candidate == "beta"
    assert router.route("Which?", policy=RoutingPolicy(deny={"alpha"})).candidate == "beta"


def test_a_generator_is_a_batch() -> None:
    zoo = Zoo.of([profile("alpha")])
    router = Router(TableScorer(), zoo)
    assert len(router.route_batch(text for text in ("Which?", "Whose?"))) == 2  # type: ignore[arg-type]


def test_a_zoo_that_is_none_is_one_sentence() -> None:
    with pytest.raises(ConfigurationError, match="Zoo"):
        Router.from_pretrained(zoo=[3])  # type: ignore[list-item]
    assert Router.from_pretrained(zoo=["mathstral-7B"]).zoo.names == ("mathstral-7B",)


def test_a_calls_policy_stays_within_the_routers_limits() -> None:
    limits = RoutingPolicy(max_usd=0.01, allow={"a", "b"}, deny={"c"}, default="a")
    loose = RoutingPolicy(objective="target", target=0.5, max_usd=5, allow={"b", "z"}, default="z", unpriced="allow")
    both = loose.within(limits)
    assert (both.objective, both.target) == ("target", 0.5)
    assert (both.max_usd, both.allow, both.deny) == (0.01, frozenset({"b"}), frozenset({"c"}))
    assert (both.default, both.unpriced) == ("a", "exclude")
    assert RoutingPolicy(max_usd=0.001).within(limits).max_usd == 0.001
