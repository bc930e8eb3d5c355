"""Reading what others wrote: bounded before it is parsed, and refused in one sentence.

A document is JSON without duplicate keys, NaN, lone surrogates or deep nesting, in a regular file of bounded size;
settings that people write may be YAML. A table is Parquet, JSONL or CSV. Nothing here waits for a pipe or reads a
device.
"""

from __future__ import annotations

import csv
import json
import math
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import IO, Any

from pydantic_core import from_json

from msat_core.errors import extras

MOST_BYTES = 256 << 20  # of a document
MOST_SETTINGS = 1 << 20  # of YAML, whose reader is slow
MOST_LINE = 32 << 20  # of one line
MOST_TABLE = 8 << 30  # of a Parquet table, uncompressed


def open_regular(path: Path) -> IO[bytes]:
    """Open a regular file. Raises OSError for anything else: a pipe would wait, a device may have no end."""
    file = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OSError("not a regular file")
    return os.fdopen(file, "rb")


def read_bytes(path: str | Path, *, most: int = MOST_BYTES) -> bytes:
    """A regular file's content. Raises OSError if it cannot be read or is larger than ``most``."""
    with open_regular(Path(path)) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise OSError(f"more than {most:,} bytes")
        data = file.read(size + 1)
    if len(data) > size:  # as of a log that is written meanwhile, or of a file that the kernel makes up
        raise OSError("it grew while it was read")
    return data


def read_text(path: str | Path, *, most: int = MOST_BYTES) -> str:
    """A regular UTF-8 file's text. Raises OSError, or UnicodeDecodeError (a ValueError)."""
    return read_bytes(path, most=most).decode("utf-8-sig")


def parse_json(text: str | bytes) -> Any:  # noqa: ANN401 - any JSON value
    """A JSON value. Raises ValueError for what is none, and for what two readers could read differently.

    That is a key given twice, NaN and infinity, half a surrogate pair, and more than 200 levels of nesting.
    """
    from_json(text, allow_inf_nan=False)  # bounded depth, checked text; json.loads knows neither
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_float=_finite)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_json(path: str | Path) -> Any:  # noqa: ANN401 - any JSON value
    """The JSON value in a file. Raises OSError or ValueError, as :func:`read_text` and :func:`parse_json` do."""
    return parse_json(read_text(path))


def parse_yaml(text: str) -> Any:  # noqa: ANN401 - any value that YAML knows
    """A YAML value of plain types. Raises ValueError for what is none, a key given twice, and references.

    A few lines of references to references can stand for more values than memory holds.
    """
    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc]  # the library ships no types
        def compose_node(self, parent: Any, index: Any) -> Any:  # noqa: ANN401 - the library's own
            if self.check_event(yaml.AliasEvent):
                raise ValueError("references (*name) are not read: write the value out")
            return super().compose_node(parent, index)

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:  # noqa: ANN401 - the library's own
            _check_unique([key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)])
            return super().construct_mapping(node, deep)

    if len(text) > MOST_SETTINGS:
        raise ValueError(f"more than {MOST_SETTINGS:,} characters of YAML: write JSON")
    try:
        return yaml.load(text, Loader)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        _check_unique([name for name, _ in pairs])
    return values


def _check_unique(names: Sequence[str], what: str = "key") -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"the {what} {name!r} is given twice")
        seen.add(name)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is no number that can be kept")
    return value


def read_lines(path: Path) -> Iterator[tuple[int, bytes | None]]:
    """(number, line) of every line that is not blank; None in the place of one longer than ``MOST_LINE``.

    Raises OSError if the file cannot be read.
    """
    with open_regular(path) as file:
        number = 0
        while line := file.readline(MOST_LINE + 1):
            number += 1
            if len(line) > MOST_LINE and not line.endswith(b"\n"):
                while (more := file.readline(MOST_LINE + 1)) and not more.endswith(b"\n"):
                    pass
                yield number, None
            elif line.strip():
                yield number, line


def read_csv(path: Path) -> Iterator[tuple[int, dict[str, str | None] | ValueError]]:
    """(line, row by column) of every row behind a CSV table's header; a cell that a row lacks is None.

    In the place of a row that cannot be read for certain stands a ValueError: it is not UTF-8, or has more cells than
    the header.

    Raises:
        OSError: the file cannot be read.
        ValueError: it has no header, or one that names a column twice; a cell is longer than ``MOST_LINE``.
    """
    csv.field_size_limit(MOST_LINE)
    try:
        with TextIOWrapper(open_regular(path), "utf-8-sig", errors="surrogateescape", newline="") as file:
            reader = csv.DictReader(file)
            if not reader.fieldnames:
                raise ValueError("it is empty: expected a table with a header")
            _check_unique(reader.fieldnames, "column")
            for row in reader:
                yield reader.line_num, _problem_of(row) or row
    except csv.Error as error:
        raise ValueError(str(error)) from None


def _problem_of(row: dict[str, Any]) -> ValueError | None:
    if None in row:
        return ValueError("more cells than the header has")
    if any("\udc80" <= char <= "\udcff" for cell in row.values() if cell and not cell.isascii() for char in cell):
        return ValueError("its text is not UTF-8")
    return None


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a table: Parquet and JSONL by their suffix, anything else as CSV, whose cells are all text.

    Raises OSError or ValueError, as :func:`read_columns` does, and for a row that cannot be read.
    """
    if path.suffix in (".parquet", ".jsonl"):
        columns = read_columns(path)
        for values in zip(*columns.values(), strict=True):
            yield dict(zip(columns, values, strict=True))
        return
    for line, row in read_csv(path):
        if isinstance(row, ValueError):
            raise ValueError(f"line {line}: {row}")
        yield row


def read_columns(path: Path, required: Sequence[str] = ()) -> dict[str, list[Any]]:
    """A Parquet, CSV or JSONL table by column; a field that a line of JSON lacks is None.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no such table, or lacks a required column.
    """
    try:
        columns = _arrow_columns(path) if path.suffix in (".parquet", ".csv") else _json_columns(path)
    except UnicodeDecodeError as error:
        raise ValueError(f"its text is not UTF-8 ({error.reason})") from None
    missing = [column for column in required if column not in columns]
    if missing:
        raise ValueError(f"it lacks the column {missing[0]!r}: it has {', '.join(columns) or 'none'}")
    return columns


@contextmanager
def arrow_errors() -> Iterator[None]:
    """What Arrow makes of a damaged file, as a ValueError. Raises MissingExtraError where there is no Arrow."""
    with extras():
        import pyarrow as pa
    try:
        yield
    except pa.ArrowException as error:
        raise ValueError(str(error).splitlines()[0] if str(error) else type(error).__name__) from None


def _arrow_columns(path: Path) -> dict[str, list[Any]]:
    with arrow_errors(), open_regular(path) as file:
        import pyarrow.csv
        import pyarrow.parquet

        if path.suffix == ".csv":
            columns: dict[str, list[Any]] = pyarrow.csv.read_csv(file).to_pydict()
            return columns
        # not pq.read_table, which loads pandas and the dataset layer for one plain file
        source = pyarrow.parquet.ParquetFile(file)
        _check_unique(source.schema_arrow.names, "column")
        groups = (source.metadata.row_group(i) for i in range(source.metadata.num_row_groups))
        if sum(group.total_byte_size for group in groups) > MOST_TABLE:
            raise ValueError(f"more than {MOST_TABLE:,} bytes when uncompressed")
        columns = source.read().to_pydict()
        return columns


def _json_columns(path: Path) -> dict[str, list[Any]]:
    rows: list[dict[str, Any]] = []
    for number, line in read_lines(path):
        if line is None:
            raise ValueError(f"line {number} is longer than {MOST_LINE:,} bytes")
        try:
            row = parse_json(line)
        except ValueError as error:
            raise ValueError(f"line {number} is not JSON ({error})") from None
        if not isinstance(row, dict):
            raise ValueError(f"line {number} is not an object")
        rows.append(row)
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}
