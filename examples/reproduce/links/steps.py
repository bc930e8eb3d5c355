"""From the tables of published scores and the records to the scale and the zoo: two steps, as plain functions."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from links.exams import AREAS, LEFT_OUT, area_of_task, made_rows
from msat_core import AptitudeTest, Candidate, Exam, Records, Zoo
from msat_core.importers.linked import Linker
from msat_core.price_library import library_facts
from msat_core.profiles import Provenance
from msat_core.score_scale import Expectation
from msat_core.training.score_scale.fit import Cell, FittedScale, fit_scale
from msat_core.training.score_scale.table import DEFAULT_EFFORT, candidate_of, read_cells

FOLDER = Path(__file__).parent
AT = datetime(2026, 11, 25, tzinfo=timezone.utc)  # of the prices
SOURCES = {
    "mmlu_pro": "mmlu_pro",
    "gsm8k": "open",
    "cruxeval": "open",
    "math_l5": "open",
    "reasoning_gym": "reasoning_gym",
}
LEAST_SCORES = 10  # candidates with fewer published scores are not shipped
EFFORTS = ("minimal", "low", "medium", "high", "xhigh", "max", "think", "nothink")
BORROWED_VARIANCE = 0.8  # logits: how far a candidate without results may lie from its predecessor
PREFIXES = {  # LangChain's name of a maker, where it differs from OpenRouter's
    "google": "google_genai", "mistralai": "mistralai", "meta-llama": "groq", "amazon": "bedrock_converse",
}  # fmt: skip
PRICED_AS = {  # the older candidates, whose prices a table of 2024 had: as the library knows them now
    "Meta-Llama-3.1-70B-Instruct": "openrouter:meta-llama/llama-3.1-70b-instruct",
    "Meta-Llama-3.1-405B-Instruct": "openrouter:meta-llama/llama-3.1-405b-instruct",
    "Meta-Llama-3-70B-Instruct": "openrouter:meta-llama/llama-3-70b-instruct",
    "Meta-Llama-3-8B-Instruct": "openrouter:meta-llama/llama-3-8b-instruct",
    "Mistral-7B-Instruct-v0.1": "together:mistralai/Mistral-7B-Instruct-v0.1",
    "Mistral-7B-Instruct-v0.2": "together:mistralai/Mistral-7B-Instruct-v0.2",
    "Qwen1.5-72B-Chat": "together:Qwen/Qwen1.5-72B",
    "Qwen1.5-7B-Chat": "together:Qwen/Qwen1.5-7B",
    "Qwen2-72B-Instruct": "openrouter:qwen/qwen-2-72b-instruct",
    "Yi-6B-Chat": "together:zero-one-ai/Yi-6B",
    "c4ai-command-r-v01": "cohere:command-r",
    "gemini-1.5-pro-002": "google:gemini-1.5-pro",
    "gemini-1.5-pro": "google:gemini-1.5-pro",
    "gemini-1.5-flash": "google:gemini-1.5-flash",
    "gemma-2-27b-it": "google:gemma-2-27b-it",
    "claude-3-5-haiku-20241022": "anthropic:claude-3-5-haiku-latest",
    "claude-3-5-sonnet-20240620": "anthropic:claude-3-5-sonnet",
    "claude-3-haiku-20240307": "anthropic:claude-3-haiku",
    "claude-3-opus-20240229": "anthropic:claude-3-opus-latest",
    "gpt-3.5-turbo-0125": "openai:gpt-3.5-turbo",
    "gpt-4o-2024-05-13": "openai:gpt-4o-2024-05-13",
    "gpt-4o-2024-08-06": "openai:gpt-4o",
    "Mistral-Large-2": "openrouter:mistralai/mistral-large-2407",
    "jamba-1.5-large": "openrouter:ai21/jamba-1-5-large",
    "Phi-3.5-mini-instruct": "openrouter:microsoft/phi-3.5-mini-128k-instruct",
}


@dataclass(frozen=True)
class Tables:
    """Where the published scores lie: ``scores.parquet``, ``tasks.csv``, ``models.csv`` of one folder."""

    folder: Path

    def cells(self) -> list[Cell]:
        """All cells."""
        return read_cells(self.folder / "scores.parquet", self.folder / "tasks.csv")

    def released(self) -> dict[str, str]:
        """Release dates by base name."""
        with (self.folder / "models.csv").open(newline="", encoding="utf-8") as file:
            return {row["base_key"]: row["release_date"] for row in csv.DictReader(file) if row["release_date"]}


def matches() -> dict[tuple[str, str], str]:
    """The reviewed table of names: (records, name there) → name among the scores."""
    found = {}
    for row in _table("matches.csv"):
        base, _, effort = row["scores"].partition(":")
        found[row["records"], row["name"]] = candidate_of(base, effort)[0]
    return found


def exam_cells(records: Records, matched: dict[tuple[str, str], str], category: dict[str, str]) -> list[Cell]:
    """What the records' candidates got right in each area, by the names of the scores where they are matched."""
    groups: dict[tuple[str, str], list[int]] = {}
    for i, (benchmark, task, item) in enumerate(zip(records.benchmarks, records.tasks, records.item_ids, strict=True)):
        area = area_of_task(task, category.get(item, ""))
        if benchmark in SOURCES and area in AREAS and task.rsplit("/", 1)[-1] not in LEFT_OUT:
            groups.setdefault((SOURCES[benchmark], area), []).append(i)
    found = []
    for (source, area), rows in groups.items():
        for name, outcomes in zip(records.candidates, records.outcomes[:, rows], strict=True):
            known = outcomes[~np.isnan(outcomes)]
            if len(known):
                found.append(
                    Cell(
                        candidate=matched.get((source, name), f"records:{name}"),
                        source=source,
                        task=area,
                        area=_exam_area(area),
                        accuracy=float(known.mean()),
                        questions=len(known),
                        chance=0.1 if source == "mmlu_pro" else 0.0,
                    )
                )
    return found


def exam_areas() -> list[tuple[str, str]]:
    """(source, area) of the exam of areas."""
    return [(SOURCES[area.split("/", 1)[0]], area) for area in AREAS]


def fit(tables: Tables, records: Records, category: dict[str, str]) -> FittedScale:
    """The step ``links``: one model over the whole table and the records."""
    published = tables.cells()
    exams = exam_cells(records, matches(), category)
    return fit_scale(
        [*published, *exams],
        exam_areas(),
        fitted_on={
            "scores": len(published),
            "candidates": len({cell.candidate for cell in published}),
            "linked": len({s.candidate for s in exams} & {s.candidate for s in published}),
            "sources": "Epoch AI (CC-BY-4.0), LiveBench, BFCL, HELM; records of MMLU-Pro, ZeroEval, reasoning-gym",
        },
    )


def zoo_of_this_year(kept: Iterable[Candidate], fitted: FittedScale, linker: Linker, tables: Tables) -> Zoo:
    """The step ``zoo``: the candidates with exams, those with published scores, those with a price alone."""
    released = tables.released()
    known = [_relinked(c, fitted, linker) for c in kept]
    made = [with_library_facts(_without_old_prices(c), PRICED_AS.get(c.name, "")) for c in known]
    taken = {name for c in made for name in (c.name, *c.aliases)}
    for candidate in [*scored(fitted, linker, released), *facts_only(fitted, linker)]:
        if candidate.name not in taken:
            aliases = tuple(a for a in dict.fromkeys(candidate.aliases) if a not in taken and a != candidate.name)
            made.append(candidate.changed(aliases=aliases))
            taken |= {candidate.name, *aliases}
    stated = {row["name"]: row for row in _table("abilities.csv")}
    return Zoo.of(with_abilities(candidate, stated.get(candidate.name)) for candidate in made)


def with_abilities(candidate: Candidate, row: Mapping[str, str] | None) -> Candidate:
    """The candidate with what a model profile says that it takes and does; see :mod:`links.abilities`."""
    if row is None:
        return candidate
    values: dict[str, Any] = {field: int(row[field]) for field in ("context_window", "max_output_tokens") if row[field]}
    if row["modalities"]:
        values["modalities"] = frozenset(row["modalities"].split())
    if row["tools"]:
        values["tools"] = row["tools"] == "True"
    note = f"model profile of {row['source']} (models.dev)"
    return candidate.stated(values, source="table", on=AT.date().isoformat(), note=note)


def scored(fitted: FittedScale, linker: Linker, released: dict[str, str]) -> Iterator[Candidate]:
    """Candidates with published scores: plain names first, then their effort variants.

    Where the plain name has too few scores of its own, it is another name of the lowest effort that has enough.
    """
    rows = list(_table("candidates.csv"))
    enough = {name for name, n in zip(fitted.candidates, fitted.n_scores, strict=True) if n >= LEAST_SCORES}
    yield from (_scored(row, "", fitted, linker, released) for row in rows if row["name"] in enough)
    for row in rows:
        stands_in = row["name"] not in enough
        for effort in EFFORTS:
            if f"{row['name']}:{effort}" in enough:
                made = _scored(row, effort, fitted, linker, released)
                yield made.changed(aliases=(*made.aliases, row["name"], *aliases(row, ""))) if stands_in else made
                stands_in = False


def _scored(
    row: dict[str, str], effort: str, fitted: FittedScale, linker: Linker, released: dict[str, str]
) -> Candidate:
    name = f"{row['name']}:{effort}" if effort else row["name"]
    m = fitted.row(name)
    n_scores = int(fitted.n_scores[m])
    expected = fitted.scale.expectation(fitted.means[m], fitted.covariances[m], n_scores)
    source = f"{n_scores} published scores (Epoch, LiveBench, BFCL, HELM) on one scale"
    candidate = Candidate(profile=linker.profile(name, expected, source), aliases=tuple(aliases(row, effort)))
    if row["name"] in released:
        on = AT.date().isoformat()
        candidate = candidate.stated({"released": released[row["name"]]}, source="table", on=on, note="Epoch AI")
    return with_library_facts(candidate, row["price"])


def facts_only(fitted: FittedScale, linker: Linker) -> Iterator[Candidate]:
    """Candidates that have a price and no results: their predecessor's level, far less surely."""
    for row in _table("facts_only.csv"):
        m = next(fitted.row(n) for n in _with_efforts(row["borrowed_from"]) if n in fitted.candidates)
        known = fitted.scale.expectation(fitted.means[m], fitted.covariances[m], 0)
        wide = Expectation(known.logits, known.covariance + BORROWED_VARIANCE, 0)
        source = f"no results yet: level of {row['borrowed_from']}"
        profile = linker.profile(row["name"], wide, source, borrowed_from=row["borrowed_from"])
        yield with_library_facts(Candidate(profile=profile, aliases=tuple(aliases(row, ""))), row["price"])


def _with_efforts(name: str) -> Iterator[str]:
    yield name
    for effort in EFFORTS:
        yield f"{name}:{effort}"


def aliases(row: dict[str, str], effort: str) -> Iterator[str]:
    """What people type: with the maker's or LangChain's prefix, with dashes, dated, as a local tag, with the effort."""
    name, maker = row["name"], row["maker"]
    end = f":{effort}" if effort else ""
    forms = [name, *(one for one in row["aliases"].split(";") if one)]
    if maker == "anthropic":
        forms.insert(1, name.replace(".", "-"))
    priced = row["price"].partition(":")[2]
    if priced:
        forms.append(priced.rsplit("/", 1)[-1])
    for form in dict.fromkeys(forms):
        yield form + end
        if "/" not in form and not (":" in form and not effort):
            for prefix in (f"{maker}/", f"openrouter/{maker}/", f"{PREFIXES.get(maker, maker)}:"):
                yield prefix + form + end
    if not effort:
        default = next((e for start, e in DEFAULT_EFFORT if name.startswith(start)), "")
        if default:
            yield f"{name}:{default}"


def with_library_facts(candidate: Candidate, price: str) -> Candidate:
    """The candidate with what the price library says; ``price`` is ``provider:model``."""
    provider, _, model = price.partition(":")
    found = library_facts(model, provider=provider, at=AT) if price else None
    if found is None:
        return candidate
    return candidate.stated(
        found.values,
        source="library",
        on=AT.date().isoformat(),
        note=found.note,
        notes=found.notes,
        tariff=found.tariff,
    )


def _relinked(candidate: Candidate, fitted: FittedScale, linker: Linker) -> Candidate:
    """A candidate of the coarse exam of open benchmarks, placed by that exam and its published scores together.

    The scorer reads a short exam of GSM8K, CRUXEval and MATH some 8 points too high on other questions.
    """
    name = matches().get(("open", candidate.name), f"records:{candidate.name}")
    if not candidate.profile.provenance.coarse or name not in fitted.candidates:
        return candidate
    m = fitted.row(name)
    n_scores = int(fitted.n_scores[m])
    expected = fitted.scale.expectation(fitted.means[m], fitted.covariances[m], n_scores)
    source = f"{n_scores} scores (published, and records of GSM8K, CRUXEval, MATH) on one scale"
    return candidate.changed(profile=linker.profile(candidate.name, expected, source))


def _without_old_prices(candidate: Candidate) -> Candidate:
    return candidate.changed(usd_per_mtok_in=None, usd_per_mtok_out=None)


def reasoning_zoo(gym: Records, exam: Exam) -> Zoo:
    """The candidates of the reasoning-gym records on the exam of its tasks; ``n_shots`` tells how widely."""
    test, rows = AptitudeTest(exam), made_rows(gym, exam.sheet)
    profiles = []
    for name, outcomes in zip(gym.candidates, gym.outcomes, strict=True):
        pairs = zip(exam.sheet.shots, outcomes[rows].tolist(), strict=True)
        known = {shot.item_id: outcome for shot, outcome in pairs if not math.isnan(outcome)}
        if known:
            provenance = Provenance(source="records: reasoning_gym", protocol="zero-shot, mean of three samples")
            profiles.append(test.profile_of_scores(known, name, provenance=provenance))
    return Zoo.of(profiles)


def _exam_area(area: str) -> str:
    head, _, part = area.partition("/")
    if head == "mmlu_pro":
        return "ten choices"
    kinds = {"gsm8k": "maths", "math_l5": "maths", "cruxeval": "code", "code": "code"}
    maths = {"algebra", "arithmetic", "geometry"}
    return kinds.get(part or head, "maths" if part in maths else "puzzles")


def _table(name: str) -> Iterator[dict[str, str]]:
    with (FOLDER / name).open(newline="", encoding="utf-8") as file:
        yield from csv.DictReader(file)
