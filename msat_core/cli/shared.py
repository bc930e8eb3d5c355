"""What the commands share: options, output, progress, and where things are found."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from msat_core import pretrained
from msat_core.documents import cache_root, file_stem
from msat_core.errors import ArtefactError, ConfigurationError, RecordsError
from msat_core.exam import Exam, exams_beside
from msat_core.profiles import CapabilityProfile
from msat_core.routing.policy import Objective, RoutingPolicy
from msat_core.zoo import Candidate, Zoo

if TYPE_CHECKING:
    from collections.abc import Iterator

    from msat_core.encoders.base import Encoder
    from msat_core.encoders.cache import EmbeddingCache
    from msat_core.records import Records
    from msat_core.scoring.base import Scorer

Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
RecordsFolder = Annotated[Path, typer.Argument(help="A records folder, or a folder of them.", metavar="RECORDS")]
ScorerFolder = Annotated[Path | None, typer.Option("--scorer", help="A scorer folder; default: the shipped one.")]
ObjectiveOption = Annotated[Objective, typer.Option("--objective", help="How scores become a choice.")]
UsdWeight = Annotated[float, typer.Option(help="value: score given up to save one USD a call.")]
Target = Annotated[float, typer.Option(help="target: the score that is good enough.")]
PolicyFile = Annotated[Path | None, typer.Option("--policy", help="A routing policy, as `msat calibrate` writes it.")]
ProfilesFolder = Annotated[Path, typer.Option(help="A folder of profiles, with exam/ if the exam is one's own.")]
ZooNames = Annotated[str | None, typer.Option(help="Candidates, A,B,C; default: every profile.")]
Prices = Annotated[Path | None, typer.Option(help="JSON list of model, usd_per_mtok_in, usd_per_mtok_out.")]
MaxUsd = Annotated[float | None, typer.Option(help="Price cap of one call in USD.")]

ZooFile = Annotated[Path | None, typer.Option("--zoo", help="A zoo file; default: the shipped zoo.")]
Columns = Annotated[
    list[str] | None, typer.Option("--map", help="FIELD=COLUMN: the table's name of a field (repeat).", metavar="F=C")
]

errors = Console(stderr=True)


def out() -> Console:
    """Standard output for people."""
    return Console()


def print_json(result: Any) -> None:  # noqa: ANN401 - any JSON value
    """Standard output for programs."""
    sys.stdout.write(json.dumps(result, ensure_ascii=False, allow_nan=False) + "\n")


def policy_of(
    objective: Objective, usd_weight: float, target: float, max_usd: float | None, file: Path | None = None
) -> RoutingPolicy:
    """The policy that the options state, or the one in the file; not both."""
    stated = RoutingPolicy(objective=objective, usd_weight=usd_weight, target=target, max_usd=max_usd)
    if file is None:
        return stated
    if stated != RoutingPolicy():
        raise ConfigurationError(
            f"{file} already says how to choose: give either --policy or --objective, --target and the like."
        )
    return RoutingPolicy.load(file)


@dataclass(frozen=True)
class Trial:
    """Who is to be judged on records, and by which scorer, which knows their exams."""

    scorer: Scorer
    profiles: list[CapabilityProfile]
    zoo: Zoo
    exams: list[Exam]

    @property
    def exam_texts(self) -> frozenset[str]:
        """Hashes of the exams' texts: items that must be left out."""
        return frozenset().union(*(exam.text_hashes for exam in self.exams))


def trial_of(profiles: Path, names: str | None, prices: Path | None, scorer: Path | None) -> Trial:
    """What `--profiles`, `--zoo`, `--prices` and `--scorer` state."""
    from msat_core.scoring import loading

    found = load_profiles(profiles, names_of([names]) if names else [])
    zoo, exams = priced_zoo(found, prices), exams_of(found, profiles)
    model = loading.load(scorer or pretrained.SCORER)
    for exam in exams:
        if not model.add_exam(exam):
            raise ArtefactError(
                f"The exam {exam.sheet.name!r} has no shot embeddings that this scorer can read: make it again, with "
                "the same --scorer."
            )
    return Trial(model, found, zoo, exams)


def exams_of(profiles: list[CapabilityProfile], folder: Path) -> list[Exam]:
    """The exams that the profiles name, from beside them or from the shipped ones."""
    wanted = {profile.exam_digest: profile.candidate for profile in profiles if profile.exam_digest}
    shipped = [Exam.load(place) for place in pretrained.EXAMS if place.is_dir()]
    known = {exam.digest: exam for exam in [*shipped, *exams_beside(folder)]}
    for digest, candidate in wanted.items():
        if digest not in known:
            raise ConfigurationError(
                f"The profile of {candidate!r} names the exam {digest[:12]}…, which is neither shipped nor in "
                f"{folder / 'exam'}: without it nobody can tell which items to leave out."
            )
    return [known[digest] for digest in wanted]


def priced_zoo(profiles: list[CapabilityProfile], prices: Path | None) -> Zoo:
    """A zoo of the profiles with the prices of a JSON list, if there is one."""
    if prices is None:
        return Zoo.of(profiles)
    try:
        rows = {row["model"]: row for row in json.loads(prices.read_text(encoding="utf-8"))}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigurationError(
            f"{prices} cannot be read ({error}): expected a JSON list of objects with model, usd_per_mtok_in and "
            "usd_per_mtok_out."
        ) from None
    without = [p.candidate for p in profiles if p.candidate not in rows]
    if without:
        errors.print(f"Note: {prices} has no price of {', '.join(without)}.")
    return Zoo.of(
        Candidate(
            profile=profile,
            **{k: rows.get(profile.candidate, {}).get(k) for k in ("usd_per_mtok_in", "usd_per_mtok_out")},
        )
        for profile in profiles
    )


def cache_folder() -> Path:
    """Where embeddings are kept."""
    return cache_root() / "embeddings"


def embedding_cache(encoder: Encoder, advance: Callable[[str, int, int], None]) -> EmbeddingCache:
    """Embeddings of this encoder, kept in :func:`cache_folder`."""
    from msat_core.encoders.cache import EmbeddingCache

    return EmbeddingCache(encoder, cache_folder(), lambda done, total: advance("embedding", done, total))


def own_exam(records: Records, scorer: Path | None, **selection: Any) -> Exam:  # noqa: ANN401 - select_exam's own
    """An exam from one's own records, embedded by the scorer's encoder, and its shots by the published one too."""
    from msat_core.aptitude.selection import select_exam
    from msat_core.encoders.minilm import MiniLMEncoder, embedded_digest
    from msat_core.scoring import loading
    from msat_core.scoring.base import EmbeddingScorer

    model = loading.load(scorer or pretrained.SCORER)
    encoder = model.encoder if isinstance(model, EmbeddingScorer) else MiniLMEncoder.embedded()
    with progress_bars() as advance:
        vectors = embedding_cache(encoder, advance).encode(records.instructions).vectors
        exam = select_exam(records, vectors=vectors, encoder_digest=encoder.digest, **selection)
        if encoder.digest == embedded_digest():
            return exam
        text_of = dict(zip(records.item_ids, records.instructions, strict=True))
        shots = [text_of[shot.item_id] for shot in exam.sheet.shots]
        return exam.with_embeddings(
            embedded_digest(), embedding_cache(MiniLMEncoder.embedded(), advance).encode(shots).vectors
        )


@contextmanager
def progress_bars() -> Iterator[Callable[[str, int, int], None]]:
    """Progress on standard error: call the yielded function with (what, done, total)."""
    with Progress(console=errors, transient=True) as progress:
        tasks: dict[str, Any] = {}

        def advance(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=total)
            progress.update(tasks[what], completed=done, total=total)

        yield advance


def names_of(values: list[str]) -> list[str]:
    """Names given one by one or separated by commas, in order, once each."""
    return list(dict.fromkeys(name.strip() for value in values for name in value.split(",") if name.strip()))


def profile_file(folder: Path, candidate: str) -> Path:
    """Where a candidate's profile is kept in a folder of profiles."""
    return folder / f"{file_stem(candidate)}.json"


def load_profiles(folder: Path, names: list[str]) -> list[CapabilityProfile]:
    """The named profiles of a folder, or all of them, by file name, if none is named."""
    if not folder.is_dir():
        raise ArtefactError(f"{folder} is not a folder: expected one with profiles, as `msat profile` writes.")
    found = {profile.candidate: profile for profile in map(CapabilityProfile.load, sorted(folder.glob("*.json")))}
    missing = [name for name in names if name not in found]
    if missing or not found:
        raise ArtefactError(
            f"{folder} holds {'no profile of ' + repr(missing[0]) if missing else 'no profile'}; "
            f"it has {', '.join(found) or 'none'}: make it with `msat profile from-records`."
        )
    return [found[name] for name in names] if names else list(found.values())


def items_listed_in(path: Path) -> set[str]:
    """The ``item_id`` column of a Parquet or JSONL table."""
    import pyarrow as pa
    import pyarrow.json
    import pyarrow.parquet

    try:
        table = pa.parquet.read_table(path) if path.suffix == ".parquet" else pa.json.read_json(path)
        return set(table["item_id"].to_pylist())
    except (pa.ArrowInvalid, OSError, KeyError) as error:
        raise RecordsError(f"{path} cannot be read as a table with an item_id column ({error}).") from None


def mapping(pairs: list[str] | None) -> dict[str, str]:
    """The FIELD=COLUMN pairs of ``--map``."""
    found = {}
    for pair in pairs or []:
        name, equals, column = pair.partition("=")
        if not equals or not name.strip() or not column.strip():
            raise ConfigurationError(f"--map {pair!r}: expected FIELD=COLUMN, for example instruction=prompt.")
        found[name.strip()] = column.strip()
    return found


def with_interval(profile: CapabilityProfile) -> str:
    """An exam accuracy with its interval, for people."""
    return f"{profile.accuracy:.2f} [{profile.interval.low:.2f}, {profile.interval.high:.2f}]"
