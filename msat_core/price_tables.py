"""Price tables that people have: facts of many candidates in one CSV or JSON file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from msat_core.errors import ConfigurationError
from msat_core.facts import FIELDS
from msat_core.reading import read_json, read_rows

_NAMES = ("model", "candidate", "name")  # the column that says of whom a row speaks


def read_price_table(path: str | Path) -> dict[str, dict[str, Any]]:
    """Facts by candidate, in the file's order: those of :data:`msat_core.facts.FIELDS` that it states.

    A JSON file is a list of objects with ``model`` and such fields, or an object of objects by model; any other file
    is CSV with such columns, where an empty cell states nothing. Further columns are passed over.

    Raises:
        ConfigurationError: not such a file.
    """
    file = Path(path)
    try:
        rows = _json_rows(read_json(file)) if file.suffix == ".json" else read_rows(file)
        table: dict[str, dict[str, Any]] = {}
        for row in rows:
            if (name := _name(row)) in table:
                raise ValueError(f"{name} has two rows")
            table[name] = _facts(row)
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise ConfigurationError(
            f"{path} cannot be read as a price table ({type(error).__name__}: {error}): expected CSV with the columns "
            "model, usd_per_mtok_in and usd_per_mtok_out, or a JSON list of objects with these fields."
        ) from None
    if not any(table.values()):
        raise ConfigurationError(
            f"{path} states no price: expected the columns model, usd_per_mtok_in, usd_per_mtok_out."
        )
    return table


def _json_rows(data: Any) -> Iterable[Mapping[str, Any]]:  # noqa: ANN401 - any JSON value
    return [{"model": name, **facts} for name, facts in data.items()] if isinstance(data, dict) else data


def _name(row: Mapping[str, Any]) -> str:
    name = next((row[key] for key in _NAMES if row.get(key)), None)
    if not isinstance(name, str):
        raise ValueError("a row names no model")
    return name


def _facts(row: Mapping[str, Any]) -> dict[str, Any]:
    facts = {field: row[field] for field in FIELDS if row.get(field) not in (None, "")}
    if isinstance(facts.get("modalities"), str):
        facts["modalities"] = facts["modalities"].replace(";", " ").replace(",", " ").split()
    return facts
