"""The model card, written from the files that it describes; the held-out figures are those of ``new_candidates.py``."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file

from msat_core import TuningSettings, Zoo
from msat_core.encoders.folder import EncoderConfig
from msat_core.exam import ExamSheet
from msat_core.scoring.compact.scorer import CompactConfig

MEASURED = Path(__file__).parent / "results" / "new_candidates.json"
WIDTH = 120  # of a line
KINDS = ("near-equal", "mixed", "dominant")

TEMPLATE = """\
# Model card: the shipped compact scorer, exams and zoo

**What it does.** Given an instruction and the exam results of candidate LLMs, it gives each candidate a
calibrated probability of answering correctly. One forward of a sentence encoder ({encoder}: {dim} dimensions,
{max_length} tokens, of a longer text its beginning and its end), then a Gaussian process over the exam's
evidence: overall ability, learnt skills, exam tasks, and single exam questions near the instruction. A candidate
that it has never seen needs an exam, no training.

**Files.** `encoder/` (weights in half precision, {n_encoder:,} numbers, derived from {derived_from} under Apache-2.0;
tokenizer; graph for ONNX Runtime), `compact/` (weights as safetensors, {n_weights:,} parameters; configuration and
calibration as JSON), `exam/` ({exam}; rule *{exam_rule}*: the
largest tasks, random questions), `exam_open/` ({open_exam}; rule *{open_rule}*: random questions of each
task, large ones split into clusters), `zoo.json` ({n_full} chat-tuned candidates with full profiles,
{n_coarse} more with coarse ones; {n_priced} have prices). Profiles from published scores lie on
`scale.json`, one model over the tables of Epoch AI, LiveBench, BFCL and HELM, and speak of the areas of
`exam_areas/`; `exam_reasoning/` can be sat without a download, and `zoo_reasoning.json` holds who sat
it. Exams hold ids, text hashes, keywords and embeddings; no text. The embeddings are those of the shipped
and of the published encoder, so that a scorer trained anew on either can use the exams.

**Training data.** Public recorded outcomes of MMLU-Pro (five-shot chain of thought), GSM8K, CRUXEval and MATH
level 5 (zero-shot): {n_outcomes:,} outcomes of {n_candidates} candidates on {n_items:,} items. Left out by
text: both exams and the questions of the demo.

**Training.** The encoder: rank {rank} in every matrix of the last {layers} layers, pointwise and pairwise
cross-entropy through a throwaway head, held near the published vectors. Then the scorer: {steps} episodes:
random exams drawn from the training items, real and synthetic candidates, pointwise and pairwise
cross-entropy; afterwards the scales of skills and tasks are multiplied by {new_candidate_scale} for
candidates never seen. Calibration: slope {slope:.2f} and intercept {intercept:.2f}, fitted on candidates held
out in {folds} folds by family.
Deterministic from its seed: rebuilt elsewhere, exam sheets and zoo are the same to the byte, tensors and
calibration up to float rounding.

    make pretrained                          # rebuild all of it from records, and say what changed
    make pretrained ARGS="--only scorer"     # or a part

**Figures** (the same recipe, candidates and items held out from tuning, training and exams alike; `python
examples/reproduce/new_candidates.py --tune-encoder`): new candidates of MMLU-Pro: AUC {auc}, debiased ECE
{ece_debiased}, Brier {brier}; gain over the best single in hindsight, in points by kind of zoo: {gains}; the worst of
{n_zoos} zoos loses {worst:.1f}.

**Limits.** Trained on questions with one right answer: exams, maths, code prediction. For open-ended writing
it knows general ability at best. English. Prices are of the day that each states. Coarse profiles know a level
and broad areas, and their scores are wider.
"""


def model_card(folder: Path) -> str:
    """The card of what lies in a folder laid out as ``msat_core/pretrained``."""
    config = CompactConfig.load(folder / "compact" / "scorer.json")
    encoder = EncoderConfig.load(folder / "encoder" / "encoder.json")
    tuning = TuningSettings()
    weights = load_file(folder / "compact" / "weights.safetensors")
    exam, open_exam = (ExamSheet.load(folder / name / "exam.json") for name in ("exam", "exam_open"))
    zoo = Zoo.load(folder / "zoo.json")
    n_full = sum(not member.profile.provenance.coarse for member in zoo)
    text = TEMPLATE.format(
        **{**config.trained_on, "dim": config.dim, "max_length": encoder.max_length},
        slope=config.slope,
        intercept=config.intercept,
        encoder=encoder.name,
        derived_from=encoder.derived_from.replace("@", " at "),
        layers=tuning.layers,
        rank=tuning.rank,
        n_weights=sum(tensor.size for tensor in weights.values()),
        n_encoder=sum(tensor.size for tensor in load_file(folder / "encoder" / "encoder.safetensors").values()),
        exam=_described(exam),
        exam_rule=exam.rule,
        open_exam=_described(open_exam),
        open_rule=open_exam.rule,
        n_full=n_full,
        n_coarse=len(zoo) - n_full,
        n_priced=sum(member.usd_per_mtok_in is not None for member in zoo),
        **_held_out(json.loads(MEASURED.read_text())),
    )
    return "\n\n".join(_filled(part) for part in text.rstrip().split("\n\n")) + "\n"


def _filled(part: str) -> str:
    """A paragraph in lines of one width; headings and code as they are."""
    if part.startswith(("#", "    ")):
        return part
    return textwrap.fill(" ".join(part.split("\n")), WIDTH, break_long_words=False, break_on_hyphens=False)


def _described(sheet: ExamSheet) -> str:
    return f"{sheet.name}: {len(sheet.shots):,} questions of {len(sheet.tasks)} tasks"


def _held_out(measured: dict[str, dict[str, Any]]) -> dict[str, object]:
    quality = measured["quality_routed"]
    return {
        **{name: f"{quality[name]:.3f}".lstrip("0") for name in ("auc", "ece_debiased", "brier")},
        "gains": ", ".join(f"{_interval(measured[kind]['over_best_single'])} in {kind} ones" for kind in KINDS),
        "n_zoos": sum(measured[kind]["n_zoos"] for kind in KINDS),
        "worst": -min(measured[kind]["worst_zoo"]["routed"] for kind in KINDS),
    }


def _interval(points: Iterable[float]) -> str:
    """Mean, low and high, in points."""
    mean, low, high = (f"{value:+.2f}".replace("-", "−") for value in points)
    return f"{mean} [{low}, {high}]"
