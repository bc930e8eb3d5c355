"""`msat records check`, `msat profile from-records`, `msat train`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import typer
from rich.table import Table

from msat_core import pretrained
from msat_core.cli.model_sat import train_model_sat_command
from msat_core.cli.shared import (
    Json,
    RecordsFolder,
    ScorerFolder,
    embedding_cache,
    items_listed_in,
    names_of,
    out,
    own_exam,
    print_json,
    profile_file,
    progress_bars,
)
from msat_core.errors import ConfigurationError
from msat_core.exam import Exam
from msat_core.records import Records

if TYPE_CHECKING:
    from msat_core.aptitude.aptitude_test import AptitudeTest
    from msat_core.profiles import CapabilityProfile

SHOWN_TWINS = 5


def check(records: RecordsFolder, as_json: Json = False) -> None:
    """Validate a records folder and say what it holds."""
    loaded = Records.load(records)
    twins = loaded.twins()
    known = ~np.isnan(loaded.outcomes)
    result: dict[str, Any] = {
        "n_items": len(loaded),
        "n_candidates": len(loaded.candidates),
        "n_outcomes": int(known.sum()),
        "benchmarks": {b: loaded.benchmarks.count(b) for b in dict.fromkeys(loaded.benchmarks)},
        "n_tasks": len(set(loaded.tasks)),
        "candidates": {
            name: {"n_items": int(row.sum()), "accuracy": float(scores[row].mean()) if row.any() else None}
            for name, row, scores in zip(loaded.candidates, known, loaded.outcomes, strict=True)
        },
        "twins": [list(group) for group in twins],
    }
    if as_json:
        print_json(result)
        return
    table = Table("candidate", "items", "mean score")
    for name, facts in result["candidates"].items():
        table.add_row(name, str(facts["n_items"]), "–" if facts["accuracy"] is None else f"{facts['accuracy']:.3f}")
    out().print(table)
    out().print(
        f"{len(loaded)} items of {result['n_tasks']} tasks, {result['n_outcomes']} outcomes of "
        f"{len(loaded.candidates)} candidates: no errors."
    )
    if twins:
        shown = "; ".join(" = ".join(group) for group in twins[:SHOWN_TWINS])
        out().print(f"{len(twins)} groups of items share one text (counted once where it matters): {shown} …")


def profile_from_records(
    records: RecordsFolder,
    out_folder: Annotated[Path, typer.Option("--out", help="Folder for the profiles.")],
    model: Annotated[list[str], typer.Option(help="A candidate's name in the records (repeat, or A,B).")],
    more_models: Annotated[list[str] | None, typer.Argument(help="More names.", metavar="[NAME]...")] = None,
    tasks_from_records: Annotated[bool, typer.Option(help="Draw a new exam from the records' own tasks.")] = False,
    exam: Annotated[Path | None, typer.Option(help="An exam folder; default: the shipped exam.")] = None,
    shots: Annotated[int, typer.Option(min=1, help="Questions per task of a new exam.")] = 20,
    seed: Annotated[int, typer.Option(help="Of the new exam's draw.")] = 0,
    scorer: ScorerFolder = None,
    protocol: Annotated[str, typer.Option(help="How the questions were asked.")] = "unknown",
    as_json: Json = False,
) -> None:
    """Build profiles from recorded outcomes on the exam's items; no candidate is called."""
    from msat_core.aptitude.aptitude_test import AptitudeTest

    if tasks_from_records and exam is not None:
        raise ConfigurationError("Give either --exam or --tasks-from-records, not both.")
    loaded = Records.load(records)
    names = names_of([*model, *(more_models or [])])
    if tasks_from_records:
        chosen: dict[str, Any] = {
            "rule": "own-tasks",
            "n_shots": shots,
            "seed": seed,
            "name": f"own tasks of {records.name}",
        }
        test = AptitudeTest(own_exam(loaded.select_candidates(names), scorer, **chosen))
        test.exam.save(out_folder / "exam")
    else:
        test = AptitudeTest.load(exam)
    profiles = [test.profile_from_records(loaded, name, protocol=protocol) for name in names]
    for profile in profiles:
        profile.save(profile_file(out_folder, profile.candidate))
    _report_profiles(profiles, test, out_folder, as_json)


def _report_profiles(profiles: list[CapabilityProfile], test: AptitudeTest, out_folder: Path, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "exam": test.exam.digest,
                "n_tasks": len(test.exam.sheet.tasks),
                "n_shots": len(test.exam.sheet.shots),
                "profiles": {
                    p.candidate: {
                        "file": str(profile_file(out_folder, p.candidate)),
                        "accuracy": p.accuracy,
                        "interval": [p.interval.low, p.interval.high],
                        "n_shots": p.n_shots,
                    }
                    for p in profiles
                },
            }
        )
        return
    for p in profiles:
        out().print(
            f"{p.candidate}: {p.accuracy:.3f} [{p.interval.low:.3f}, {p.interval.high:.3f}] on {p.n_shots} shots, "
            f"written to {profile_file(out_folder, p.candidate)}"
        )


def train(
    records: RecordsFolder,
    out_folder: Annotated[Path, typer.Option("--out", help="Folder for the trained scorer.")],
    scorer: Annotated[Literal["compact", "model-sat"], typer.Option(help="Which scorer.")] = "compact",
    config: Annotated[Path | None, typer.Option(help="model-sat: the run as a YAML file.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="model-sat: go on from the last checkpoint.")] = False,
    exam: Annotated[list[Path] | None, typer.Option(help="Leave the items of this exam out too (repeat).")] = None,
    leave_out: Annotated[Path | None, typer.Option(help="A table with an item_id column to leave out.")] = None,
    without: Annotated[list[str] | None, typer.Option(help="Candidates to leave out (repeat, or A,B).")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="compact: episodes.")] = None,
    tune: Annotated[bool, typer.Option("--tune-encoder", help="compact: tune the encoder first (slow).")] = False,
    seed: Annotated[int | None, typer.Option(help="Of everything random; default: 0, or the configuration's.")] = None,
    as_json: Json = False,
) -> None:
    """Train a scorer. The shipped exams' items are always left out, by text."""
    if scorer == "compact" and (config is not None or resume):
        raise ConfigurationError("--config and --resume belong to --scorer model-sat.")
    if scorer == "model-sat" and (steps is not None or tune):
        raise ConfigurationError("--steps and --tune-encoder belong to --scorer compact; --config states a run.")
    loaded = _training_items(Records.load(records), [*pretrained.EXAMS, *(exam or [])], leave_out)
    dropped = set(names_of(without or []))
    loaded = loaded.select_candidates(name for name in loaded.candidates if name not in dropped)
    if scorer == "model-sat":
        train_model_sat_command(loaded, out_folder, config, seed, resume, as_json)
        return
    from msat_core.encoders.minilm import Encoder
    from msat_core.training.compact.encoder_tuning import TuningSettings, check_tuning, tune_encoder
    from msat_core.training.compact.train import CompactSettings, train_compact

    settings = CompactSettings(seed=seed or 0)
    if steps is not None:
        settings = replace(settings, steps=steps)
    if tune:
        check_tuning()
    encoder, delta = Encoder.embedded(), None
    with progress_bars() as advance:
        vectors = embedding_cache(encoder, advance).encode(loaded.instructions).vectors
        if tune:
            delta = tune_encoder(
                loaded,
                vectors,
                encoder,
                TuningSettings(seed=seed or 0),
                progress=lambda *done: advance("tuning", *done),
            )
            encoder = Encoder.embedded(delta=delta)
            vectors = embedding_cache(encoder, advance).encode(loaded.instructions).vectors
        trained = train_compact(loaded, vectors, encoder.digest, settings, delta=delta, progress=advance)
    trained.save(out_folder)
    if as_json:
        print_json({"out": str(out_folder), "scorer": scorer, **trained.config.trained_on})
    else:
        out().print(f"trained on {len(loaded)} items × {len(loaded.candidates)} candidates, written to {out_folder}")


def _training_items(records: Records, exams: list[Path], leave_out: Path | None) -> Records:
    texts = set().union(*(Exam.load(folder).text_hashes for folder in exams if folder.is_dir()))
    if leave_out is not None:
        ids = items_listed_in(leave_out)
        texts |= {t for i, t in zip(records.item_ids, records.text_sha256, strict=True) if i in ids}
    return records.without_texts(texts)
