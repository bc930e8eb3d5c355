"""The command that rebuilds what is shipped, on synthetic records and without an encoder's weights."""

from __future__ import annotations

import dataclasses
import importlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from support import synthetic_records

from msat_core import CompactScorer, Exam, Records, Zoo
from msat_core import pretrained as shipped
from msat_core.encoders.folder import EncoderConfig, EncoderFiles
from msat_core.encoders.hashed import HashEncoder
from msat_core.errors import ConfigurationError
from msat_core.training.compact.train import CompactSettings

SCRIPTS = Path(__file__).parents[1] / "examples" / "reproduce"
STEP_NAMES = ["exams", "encoder", "embeddings", "scorer", "links", "zoo", "quick", "posteriors", "card"]


def test_steps_are_chosen_by_name(command: ModuleType) -> None:
    def names(**asked: Any) -> list[str]:
        return [step.name for step in command.chosen_steps(**asked)]

    assert names() == STEP_NAMES
    assert names(first="scorer") == ["scorer", "links", "zoo", "quick", "posteriors", "card"]
    assert names(only=["card", "exams"]) == ["exams", "card"]
    assert names(skip=["encoder"]) == [name for name in STEP_NAMES if name != "encoder"]


def test_every_step_reads_what_one_before_it_makes(command: ModuleType) -> None:
    there = {"records", "scores"}
    for step in command.STEPS:
        assert set(step.reads) <= there, step.name
        assert not set(step.makes) & there, step.name
        there |= set(step.makes)
    kept = {str(file.relative_to(shipped.FOLDER)) for file in shipped.FOLDER.rglob("*") if file.is_file()}
    assert there - {"records", "scores"} == {file for file in kept if not file.endswith((".py", ".pyc"))}


def test_a_first_run_makes_everything(world: World) -> None:
    assert {change.state for change in world.first.changes} == {"new"}
    assert not world.first.stale and world.first.scores is None
    zoo = Zoo.load(world.folder / "zoo.json")
    assert [member.profile.provenance.coarse for member in zoo] == [False] * 2 + [True] * 2
    assert zoo.candidates[0].usd_per_mtok_in == 1.0
    scorer = CompactScorer.load(world.folder / "compact")
    exams = [Exam.load(world.folder / name) for name in ("exam", "exam_open")]
    assert all(len(exam.embeddings) == 2 and scorer.add_exam(exam) for exam in exams)
    card = " ".join((world.folder / "MODEL_CARD.md").read_text().split())
    assert f"{scorer.config.trained_on['n_outcomes']:,} outcomes of 4 candidates" in card
    assert "2 chat-tuned candidates with full profiles, 2 more with coarse ones" in card


def test_the_other_rule_and_other_benchmarks_are_left_out(world: World) -> None:
    trained_on = CompactScorer.load(world.folder / "compact").config.trained_on
    assert trained_on["n_candidates"] == 4  # neither "elsewhere", of another benchmark, nor "stranger", of another rule
    assert trained_on["benchmarks"] == "cruxeval, gsm8k, math_l5, mmlu_pro"


def test_a_second_run_changes_nothing(world: World, command: ModuleType) -> None:
    before = files_of(world.folder)
    report = command.rebuild(command.chosen_steps(skip=["links"]), world.folder, world.bench)
    assert {change.state for change in report.changes} == {"unchanged"}
    assert len(report.changes) == 15 and not report.changed
    assert command.install(report, world.bench.folder, world.folder) == "Nothing to install."
    assert files_of(world.folder) == before


def test_one_step_alone_changes_what_it_makes(world: World, command: ModuleType) -> None:
    """Trained for longer: the weights differ, the scores move, and the card would be of another scorer."""
    bench = longer(world)
    report = command.rebuild(command.chosen_steps(only=["scorer"]), world.folder, bench)
    assert states(report) == {"compact/weights.safetensors": "changed", "compact/scorer.json": "changed"}
    assert "trained_on.steps 3 → 6" in str(report)
    assert {step for step, _ in report.stale} == {"zoo", "quick", "posteriors", "card"} and report.scores is None
    with pytest.raises(ConfigurationError, match="stale"):
        command.install(report, bench.folder, world.folder)

    report = command.rebuild(
        command.chosen_steps(only=["scorer", "zoo", "quick", "posteriors", "card"]), world.folder, bench
    )
    assert not report.stale
    assert 1e-6 < report.scores.mean < report.scores.largest < 1
    assert (report.scores.n_instructions, report.scores.n_candidates) == (500, 4)
    assert "scores: changed on 500 instructions × 4 candidates" in str(report)


def test_only_a_whole_folder_is_installed(world: World, command: ModuleType, tmp_path: Path) -> None:
    target = tmp_path / "shipped"
    shutil.copytree(world.folder, target)
    bench = longer(world)
    report = command.rebuild(command.chosen_steps(first="scorer", skip=["links"]), target, bench)
    assert files_of(target) == files_of(world.folder)  # nothing but --install touches what is shipped
    told = command.install(report, bench.folder, target)
    assert told == (
        "Installed compact/weights.safetensors, compact/scorer.json, quick.json, compact/posteriors.safetensors, "
        "compact/posteriors.json, MODEL_CARD.md."
    )
    assert CompactScorer.load(target / "compact").config.trained_on["steps"] == 6
    assert not [file for file in target.rglob(".*") if file.is_file()]


def test_candidates_that_came_and_went_are_counted(world: World, command: ModuleType, tmp_path: Path) -> None:
    target = tmp_path / "shipped"
    shutil.copytree(world.folder, target)
    zoo = Zoo.load(target / "zoo.json")
    zoo.subset(zoo.names[:3]).save(target / "zoo.json")
    report = command.rebuild(command.chosen_steps(only=["zoo", "quick", "posteriors", "card"]), target, world.bench)
    assert states(report) == {"zoo.json": "changed"}
    scores = report.scores
    assert (scores.n_candidates, scores.n_new, scores.n_gone, scores.largest) == (3, 1, 0, 0.0)


def test_float_noise_is_not_a_change(command: ModuleType, world: World, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    changes, file = importlib.import_module("pretrained_changes"), "exam/shot_embeddings.safetensors"
    tensors = load_file(world.folder / file)
    for shift, state in ((5e-4, "within tolerance"), (0.1, "changed")):
        moved = {name: (rows.astype(np.float32) + shift).astype(np.float16) for name, rows in tensors.items()}
        name, rows = moved.popitem()
        save_file({**moved, f"{name} of another machine": rows}, tmp_path / "other.safetensors")
        assert changes.change_of(world.folder / file, tmp_path / "other.safetensors", file).state == state
    save_file({name: rows[1:] for name, rows in tensors.items()}, tmp_path / "other.safetensors")
    shorter = changes.change_of(world.folder / file, tmp_path / "other.safetensors", file)
    assert shorter.state == "changed" and "shapes" in shorter.detail


def test_a_step_says_what_it_lacks(world: World, command: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="'embeddings' reads exam/"):
        command.rebuild(command.chosen_steps(only=["embeddings"]), tmp_path / "empty", world.bench)


def test_without_records_it_says_where_they_are_looked_for(
    command: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MSAT_RECORDS", str(tmp_path / "none"))
    with pytest.raises(SystemExit) as stopped:
        command.main([])
    assert stopped.value.code == 2
    told = capsys.readouterr()
    looked_for = "looked for in $MSAT_RECORDS, else in ../shared/records"
    assert (told.out, told.err) == ("", f"No records at {tmp_path / 'none'}: {looked_for}.\n")


def test_what_is_shipped_is_saved_again_to_the_byte(tmp_path: Path) -> None:
    CompactScorer.load(shipped.SCORER).save(tmp_path / "compact")
    solved = ("posteriors.json", "posteriors.safetensors")  # made when the zoo is known
    kept = {name: data for name, data in files_of(shipped.SCORER).items() if name not in solved}
    assert files_of(tmp_path / "compact") == kept
    EncoderFiles.load(shipped.ENCODER).save(tmp_path / "encoder")
    assert files_of(tmp_path / "encoder") == files_of(shipped.ENCODER)
    for folder in shipped.EXAMS:
        Exam.load(folder).save(tmp_path / folder.name)
        assert files_of(tmp_path / folder.name) == files_of(folder)


def test_the_shipped_card_is_of_what_is_shipped(command: ModuleType) -> None:
    card = importlib.import_module("pretrained_card").model_card(shipped.FOLDER)
    assert (shipped.FOLDER / "MODEL_CARD.md").read_text() == card


@dataclasses.dataclass(frozen=True)
class World:
    """A small rebuilt folder, and the bench that it was made on."""

    folder: Path
    bench: Any
    first: Any


@pytest.fixture(scope="module")
def command() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPTS))
        yield importlib.import_module("pretrained")


@pytest.fixture(scope="module")
def world(command: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Everything made once, from nothing, and installed; on one thread, as the command does: others round otherwise."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("rebuild")
    write_records(folder / "records")
    steps = importlib.import_module("pretrained_steps")
    recipe = steps.Recipe(
        n_tasks=3, n_shots=100, n_open_shots=5, training=settings(3), published=published, tune=tune, reader=TunedHash
    )
    bench = steps.Bench(folder / "staging", recipe, folder / "cache", linked=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MSAT_RECORDS", str(folder / "records"))
        first = command.rebuild(command.chosen_steps(skip=["links"]), folder / "shipped", bench)
        command.install(first, bench.folder, folder / "shipped")
        yield World(folder / "shipped", bench, first)


class TunedHash(HashEncoder):
    """Tuned, it embeds as before, under another digest."""

    def __init__(self, files: EncoderFiles) -> None:
        super().__init__()
        self.files = files

    @property
    def digest(self) -> str:
        return self.files.config.digest


def published() -> EncoderFiles:
    sizes = {"dim": 4, "n_layers": 1, "n_heads": 1, "intermediate": 4, "n_positions": 8, "n_tokens": 8}
    weights = {"embeddings.word_embeddings.weight": np.ones((2, 4))}
    return EncoderFiles.of(EncoderConfig(name="toy", **sizes), weights, b"{}", b"a graph")


def tune(own: Records) -> EncoderFiles:
    """Depends on what was learnt from."""
    weights = {"embeddings.word_embeddings.weight": np.full((2, 4), len(own))}
    return EncoderFiles.of(published().config, weights, b"{}", b"a graph")


def settings(steps: int) -> CompactSettings:
    return CompactSettings(steps=steps, folds=2, n_skills=2, hidden=8)


def longer(world: World) -> Any:
    """A bench on which the scorer is trained for longer."""
    recipe = dataclasses.replace(world.bench.recipe, training=settings(6))
    return dataclasses.replace(world.bench, recipe=recipe)


def states(report: Any) -> dict[str, str]:
    return {change.file: change.state for change in report.changes if change.state != "unchanged"}


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def write_records(folder: Path) -> None:
    """Four benchmarks that four candidates sat, one of them also a stranger; a fifth, of somebody else."""
    sizes = {"mmlu_pro": 480, "cruxeval": 120, "gsm8k": 120, "math_l5": 120, "elsewhere": 20}
    for seed, (benchmark, size) in enumerate(sizes.items()):
        one = synthetic_records(size, n_candidates=4, seed=seed)
        ids = [f"{benchmark}:{i}" for i in range(size)]
        tasks = one.tasks if benchmark == "mmlu_pro" else (benchmark,) * size
        items = [
            {"item_id": i, "task": task, "instruction": f"{benchmark} {text}"}
            for i, task, text in zip(ids, tasks, one.instructions, strict=True)
        ]
        names = ("elsewhere",) if benchmark == "elsewhere" else one.candidates
        rows = [
            {"model": name, "item_id": ids[n], "score": float(one.outcomes[m, n])}
            for m, name in enumerate(names)
            for n in range(size)
        ]
        if benchmark == "mmlu_pro":
            rows += [{"model": "stranger", "item_id": i, "score": 1.0} for i in ids]
        (folder / benchmark).mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(items), folder / benchmark / "items.parquet")
        pq.write_table(pa.Table.from_pylist(rows), folder / benchmark / "outcomes.parquet")
    facts = [
        {"model": name, "chat_tuned": i < 2, "usd_per_mtok_in": 1.0, "usd_per_mtok_out": 2.0}
        for i, name in enumerate(synthetic_records(10, n_candidates=4).candidates)
    ]
    (folder / "mmlu_pro" / "models.json").write_text(json.dumps(facts))
    sample = pa.Table.from_pylist([{"item_id": "mmlu_pro:0"}])
    pq.write_table(sample, folder / "mmlu_pro" / "outputs_sample.parquet")
