"""From rows to a records folder: streamed, checked against each other, written aside and renamed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, get_args

from typing_extensions import Self

from msat_core.errors import ConfigurationError, RecordsError, extras
from msat_core.files import move, scratch_folder, write_text
from msat_core.importers import lm_eval, mmlu_pro, plain, router_benchmarks
from msat_core.importers.rows import BadRow, ImportOptions, OutcomeRow, Row, Skipped
from msat_core.texts import text_sha256

if TYPE_CHECKING:
    import pyarrow as pa

Format = Literal["lm-eval", "mmlu-pro", "routerbench", "llmrouterbench", "jsonl", "csv"]
FORMATS: tuple[Format, ...] = get_args(Format)

_ROWS: dict[str, Callable[[Path, ImportOptions], Iterator[Row]]] = {
    "lm-eval": lm_eval.rows,
    "mmlu-pro": mmlu_pro.rows,
    "routerbench": router_benchmarks.routerbench_rows,
    "llmrouterbench": router_benchmarks.llmrouterbench_rows,
    "jsonl": plain.jsonl_rows,
    "csv": plain.csv_table_rows,
}
BATCH = 5000  # rows written at once
LISTED = 1000  # bad rows kept in the report; all are counted
REPORT_FILE = "import.json"
TEXTS = ("model", "item_id", "instruction", "task", "benchmark", "category", "answer")


@dataclass
class ImportReport:
    """What an import did.

    Attributes:
        n_items, n_outcomes: written.
        candidates: outcomes written of each.
        n_bad: rows left out because they could not be read for certain.
        bad: the first thousand of them.
        skipped: rows left out on purpose, by reason.
    """

    n_items: int = 0
    n_outcomes: int = 0
    candidates: Counter[str] = field(default_factory=Counter)
    n_bad: int = 0
    bad: list[BadRow] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)

    def as_json(self) -> dict[str, Any]:
        """The report as JSON values."""
        return {
            "n_items": self.n_items,
            "n_outcomes": self.n_outcomes,
            "candidates": dict(self.candidates),
            "n_bad": self.n_bad,
            "bad": [{"where": row.where, "why": row.why} for row in self.bad],
            "skipped": dict(self.skipped),
        }


def import_records(
    source: str | Path,
    out: str | Path,
    format: Format,
    options: ImportOptions | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> ImportReport:
    """Import evaluations into a records folder: items, outcomes, and a report beside them.

    Args:
        source: a file, or a folder of files.
        out: the records folder; must not hold records already.
        format: of the source.
        options: what the source does not say of itself.
        progress: called with (rows read, bad rows) now and then.

    Raises:
        RecordsError: the source holds nothing that can be read, or the folder is taken.
    """
    if format not in _ROWS:
        raise ConfigurationError(f"There is no format {format!r}: choose one of {', '.join(FORMATS)}.")
    source, out = Path(source), Path(out)
    if not source.exists():
        raise RecordsError(f"{source} does not exist: expected a file or a folder of {format} results.")
    if any(out.glob("items.*")) or any(out.glob("outcomes.*")):
        raise RecordsError(f"{out} already holds records: name a new folder with --out.")
    report = ImportReport()
    with _Writer(out, report) as writer:
        for number, row in enumerate(_ROWS[format](source, options or ImportOptions()), start=1):
            writer.take(row)
            if progress is not None and number % BATCH == 0:
                progress(number, report.n_bad)
        if not report.n_outcomes:
            bad = next((f"; the first of {report.n_bad} bad rows: {row.where}, {row.why}" for row in report.bad), "")
            skipped = f"; left out: {', '.join(report.skipped)}" if report.skipped else ""
            raise RecordsError(f"{source} holds no {format} outcome that can be read{bad}{skipped}.")
        writer.keep()
    write_text(out / REPORT_FILE, json.dumps({"source": source.name, "format": format, **report.as_json()}, indent=1))
    return report


class _Writer:
    """Two Parquet tables in a folder aside; moved into place by :meth:`keep`. Memory holds ids, not texts."""

    def __init__(self, out: Path, report: ImportReport) -> None:
        self._out, self._report = out, report
        self._items: dict[str, tuple[int, str]] = {}  # item id → (number, hash of its text)
        self._seen: dict[str, set[int]] = {}  # candidate → numbers of its items
        self._rows: dict[str, list[dict[str, Any]]] = {"items": [], "outcomes": []}

    def __enter__(self) -> Self:
        with extras():
            import pyarrow.parquet as pq

        self._scratch = scratch_folder(self._out)
        self._aside = self._scratch.__enter__()
        self._schemas = _schemas()
        self._files = {
            name: pq.ParquetWriter(self._aside / f"{name}.parquet", schema) for name, schema in self._schemas.items()
        }
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for file in self._files.values():
            file.close()
        self._scratch.__exit__(kind, error, at)

    def take(self, row: Row) -> None:
        """Write an outcome, with its item if it is new; count anything else."""
        report = self._report
        if isinstance(row, Skipped):
            report.skipped[row.why] += 1
            return
        if isinstance(row, OutcomeRow):
            problem = self._problem(row)
            if problem is None:
                self._write(row)
                return
            row = BadRow(f"{row.model} on {row.item_id}", problem)
        report.n_bad += 1
        if len(report.bad) < LISTED:
            report.bad.append(row)

    def keep(self) -> None:
        """Finish both tables and move them into place, the items last."""
        for name in ("outcomes", "items"):
            self._flush(name)
            self._files[name].close()
        for name in ("outcomes", "items"):
            move(self._aside / f"{name}.parquet", self._out / f"{name}.parquet")

    def _problem(self, row: OutcomeRow) -> str | None:
        for name in TEXTS:
            value = getattr(row, name)
            if value is not None and not _is_text(value):
                return f"{name} is no text that can be written"
        if not row.instruction.strip():
            return "the instruction is empty"
        digest = text_sha256(row.instruction)
        earlier = self._items.get(row.item_id)
        if earlier is not None and earlier[1] != digest:
            return "another text under the same item_id"
        if earlier is not None and earlier[0] in self._seen.get(row.model, ()):
            return "a second outcome of the same candidate on the same item"
        return None

    def _write(self, row: OutcomeRow) -> None:
        report = self._report
        if row.item_id not in self._items:
            self._items[row.item_id] = (len(self._items), text_sha256(row.instruction))
            self._add("items", row)
            report.n_items += 1
        self._seen.setdefault(row.model, set()).add(self._items[row.item_id][0])
        self._add("outcomes", row)
        report.n_outcomes += 1
        report.candidates[row.model] += 1

    def _add(self, name: str, row: OutcomeRow) -> None:
        rows = self._rows[name]
        rows.append({column: getattr(row, column) for column in self._schemas[name].names})
        if len(rows) >= BATCH:
            self._flush(name)

    def _flush(self, name: str) -> None:
        import pyarrow as pa

        if self._rows[name]:
            self._files[name].write_table(pa.Table.from_pylist(self._rows[name], schema=self._schemas[name]))
            self._rows[name] = []


def _is_text(value: object) -> bool:
    try:
        return isinstance(value, str) and bool(value.encode() or True)
    except UnicodeEncodeError:
        return False


def _schemas() -> dict[str, pa.Schema]:
    import pyarrow as pa

    items = ("item_id", "benchmark", "task", "category", "instruction", "answer")
    return {
        "items": pa.schema([(name, pa.string()) for name in items]),
        "outcomes": pa.schema(
            [
                ("model", pa.string()),
                ("item_id", pa.string()),
                ("score", pa.float64()),
                ("answered", pa.bool_()),
                ("output_chars", pa.int64()),
            ]
        ),
    }
