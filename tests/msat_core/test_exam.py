from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from support import synthetic_records

from msat_core import AptitudeTest, Exam, Records
from msat_core.aptitude.exam_selection import select_exam, task_keywords
from msat_core.encoders.hashed import HashEncoder
from msat_core.errors import ArtefactError, ConfigurationError, RecordsError
from msat_core.exam import EMBEDDINGS_FILE


def test_broad_rule_takes_random_questions_of_the_largest_tasks(records: Records) -> None:
    exam = select_exam(records, n_tasks=2, n_shots=10, seed=1, rule="broad")
    assert len(exam.sheet.shots) == 20
    assert len(exam.sheet.tasks) == 2
    assert exam.digest == select_exam(records, n_tasks=2, n_shots=10, seed=1, rule="broad").digest
    assert exam.digest != select_exam(records, n_tasks=2, n_shots=10, seed=2, rule="broad").digest
    assert len(exam.text_hashes) == 20


def test_half_right_rule_takes_the_nearest_to_half(records: Records) -> None:
    exam = select_exam(records, rule="half-right", n_tasks=3, n_shots=5)
    mean = dict(zip(records.item_ids, records.outcomes.mean(axis=0), strict=True))
    picked = {shot.item_id for shot in exam.sheet.shots}
    for task in exam.sheet.tasks:
        inside = [i for i, t in zip(records.item_ids, records.tasks, strict=True) if t == task.task]
        worst = max(abs(mean[i] - 0.5) for i in inside if i in picked)
        assert worst <= min(abs(mean[i] - 0.5) for i in inside if i not in picked) + 1e-6


def test_distinguishing_rule_leaves_out_what_tells_nobody_apart(records: Records) -> None:
    outcomes = records.outcomes.copy()
    outcomes[:, :200], outcomes[:, 200:300] = 1.0, 0.0
    flat = dataclasses.replace(records, outcomes=outcomes)
    exam = select_exam(flat, rule="distinguishing", n_tasks=3, n_shots=20)
    assert min(int(shot.item_id.split(":")[1]) for shot in exam.sheet.shots) >= 300
    with pytest.raises(RecordsError, match="and that tell two of them apart"):
        select_exam(flat.select_items(range(300)), rule="distinguishing", n_tasks=3, n_shots=20)


def test_one_large_task_is_split_by_its_embeddings(records: Records) -> None:
    one_task = dataclasses.replace(records, tasks=("all",) * len(records))
    vectors = HashEncoder().encode(records.instructions).vectors
    exam = select_exam(one_task, rule="own-tasks", n_shots=10, vectors=vectors, encoder_digest="e")
    assert len(exam.sheet.tasks) > 3
    assert exam.embeddings["e"].shape == (len(exam.sheet.shots), 32)
    with pytest.raises(ConfigurationError, match="needs the items' embeddings"):
        select_exam(one_task, rule="own-tasks", n_shots=10)


def test_unknown_outcomes_and_twins_are_not_chosen() -> None:
    records = synthetic_records(n_items=60)
    outcomes = records.outcomes.copy()
    outcomes[0, :30] = np.nan
    twins = tuple("0" * 64 if i >= 50 else text for i, text in enumerate(records.text_sha256))
    holed = dataclasses.replace(records, outcomes=outcomes, text_sha256=twins)
    exam = select_exam(holed, n_tasks=3, n_shots=6, rule="broad")
    ids = {int(shot.item_id.split(":")[1]) for shot in exam.sheet.shots}
    assert min(ids) >= 30
    assert len(exam.text_hashes) == len(exam.sheet.shots)
    with pytest.raises(RecordsError, match="No task has 20 or more"):
        select_exam(holed, n_tasks=3, n_shots=20, rule="broad")


def test_exam_folder_round_trip_and_damage(records: Records, tmp_path: Path) -> None:
    vectors = HashEncoder().encode(records.instructions).vectors
    exam = select_exam(records, n_tasks=2, n_shots=5, vectors=vectors, encoder_digest="e", rule="broad")
    again = Exam.load(exam.save(tmp_path))
    assert again.digest == exam.digest
    np.testing.assert_array_equal(again.embeddings["e"], exam.embeddings["e"])
    (tmp_path / EMBEDDINGS_FILE).write_bytes(b"not safetensors")
    with pytest.raises(ArtefactError, match="is damaged"):
        Exam.load(tmp_path)
    with pytest.raises(ArtefactError, match="have shape"):
        Exam(exam.sheet, {"e": exam.embeddings["e"][:3]})
    assert all(word not in (tmp_path / "exam.json").read_text() for word in records.instructions)


def test_profiles_from_records(records: Records) -> None:
    test = AptitudeTest(select_exam(records, n_tasks=3, n_shots=10, rule="broad"))
    found = test.profile_from_records(records, records.candidates[2], protocol="p")
    by_id = dict(zip(records.item_ids, records.outcomes[2], strict=True))
    assert found.shots == {shot.item_id: float(by_id[shot.item_id]) for shot in test.exam.sheet.shots}
    assert found.n_shots == 30
    assert found.provenance.coarse
    assert found.mean_output_chars == 100
    outcomes = records.outcomes.copy()
    missing = records.item_ids.index(test.exam.sheet.shots[0].item_id)
    outcomes[2, missing] = np.nan
    holed = dataclasses.replace(records, outcomes=outcomes)
    assert test.profile_from_records(holed, records.candidates[2]).n_shots == 29
    with pytest.raises(RecordsError, match="no outcomes of 'nobody'"):
        test.profile_from_records(records, "nobody")
    with pytest.raises(RecordsError, match="hold no outcome"):
        test.profile_from_records(synthetic_records(seed=9), records.candidates[2])


def test_keywords_set_tasks_apart() -> None:
    words = task_keywords([["the contract and tort"], ["the polynomial root"], ["12 34"]])
    assert set(words[0]) == {"contract", "tort"}
    assert words[2] == ()


def test_shipped_exam_is_the_one_of_the_paper() -> None:
    sheet = AptitudeTest.load().exam.sheet
    assert len(sheet.tasks) == 50
    assert len(sheet.shots) == 1000
    assert all(len(task.keywords) == 5 for task in sheet.tasks)
