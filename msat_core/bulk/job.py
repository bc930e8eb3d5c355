"""Routing files in parts that are each written whole, so that a run can be cut anywhere and gone on with.

What a run was begun with stands in its folder (``_manifest.json``): whoever goes on with another input, zoo, policy or
scorer is refused. ``_SUCCESS`` is written last. Names that begin so are passed over by readers of Parquet folders.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, ClassVar

from msat_core.bulk.input import Input
from msat_core.bulk.instruction_files import Part
from msat_core.bulk.output import Layout
from msat_core.bulk.parquet_files import Table
from msat_core.checks import check_count
from msat_core.documents import Document, digest_of
from msat_core.errors import FileError, MsatError
from msat_core.files import locked, remove_leftovers, sha256_of, write_text
from msat_core.routing.decision import RoutingRequest
from msat_core.routing.router import Router
from msat_core.routing.tags import TOP_SCORES

PART_ROWS = 4096  # of one output file; chosen: what is lost where a job is killed
TOGETHER = 256  # rows of like length that are scored and decided at once: what decisions hold is a part's memory
MANIFEST, DONE = "_manifest.json", "_SUCCESS"


class Manifest(Document):
    """What a run was begun with.

    Attributes:
        input: SHA-256 of each file by name.
        columns: which hold the instruction and the id.
        zoo, policy, scorer, feedback: digests.
        settings: of the output.
        n_rows, n_parts: of the whole input.
        at: instant whose prices hold for all rows, ISO.
    """

    kind: ClassVar[str] = "routed-files"
    current_version: ClassVar[int] = 1
    error: ClassVar[type[MsatError]] = FileError

    input: dict[str, str]
    columns: dict[str, str | None]
    zoo: str
    policy: str
    scorer: str
    feedback: str
    settings: dict[str, int | None]
    n_rows: int
    n_parts: int
    at: str

    def differences(self, other: Manifest) -> list[str]:
        """Names of what was given otherwise."""
        names = ("input", "columns", "zoo", "policy", "scorer", "feedback", "settings")
        return [name for name in names if getattr(self, name) != getattr(other, name)]


@dataclass(frozen=True)
class RoutedFile:
    """What came of it.

    Attributes:
        out: the folder with the parts.
        n_rows, n_parts: of the whole input.
        n_parts_before: of them, those that an earlier run had written.
        n_failed: rows that could not be routed; their ``error`` says why.
        candidates: rows by the candidate chosen, the most frequent first.
    """

    out: Path
    n_rows: int
    n_parts: int
    n_parts_before: int
    n_failed: int
    candidates: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        return {**asdict(self), "out": str(self.out)}


@dataclass
class Job:
    """All that a worker needs to route any part: the same part gives the same bytes wherever that is done.

    Attributes:
        router: with its policy.
        input: the files.
        layout: of the output.
        out: the folder for it.
        at: instant of all prices.
    """

    router: Router
    input: Input
    layout: Layout
    out: Path
    at: datetime

    def path_of(self, part: Part) -> Path:
        """Where a part is written."""
        return self.out / self.layout.file_name(part.number)

    def run(self, part: Part) -> int:
        """Route a part and write it, unless it is there; the number of its rows."""
        if not self.path_of(part).exists():
            self.layout.write(self._routed(part), self.path_of(part))
        return part.n_rows

    def _routed(self, part: Part) -> list[dict[str, Any]]:
        rows = self.input.read(part)
        routed = [None if row.problem is None else self.layout.row(row, row.problem) for row in rows]
        usable = [i for i, row in enumerate(rows) if row.problem is None]
        usable.sort(key=lambda i: len(rows[i].instruction))
        for start in range(0, len(usable), TOGETHER):
            batch = usable[start : start + TOGETHER]
            requests = [RoutingRequest(at=self.at)] * len(batch)
            decisions = self.router.route_each([rows[i].instruction for i in batch], requests=requests)
            for i, decision in zip(batch, decisions, strict=True):
                routed[i] = self.layout.row(rows[i], decision)
        return [row for row in routed if row is not None]


def route_file(
    source: str | Path,
    out: str | Path,
    router: Router | None = None,
    *,
    columns: Mapping[str, str] | None = None,
    top_scores: int | None = TOP_SCORES,
    reasons: bool = False,
    part_rows: int = PART_ROWS,
    ray: bool = False,
    workers: int | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> RoutedFile:
    """Route every row of a file of any size; called again after an end of any kind, it goes on where it stopped.

    Memory is bounded by a part, not by the file. Rows come out in the order of the input, part by part, as JSONL or,
    where the input is Parquet, as Parquet.

    Args:
        source: JSONL or CSV (``.gz`` too) or Parquet, or a folder of such files.
        out: a folder for the parts; new, empty, or that of the same job.
        router: who chooses, by its own policy; None for the shipped one.
        columns: the input's names of ``instruction`` and ``id``.
        top_scores: scores that are written of each row, the best first; None for all.
        reasons: write each decision's reason too.
        part_rows: most rows of a part: what is done again after a crash, and what one worker takes at a time.
        ray: route with Ray's workers, each with a router of its own; input and output must be where all of them see
            them. The result is the same to the byte on machines of one kind.
        workers: of Ray; None for one a CPU.
        progress: called with (what, rows done, rows in all).

    Raises:
        RecordsError: the input is missing, damaged, or changes meanwhile.
        FileError: the folder holds something else, is in use, or cannot be written.
        ConfigurationError: a column that there is not, or a package that is missing.
    """
    for name, number in (("part_rows", part_rows), ("workers", workers), ("top_scores", top_scores)):
        if number is not None:
            check_count(name, number)
    router = Router.from_pretrained() if router is None else router
    settings = {"top_scores": top_scores, "reasons": reasons, "part_rows": part_rows}
    with closing(Input.open(Path(source).absolute(), dict(columns or {}), part_rows)) as data:
        parts = list(data.plan(part_rows))
        folder = Path(out).absolute()
        manifest = _claimed(folder, _manifest(data, router, settings, parts))
        layout = _layout(data, top_scores, reasons)
        job = Job(router, data, layout, folder, datetime.fromisoformat(manifest.at))
        with locked(folder / MANIFEST):
            remove_leftovers(folder)
            n_before = _run(job, parts, ray, workers, progress)
            counts = _counted(job, parts)
            n_failed = counts.pop(None, 0)
            candidates = {str(name): n for name, n in counts.most_common()}
            result = RoutedFile(folder, manifest.n_rows, len(parts), n_before, n_failed, candidates)
            write_text(folder / DONE, json.dumps(result.to_json(), ensure_ascii=False, indent=1) + "\n")
    return result


def _run(
    job: Job,
    parts: Sequence[Part],
    ray: bool,
    workers: int | None,
    progress: Callable[[str, int, int], None] | None,
) -> int:
    """Route the parts that are not there; how many were."""
    missing = [part for part in parts if not job.path_of(part).exists()]
    n_rows = sum(part.n_rows for part in parts)
    done = n_rows - sum(part.n_rows for part in missing)

    def advance(rows: int) -> None:
        nonlocal done
        done += rows
        if progress is not None:
            progress("routing", done, n_rows)

    if ray and missing:
        from msat_core.bulk.ray_workers import run_on_ray

        run_on_ray(job, missing, workers, advance)
    else:
        for part in missing:
            advance(job.run(part))
    return len(parts) - len(missing)


def _counted(job: Job, parts: Sequence[Part]) -> Counter[str | None]:
    """How many rows went to each candidate; to None, those that could not be routed."""
    counts = Counter[str | None]()
    for part in parts:
        of_part = Counter(job.layout.candidates(job.path_of(part)))
        if of_part.total() != part.n_rows:
            raise FileError(
                f"{job.path_of(part)} holds {of_part.total()} rows, expected {part.n_rows}: remove it and route again."
            )
        counts += of_part
    return counts


def _layout(data: Input, top_scores: int | None, reasons: bool) -> Layout:
    column, first = data.columns.id, data.sources[0]
    id_type = first.type_of(column) if isinstance(first, Table) and column is not None else None
    return Layout(column is not None, top_scores, reasons, data.is_parquet, id_type)


def _manifest(data: Input, router: Router, settings: dict[str, int | None], parts: Sequence[Part]) -> Manifest:
    outcomes = [outcome.model_dump() for outcome in router.feedback.after(0)[2]]
    return Manifest(
        input={source.path.name: sha256_of(source.path) for source in data.sources},
        columns=asdict(data.columns),
        zoo=router.zoo.digest,
        policy=router.policy.digest,
        scorer=router.scorer.digest,
        feedback=digest_of(outcomes) if outcomes else "",
        settings=settings,
        n_rows=sum(part.n_rows for part in parts),
        n_parts=len(parts),
        at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )


def _claimed(folder: Path, wanted: Manifest) -> Manifest:
    """The manifest that holds in a folder: the one that stands there, if it is of the same job, else this one."""
    place = folder / MANIFEST
    if place.is_file():
        kept = Manifest.load(place)
        if differences := kept.differences(wanted):
            raise FileError(
                f"{folder} holds parts of another job, which differs in {', '.join(differences)}: name another folder, "
                "or remove that one."
            )
        return kept
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileError(f"{folder} already holds something else: name a new folder for the parts.")
    wanted.save(place)
    return wanted
