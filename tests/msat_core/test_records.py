from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from msat_core import Records
from msat_core.errors import RecordsError
from msat_core.texts import normalised, text_sha256

ITEMS = [
    {"item_id": "a", "task": "t", "instruction": "What is 1 + 1?\nA. 2\nB. 3"},
    {"item_id": "b", "task": "t", "instruction": "What is 5 times 7?"},
    {"item_id": "c", "task": "u", "instruction": "What is 1 + 1?\n(A) 7\n(B) 2"},
]
OUTCOMES = [
    {"model": "m", "item_id": "a", "score": 1.0, "output_chars": 10},
    {"model": "m", "item_id": "b", "score": 0.0, "output_chars": 20},
    {"model": "n", "item_id": "c", "score": 0.5, "output_chars": 30},
]


def write(folder: Path, items: list[dict[str, Any]], outcomes: list[dict[str, Any]], kind: str = "jsonl") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (("items", items), ("outcomes", outcomes)):
        if kind == "jsonl":
            (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        else:
            pq.write_table(pa.Table.from_pylist(rows), folder / f"{name}.parquet")
    return folder


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_matrix_keeps_unknown_unknown(tmp_path: Path, kind: str) -> None:
    records = Records.load(write(tmp_path / "bench", ITEMS, OUTCOMES, kind))
    assert records.candidates == ("m", "n")
    assert records.benchmarks == ("bench",) * 3
    expected = np.array([[1, 0, np.nan], [np.nan, np.nan, 0.5]], dtype=np.float32)
    np.testing.assert_array_equal(records.outcomes, expected)
    assert records.twins() == [("a", "c")]  # options do not count, punctuation neither
    assert len(records.known_to_all()) == 0
    assert records.without_texts([text_sha256("What is 1+1?")]).item_ids == ("b",)


def test_folder_of_folders_is_read_as_one(tmp_path: Path) -> None:
    write(tmp_path / "x", ITEMS[:2], OUTCOMES[:2])
    write(tmp_path / "y", ITEMS[2:], OUTCOMES[2:], "parquet")
    records = Records.load(tmp_path)
    assert records.benchmarks == ("x", "x", "y")
    assert np.isnan(records.outcomes[1, :2]).all()
    assert records.outcomes[1, 2] == 0.5


def changed(rows: list[dict[str, Any]], at: int, **fields: Any) -> list[dict[str, Any]]:
    return [{**row, **fields} if i == at else row for i, row in enumerate(rows)]


@pytest.mark.parametrize(
    ("items", "outcomes", "sentence"),
    [
        (changed(ITEMS, 1, item_id="a"), OUTCOMES, r"items.*row 1: item_id 'a' was already used in row 0"),
        (ITEMS, changed(OUTCOMES, 1, item_id="a"), r"outcomes.*row 1: a second outcome of 'm' on item 'a'"),
        (ITEMS, changed(OUTCOMES, 2, item_id="zz"), r"outcomes.*row 2: item_id 'zz' is not in the items"),
        (ITEMS, changed(OUTCOMES, 0, score=1.5), r"outcomes.*row 0: score 1.5 lies outside"),
        (ITEMS, changed(OUTCOMES, 0, score=None), r"outcomes.*row 0: score None lies outside"),
        (changed(ITEMS, 2, instruction="  "), OUTCOMES, r"items.*row 2: instruction is '  '"),
        ([{k: v for k, v in row.items() if k != "task"} for row in ITEMS], OUTCOMES, r"items.*lacks the column 'task'"),
    ],
)
@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_each_mistake_names_file_and_row(
    tmp_path: Path, items: list[dict[str, Any]], outcomes: list[dict[str, Any]], sentence: str, kind: str
) -> None:
    with pytest.raises(RecordsError, match=sentence):
        Records.load(write(tmp_path, items, outcomes, kind))


def test_missing_tables_and_broken_files(tmp_path: Path) -> None:
    with pytest.raises(RecordsError, match="holds no records"):
        Records.load(tmp_path)
    with pytest.raises(RecordsError, match="is not a folder"):
        Records.load(tmp_path / "none")
    write(tmp_path, ITEMS, OUTCOMES)
    (tmp_path / "outcomes.jsonl").write_text("{broken\n")
    with pytest.raises(RecordsError, match=r"outcomes.jsonl cannot be read"):
        Records.load(tmp_path)


def test_same_item_id_in_two_folders_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "x", ITEMS, OUTCOMES)
    write(tmp_path / "y", ITEMS, OUTCOMES)
    with pytest.raises(RecordsError, match="Item id 'a' is used in"):
        Records.load(tmp_path)


def test_normal_form() -> None:
    assert normalised("Which is IT?\nA. one\nB. two") == normalised("which, is it\n(A) three\n(B) four")
    assert normalised("A. only\nB. options") != ""
    assert text_sha256("???") != text_sha256("!!!")


def test_the_real_records_load(real_records: Records) -> None:
    assert len(real_records) > 10_000
    known = ~np.isnan(real_records.outcomes)
    assert real_records.outcomes[known].min() >= 0
    assert real_records.outcomes[known].max() <= 1
    assert len(real_records.twins()) > 100
