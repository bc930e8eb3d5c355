from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import profile, zoo_of

from msat_core import Candidate, CapabilityProfile, TaskResult, Zoo
from msat_core.candidates import CHARS_PER_TOKEN, DEFAULT_OUTPUT_TOKENS
from msat_core.errors import ProfileError, ZooError
from msat_core.profiles import Provenance, wilson_interval


def detailed() -> CapabilityProfile:
    shots = {"a": 1.0, "b": 0.0, "c": 0.5}
    result = TaskResult(task="law", keywords=("tort", "contract"), n_shots=3, n_correct=1.5, shots=shots)
    return CapabilityProfile(
        candidate="x", exam_digest="e", results=(result,), provenance=Provenance(source="s"), mean_output_chars=400.0
    )


def test_round_trip(tmp_path: Path) -> None:
    again = CapabilityProfile.load(detailed().save(tmp_path / "x.json"))
    assert again == detailed()
    assert again.digest == detailed().digest
    assert again.shots == {"a": 1.0, "b": 0.0, "c": 0.5}


def test_a_changed_digit_is_noticed(tmp_path: Path) -> None:
    path = detailed().save(tmp_path / "x.json")
    path.write_text(path.read_text().replace('"b": 0.0', '"b": 1.0').replace("1.5", "2.5"))
    with pytest.raises(ProfileError, match="has been changed"):
        CapabilityProfile.load(path)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_no_changed_byte_passes_unnoticed(data: st.DataObject) -> None:
    text = detailed().to_json()
    at = data.draw(st.integers(0, len(text) - 1))
    changed = text[:at] + data.draw(st.sampled_from('09az{"')) + text[at + 1 :]
    try:
        assert CapabilityProfile.from_json(changed) == detailed()
    except ProfileError:
        pass


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        (lambda d: d.update(version=99), "of version 99"),
        (lambda d: d.update(kind="zoo"), "holds 'zoo'"),
        (lambda d: d.update(extra=1), "extra"),
        (lambda d: d.pop("candidate"), "candidate"),
    ],
)
def test_a_wrong_document_is_one_sentence(edit: object, sentence: str) -> None:
    data = json.loads(detailed().to_json())
    edit(data)  # type: ignore[operator]
    with pytest.raises(ProfileError, match=sentence):
        CapabilityProfile.from_json(json.dumps(data))


def test_missing_and_broken_files_are_errors_of_their_kind(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match="Cannot read"):
        Zoo.load(tmp_path / "none.json")
    (tmp_path / "half.json").write_text(zoo_of(a=0.5).to_json()[:100])
    with pytest.raises(ZooError, match="is not JSON"):
        Zoo.load(tmp_path / "half.json")


def test_results_must_agree_with_their_shots() -> None:
    with pytest.raises(ProfileError):
        CapabilityProfile(
            candidate="x",
            results=({"task": "t", "n_shots": 2, "n_correct": 3.0},),
            provenance=Provenance(source="s"),
        )
    with pytest.raises(ProfileError, match="no exam question"):
        CapabilityProfile(
            candidate="x", results=(TaskResult(task="t", n_shots=0, n_correct=0),), provenance=Provenance(source="s")
        )


def test_capability_text_names_each_task_with_its_accuracy() -> None:
    assert detailed().to_text() == "The model achieves accuracy 50% on the task law (tort, contract)."


def test_wilson_interval_by_hand() -> None:
    interval = wilson_interval(8, 10)  # the textbook's example: 49.0% to 94.3%
    assert (round(interval.low, 3), round(interval.high, 3)) == (0.490, 0.943)
    assert (wilson_interval(0, 0).low, wilson_interval(0, 0).high) == (0.0, 1.0)


def test_zoo_keeps_order_and_refuses_doubles() -> None:
    zoo = zoo_of(b=0.5, a=0.6)
    assert zoo.names == ("b", "a")
    with pytest.raises(ZooError, match="Two candidates of the zoo are called 'a'"):
        zoo.add(profile("a"))
    with pytest.raises(ZooError, match="called 'a'"):
        zoo.add(Candidate(profile=profile("c"), aliases=("a",)))
    assert zoo.names == ("b", "a")
    zoo.add(profile("c"))
    assert zoo.remove("a").name == "a"
    assert zoo.names == ("b", "c")


def test_unknown_name_lists_near_ones() -> None:
    zoo = zoo_of(**{"gpt-4o-2024-08-06": 0.7, "gemma-2-9b": 0.5})
    with pytest.raises(ZooError, match=r"did you mean gpt-4o-2024-08-06.*msat profile run.*msat profile from-scores"):
        zoo["gpt-4o"]


def test_aliases_find_their_candidate() -> None:
    zoo = Zoo(candidates=(Candidate(profile=profile("long-name"), aliases=("short",)),))
    assert zoo["short"].name == "long-name"
    assert "short" in zoo
    assert Zoo.from_json(zoo.to_json()) == zoo


def test_cost_of_a_call() -> None:
    priced = Candidate(profile=profile("x"), usd_per_mtok_in=1.0, usd_per_mtok_out=2.0)
    assert priced.cost_usd(4000) == pytest.approx((4000 / CHARS_PER_TOKEN + 2 * DEFAULT_OUTPUT_TOKENS) / 1e6)
    assert Candidate(profile=profile("x"), usd_per_mtok_in=1.0).cost_usd(10) is None
