"""What may be trained on: never an exam's questions, by text."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

from msat_core import pretrained
from msat_core.errors import RecordsError
from msat_core.exam import Exam
from msat_core.reading import read_columns
from msat_core.records import Records


def training_items(records: Records, exams: Iterable[Exam] = (), item_ids: Collection[str] = ()) -> Records:
    """The records without the items of the shipped exams, of the given ones, and of the given ids; all by text."""
    shipped = (Exam.load(folder) for folder in pretrained.EXAMS if folder.is_dir())
    texts = set().union(*(exam.text_hashes for exam in [*shipped, *exams]))
    ids = set(item_ids)
    texts |= {text for item, text in zip(records.item_ids, records.text_sha256, strict=True) if item in ids}
    return records.without_texts(texts)


def items_listed_in(path: Path) -> set[str]:
    """The ``item_id`` column of a Parquet, CSV or JSONL table. Raises RecordsError if there is none."""
    try:
        return {str(item) for item in read_columns(path, ["item_id"])["item_id"]}
    except (OSError, ValueError) as error:
        raise RecordsError(f"{path} cannot be read as a table with an item_id column ({error}).") from None
