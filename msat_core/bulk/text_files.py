"""JSONL and CSV, packed with gzip or not, read row by row from wherever a part begins."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any

from msat_core.bulk.instruction_files import Columns
from msat_core.errors import RecordsError
from msat_core.reading import MOST_LINE, open_regular, parse_json

PART_BYTES = 32 << 20  # a part ends here even if it has fewer rows than it might
NAMED_IN = 100  # rows of JSON that show which columns there are
BOM = b"\xef\xbb\xbf"


@dataclass
class Text:
    """A JSONL or CSV file, packed or not. It stays open: parts that follow one another are read without a jump."""

    path: Path

    def names(self) -> list[str]:
        """Those of the table's head, or of the first rows that are objects."""
        if self._is_csv:
            return self._header[0]
        first = [v for v in self.values(0, NAMED_IN, Columns()) if isinstance(v, Mapping)]
        if not first:
            raise RecordsError(f"{self.path} is no JSONL of instructions: none of its first lines is a JSON object.")
        return list(dict.fromkeys(name for value in first for name in value))

    def sizes(self, part_rows: int) -> Iterator[tuple[int, int]]:
        """See :class:`InstructionFile`."""
        start, n_rows = -1, 0
        for offset, _ in self._records(self._header[1] if self._is_csv else 0):
            if n_rows == part_rows or (n_rows and offset - start >= PART_BYTES):
                yield start, n_rows
                n_rows = 0
            if not n_rows:
                start = offset
            n_rows += 1
        if n_rows:
            yield start, n_rows

    def values(self, start: int, n_rows: int, columns: Columns) -> Iterator[Mapping[str, Any] | str]:
        """See :class:`InstructionFile`."""
        for _, (_, record) in zip(range(n_rows), self._records(start), strict=False):
            if record is None:
                yield f"the row is longer than {MOST_LINE:,} bytes"
            else:
                yield _cells(record, self._header[0]) if self._is_csv else _object(record)

    @property
    def _is_csv(self) -> bool:
        return ".csv" in self.path.suffixes

    @cached_property
    def _header(self) -> tuple[list[str], int]:
        """A table's columns, and where its first row begins."""
        file = self._at(0)
        first = next(_records(file, quoted=True), None)
        names = _fields((first[1] or b"").removeprefix(BOM)) if first else []
        if not names:
            raise RecordsError(f"{self.path} is empty: expected a CSV table with a header.")
        return names, file.tell()

    @cached_property
    def _file(self) -> IO[bytes]:
        file = open_regular(self.path)
        return _Packed(file) if self.path.suffix == ".gz" else file  # type: ignore[return-value]  # it has the methods used

    def _at(self, offset: int) -> IO[bytes]:
        self._file.seek(offset)  # a packed file is read from its beginning where that is a jump back
        return self._file

    def _records(self, offset: int) -> Iterator[tuple[int, bytes | None]]:
        return _records(self._at(offset), quoted=self._is_csv)

    def close(self) -> None:
        """See :class:`InstructionFile`."""
        if file := vars(self).pop("_file", None):
            file.close()

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}


class _Packed(gzip.GzipFile):
    """Closes the file that it unpacks, too."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(fileobj=file)
        self._packed = file

    def close(self) -> None:
        super().close()
        self._packed.close()


def _records(file: IO[bytes], *, quoted: bool) -> Iterator[tuple[int, bytes | None]]:
    """(offset, content) of every line that is not blank; None in the place of one longer than ``MOST_LINE``.

    Args:
        file: from where it stands.
        quoted: whether a line goes on in the next one while a quotation mark is open, as in CSV.
    """
    offset = file.tell()
    while line := file.readline(MOST_LINE + 1):
        start, offset = offset, offset + len(line)
        record, is_open = line, quoted and line.count(b'"') % 2 == 1
        while is_open and len(record) <= MOST_LINE and (line := file.readline(MOST_LINE + 1)):
            offset += len(line)
            record, is_open = record + line, is_open != (line.count(b'"') % 2 == 1)
        if len(record) > MOST_LINE:
            while line[-1:] != b"\n" and (line := file.readline(MOST_LINE)):
                offset += len(line)
            yield start, None
        elif record.strip():
            yield start, record


def _object(line: bytes) -> Mapping[str, Any] | str:
    try:
        value = parse_json(line.removeprefix(BOM))
    except ValueError as error:
        return f"not JSON ({error})"
    return value if isinstance(value, dict) else "not a JSON object"


def _cells(record: bytes, names: Sequence[str]) -> Mapping[str, Any] | str:
    cells = _fields(record)
    if len(cells) != len(names):
        return f"{len(cells)} cells under {len(names)} columns"
    return dict(zip(names, cells, strict=True))


def _fields(record: bytes) -> list[str]:
    csv.field_size_limit(MOST_LINE)
    return next(csv.reader(io.StringIO(record.decode("utf-8", errors="replace"), newline="")), [])
