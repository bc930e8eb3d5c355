"""`msat evaluate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.table import Table

from msat_core import pretrained
from msat_core.cli.shared import (
    Json,
    MaxUsd,
    ObjectiveOption,
    RecordsFolder,
    ScorerFolder,
    Target,
    UsdWeight,
    cache_folder,
    errors,
    load_profiles,
    names_of,
    out,
    policy_of,
    print_json,
    progress_bars,
)
from msat_core.errors import ConfigurationError
from msat_core.exam import Exam, exams_beside
from msat_core.profiles import CapabilityProfile
from msat_core.records import Records
from msat_core.zoo import Candidate, Zoo


def evaluate(
    records: RecordsFolder,
    profiles: Annotated[Path, typer.Option(help="A folder of profiles, with exam/ if the exam is one's own.")],
    zoo: Annotated[str | None, typer.Option(help="Candidates, A,B,C; default: every profile.")] = None,
    scorer: ScorerFolder = None,
    prices: Annotated[Path | None, typer.Option(help="JSON list of model, usd_per_mtok_in, usd_per_mtok_out.")] = None,
    dump: Annotated[Path | None, typer.Option(help="Write item_id, candidate, score, chosen (Parquet).")] = None,
    objective: ObjectiveOption = "quality",
    usd_weight: UsdWeight = 0.0,
    target: Target = 0.8,
    max_usd: MaxUsd = None,
    seed: Annotated[int, typer.Option(help="Of the reference exams and the bootstrap.")] = 0,
    as_json: Json = False,
) -> None:
    """Route recorded items and hold the result against every yardstick.

    Items whose text is in the profiles' exam are left out, and items that a candidate lacks.
    """
    from msat_core.evaluation.report import Evaluation, choose_all, evaluation_items, score_items
    from msat_core.scoring import base

    found = load_profiles(profiles, names_of([zoo]) if zoo else [])
    candidates = _priced(found, prices)
    exams = _exams_of(found, profiles)
    model = base.load(scorer or pretrained.SCORER)
    for exam in exams:
        model.add_exam(exam)
    texts = frozenset().union(*(exam.text_hashes for exam in exams))
    items = evaluation_items(Records.load(records), candidates, texts)
    with progress_bars() as advance:
        scores = score_items(model, items, found, cache_folder(), progress=advance)
    chosen = choose_all(scores, items, candidates, policy_of(objective, usd_weight, target, max_usd))
    result = Evaluation(items, candidates, scores, chosen, max(len(exam.sheet.shots) for exam in exams), seed)
    if dump is not None:
        _write_dump(dump, result.records.item_ids, candidates.names, scores, chosen)
    report = result.to_json()
    if as_json:
        print_json(report)
    else:
        _print_report(report)


def _exams_of(profiles: list[CapabilityProfile], folder: Path) -> list[Exam]:
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


def _priced(profiles: list[CapabilityProfile], prices: Path | None) -> Zoo:
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
        errors.print(f"Note: {prices} has no price of {', '.join(without)}: costs are left out of the report.")
    return Zoo.of(
        Candidate(
            profile=profile,
            **{k: rows.get(profile.candidate, {}).get(k) for k in ("usd_per_mtok_in", "usd_per_mtok_out")},
        )
        for profile in profiles
    )


def _write_dump(path: Path, item_ids: tuple[str, ...], names: tuple[str, ...], scores: Any, chosen: Any) -> None:  # noqa: ANN401 - arrays
    import pyarrow as pa
    import pyarrow.parquet

    n, m = scores.shape
    table = pa.table(
        {
            "item_id": np.repeat(np.array(item_ids), m),
            "candidate": np.tile(np.array(names), n),
            "score": scores.ravel(),
            "chosen": (np.arange(m)[None, :] == chosen[:, None]).ravel(),
        }
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    pa.parquet.write_table(table, path)


def _print_report(report: dict[str, Any]) -> None:
    names = ["routed", "best_single", "best_by_aptitude", "reference_winner", "per_task_best", "random", "oracle"]
    columns = {"overall": report["overall"], **report["benchmarks"]}
    table = Table("", *columns)
    for name in [*names, "auc", "ece", "ece_debiased", "brier"]:
        table.add_row(name, *("–" if c[name] is None else f"{c[name]:.4f}" for c in columns.values()))
    table.add_row("instructions", *(str(c["n_instructions"]) for c in columns.values()))
    out().print(table)
    for name in names[1:4]:
        low, high = report["intervals"][f"routed_minus_{name}"]
        out().print(f"routed − {name}: 95% interval [{100 * low:+.2f}, {100 * high:+.2f}] points")
    for name, share in report["share_chosen"].items():
        out().print(f"{name}: chosen {share:.1%}, alone {report['candidates'][name]:.4f}")
    for name, cost in report.get("cost_usd", {}).items():
        out().print(f"cost of {name}: {cost:.4f} USD")
