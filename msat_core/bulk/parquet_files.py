"""Parquet, of which the columns that are needed are read, one part after the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from msat_core.bulk.instruction_files import Columns
from msat_core.errors import ConfigurationError, MissingExtraError
from msat_core.reading import arrow_errors, open_regular


@dataclass
class Table:
    """A Parquet file. It goes on where it stopped: parts that follow one another are read once."""

    path: Path
    part_rows: int
    _batches: Iterator[Any] = field(default_factory=lambda: iter(()), init=False)
    _next: int = field(default=-1, init=False)  # row with which the next batch begins

    def names(self) -> list[str]:
        """The schema's."""
        with _arrow_errors():
            names: list[str] = self._file.schema_arrow.names
            return names

    def type_of(self, column: str) -> Any:  # noqa: ANN401 - an Arrow type
        """Of a column's values."""
        return self._file.schema_arrow.field(column).type

    def sizes(self, part_rows: int) -> Iterator[tuple[int, int]]:
        """See :class:`InstructionFile`; a part lies within one row group."""
        for first, n_rows in self._groups():
            for start in range(0, n_rows, part_rows):
                yield first + start, min(part_rows, n_rows - start)

    def values(self, start: int, n_rows: int, columns: Columns) -> Iterator[Mapping[str, Any] | str]:
        """See :class:`InstructionFile`."""
        with _arrow_errors():
            if start != self._next:
                self._batches = self._from(start, columns)
            self._next = start + n_rows
            while n_rows > 0 and (batch := next(self._batches, None)) is not None:
                n_rows -= batch.num_rows
                yield from batch.to_pylist()

    def _from(self, row: int, columns: Columns) -> Iterator[Any]:
        """The row groups' batches from a row on; what comes before it in its group is read and let go."""
        wanted = [name for name in (columns.instruction, columns.id) if name is not None]
        for number, (first, n_rows) in enumerate(self._groups()):
            if first + n_rows <= row:
                continue
            for batch in self._file.iter_batches(self.part_rows, row_groups=[number], columns=wanted):
                first += batch.num_rows
                if first > row:
                    yield batch

    def _groups(self) -> list[tuple[int, int]]:
        """(first row, number of rows) of each row group."""
        metadata, groups, first = self._file.metadata, [], 0
        for i in range(metadata.num_row_groups):
            groups.append((first, metadata.row_group(i).num_rows))
            first += groups[-1][1]
        return groups

    @cached_property
    def _file(self) -> Any:  # noqa: ANN401 - pyarrow.parquet.ParquetFile
        with _arrow_errors():
            from pyarrow.parquet import ParquetFile

            with ExitStack() as stack:
                file = stack.enter_context(open_regular(self.path))
                table = ParquetFile(file)
                stack.pop_all()
            return table

    def close(self) -> None:
        """See :class:`InstructionFile`."""
        if file := vars(self).pop("_file", None):
            file.close(force=True)

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "part_rows": self.part_rows, "_batches": iter(()), "_next": -1}


@contextmanager
def _arrow_errors() -> Iterator[None]:
    """What Arrow makes of a damaged file, as a ValueError; a missing Arrow as a sentence that names another way."""
    try:
        with arrow_errors():
            yield
    except MissingExtraError:
        raise ConfigurationError(
            'Parquet needs `pyarrow`: pip install "model-sat-router[eval]", or export the rows as JSONL.'
        ) from None
