"""Running `msat` in a test, and a records folder for it."""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from msat_core import Records
from msat_core.cli import main


def msat(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """(exit code, standard output, standard error) of one command."""
    sys.argv = ["msat", *arguments]
    code = 0
    try:
        main()
    except SystemExit as stop:
        code = int(stop.code or 0)
    found = capsys.readouterr()
    return code, found.out, found.err


def written(records: Records, folder: Path) -> Path:
    folder.mkdir(parents=True)
    items = {"item_id": records.item_ids, "task": records.tasks, "instruction": records.instructions}
    pq.write_table(pa.table({key: list(values) for key, values in items.items()}), folder / "items.parquet")
    rows = [
        {"model": name, "item_id": item, "score": float(score), "output_chars": 200}
        for name, row in zip(records.candidates, records.outcomes, strict=True)
        for item, score in zip(records.item_ids, row, strict=True)
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "outcomes.parquet")
    return folder
