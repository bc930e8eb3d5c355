from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from commands import msat, written
from support import synthetic_records

from msat_core import CompactScorer, Exam, Records, RoutingPolicy, pretrained
from msat_core.encoders.minilm import embedded_digest


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MSAT_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(synthetic_records(n_items=480, n_candidates=5), tmp_path_factory.mktemp("cli") / "toy")


def test_route_prints_a_table_or_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = msat(capsys, "route", "Which enzyme unwinds DNA?", "--explain")
    assert code == 0
    assert "P(correct)" in out
    code, out, _ = msat(
        capsys, "route", "Which enzyme unwinds DNA?", "--json", "--allow", "mathstral-7B,gemini-1.5-pro-002"
    )
    decision = json.loads(out)
    assert decision["candidate"] == "gemini-1.5-pro-002"
    assert {"score", "scores", "reason"} <= set(decision)
    code, out, _ = msat(
        capsys, "route", "Which enzyme?", "--json", "--objective", "target", "--target", "0.01", "--max-usd", "1"
    )
    assert json.loads(out)["candidate"] == "Mistral-7B-Instruct-v0.1"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["route", " "], "Instruction 0 is empty"),
        (["route", "q", "--scorer", "nowhere"], "is not a scorer folder"),
        (["route", "q", "--zoo", "nowhere.json"], "Cannot read nowhere.json"),
        (["route", "q", "--allow", "zz"], "No candidate is within"),
        (["route", "q", "--usd-weight", "3"], "has no effect"),
        (["zoo", "show", "gpt-5"], "did you mean"),
        (["records", "check", "nowhere"], "is not a folder"),
        (["evaluate", "nowhere", "--profiles", "nowhere"], "is not a folder"),
        (["evaluate", "nowhere", "--profiles", "nowhere", "--baselines", "nn"], "no baseline 'nn'"),
        (["route", "q", "--policy", "nowhere.json"], "Cannot read nowhere.json"),
        (["route", "q", "--policy", "nowhere.json", "--target", "0.5"], "give either --policy"),
        (["calibrate", "nowhere", "--profiles", "nowhere", "--target", "0.9"], "is not a folder"),
    ],
)
def test_a_users_mistake_is_one_sentence_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    code, out, err = msat(capsys, *arguments)
    assert code == 2
    assert out == ""
    assert sentence in err
    assert err.startswith("msat: ")
    assert "Traceback" not in err


def test_odd_texts_are_routed(capsys: pytest.CaptureFixture[str]) -> None:
    for text in ("x " * 500_000, "lone \ud800 surrogate", "日本語の質問"):
        code, out, _ = msat(capsys, "route", text, "--json")
        assert code == 0
        assert 0 < json.loads(out)["score"] < 1


def test_profiles_then_evaluation(capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path) -> None:
    names = ["familya-0", "familyb-1", "familyc-2"]
    out_folder = tmp_path / "profiles"
    code, out, err = msat(
        capsys, "profile", "from-records", str(folder), "--model", names[0], names[1], "--model", names[2],
        "--tasks-from-records", "--shots", "20", "--out", str(out_folder), "--json",
    )  # fmt: skip
    assert code == 0, err
    assert json.loads(out)["n_shots"] == 60
    assert (out_folder / "exam" / "exam.json").is_file()
    prices = tmp_path / "prices.json"
    prices.write_text(
        json.dumps([{"model": n, "usd_per_mtok_in": i, "usd_per_mtok_out": i} for i, n in enumerate(names)])
    )
    dump = tmp_path / "scores.parquet"
    arguments = ["evaluate", str(folder), "--profiles", str(out_folder), "--zoo", ",".join(names), "--json"]
    code, out, err = msat(capsys, *arguments, "--prices", str(prices), "--dump", str(dump))
    assert code == 0, err
    report: dict[str, Any] = json.loads(out)
    assert report["overall"]["n_instructions"] == 480 - 60
    assert report["overall"]["n_candidates"] == 3
    assert report["overall"]["random"] < report["overall"]["routed"] <= report["overall"]["oracle"]
    assert set(report["cost_usd"]) == {*names, "routed"}
    table = pq.read_table(dump).to_pydict()
    assert len(table["score"]) == 3 * 420
    assert sum(table["chosen"]) == 420
    code, out, _ = msat(capsys, *arguments[:-1])
    assert "best_by_aptitude" in out


@pytest.fixture(scope="module")
def examined(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Profiles of three candidates after an exam of 60 questions, and their prices."""
    from msat_core import AptitudeTest
    from msat_core.aptitude.selection import select_exam
    from msat_core.profiles import profile_file

    profiles, loaded = tmp_path_factory.mktemp("examined"), Records.load(folder)
    encoder = CompactScorer.load(pretrained.SCORER).encoder
    vectors = encoder.encode(loaded.instructions).vectors
    exam = select_exam(loaded, rule="own-tasks", n_shots=20, vectors=vectors, encoder_digest=encoder.digest)
    exam.save(profiles / "exam")
    names = ["familya-0", "familyc-2", "familye-4"]
    for name in names:
        AptitudeTest(exam).profile_from_records(loaded, name).save(profile_file(profiles, name))
    prices = profiles.parent / "prices.json"
    rows = [{"model": n, "usd_per_mtok_in": 10**i, "usd_per_mtok_out": 10**i} for i, n in enumerate(names)]
    prices.write_text(json.dumps(rows))
    return profiles, prices


def test_baselines_pictures_and_a_page(
    capsys: pytest.CaptureFixture[str], folder: Path, examined: tuple[Path, Path], tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    profiles, prices = map(str, examined)
    page, plots = tmp_path / "new" / "page.html", tmp_path / "plots"
    code, out, err = msat(
        capsys, "evaluate", str(folder), "--profiles", profiles, "--prices", prices, "--baselines", "knn,tasks,forest",
        "--plots", str(plots), "--report", str(page), "--json",
    )  # fmt: skip
    assert code == 0, err
    report = json.loads(out)
    assert list(report["baselines"]) == ["knn", "tasks", "forest"]
    assert report["baselines"]["tasks"]["auc"] > 0.55
    assert {"routed_minus_oracle", "routed_minus_knn"} <= set(report["p_values"])
    assert "baselines" not in report["overall"]
    assert page.read_text().count("<img") == 3
    assert {path.name for path in plots.iterdir()} == {"gains.png", "reliability.png", "cost.png"}


def test_calibrated_policy_routes(
    capsys: pytest.CaptureFixture[str], folder: Path, examined: tuple[Path, Path], tmp_path: Path
) -> None:
    profiles, prices = map(str, examined)
    policy = tmp_path / "policy.json"
    arguments = ["calibrate", str(folder), "--profiles", profiles, "--target"]
    code, out, err = msat(capsys, *arguments, "0.6", "--prices", prices, "--out", str(policy), "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["accuracy"] > 0.6
    assert found["p_value"] <= 0.05
    assert found["cost_usd"] <= found["best_single"]["cost_usd"]
    assert RoutingPolicy.load(policy) == RoutingPolicy(objective="target", target=found["threshold"])
    code, out, err = msat(capsys, "route", "polynomial root", "--policy", str(policy), "--json")
    assert code == 0, err
    code, out, err = msat(
        capsys, "evaluate", str(folder), "--profiles", profiles, "--prices", prices, "--policy", str(policy), "--json"
    )
    assert json.loads(out)["overall"]["routed"] == pytest.approx(found["accuracy"])
    code, out, err = msat(capsys, *arguments, "0.99", "--prices", prices)
    assert code == 2
    assert "No threshold guarantees" in err
    code, out, err = msat(capsys, *arguments, "0.6")
    assert code == 2
    assert "give --prices" in err


def test_evaluation_needs_the_exam(capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path) -> None:
    out_folder = tmp_path / "profiles"
    msat(
        capsys,
        "profile",
        "from-records",
        str(folder),
        "--model",
        "familya-0",
        "--tasks-from-records",
        "--out",
        str(out_folder),
    )
    (out_folder / "exam" / "exam.json").unlink()
    code, _, err = msat(capsys, "evaluate", str(folder), "--profiles", str(out_folder))
    assert code == 2
    assert "which is neither shipped nor in" in err


def test_zoo_grows_and_shrinks(capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path) -> None:
    out_folder, zoo = tmp_path / "profiles", tmp_path / "my" / "zoo.json"
    msat(
        capsys, "profile", "from-records", str(folder), "--model", "familya-0,familyb-1",
        "--tasks-from-records", "--out", str(out_folder),
    )  # fmt: skip
    for name, price in (("familya-0", "1"), ("familyb-1", "2")):
        code, _, err = msat(
            capsys, "zoo", "add", str(out_folder / f"{name}.json"), "--zoo", str(zoo),
            "--usd-per-mtok-in", price, "--usd-per-mtok-out", price,
        )  # fmt: skip
        assert code == 0, err
    code, out, _ = msat(capsys, "route", "polynomial root", "--zoo", str(zoo), "--json")
    assert set(json.loads(out)["scores"]) == {"familya-0", "familyb-1"}
    code, out, _ = msat(capsys, "zoo", "remove", "familya-0", "--zoo", str(zoo), "--json")
    assert json.loads(out) == {"candidates": ["familyb-1"]}
    code, out, _ = msat(capsys, "zoo", "list", "--json", "--zoo", str(zoo))
    assert json.loads(out)["candidates"][0]["n_shots"] == 60
    code, out, _ = msat(capsys, "zoo", "show", "familyb-1", "--zoo", str(zoo))
    assert "algebra" in out


def test_records_check(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    code, out, _ = msat(capsys, "records", "check", str(folder), "--json")
    assert code == 0
    assert json.loads(out)["n_outcomes"] == 480 * 5
    assert "no errors" in msat(capsys, "records", "check", str(folder))[1]


def test_train_writes_a_scorer_that_routes(capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path) -> None:
    code, out, err = msat(capsys, "train", str(folder), "--out", str(tmp_path / "scorer"), "--steps", "2", "--json")
    assert code == 0, err
    assert json.loads(out)["steps"] == 2
    code, out, _ = msat(capsys, "route", "polynomial root", "--scorer", str(tmp_path / "scorer"), "--json")
    assert code == 0
    assert json.loads(out)["candidate"]


def test_a_tuned_scorer_and_an_exam_for_it(capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path) -> None:
    scorer, profiles = tmp_path / "scorer", tmp_path / "own"
    code, _, err = msat(capsys, "train", str(folder), "--out", str(scorer), "--steps", "2", "--tune-encoder", "--json")
    assert code == 0, err
    names = Records.load(folder).candidates[:2]
    own = ["profile", "from-records", str(folder), "--tasks-from-records", "--out", str(profiles)]
    own += ["--scorer", str(scorer)]
    code, _, err = msat(capsys, *own, *(part for name in names for part in ("--model", name)))
    assert code == 0, err
    tuned = CompactScorer.load(scorer).config.encoder_digest
    assert set(Exam.load(profiles / "exam").embeddings) == {tuned, embedded_digest()}
    judged = ["evaluate", str(folder), "--profiles", str(profiles)]
    code, out, err = msat(capsys, *judged, "--scorer", str(scorer), "--json")
    assert code == 0, err
    assert "best_by_aptitude" in out
    sheet = Exam.load(profiles / "exam").sheet
    shutil.rmtree(profiles / "exam")
    Exam(sheet).save(profiles / "exam")
    code, _, err = msat(capsys, *judged)
    assert code == 2
    assert "make it again, with the same --scorer" in " ".join(err.split())


def test_shipped_zoo_is_chat_tuned_and_marks_what_is_coarse(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = msat(capsys, "zoo", "list", "--json")
    candidates = {c["name"]: c for c in json.loads(out)["candidates"]}
    assert sum(not c["coarse"] for c in candidates.values()) == 11
    assert candidates["gpt-4o-2024-08-06"]["coarse"]
    assert candidates["gemini-1.5-pro-002"]["usd_per_mtok_in"] == 1.25
    assert "Llama-2-70b-hf" not in candidates


def test_shipped_files_are_small() -> None:
    size = sum(path.stat().st_size for path in pretrained.FOLDER.rglob("*") if path.is_file())
    assert size < 10e6


def test_no_shot_of_the_exam_is_in_the_demo(real_records: Records) -> None:
    from support import RECORDS

    from msat_core import AptitudeTest

    sample = set(pq.read_table(RECORDS / "mmlu_pro" / "outputs_sample.parquet")["item_id"].to_pylist())
    texts = {t for i, t in zip(real_records.item_ids, real_records.text_sha256, strict=True) if i in sample}
    assert not texts & AptitudeTest.load().exam.text_hashes
