"""What is written: one file a part, whole or not at all, and in its rows what was decided."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msat_core.bulk.instruction_files import Row
from msat_core.errors import MsatError
from msat_core.files import file_aside, write_text
from msat_core.routing.decision import RoutingDecision


@dataclass(frozen=True)
class Layout:
    """What a row of the output holds, beside its number and the choice.

    Attributes:
        has_id: whether the input has an id column.
        top_scores: how many scores, the best first; None for all.
        reasons: whether to say why, in a sentence.
        id_type: of the id column in Arrow's terms where Parquet is written; None for JSONL.
        is_parquet: whether Parquet is written, else JSONL.
    """

    has_id: bool
    top_scores: int | None
    reasons: bool
    is_parquet: bool
    id_type: Any = None

    def file_name(self, number: int) -> str:
        """Of a part's file."""
        return f"part-{number:06d}.{'parquet' if self.is_parquet else 'jsonl'}"

    def row(self, row: Row, decision: RoutingDecision | MsatError | str) -> dict[str, Any]:
        """A row of the output; one that could not be routed says why."""
        routed = decision if isinstance(decision, RoutingDecision) else None
        scores = [] if routed is None else sorted(routed.scores.items(), key=lambda pair: -pair[1])[: self.top_scores]
        return {
            "row": row.number,
            **({"id": row.id} if self.has_id else {}),
            "candidate": routed and routed.candidate,
            "score": routed and routed.score,
            "cost_usd": routed and routed.costs_usd[routed.candidate],
            "scores": dict(scores),
            **({"reason": routed and routed.reason} if self.reasons else {}),
            "error": None if routed else str(decision),
        }

    def write(self, rows: Sequence[Mapping[str, Any]], path: Path) -> None:
        """Write a part aside, then rename it."""
        if not self.is_parquet:
            write_text(path, "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows))
            return
        import pyarrow as pa
        import pyarrow.parquet as pq

        listed = [{**row, "scores": list(row["scores"].items())} for row in rows]
        with file_aside(path) as aside:
            pq.write_table(pa.Table.from_pylist(listed, self._schema()), aside)

    def _schema(self) -> Any:  # noqa: ANN401 - an Arrow schema
        import pyarrow as pa

        fields = {"row": pa.int64(), "id": self.id_type, "candidate": pa.string(), "score": pa.float64()}
        fields |= {"cost_usd": pa.float64(), "scores": pa.map_(pa.string(), pa.float64())}
        fields |= {"reason": pa.string(), "error": pa.string()}
        left_out = {*([] if self.has_id else ["id"]), *([] if self.reasons else ["reason"])}
        return pa.schema([pair for pair in fields.items() if pair[0] not in left_out])

    def candidates(self, path: Path) -> Iterator[str | None]:
        """The candidate of each row of a part that was written."""
        if self.is_parquet:
            import pyarrow.parquet as pq

            yield from pq.ParquetFile(path).read(columns=["candidate"])["candidate"].to_pylist()
            return
        with path.open("rb") as file:
            for line in file:
                yield json.loads(line)["candidate"]
