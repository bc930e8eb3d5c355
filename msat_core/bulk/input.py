"""The files of a job as one run of rows, cut into parts."""

from __future__ import annotations

import csv
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msat_core.bulk.instruction_files import Columns, Part, Row
from msat_core.bulk.parquet_files import Table
from msat_core.bulk.text_files import Text
from msat_core.errors import ConfigurationError, MsatError, RecordsError

SUFFIXES = (".jsonl", ".jsonl.gz", ".csv", ".csv.gz", ".parquet")


@dataclass
class Input:
    """All files of a job, in order.

    Attributes:
        sources: one a file.
        columns: what is read of them.
    """

    sources: list[Text | Table]
    columns: Columns

    @classmethod
    def open(cls, path: Path, columns: Mapping[str, str], part_rows: int) -> Input:
        """A file, or all files of a folder by name.

        Raises:
            RecordsError: there is none, or one cannot be read.
            ConfigurationError: a column that there is not, files of different kinds, Parquet without pyarrow.
        """
        sources: list[Text | Table] = [
            Table(file, part_rows) if file.suffix == ".parquet" else Text(file) for file in _files(path)
        ]
        if len({isinstance(source, Table) for source in sources}) > 1:
            raise ConfigurationError(f"{path} holds Parquet and other files: route them one after the other.")
        data = cls(sources, Columns())
        with ExitStack() as stack:
            stack.callback(data.close)
            for source in sources:
                with readable(source.path):
                    data.columns = Columns.of(columns, source.names(), source.path)
            stack.pop_all()
        return data

    def close(self) -> None:
        """Close the files."""
        for source in self.sources:
            source.close()

    @property
    def is_parquet(self) -> bool:
        """Whether its files are Parquet."""
        return isinstance(self.sources[0], Table)

    def plan(self, part_rows: int) -> Iterator[Part]:
        """The parts of all files in order."""
        number, first_row = 0, 0
        for i, source in enumerate(self.sources):
            with readable(source.path):
                for start, n_rows in source.sizes(part_rows):
                    yield Part(number, i, start, first_row, n_rows)
                    number, first_row = number + 1, first_row + n_rows

    def read(self, part: Part) -> list[Row]:
        """A part's rows. Raises RecordsError if there are fewer than were planned."""
        source = self.sources[part.file]
        with readable(source.path):
            values = list(source.values(part.start, part.n_rows, self.columns))
        if len(values) != part.n_rows:
            raise RecordsError(f"{source.path} has changed while it was routed: begin again in another folder.")
        return [self._row(part.first_row + i, value) for i, value in enumerate(values)]

    def _row(self, number: int, value: Mapping[str, Any] | str) -> Row:
        if isinstance(value, str):
            return Row(number, None, problem=value)
        name = None if self.columns.id is None else value.get(self.columns.id)
        text = value.get(self.columns.instruction)
        if isinstance(text, str):
            return Row(number, name, text)
        return Row(number, name, problem=f"expected a text as {self.columns.instruction}, got {type(text).__name__}")


def _files(path: Path) -> list[Path]:
    if path.is_file():
        files = [path]
    else:
        files = sorted(file for file in path.glob("*") if file.is_file() and file.name[0] not in "._")
    if not files:
        raise RecordsError(f"{path} is neither a file nor a folder with files in it: expected {', '.join(SUFFIXES)}.")
    for file in files:
        if not file.name.endswith(SUFFIXES):
            raise RecordsError(f"{file} is none of {', '.join(SUFFIXES)}: convert it first.")
    return files


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Say in one sentence that a file cannot be read, and why."""
    try:
        yield
    except MsatError:
        raise
    except (OSError, EOFError, ValueError, zlib.error, csv.Error) as error:
        raise RecordsError(f"{path} cannot be read ({error}): copy or unpack it again.") from None
