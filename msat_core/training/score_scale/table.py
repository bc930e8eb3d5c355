"""Read a table of published scores: one candidate a name and effort, one task a source, release and name.

Columns: base_key, effort, source, benchmark, task, accuracy; optional: n_questions, chance, judge_scored. Keywords of
the tasks stand in a second table (source, benchmark, task, keywords separated by ``;``).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from msat_core.errors import RecordsError
from msat_core.reading import read_rows
from msat_core.score_scale import area_of
from msat_core.training.score_scale.fit import Cell

CALLING_MODES = ("fc", "prompt")  # how functions were called, not how hard the candidate thought; the first counts
DEFAULT_EFFORT = (  # what a name without an effort means: the provider's default, by the beginning of the name
    ("gpt-5.", "nothink"),
    ("gpt-5", "medium"),
    ("gpt-oss", "medium"),
    ("o1", "medium"),
    ("o3", "medium"),
    ("o4", "medium"),
    ("grok-3-mini", "low"),
    ("claude-opus-4.7", "high"),
    ("claude-opus-4.8", "high"),
    ("claude-fable", "high"),
    ("claude-sonnet-5", "high"),
    ("claude", "nothink"),
    ("deepseek-v3", "nothink"),
    ("grok-4.1-fast", "think"),
    ("grok-4.20", "think"),
    ("qwen3", "think"),
    ("kimi-k2.", "think"),
    ("glm", "think"),
)


def read_cells(table: str | Path, tasks: str | Path) -> list[Cell]:
    """The table's cells.

    Thinking budgets of one candidate count as one way of thinking (the widest budget that has the task), calling
    modes as none, and the provider's default effort as the plain name.

    Raises:
        RecordsError: a table cannot be read, or lacks a column.
    """
    keywords = {
        (row["source"], row["benchmark"], row["task"]): row["keywords"].split(";") for row in _rows(Path(tasks))
    }
    best: dict[tuple[str, str, str], tuple[tuple[int, ...], Cell]] = {}
    for row in _rows(Path(table)):
        try:
            words = keywords[row["source"], row["benchmark"], row["task"]]
            judged = str(row.get("judge_scored", "")).lower() == "true"
            candidate, rank = candidate_of(row["base_key"], row["effort"] or "")
            cell = Cell(
                candidate=candidate,
                source=row["benchmark"],
                task=row["task"],
                area="judged" if judged else area_of(words),
                accuracy=float(row["accuracy"]),
                questions=_whole(row.get("n_questions")),
                chance=_share(row.get("chance")),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise RecordsError(f"{table}: a row cannot be read ({error!r}): {dict(row)!r:.200}") from None
        key = (cell.candidate, cell.source, cell.task)
        if key not in best or rank > best[key][0]:
            best[key] = (rank, cell)
    return [cell for _, cell in best.values()]


def candidate_of(base: str, effort: str) -> tuple[str, tuple[int, ...]]:
    """The candidate's name with its effort, and which of several rows of one name to prefer (the higher)."""
    parts = [part for part in effort.split("+") if part]
    mode = next((i for i, name in enumerate(CALLING_MODES) if name in parts), -1)
    kept = [part for part in parts if part not in CALLING_MODES]
    kind, budget = (kept[0] if kept else ""), 0
    if match := re.fullmatch(r"think(\d+)k", kind):
        kind, budget = "think", int(match[1])
    default = next((name for start, name in DEFAULT_EFFORT if base.startswith(start)), "")
    plain = kind in ("", default)
    return (base if plain else f"{base}:{kind}"), (-mode, budget if not plain else int(kind == ""))


def _rows(path: Path) -> Iterable[Mapping[str, Any]]:
    if not path.is_file():
        raise RecordsError(f"{path} is not a file: expected a table of published scores.")
    try:
        return list(read_rows(path))
    except (OSError, ValueError) as error:
        raise RecordsError(f"{path} cannot be read ({error}): expected a table of published scores.") from None


def _whole(value: Any) -> int | None:  # noqa: ANN401 - a cell
    return None if value in (None, "") or math.isnan(float(value)) else max(1, int(float(value)))


def _share(value: Any) -> float:  # noqa: ANN401 - a cell
    return 0.0 if value in (None, "") or math.isnan(float(value)) else float(value)
