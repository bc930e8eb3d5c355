"""Records: which candidate got which question right.

A records folder holds two tables, ``items`` and ``outcomes``, each as ``.parquet`` or ``.jsonl``
(or is a folder of such folders, read as one):

========  =======================================================================================
items     item_id, task, instruction; optional: benchmark (default: the folder's name), category
outcomes  model, item_id, score in [0, 1]; optional: output_chars (length of the model's answer),
          consistent (1 if the answer stayed the same when the options were rotated, 0 if not)
========  =======================================================================================

A missing outcome is unknown: NaN in the matrix, never zero.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msat_core.errors import RecordsError, some_of
from msat_core.reading import read_columns
from msat_core.texts import text_sha256

MOST = 1e30  # a number of records
ITEM_COLUMNS = ("item_id", "task", "instruction")
OUTCOME_COLUMNS = ("model", "item_id", "score")
_ITEM_FIELDS = ("item_ids", "benchmarks", "tasks", "instructions", "text_sha256")


@dataclass(frozen=True)
class Records:
    """Items joined with outcomes. N items, M candidates.

    Attributes:
        item_ids, benchmarks, tasks, instructions: length N; item ids are unique.
        text_sha256: length N, hash of each normalised instruction (equal for textual twins).
        candidates: length M, the models' names.
        outcomes: float32 (M, N), scores in [0, 1]; NaN where unknown.
        output_chars: float32 (M, N), answer lengths in characters; NaN where unknown.
        consistent: float32 (M, N), whether the answer survived a rotation of the options; NaN where untested;
            None where nothing was.
    """

    item_ids: tuple[str, ...]
    benchmarks: tuple[str, ...]
    tasks: tuple[str, ...]
    instructions: tuple[str, ...]
    text_sha256: tuple[str, ...]
    candidates: tuple[str, ...]
    outcomes: NDArray[np.float32]
    output_chars: NDArray[np.float32]
    consistent: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.item_ids)

    @classmethod
    def load(cls, folder: str | Path, *, only: Collection[str] | None = None) -> Records:
        """Read and validate a records folder; of a folder of folders, all or only those of these names.

        Raises RecordsError naming the file and the row.
        """
        folder = Path(folder)
        parts = record_folders(folder)
        if only is not None:
            if missing := sorted({*only} - {part.name for part in parts}):
                raise RecordsError(f"{folder} has no records folder {missing[0]!r}: expected {', '.join(only)}.")
            parts = [part for part in parts if part.name in only]
        if not parts:
            raise RecordsError(
                f"{folder} holds no records: expected items and outcomes tables (.parquet or .jsonl) "
                "in it or in its subfolders."
            )
        loaded = [_load_one(part) for part in parts]
        return loaded[0] if len(loaded) == 1 else _merge(loaded, parts)

    def select_items(self, keep: NDArray[Any] | Sequence[int]) -> Records:
        """The items at the given positions (or of a boolean mask), all candidates."""
        rows = np.arange(len(self))[np.asarray(keep)] if len(np.asarray(keep)) else np.zeros(0, dtype=np.intp)
        take = {name: tuple(getattr(self, name)[i] for i in rows) for name in _ITEM_FIELDS}
        return replace(
            self,
            **take,
            outcomes=self.outcomes[:, rows],
            output_chars=self.output_chars[:, rows],
            consistent=None if self.consistent is None else self.consistent[:, rows],
        )

    def select_candidates(self, names: Iterable[str]) -> Records:
        """The named candidates in the given order, all items. Raises RecordsError for an unknown name."""
        names = tuple(names)
        position = {name: i for i, name in enumerate(self.candidates)}
        unknown = [name for name in names if name not in position]
        if unknown:
            near = difflib.get_close_matches(unknown[0], self.candidates)
            hint = f"did you mean {' or '.join(near)}?" if near else f"they know {some_of(self.candidates)}."
            raise RecordsError(f"The records have no outcomes of {unknown[0]!r}; {hint}")
        rows = [position[name] for name in names]
        return replace(
            self,
            candidates=names,
            outcomes=self.outcomes[rows],
            output_chars=self.output_chars[rows],
            consistent=None if self.consistent is None else self.consistent[rows],
        )

    def without_texts(self, hashes: Iterable[str]) -> Records:
        """The items whose normalised text is not among the given hashes."""
        excluded = frozenset(hashes)
        return self.select_items(np.array([digest not in excluded for digest in self.text_sha256], dtype=bool))

    def known_to_all(self) -> Records:
        """The items of which every candidate's outcome is known."""
        return self.select_items(np.asarray(~np.isnan(self.outcomes).any(axis=0)))

    def twins(self) -> list[tuple[str, ...]]:
        """Groups of item ids with the same normalised text, in order of appearance."""
        groups: dict[str, list[str]] = {}
        for item_id, digest in zip(self.item_ids, self.text_sha256, strict=True):
            groups.setdefault(digest, []).append(item_id)
        return [tuple(group) for group in groups.values() if len(group) > 1]


def record_folders(folder: Path) -> list[Path]:
    """The folder itself if it holds tables, else its subfolders that do, sorted by name."""
    if not os.path.isdir(folder):  # of a name that is too long, `Path.is_dir` raises
        raise RecordsError(f"{folder} is not a folder: expected one that holds items and outcomes tables.")
    return [p for p in [folder, *sorted(folder.iterdir())] if p.is_dir() and _has_tables(p)]


def _has_tables(folder: Path) -> bool:
    return any((folder / f"items.{suffix}").is_file() for suffix in ("parquet", "jsonl"))


def _load_one(folder: Path) -> Records:
    items_file, items = read_table(folder, "items", ITEM_COLUMNS)
    outcomes_file, outcomes = read_table(folder, "outcomes", OUTCOME_COLUMNS)
    ids = _texts(items_file, items, "item_id")
    row_of: dict[str, int] = {}
    for row, item_id in enumerate(ids):
        if item_id in row_of:
            raise RecordsError(
                f"{items_file}, row {row}: item_id {item_id!r} was already used in row {row_of[item_id]}: "
                "give every item one row."
            )
        row_of[item_id] = row
    instructions = _texts(items_file, items, "instruction")
    benchmarks = _texts(items_file, items, "benchmark") if "benchmark" in items else (folder.name,) * len(ids)
    names, matrix, chars, consistent = _matrix(outcomes_file, outcomes, row_of)
    hashes = tuple(text_sha256(text) for text in instructions)
    tasks = _texts(items_file, items, "task")
    return Records(ids, benchmarks, tasks, instructions, hashes, names, matrix, chars, consistent)


def _matrix(
    file: Path, table: dict[str, list[Any]], row_of: dict[str, int]
) -> tuple[tuple[str, ...], NDArray[np.float32], NDArray[np.float32], NDArray[np.float32] | None]:
    models, items = _texts(file, table, "model"), _texts(file, table, "item_id")
    names = tuple(dict.fromkeys(models))
    model_row = {name: i for i, name in enumerate(names)}
    rows = np.array([model_row[name] for name in models], dtype=np.intp)
    columns = np.array([row_of.get(item, -1) for item in items], dtype=np.intp)
    if len(unknown := np.flatnonzero(columns < 0)):
        raise RecordsError(
            f"{file}, row {unknown[0]}: item_id {table['item_id'][unknown[0]]!r} is not in the items table."
        )
    cells = rows * len(row_of) + columns
    order = np.argsort(cells, kind="stable")
    repeated = order[1:][cells[order][1:] == cells[order][:-1]]
    if len(repeated):
        row = int(repeated.min())
        raise RecordsError(
            f"{file}, row {row}: a second outcome of {models[row]!r} on item {table['item_id'][row]!r}: "
            "give every pair one row (average repeats first)."
        )
    scores = _numbers(file, table, "score")
    if len(outside := np.flatnonzero(~((scores >= 0) & (scores <= 1)))):
        raise RecordsError(
            f"{file}, row {outside[0]}: score {table['score'][outside[0]]!r} lies outside [0, 1]; "
            "leave the row out where the outcome is unknown."
        )
    matrix = np.full((len(names), len(row_of)), np.nan, dtype=np.float32)
    chars = matrix.copy()
    matrix[rows, columns] = scores
    if "output_chars" in table:
        chars[rows, columns] = _numbers(file, table, "output_chars")
    consistent = None
    if "consistent" in table:
        consistent = np.full(matrix.shape, np.nan, dtype=np.float32)
        consistent[rows, columns] = _numbers(file, table, "consistent")
    return names, matrix, chars, consistent


def read_table(folder: Path, name: str, required: tuple[str, ...]) -> tuple[Path, dict[str, list[Any]]]:
    """A records folder's table as (file, columns). Raises RecordsError if it is missing or lacks a column."""
    paths = [folder / f"{name}.{suffix}" for suffix in ("parquet", "jsonl")]
    file = next((path for path in paths if path.exists()), None)
    if file is None:
        raise RecordsError(f"{folder} holds no {name} table: expected {name}.parquet or {name}.jsonl.")
    try:
        return file, read_columns(file, required)
    except (OSError, ValueError) as error:
        raise RecordsError(f"{file} cannot be read ({error}); a table of {name} needs {', '.join(required)}.") from None


def _texts(file: Path, table: dict[str, list[Any]], column: str) -> tuple[str, ...]:
    for row, value in enumerate(table[column]):
        if not isinstance(value, str) or not value.strip():
            raise RecordsError(f"{file}, row {row}: {column} is {value!r}, expected a text that is not empty.")
    return tuple(table[column])


def _numbers(file: Path, table: dict[str, list[Any]], column: str) -> NDArray[np.float32]:
    for row, value in enumerate(table[column]):
        if value is not None and not (isinstance(value, (float, int, Decimal)) and -MOST < value < MOST):
            raise RecordsError(f"{file}, row {row}: {column} is {value!r:.80}, expected a number.")
    return np.array([np.nan if value is None else value for value in table[column]], dtype=np.float32)


def _merge(parts: list[Records], folders: list[Path]) -> Records:
    home: dict[str, Path] = {}
    for part, folder in zip(parts, folders, strict=True):
        for item_id in part.item_ids:
            if item_id in home:
                raise RecordsError(f"Item id {item_id!r} is used in {home[item_id]} and again in {folder}.")
            home[item_id] = folder
    names = tuple(dict.fromkeys(name for part in parts for name in part.candidates))
    total = sum(len(part) for part in parts)
    matrix = np.full((len(names), total), np.nan, dtype=np.float32)
    chars, consistent = matrix.copy(), matrix.copy()
    start = 0
    for part in parts:
        rows = [names.index(name) for name in part.candidates]
        matrix[rows, start : start + len(part)] = part.outcomes
        chars[rows, start : start + len(part)] = part.output_chars
        if part.consistent is not None:
            consistent[rows, start : start + len(part)] = part.consistent
        start += len(part)
    columns = {name: tuple(value for part in parts for value in getattr(part, name)) for name in _ITEM_FIELDS}
    tested = any(part.consistent is not None for part in parts)
    return Records(
        **columns, candidates=names, outcomes=matrix, output_chars=chars, consistent=consistent if tested else None
    )
