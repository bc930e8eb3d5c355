"""What all files of instructions have in common: columns, rows, and parts that can be read on their own.

The cuts between parts follow from the content alone, so that whoever reads a part, and however often, gets the same
rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from msat_core.errors import ConfigurationError, some_of

INSTRUCTION, ID = "instruction", "id"  # fields, and the columns that hold them if no others are named
SHOWN = 8  # columns named in an error


@dataclass(frozen=True)
class Part:
    """Rows that are routed and written together.

    Attributes:
        number: counted from 0 over all files.
        file: position of its file.
        start: where it begins: a byte of a text (unpacked), a row of a Parquet table.
        first_row: number of its first row over all files, counted from 0.
        n_rows: how many there are.
    """

    number: int
    file: int
    start: int
    first_row: int
    n_rows: int


@dataclass(frozen=True)
class Row:
    """One row of the input.

    Attributes:
        number: counted from 0 over all files; blank lines do not count.
        id: what its id column holds; None without one.
        instruction: what to route.
        problem: why there is no instruction; None where there is one.
    """

    number: int
    id: Any
    instruction: str = ""
    problem: str | None = None


@dataclass(frozen=True)
class Columns:
    """Which columns hold what.

    Attributes:
        instruction: column of the text to route.
        id: column whose value is written beside the result; None for none.
    """

    instruction: str = INSTRUCTION
    id: str | None = None

    @classmethod
    def of(cls, columns: Mapping[str, str], names: Sequence[str], where: Path) -> Columns:
        """What the user named, else the usual names; checked against the columns that there are."""
        if unknown := set(columns) - {INSTRUCTION, ID}:
            raise ConfigurationError(
                f"There is no field {sorted(unknown)[0]!r}: expected {INSTRUCTION}=COLUMN or {ID}=COLUMN."
            )
        resolved = cls(columns.get(INSTRUCTION, INSTRUCTION), columns.get(ID, ID if ID in names else None))
        for name in filter(None, (resolved.instruction, resolved.id)):
            if name not in names:
                shown = some_of(names, SHOWN) or "none"
                raise ConfigurationError(
                    f"{where} has no column {name!r}, it has {shown}: name the right ones with "
                    "--map instruction=COLUMN and --map id=COLUMN."
                )
        return resolved


class InstructionFile(Protocol):
    """One file of the input."""

    path: Path

    def names(self) -> list[str]:
        """Its columns, as its head shows them."""

    def close(self) -> None:
        """Close the file; it is opened again if it is read again."""

    def sizes(self, part_rows: int) -> Iterator[tuple[int, int]]:
        """(start, number of rows) of each of its parts."""

    def values(self, start: int, n_rows: int, columns: Columns) -> Iterator[Mapping[str, Any] | str]:
        """So many rows from there on, by column; for one that cannot be read, a sentence that says why."""
