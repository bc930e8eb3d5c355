"""Candidates with an exam and published scores, profiled from the scores alone: how far off is that?

    python -m links.leave_one_out SCORES_FOLDER        # from examples/reproduce

Each candidate's own outcomes are taken out of the fit; its profile is then scored on its real outcomes (questions of no
exam). Compared with the mean level of the other candidates of its maker in the same records.
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from common import CACHE, records_folder

from links.steps import SOURCES, Tables, exam_areas, exam_cells, matches
from msat_core import Exam, Records, pretrained
from msat_core.encoders.cache import EmbeddingCache
from msat_core.importers.linked import Linker
from msat_core.training.score_scale.fit import fit_scale

ITEMS = 600  # of each source
STEPS = 10  # from the fitted scale on
SEED = 7


def main() -> None:
    """One JSON line a candidate and source, then a summary."""
    import pyarrow.parquet as parquet

    tables, matched, linker = Tables(Path(sys.argv[1])), matches(), Linker.shipped()
    with (tables.folder / "models.csv").open(newline="", encoding="utf-8") as file:
        maker = {row["base_key"]: row["provider"] for row in csv.DictReader(file)}
    items = parquet.read_table(records_folder() / "mmlu_pro" / "items.parquet").to_pylist()
    category = {row["item_id"]: row["category"] for row in items}
    records = Records.load(records_folder())
    exams = exam_cells(records, matched, category)
    published = tables.cells()
    held = _held_out(records)
    linked = sorted({s.candidate for s in exams} & {s.candidate for s in published})
    found = []
    for name in linked:
        kept = [s for s in exams if s.candidate != name]
        fitted = fit_scale([*published, *kept], exam_areas(), start=linker.scale, steps=STEPS)
        m = fitted.row(name)
        expected = fitted.scale.expectation(fitted.means[m], fitted.covariances[m], int(fitted.n_scores[m]))
        profile = Linker(fitted.scale, linker.exam, linker.scorer).profile(name, expected, "left out")
        for (source, own), to in matched.items():
            if to != name or own not in records.candidates or source == "reasoning_gym":
                continue
            rows = held[source]
            outcomes = records.outcomes[records.candidates.index(own), rows]
            rows, outcomes = rows[~np.isnan(outcomes)], outcomes[~np.isnan(outcomes)]
            texts = [records.instructions[i] for i in rows]
            vectors = EmbeddingCache(linker.scorer.encoder, CACHE).encode(texts).vectors
            p = linker.scorer.score_vectors(vectors, [profile]).probabilities[:, 0]
            others = [
                np.nanmean(records.outcomes[records.candidates.index(o), held[source]])
                for (s, o), t in matched.items()
                if s == source and t != name and o in records.candidates and _maker(t, maker) == _maker(name, maker)
            ]
            row = {
                "source": source,
                "candidate": name,
                "scores": int(fitted.n_scores[m]),
                "level": round(float(outcomes.mean()), 4),
                "predicted": round(float(p.mean()), 4),
                "family": round(float(np.nanmean(others)), 4) if others else None,
                "auc": round(_auc(p, outcomes), 4),
                "ece": round(_ece(p, outcomes), 4),
            }
            found.append(row)
            print(json.dumps(row), flush=True)
    for source in ("mmlu_pro", "open"):
        print(json.dumps(_summary([row for row in found if row["source"] == source])))


def _held_out(records: Records) -> dict[str, np.ndarray]:
    """Rows of each source that are in no exam."""
    asked = set().union(*(Exam.load(folder).text_hashes for folder in pretrained.EXAMS))
    rng = np.random.default_rng(SEED)
    sources = np.array([SOURCES.get(b, "") for b in records.benchmarks])
    free = np.array([text not in asked for text in records.text_sha256])
    return {
        s: np.sort(rng.choice(np.flatnonzero(free & (sources == s)), ITEMS, replace=False))
        for s in ("mmlu_pro", "open")
    }


def _maker(name: str, maker: dict[str, str]) -> str:
    base = name.split(":")[0]
    return maker.get(base) or base.split("-")[0]


def _auc(p: np.ndarray, outcomes: np.ndarray) -> float:
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(outcomes > 0.5, p))


def _ece(p: np.ndarray, outcomes: np.ndarray, bins: int = 15) -> float:
    parts = np.array_split(np.argsort(p, kind="stable"), bins)
    return float(sum(len(b) * abs(p[b].mean() - outcomes[b].mean()) for b in parts) / len(p))


def _summary(rows: list[dict[str, Any]]) -> dict[str, object]:
    from scipy.stats import spearmanr

    level, predicted = (np.array([row[k] for row in rows], dtype=float) for k in ("level", "predicted"))
    both = [row for row in rows if row["family"] is not None]
    ours = np.array([abs(row["predicted"] - row["level"]) for row in both])
    theirs = np.array([abs(row["family"] - row["level"]) for row in both])
    return {
        "source": rows[0]["source"],
        "candidates": len(rows),
        "level_error": round(float(np.abs(level - predicted).mean()), 4),
        "bias": round(float((predicted - level).mean()), 4),
        "rank_correlation": round(float(spearmanr(level, predicted)[0]), 3),
        "auc": round(float(np.mean([row["auc"] for row in rows])), 4),
        "ece": round(float(np.mean([row["ece"] for row in rows])), 4),
        "with_family": len(both),
        "level_error_of_these": round(float(ours.mean()), 4),
        "level_error_of_family_mean": round(float(theirs.mean()), 4),
        "paired_difference": round(float((ours - theirs).mean()), 4),
        "paired_se": round(float((ours - theirs).std(ddof=1) / np.sqrt(len(both))), 4),
    }


if __name__ == "__main__":
    main()
