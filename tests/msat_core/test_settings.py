"""A setting that is no number, or none that can be: one sentence, before anything is read or made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import synthetic_records, table_router

from msat_core import (
    CompactSettings,
    ConfigurationError,
    Cooldown,
    Exam,
    Fallback,
    FeedbackLog,
    Router,
    RunSettings,
    TuningSettings,
    pretrained,
    route_file,
    select_exam,
)
from msat_core.aptitude.paper import shorten
from msat_core.evaluation.guarantee import calibrate_target

COUNTS: dict[str, Callable[[Any], object]] = {
    "max_batch": lambda value: table_router(max_batch=value),
    "repeats": lambda value: Router(table_router().scorer, table_router().zoo, repeats=value),
    "max_outcomes": lambda value: FeedbackLog(max_outcomes=value),
    "max_attempts": lambda value: Fallback(max_attempts=value),
    "concurrency": lambda value: RunSettings(concurrency=value),
    "n_tasks": lambda value: select_exam(synthetic_records(12, 2), n_tasks=value),
    "n_shots": lambda value: shorten(Exam.load(pretrained.EXAMS[0]), n_shots=value),
    "part_rows": lambda value: route_file("nowhere.jsonl", "nowhere", part_rows=value),
    "folds": lambda value: CompactSettings(folds=value),
    "rank": lambda value: TuningSettings(rank=value),
}
NUMBERS: dict[str, Callable[[Any], object]] = {
    "timeout_s": lambda value: Fallback(timeout_s=value),
    "deadline_s": lambda value: Fallback(deadline_s=value),
    "max_usd": lambda value: Fallback(max_usd=value),
    "first_s": lambda value: Cooldown(first_s=value),
    "longest_s": lambda value: Cooldown(longest_s=value),
    "target": lambda value: calibrate_target(np.ones((2, 2)), np.ones((2, 2)), np.ones((2, 2)), target=value),
}
NEITHER = [float("nan"), float("inf"), -1, True, "3", 10**400, [3]]


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("value", [*NEITHER, 2.5, 2.0])
def test_a_count_is_a_whole_number(name: str, value: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=f"{name} must be a whole number from [012] to .*, got") as raised:
        COUNTS[name](value)
    assert len(str(raised.value)) < 150
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [*NEITHER, 0])
def test_a_limit_is_a_number(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"{name} must be a number above 0 and below .*, got") as raised:
        NUMBERS[name](value)
    assert len(str(raised.value)) < 150


def test_numbers_of_numpy_are_numbers() -> None:
    assert table_router(max_batch=np.int64(4))  # type: ignore[arg-type]
    assert Fallback(max_attempts=np.int32(2), timeout_s=np.float64(2), deadline_s=3)  # type: ignore[arg-type]
