"""Every table and figure of the evaluation, from records: one command.

    python examples/reproduce/evaluation.py [--quick] [--seed 11] [--jobs 2] [--redraw]

Scorers are trained per fold, without the candidates that are new in it and without the test items (by text). What is
measured: new candidates and known candidates (never mixed) over pooled zoos, the paper's zoos, questions of other
sources, other benchmarks with an exam from the rest, releases in order of date, coverage, cost, and the guarantee of
`msat calibrate`. Results go to ``results/evaluation.json``; pictures and ``evaluation.html`` are drawn from that file
(``--redraw`` does only this). ``--quick`` is a rehearsal: one fold, little training, two baselines, other files.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import (
    FOLDS,
    benchmark_part,
    digest_of_encoder,
    embeddings,
    load_records,
    records_folder,
    rows_without,
    sat,
)
from evaluation_page import draw
from evaluation_parts import analyse
from numpy.typing import NDArray
from panels import Study, outcomes_at

from msat_core import (
    Candidate,
    CapabilityProfile,
    CompactScorer,
    CompactSettings,
    Exam,
    ExamRule,
    Records,
    Zoo,
    select_exam,
    train_compact,
)
from msat_core.evaluation.baselines import BASELINES
from msat_core.evaluation.items import item_costs
from msat_core.evaluation.studies.pooled import Panel
from msat_core.families import family_of

RESULTS = Path(__file__).parent / "results"
N_TEST = 2000
PARTS = ("new", "known", "open", "domain")
OPEN = ("gsm8k", "cruxeval", "math_l5")
OPEN_SHOTS = 20  # a task of the other two benchmarks, each split into ten or so
QUICK = CompactSettings(steps=10, folds=2)


@dataclass(frozen=True)
class Job:
    """One scorer to train: part is new, domain, known or open (all three benchmarks); number its fold."""

    part: str
    number: int
    seed: int
    quick: bool
    baselines: tuple[str, ...]
    keep: Path | None


@dataclass(frozen=True)
class Split:
    """What a job trains on, and what it is judged by; rows are of all records."""

    train: NDArray[np.intp]
    trained_on: list[str]
    test: NDArray[np.intp]
    candidates: list[str]
    new: frozenset[str]
    exam: Exam


def main() -> None:
    """Run the jobs in parallel, analyse their panels, write, draw."""
    arguments = _arguments()
    result = RESULTS / ("evaluation_quick.json" if arguments.quick else "evaluation.json")
    if not arguments.redraw:
        started = time.time()
        names = ("knn", "tasks") if arguments.quick else tuple(BASELINES)
        n_folds = 1 if arguments.quick else len(FOLDS)
        todo = [(part, n) for part in arguments.parts for n in range(n_folds if part in ("new", "domain") else 1)]
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the workers, one core each
        embeddings(load_records())  # once, before the workers ask for them
        jobs = [Job(*one, arguments.seed, arguments.quick, names, arguments.keep) for one in todo]
        panels = _run_all(jobs, arguments.jobs)
        facts = json.loads((records_folder() / "mmlu_pro" / "models.json").read_text())
        report = analyse(panels, facts, seed=arguments.seed, quick=arguments.quick, open_names=OPEN)
        report = {"seed": arguments.seed, "seconds": round(time.time() - started), **report}
        result.write_text(json.dumps(_rounded(report), indent=1) + "\n")
        print(f"done in {time.time() - started:.0f} s: {result}", file=sys.stderr)
    draw(json.loads(result.read_text()), result.parent, result.stem)


def _run_all(jobs: list[Job], workers: int) -> dict[str, list[Panel]]:
    """Panels by part, in the order of their numbers; progress on standard error."""
    found: dict[tuple[str, int], list[Panel]] = {}
    started = time.time()
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        waiting = {pool.submit(run_job, job): job for job in jobs}
        for done in as_completed(waiting):
            job = waiting[done]
            found[job.part, job.number] = done.result()
            took = f"{time.time() - started:.0f} s"
            print(f"[{len(found)}/{len(jobs)}] {job.part} {job.number + 1}, {took}", file=sys.stderr, flush=True)
    parts = dict.fromkeys(job.part for job in jobs)
    return {part: [panel for key in sorted(found) if key[0] == part for panel in found[key]] for part in parts}


def run_job(job: Job) -> list[Panel]:
    """Train one scorer, then make a panel of each split that it serves."""
    torch.set_num_threads(1)
    records = load_records()
    vectors = embeddings(records)
    numbers = range(len(OPEN)) if job.part == "open" else [job.number]
    scorer: CompactScorer | None = None
    panels = []
    for number in numbers:
        kept = job.keep and job.keep / f"{job.part}-{number}-seed-{job.seed}{'-quick' if job.quick else ''}.npz"
        if kept and kept.is_file():
            panels.append(load_panel(kept))
            continue
        split = _split(job, number, records, vectors)
        if scorer is None:
            train = records.select_items(split.train).select_candidates(split.trained_on)
            settings = QUICK if job.quick else CompactSettings()
            scorer = train_compact(train, vectors[split.train], digest_of_encoder(), settings)
        panels.append(_panel(job, split, records, vectors, scorer))
        if kept:
            save_panel(panels[-1], kept)
    return panels


def _panel(job: Job, split: Split, records: Records, vectors: NDArray[np.float32], scorer: CompactScorer) -> Panel:
    """Score the test items with our scorer and with the baselines."""
    pool = records.select_candidates(split.candidates)
    study = Study(pool, vectors, split.exam, split.test, split.new)
    if job.part == "known":
        panel = study.panel(scorer, job.baselines, known=outcomes_at(pool, vectors, split.train))
    else:
        others = outcomes_at(records.select_candidates(split.trained_on), vectors, split.train)
        panel = study.panel(scorer, job.baselines, others=others)
    return replace(panel, costs=_costs(pool.select_items(split.test), study.profiles))


def save_panel(panel: Panel, path: Path) -> None:
    """Write aside, then rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".tmp.npz")
    arrays: dict[str, Any] = {f"scores/{name}": scores for name, scores in panel.scores.items()}
    arrays |= {name: np.array(getattr(panel, name)) for name in ("names", "tasks", "outcomes", "aptitude", "costs")}
    np.savez(aside, new=np.array(sorted(panel.new), dtype=str), exam_size=panel.exam_size, **arrays)
    aside.rename(path)


def load_panel(path: Path) -> Panel:
    """What save_panel wrote."""
    with np.load(path) as kept:
        return Panel(
            names=tuple(kept["names"].tolist()),
            new=frozenset(kept["new"].tolist()),
            tasks=tuple(kept["tasks"].tolist()),
            outcomes=kept["outcomes"],
            aptitude=kept["aptitude"],
            costs=kept["costs"],
            scores={key.removeprefix("scores/"): kept[key] for key in kept.files if key.startswith("scores/")},
            exam_size=int(kept["exam_size"]),
        )


def _split(job: Job, number: int, records: Records, vectors: NDArray[np.float32]) -> Split:
    if job.part == "open":
        return _open_split(job, number, records, vectors)
    rng = np.random.default_rng(job.seed)
    mmlu = np.flatnonzero(benchmark_part(records, ("mmlu_pro",)))
    names = sat(records.select_items(mmlu))
    new = frozenset(n for n in names if job.part != "known" and any(part in n for part in FOLDS[number]))
    relatives = {family_of(name) for name in new}
    inside = np.array([records.tasks[i].startswith("mmlu/") for i in mmlu])
    drawn = rng.permutation(mmlu)[:N_TEST]
    if job.part == "domain":  # half of the test from mmlu/*, half from other sources, which nothing was trained on
        drawn = np.concatenate(
            [rng.permutation(mmlu[inside])[: N_TEST // 2], rng.permutation(mmlu[~inside])[: N_TEST // 2]]
        )
    held = {records.text_sha256[i] for i in drawn}
    source = mmlu[inside] if job.part == "domain" else mmlu
    free = rows_without(records, held, source)
    exam = _exam(records.select_candidates(names), free, vectors, "broad", 20, job.seed)
    usable = source if job.part == "domain" else np.arange(len(records))
    train = rows_without(records, held | exam.text_hashes, usable)
    pool = names if job.part in ("domain", "known") else records.candidates
    return Split(train, [n for n in pool if family_of(n) not in relatives], drawn, names, new, exam)


def _open_split(job: Job, number: int, records: Records, vectors: NDArray[np.float32]) -> Split:
    """Test on one open benchmark, exam from the other two, training on MMLU-Pro without any of the candidates."""
    parts = {name: np.flatnonzero(benchmark_part(records, (name,))) for name in (*OPEN, "mmlu_pro")}
    members = [set(sat(records.select_items(parts[name]))) for name in OPEN]
    names = [name for name in records.candidates if all(name in one for one in members)]
    target = OPEN[number]
    free = np.concatenate([parts[name] for name in OPEN if name != target])
    exam = _exam(records.select_candidates(names), free, vectors, "own-tasks", OPEN_SHOTS, job.seed)
    trained_on = [n for n in sat(records.select_items(parts["mmlu_pro"])) if n not in names]
    return Split(parts["mmlu_pro"], trained_on, parts[target], names, frozenset(names), exam)


def _exam(
    records: Records, rows: NDArray[np.intp], vectors: NDArray[np.float32], rule: ExamRule, shots: int, seed: int
) -> Exam:
    return select_exam(
        records.select_items(rows),
        rule=rule,
        n_shots=shots,
        seed=seed,
        vectors=vectors[rows],
        encoder_digest=digest_of_encoder(),
    )


def _costs(test: Records, profiles: list[CapabilityProfile]) -> NDArray[np.float64]:
    """(N, M) by the indicative prices of models.json; NaN where there is none."""
    facts = {row["model"]: row for row in json.loads((records_folder() / "mmlu_pro" / "models.json").read_text())}
    keys = ("usd_per_mtok_in", "usd_per_mtok_out")
    zoo = Zoo.of(Candidate(profile=p, **{key: facts.get(p.candidate, {}).get(key) for key in keys}) for p in profiles)
    unknown = np.array([candidate.usd_per_mtok_in is None for candidate in zoo])
    return np.where(unknown[None, :], np.nan, item_costs(test, zoo))


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(one) for one in value]
    return float(f"{value:.5g}") if isinstance(value, (float, np.floating)) else value  # a call costs 1e-5 USD


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=11, help="of test items, exams and zoos")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--keep", type=Path, help="keep panels in this folder, and take those that it has")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="leave some out")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--redraw", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
