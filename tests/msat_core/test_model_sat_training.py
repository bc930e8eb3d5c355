from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import synthetic_records
from tiny import bert, byte_tokenizer, cls_tokenizer, llama, tiny_assembly, tiny_config
from typer.testing import CliRunner

from msat_core import ModelSATScorer, Records
from msat_core.cli import app
from msat_core.errors import ArtefactError, ConfigurationError, RecordsError
from msat_core.families import family_of
from msat_core.lettered_options import n_options
from msat_core.scoring import loading
from msat_core.scoring.model_sat.assembly import Assembly
from msat_core.scoring.model_sat.config import Lora
from msat_core.scoring.model_sat.representations import level_of
from msat_core.training.calibration import fit_platt
from msat_core.training.losses import listwise_loss, pointwise_loss
from msat_core.training.model_sat.groups import ExamSampler, GroupSampler
from msat_core.training.model_sat.loop import TrainingLoop
from msat_core.training.model_sat.refinement import LEAST_WEIGHT, candidate_shares, outcome_weights
from msat_core.training.model_sat.settings import StageSettings, TrainingSettings
from msat_core.training.model_sat.stages import position_of
from msat_core.training.model_sat.train import split_of, train_model_sat

NAN = float("nan")
STAGES = (
    StageSettings(steps=2, train="connector", connector_learning_rate=1e-2),
    StageSettings(steps=3, learning_rate=1e-3, connector_learning_rate=1e-3),
)


def quick(**changes: Any) -> TrainingSettings:
    fields: dict[str, Any] = {
        "model": tiny_config(),
        "stages": STAGES,
        "group_size": 4,
        "groups_per_step": 2,
        "exam_tasks": 2,
        "exam_shots": 5,
        "calibration_items": 20,
    }
    return TrainingSettings(**{**fields, **changes})


def run(
    folder: Path,
    records: Records,
    own: TrainingSettings,
    *,
    assembly: Assembly | None = None,
    resume: bool = False,
    stop_after: int | None = None,
) -> tuple[list[float], Assembly]:
    losses: list[float] = []
    assembly = assembly or tiny_assembly()
    loop = TrainingLoop(assembly, records, own, folder, lambda metrics: losses.append(metrics["loss"]))
    loop.run(resume=resume, stop_after=stop_after)
    return losses, assembly


def test_equal_logits_cost_log_k() -> None:
    for k in (2, 8):
        outcomes = torch.zeros(3, k, 1)
        outcomes[:, 0] = 1
        assert listwise_loss(torch.zeros(3, k, 1), outcomes).item() == pytest.approx(math.log(k))


def test_listwise_loss_by_hand() -> None:
    logits = torch.tensor([[2.0, 0.0], [1.0, 0.0], [0.0, 5.0]])
    outcomes = torch.tensor([[1.0, 1.0], [0.0, NAN], [0.0, 1.0]])  # the second candidate has no wrong answer
    expected = -math.log(math.exp(2) / (math.exp(2) + math.exp(1) + 1))
    assert listwise_loss(logits, outcomes).item() == pytest.approx(expected)
    target = torch.nn.functional.cross_entropy(logits[:, 0][None], torch.tensor([0]))
    assert listwise_loss(logits[:, :1], outcomes[:, :1]).item() == pytest.approx(target.item())
    assert listwise_loss(logits, torch.ones(3, 2)).item() == 0
    weights = torch.tensor([[1.0, 1.0], [3.0, 1.0], [1.0, 1.0]])
    both = torch.tensor([[1.0, NAN], [1.0, NAN], [0.0, NAN]])
    first, second = (math.log1p(math.exp(-s)) for s in (2.0, 1.0))
    assert listwise_loss(logits, both, weights).item() == pytest.approx((first + 3 * second) / 4)


def test_a_candidates_level_does_not_move_the_listwise_loss() -> None:
    torch.manual_seed(0)
    logits, outcomes = torch.randn(2, 6, 3), (torch.rand(2, 6, 3) > 0.5).float()
    moved = listwise_loss(logits + torch.randn(2, 1, 3), outcomes)
    torch.testing.assert_close(moved, listwise_loss(logits, outcomes))


def test_weights_of_the_pointwise_loss() -> None:
    logits, outcomes = torch.tensor([[0.0, 3.0, 1.0]]), torch.tensor([[1.0, 1.0, NAN]])
    only_first = pointwise_loss(logits, outcomes, torch.tensor([[1.0, 0.0, 1.0]]))
    assert only_first.item() == pytest.approx(math.log(2))
    ones = pointwise_loss(logits, outcomes, torch.ones(1, 3))
    torch.testing.assert_close(ones, pointwise_loss(logits, outcomes))


@settings(max_examples=8, deadline=None)
@given(st.integers(2, 8), st.integers(1, 3), st.integers(0, 1000))
def test_groups_are_one_right_answer_among_wrong_ones(k: int, n_groups: int, number: int) -> None:
    records = synthetic_records()
    sampler = GroupSampler(records, quick(group_size=k, groups_per_step=n_groups))
    batch = sampler.draw(0, number)
    assert batch.outcomes.shape == (n_groups, k, 1) and batch.columns.shape == (n_groups * k, 1)
    assert (batch.outcomes[:, 0] == 1).all() and (batch.outcomes[:, 1:] == 0).all()
    for b, profile in enumerate(batch.profiles):
        rows = batch.items[b * k : (b + 1) * k]
        truth = records.outcomes[records.candidates.index(profile.candidate), rows]
        np.testing.assert_array_equal(batch.outcomes[b, :, 0], truth)
        assert len(set(rows.tolist())) == k
    again = GroupSampler(records, quick(group_size=k, groups_per_step=n_groups)).draw(0, number)
    np.testing.assert_array_equal(again.items, batch.items)
    assert again.profiles == batch.profiles
    other = sampler.draw(0, number, process=1)
    assert other.profiles != batch.profiles or (other.items != batch.items).any()


@settings(max_examples=8, deadline=None)
@given(st.integers(2, 5), st.integers(0, 1000))
def test_shared_groups_ask_all_candidates_the_same(m: int, number: int) -> None:
    records = synthetic_records()
    outcomes = records.outcomes.copy()
    outcomes[3, ::3] = np.nan
    records = replace(records, outcomes=outcomes)
    batch = GroupSampler(records, quick(candidates_per_group=m, group_size=6)).draw(1, number)
    assert batch.outcomes.shape == (2, 6, m) and len(batch.profiles) == 2 * m
    for b in range(2):
        own = batch.profiles[b * m : (b + 1) * m]
        assert len({profile.candidate for profile in own}) == m
        for j, profile in enumerate(own):
            truth = records.outcomes[records.candidates.index(profile.candidate), batch.items[b * 6 : b * 6 + 6]]
            np.testing.assert_array_equal(batch.outcomes[b, :, j], truth)
    np.testing.assert_array_equal(batch.columns[:6], np.tile(np.arange(m), (6, 1)))
    np.testing.assert_array_equal(batch.columns[6:], m + batch.columns[:6])


def test_exams_and_instructions_are_apart_by_text(records: Records) -> None:
    twin = tuple(records.text_sha256[i % 240] for i in range(len(records)))  # every text twice
    sampler = ExamSampler(replace(records, text_sha256=twin), 3, 10)
    exam = sampler.draw(0, np.random.default_rng(0))
    shots = np.concatenate(list(exam.shots.values()))
    outside = sampler.outside(exam)
    assert not outside[shots].any() and not outside[(shots + 240) % 480].any()
    profile = sampler.profile(0, exam)
    assert [result.n_shots for result in profile.results] == [10, 10, 10]
    assert sum(r.n_correct for r in profile.results) == records.outcomes[0, shots].sum()


def test_a_prefix_keeps_instructions_in_domain(records: Records) -> None:
    batch = GroupSampler(records, quick(), task_prefix="law").draw(0, 0)
    assert {records.tasks[i] for i in batch.items} == {"law"}
    with pytest.raises(RecordsError, match="begins with 'poetry'"):
        GroupSampler(records, quick(), task_prefix="poetry")
    with pytest.raises(RecordsError, match="Too few records"):
        GroupSampler(records, quick(group_size=400)).draw(0, 0)


def test_strong_candidates_are_drawn_more_often(records: Records) -> None:
    shares = candidate_shares(records, 3.0)
    assert shares.sum() == pytest.approx(1)
    assert shares.max() == pytest.approx(3 * shares.min())
    assert shares.argmax() == records.outcomes.mean(axis=1).argmax()
    np.testing.assert_allclose(candidate_shares(records, 1.0), 1 / len(shares))


def test_lucky_guesses_count_for_less(records: Records) -> None:
    text = "Which one?\nA. this\nB. that\nC. these\nD. those"
    assert (n_options(text), n_options("Which one?"), n_options("A. C. Clarke wrote what?")) == (4, 0, 0)
    few = replace(
        records.select_items([0, 1, 2]),
        instructions=(text, text + " ", "Say it."),
        outcomes=np.array([[1, 1, 1], [0, 1, 0], [0, 1, 0], [0, 0, 0]] * 2, dtype=np.float32),
    )
    weights = outcome_weights(few)
    # A quarter is right by chance alone; of three quarters, κ = (¾ − ¼) / (1 − ¼) = ⅔ knew, which is 8/9 of them.
    assert weights[0].tolist() == pytest.approx([LEAST_WEIGHT, 8 / 9, 1.0])
    assert (weights[few.outcomes == 0] == 1).all()
    assert (outcome_weights(few, correct_for_guessing=False) == 1).all()
    tested = np.full(few.outcomes.shape, NAN, dtype=np.float32)
    tested[0] = [1, 0, NAN]
    circled = outcome_weights(replace(few, consistent=tested))
    assert circled[0].tolist() == [1.0, 0.0, 1.0]


def test_records_keep_the_circle_test(tmp_path: Path) -> None:
    (tmp_path / "items.jsonl").write_text('{"item_id": "a", "task": "t", "instruction": "q"}\n')
    rows = [{"model": "m", "item_id": "a", "score": 1.0, "consistent": 0}, {"model": "n", "item_id": "a", "score": 1.0}]
    (tmp_path / "outcomes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    loaded = Records.load(tmp_path)
    assert loaded.consistent is not None
    np.testing.assert_array_equal(loaded.consistent, [[0], [NAN]])
    chosen = loaded.select_candidates(["n"]).select_items([0])
    assert chosen.consistent is not None and np.isnan(chosen.consistent).all()


def test_a_stage_trains_exactly_what_it_says(records: Records, tmp_path: Path) -> None:
    own = quick(model=tiny_config(llm=llama(tuning="lora", lora=Lora(rank=2)), encoder=bert(tuning="full")))
    assembly = tiny_assembly(llm=own.model.llm, encoder=own.model.encoder)
    before = {name: tensor.clone() for name, tensor in assembly.module.state_dict().items()}

    def moved(prefix: str = "") -> set[str]:
        now = assembly.module.state_dict()
        return {name for name, old in before.items() if name.startswith(prefix) and not torch.equal(old, now[name])}

    run(tmp_path, records, own, assembly=assembly, stop_after=2)
    assert moved() == {name for name in before if name.startswith("connector.")}
    before = {name: tensor.clone() for name, tensor in assembly.module.state_dict().items()}
    run(tmp_path / "more", records, own.model_copy(update={"stages": (STAGES[1],)}), assembly=assembly)
    adapters = {name for name in before if ".lora_" in name}
    assert moved("llm.") == adapters
    matrices = {name for name in before if name.startswith("encoder.") and name.endswith("dense.weight")}
    assert moved("encoder.") >= matrices
    assert moved("connector.") == {name for name in before if name.startswith("connector.")}


def test_a_killed_run_resumes_with_the_same_losses(records: Records, tmp_path: Path) -> None:
    for every in (1, 2):  # a checkpoint within the first stage, and one at its end
        own = quick(checkpoint_every=every, stages=(STAGES[0], STAGES[1].model_copy(update={"steps": 2})))
        whole, assembly = run(tmp_path / f"whole{every}", records, own)
        for stop in (1, 3):
            folder = tmp_path / f"killed{every}{stop}"
            run(folder, records, own, stop_after=stop)
            rest, resumed = run(folder, records, own, resume=True)
            assert rest == whole[-len(rest) :]
            assert len(rest) == 4 - stop // every * every
        for one, other in zip(assembly.module.parameters(), resumed.module.parameters(), strict=True):
            assert torch.equal(one, other)
    with pytest.raises(ArtefactError, match="other settings or records"):
        run(folder, records, own.model_copy(update={"seed": 5}), resume=True)
    progress = next(folder.glob("checkpoint-*/progress.json"))
    progress.write_text("{")
    with pytest.raises(ArtefactError, match="cannot be read"):
        run(folder, records, own, resume=True)
    assert not [p for p in tmp_path.rglob("*") if p.suffix in (".bin", ".pkl", ".pt")]


def test_accumulation_and_checkpointing_train_alike(records: Records, tmp_path: Path) -> None:
    plain = quick(stages=(STAGES[1],))
    expected, _ = run(tmp_path / "a", records, plain)
    again, _ = run(tmp_path / "b", records, plain.model_copy(update={"gradient_checkpointing": True}))
    np.testing.assert_allclose(again, expected, rtol=1e-3)
    parted = plain.model_copy(update={"gradient_accumulation": 2, "groups_per_step": 1, "loss": "both"})
    losses, _ = run(tmp_path / "c", records, parted)
    assert len(losses) == 3 and all(map(math.isfinite, losses))


def test_the_level_starts_from_the_exam(records: Records, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a network that says nothing, the pointwise loss is that of the exam's own log odds."""
    own = quick(loss="pointwise", level=1.0, correct_for_guessing=False)
    loop = TrainingLoop(tiny_assembly(), records, own, tmp_path)
    batch = GroupSampler(records, own).draw(0, 0)
    silent = torch.zeros(batch.columns.shape, requires_grad=True)
    monkeypatch.setattr(loop, "_model", lambda *given: silent)
    levels = torch.tensor([level_of(profile) for profile in batch.profiles])[torch.from_numpy(batch.columns)]
    outcomes, weights = torch.from_numpy(batch.outcomes), torch.from_numpy(batch.weights)
    expected = pointwise_loss(levels.reshape(outcomes.shape), outcomes, weights)
    assert loop.loss(batch, np.random.default_rng(0)).item() == pytest.approx(float(expected), rel=1e-6)


def test_places_and_settings() -> None:
    assert [position_of(step, STAGES).stage for step in range(5)] == [0, 0, 1, 1, 1]
    assert position_of(3, STAGES).within == 1
    with pytest.raises(ConfigurationError, match="ends"):
        position_of(5, STAGES)


def test_split_keeps_families_and_twins_apart(records: Records) -> None:
    split = split_of(records, quick(held_out_candidates=0.25))
    families = {family_of(name) for name in split.new}
    assert split.new and not families & {family_of(n) for n in records.candidates if n not in split.new}
    texts = np.array(records.text_sha256)
    assert not set(texts[split.kept]) & set(texts[~split.kept])
    assert split_of(records, quick(held_out_candidates=0.0)).new == ()
    alike = replace(records, candidates=tuple(f"gpt-{m}" for m in range(len(records.candidates))))
    with pytest.raises(RecordsError, match="one family"):
        split_of(alike, quick())


def test_calibration_finds_slope_level_and_intercept() -> None:
    rng = np.random.default_rng(0)
    logits, levels = rng.normal(0, 2, (4000, 2)), rng.normal(0, 1, (4000, 2))
    truth = 1 / (1 + np.exp(-(0.5 * logits + 0.8 * levels - 1)))
    outcomes = (rng.random(logits.shape) < truth).astype(float)
    outcomes[::7] = NAN
    found = fit_platt(logits, levels, outcomes)
    assert (found.slope, found.level, found.intercept) == pytest.approx((0.5, 0.8, -1), abs=0.1)
    backwards = fit_platt(-logits, levels, outcomes)
    assert backwards.slope > 0 and backwards.level == 0
    assert fit_platt(logits, levels, np.ones_like(logits)).slope == 1


def test_training_learns_and_calibrates(records: Records, tmp_path: Path) -> None:
    """Enough steps on a toy with three kinds of question: held-out answers are told apart."""
    own = quick(
        stages=(StageSettings(steps=25, learning_rate=3e-3, connector_learning_rate=3e-3),),
        candidates_per_group=4,
        group_size=12,
        groups_per_step=1,
        loss="both",
        held_out_candidates=0.25,
    )
    seen: list[dict[str, float]] = []
    scorer = train_model_sat(records, own, tmp_path, assembly=tiny_assembly(), on_metrics=seen.append)
    assert scorer is not None
    assert np.mean([m["loss"] for m in seen[-5:]]) < np.mean([m["loss"] for m in seen[:3]])
    assert scorer.config.trained_on["n_candidates"] == len(records.candidates) - len(split_of(records, own).new)
    assert scorer.config.trained_on["calibrated_on"] == ", ".join(split_of(records, own).new)
    assert isinstance(loading.load(scorer.save(tmp_path / "out")), ModelSATScorer)


def write_records(records: Records, folder: Path) -> Path:
    folder.mkdir()
    items = [
        {"item_id": i, "task": t, "instruction": x}
        for i, t, x in zip(records.item_ids, records.tasks, records.instructions, strict=True)
    ]
    outcomes = [
        {"model": name, "item_id": item, "score": float(score)}
        for name, row in zip(records.candidates, records.outcomes, strict=True)
        for item, score in zip(records.item_ids, row, strict=True)
    ]
    for name, rows in (("items", items), ("outcomes", outcomes)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_the_command_line_trains_from_one_file(records: Records, tmp_path: Path) -> None:
    folder = write_records(records.select_items(range(240)), tmp_path / "toy")
    for name, tokenizer in (("llm", byte_tokenizer()), ("encoder", cls_tokenizer())):
        tokenizer.save_pretrained(tmp_path / name)
    model = json.loads(tiny_config().to_json())
    for key in ("kind", "version", "digest"):
        del model[key]
    model["llm"]["tokenizer"], model["encoder"]["tokenizer"] = str(tmp_path / "llm"), str(tmp_path / "encoder")
    own = json.loads(quick(checkpoint_every=2, tensorboard=True).model_dump_json())
    config = tmp_path / "run.yaml"
    config.write_text(json.dumps({**own, "model": model}))  # JSON is YAML
    command = ["train", str(folder), "--scorer", "model-sat", "--config", str(config), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, [*command, "--json"], catch_exceptions=False)
    assert done.exit_code == 0
    result = json.loads(done.stdout)
    assert result["scorer"] == "model-sat" and result["steps"] == "2 (connector) + 3 (all)"
    assert isinstance(loading.load(tmp_path / "out"), ModelSATScorer)
    assert list((tmp_path / "out" / "logs").rglob("events.*")) and not list((tmp_path / "out").glob("checkpoint-*"))


def test_a_bad_file_is_one_sentence(tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    for text, message in (
        ("group_sise: 3", "group_sise"),
        ("stages: []", "no step"),
        ("[", "cannot be read"),
        ("model: {llm_kind: bidirectional}", "predicts no next word"),
    ):
        config.write_text(text)
        with pytest.raises(ConfigurationError, match=message):
            TrainingSettings.load(config)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        TrainingSettings.load(tmp_path / "none.yaml")
    untrained: dict[str, Any] = {"encoder": None, "representation": "no-encoder"}
    with pytest.raises(ConfigurationError, match="nothing to train"):
        run(tmp_path, synthetic_records(), quick(model=tiny_config(**untrained)), assembly=tiny_assembly(**untrained))


def test_the_example_run_is_valid() -> None:
    example = Path(__file__).parents[2] / "examples" / "reproduce" / "model_sat.yaml"
    own = TrainingSettings.load(example)
    assert own.model.encoder is not None and own.model.encoder.prefix == "query: "
