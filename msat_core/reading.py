"""Reading what others wrote: bounded before it is parsed, and refused in one sentence.

A document is JSON without duplicate keys, NaN, lone surrogates or deep nesting, in a regular file of bounded size. A
table is Parquet, JSONL or CSV. Nothing here waits for a pipe or reads a device.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from pydantic_core import from_json

MOST_BYTES = 256 << 20  # of a document
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
        if os.fstat(file.fileno()).st_size > most:
            raise OSError(f"more than {most:,} bytes")
        return file.read()


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


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} is given twice")
    return found


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


def read_columns(path: Path, required: Sequence[str] = ()) -> dict[str, list[Any]]:
    """A Parquet, CSV or JSONL table by column; a field that a line of JSON lacks is None.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no such table, or lacks a required column.
    """
    import pyarrow as pa

    try:
        found = _arrow_columns(path) if path.suffix in (".parquet", ".csv") else _json_columns(path)
    except pa.ArrowException as error:
        raise ValueError(str(error).splitlines()[0] if str(error) else type(error).__name__) from None
    except UnicodeDecodeError as error:
        raise ValueError(f"its text is not UTF-8 ({error.reason})") from None
    missing = [column for column in required if column not in found]
    if missing:
        raise ValueError(f"it lacks the column {missing[0]!r}: it has {', '.join(found) or 'none'}")
    return found


def _arrow_columns(path: Path) -> dict[str, list[Any]]:
    import pyarrow.csv
    import pyarrow.parquet

    with open_regular(path) as file:
        if path.suffix == ".csv":
            columns: dict[str, list[Any]] = pyarrow.csv.read_csv(file).to_pydict()
            return columns
        # not pq.read_table, which loads pandas and the dataset layer for one plain file
        source = pyarrow.parquet.ParquetFile(file)
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
