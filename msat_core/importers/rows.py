"""What every importer yields, and reading files row by row."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from msat_core.errors import ConfigurationError, RecordsError
from msat_core.reading import open_regular, parse_json, read_csv, read_lines
from msat_core.texts import text_sha256

FIELDS = ("model", "item_id", "score", "instruction", "task", "benchmark", "category", "answer", "output")
MOST_DEPTH = 100  # levels of a JSON file
MOST_RATIO = 200  # of a zip file's member


@dataclass(frozen=True)
class OutcomeRow:
    """One candidate's outcome on one item.

    Attributes:
        model, item_id, instruction, task, benchmark: as in records; not empty.
        score: in [0, 1].
        category, answer: None where unknown.
        output_chars: length of the answer in characters; None where unknown.
        answered: whether an answer could be read; None where unknown.
    """

    model: str
    item_id: str
    instruction: str
    task: str
    benchmark: str
    score: float
    category: str | None = None
    answer: str | None = None
    output_chars: int | None = None
    answered: bool | None = None


@dataclass(frozen=True)
class BadRow:
    """A row that was left out because it could not be read for certain."""

    where: str
    why: str


@dataclass(frozen=True)
class Skipped:
    """A row that was left out on purpose, for a reason that is counted."""

    why: str


Row = OutcomeRow | BadRow | Skipped


@dataclass(frozen=True)
class ImportOptions:
    """What a source does not say of itself.

    Attributes:
        columns: for plain tables, the source's column of a field, by field (see ``FIELDS``).
        wide: for plain tables, the columns that are models, each cell a score; empty for one row an outcome.
        model: the candidate's name, where neither rows nor file names say it.
        benchmark: the benchmark's name, where rows do not say it or say it too finely.
        metric: which of several metrics is the score.
        answer_filter: which of several answer filters counts (lm-evaluation-harness).
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    wide: tuple[str, ...] = ()
    model: str | None = None
    benchmark: str | None = None
    metric: str | None = None
    answer_filter: str | None = None

    def __post_init__(self) -> None:
        unknown = [name for name in self.columns if name not in FIELDS]
        if unknown:
            raise ConfigurationError(f"There is no field {unknown[0]!r} to map: the fields are {', '.join(FIELDS)}.")


class Unreadable(ValueError):
    """Why one row cannot be read; becomes a BadRow."""


def outcome_of(value: Any) -> float:  # noqa: ANN401 - whatever the file holds
    """A score in [0, 1] from a number, a truth value or a numeric text. Raises Unreadable otherwise."""
    words = {"true": 1.0, "false": 0.0}
    try:
        text = value.strip().lower() if isinstance(value, str) else value
        score = words[text] if text in ("true", "false") else float(text)
    except (TypeError, ValueError, OverflowError):
        raise Unreadable(f"score {value!r} is not a number") from None
    if math.isnan(score) or not 0 <= score <= 1:
        raise Unreadable(f"score {value!r} lies outside [0, 1]")
    return score


def text_of(data: Mapping[str, Any], *names: str) -> str:
    """The first of the named fields that holds a text. Raises Unreadable if none does."""
    for name in names:
        value = data.get(name)
        if isinstance(value, (int, str)) and not isinstance(value, bool) and str(value).strip():
            return str(value)
    raise Unreadable(f"no {' or '.join(names)}")


def id_of_text(instruction: str) -> str:
    """An item id for a source that has none: from the text, so that every candidate's rows meet."""
    return f"text:{text_sha256(instruction)[:16]}"


def files_of(source: Path, *suffixes: str) -> list[Path]:
    """The source itself, or every file below it with one of the suffixes, by name.

    Raises:
        RecordsError: there is none; a pickle is never read.
    """
    if source.suffix in (".pkl", ".pickle"):
        raise RecordsError(f"{source} is a pickle, which can run any code when read: export it as CSV or JSONL first.")
    files = [source] if source.is_file() else sorted(p for s in suffixes for p in source.rglob(f"*{s}"))
    if not files and source.exists() and not source.is_dir():
        raise RecordsError(f"{source} is not a regular file: expected a file or a folder of files.")
    if not files:
        raise RecordsError(f"{source} is neither a file nor a folder with {' or '.join(suffixes)} files in it.")
    return files


def json_lines(path: Path) -> Iterator[tuple[str, Any]]:
    """(place, value) of every line that is not blank; the value is an Unreadable where a line is not JSON."""
    with readable(path):
        for number, line in read_lines(path):
            try:
                value = Unreadable("the line is too long") if line is None else parse_json(line)
            except ValueError as error:
                value = Unreadable(f"not JSON ({error})")
            yield f"{path}:{number}", value


def csv_rows(path: Path) -> Iterator[tuple[str, dict[str, Any] | Unreadable]]:
    """(place, row by column) of every line after the header; an Unreadable in the place of one that cannot be read.

    Raises RecordsError if it is no table with a header.
    """
    try:
        for line, row in read_csv(path):
            yield f"{path}:{line}", Unreadable(str(row)) if isinstance(row, ValueError) else row
    except (OSError, ValueError) as error:
        raise RecordsError(f"{path} cannot be read as a CSV table ({error}).") from None


def json_items(file: IO[bytes], prefix: str) -> Iterator[Any]:
    """The members of an array inside a JSON file, one by one (``ijson`` prefix, e.g. ``records.item``).

    Raises Unreadable where the file stops being JSON.
    """
    ijson = _ijson()
    try:
        yield from ijson.items(ijson.parse(_bounded(ijson.basic_parse(file, use_float=True))), prefix)
    except (ijson.JSONError, UnicodeDecodeError) as error:
        raise Unreadable(f"not JSON from here on ({str(error).splitlines()[0].strip()})") from None


def json_head(file: IO[bytes]) -> dict[str, Any]:
    """The plain values at the top level of a JSON object; read to the end, kept to these."""
    ijson, scalars = _ijson(), ("string", "number", "boolean")
    try:
        events = ijson.parse(_bounded(ijson.basic_parse(file, use_float=True)))
        return {place: value for place, event, value in events if event in scalars and place and "." not in place}
    except (ijson.JSONError, UnicodeDecodeError) as error:
        raise Unreadable(f"not JSON ({str(error).splitlines()[0].strip()})") from None


def _bounded(events: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    """The events of a JSON file, as long as it is not nested deeply: each level costs memory in every event."""
    depth = 0
    for event, value in events:
        depth += event.startswith("start_") - event.startswith("end_")
        if depth > MOST_DEPTH:
            raise Unreadable(f"nested more than {MOST_DEPTH} levels deep")
        yield event, value


def _ijson() -> Any:  # noqa: ANN401 - a module
    try:
        import ijson
    except ImportError:
        raise ConfigurationError(
            'Reading large JSON files needs `ijson`: pip install "model-sat-router[exam]".'
        ) from None
    return ijson


@contextmanager
def opened(path: Path, member: str | None) -> Iterator[IO[bytes]]:
    """A file, or a member of a zip file, as bytes."""
    with readable(path), open_regular(path) as file:
        if member is None:
            yield file
            return
        with zipfile.ZipFile(file) as archive:
            info = archive.getinfo(member)
            if info.file_size > MOST_RATIO * max(info.compress_size, 1 << 10):
                raise RecordsError(
                    f"{path}: {member} is packed more than {MOST_RATIO} times, as no text is: unpack it yourself."
                )
            with archive.open(info) as inside:
                yield inside


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Say in one sentence that a source cannot be read, and why."""
    try:
        yield
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise RecordsError(f"{path} cannot be read ({error}): copy or unpack it again.") from None
