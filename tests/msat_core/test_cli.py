from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from commands import msat, written
from support import synthetic_records

from msat_core import CompactScorer, Exam, Records, RoutingPolicy, Zoo, pretrained, read_decisions
from msat_core.encoders.loading import shipped_digest


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
    decision = json.loads(out)
    costs = {name: decision["costs_usd"][name] for name in decision["ranking"]}
    assert costs[decision["candidate"]] == min(costs.values())


def test_route_in_shadow_mode_keeps_a_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log.jsonl"
    RoutingPolicy(observe="mathstral-7B", allow=frozenset({"gemini-1.5-pro-002"})).save(tmp_path / "policy.json")
    given = ["route", "Which enzyme?", "--policy", str(tmp_path / "policy.json"), "--decisions", str(log), "--all"]
    code, out, _ = msat(capsys, *given)
    assert code == 0 and "would be chosen" in out
    [record] = read_decisions(log)
    assert (record.candidate, record.recommended) == ("mathstral-7B", "gemini-1.5-pro-002")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["route", " "], "Instruction 0 is empty"),
        (["route", "q", "--scorer", "nowhere"], "is not a scorer folder"),
        (["route", "q", "--zoo", "nowhere.json"], "Cannot read nowhere.json"),
        (["route", "q", "--allow", "zz"], "allow names 'zz'"),
        (["route", "q", "--usd-weight", "3"], "has no effect"),
        (["route", "q", "--deny", "MATHSTRAL-7b"], "did you mean mathstral-7B"),
        (["evaluate", "nowhere", "--profiles", "nowhere", "--report", "/dev/null/page.html"], "cannot be written"),
        (["train", "nowhere", "--out", "/dev/null"], "is a file"),
        (["train", "nowhere", "--out", "/"], "already holds something"),
        (["aptitude", "select", "nowhere", "--out", "/"], "already holds something"),
        (["zoo", "show", "gpt-5-mni"], "did you mean gpt-5-mini"),
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
    from msat_core.aptitude.exam_selection import select_exam
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
    written = RoutingPolicy.load(policy)
    assert (written.objective, written.target) == ("target", found["threshold"])
    command = shlex.split(found["command"])
    code, out, err = msat(capsys, *[{"…": "polynomial root"}.get(word, word) for word in command[1:]], "--json")
    assert code == 0, err
    assert set(json.loads(out)["scores"]) == {"familya-0", "familyc-2", "familye-4"}
    assert "calibrated" not in json.loads(out)["reason"]  # the guarantee holds
    code, out, err = msat(capsys, "route", "polynomial root", "--policy", str(policy))
    assert code == 2
    assert "calibrated for something else: familya-0, familyc-2, familye-4 are missing" in err
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


def test_facts_of_a_zoo_are_set_and_refreshed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    zoo, name = tmp_path / "zoo.json", "gpt-4o-2024-05-13"
    stated = [
        "--usd-per-mtok-in",
        "2",
        "--usd-per-mtok-out",
        "8",
        "--modality",
        "image",
        "--tools",
        "--released",
        "2024-05-13",
    ]
    code, _, err = msat(capsys, "zoo", "set", name, "--zoo", str(zoo), *stated, "--with-shipped")
    assert code == 0, err
    code, out, err = msat(capsys, "zoo", "refresh", "--zoo", str(zoo), "--at", "2025-12-01", "--json")
    assert code == 0, err
    changed = {(change["candidate"], change["field"]) for change in json.loads(out)["changes"]}
    assert changed
    assert (name, "usd_per_mtok_in") not in changed  # the user's own word stays
    code, out, _ = msat(capsys, "zoo", "list", "--zoo", str(zoo), "--json")
    by_name = {facts["name"]: facts for facts in json.loads(out)["candidates"]}
    assert by_name[name]["usd_per_mtok_in"] == 2
    assert by_name[name]["modalities"] == ["image", "text"]
    assert by_name[name]["facts"]["tools"]["source"] == "user"
    assert by_name[name]["facts"]["context_window"]["source"] == "library"
    assert by_name["gemma-2-2b-it"]["modalities"] is None
    assert {"max_output_tokens", "reasoning", "released", "usd_per_mtok_cached_in"} <= by_name["gemma-2-2b-it"].keys()
    code, out, _ = msat(capsys, "zoo", "list", "--zoo", str(zoo))
    assert "user" in out
    prices = tmp_path / "prices.csv"
    prices.write_text("model,usd_per_mtok_in,usd_per_mtok_out\ngemma-2-2b-it,0.01,0.01\nnobody,1,1\n")
    code, out, err = msat(capsys, "zoo", "set", "--zoo", str(zoo), "--prices", str(prices))
    assert code == 0
    assert "not in the zoo: nobody" in err
    assert Zoo.load(zoo)["gemma-2-2b-it"].usd_per_mtok_out == 0.01
    code, out, err = msat(capsys, "zoo", "set", name, "--zoo", str(zoo), "--unknown", "usd-per-mtok-in")
    assert code == 0
    assert Zoo.load(zoo)[name].usd_per_mtok_in is None


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["gemma-2-2b-it", "--usd-per-mtok-in", "-1"], "usd_per_mtok_in"),
        (["gemma-2-2b-it", "--usd-per-mtok-out", "nan"], "usd_per_mtok_out"),
        (["gemma-2-2b-it", "--usd-per-mtok-in", "cheap"], "usd-per-mtok-in"),
        (["gemma-2-2b-it", "--context-window", "-1"], "context_window"),
        (["gemma-2-2b-it", "--modality", "smell"], "modalities"),
        (["gemma-2-2b-it", "--unknown", "colour"], "'colour' is no fact"),
        (["gemma-2-2b-it"], "Give either"),
        (["gemma-2-2b-it", "--prices", "x.csv"], "Give either"),
        (["--prices", "missing.csv"], "cannot be read as a price table"),
        (["nobody", "--tools"], "no candidate 'nobody'"),
    ],
)
def test_facts_that_cannot_be_set_are_exit_code_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str, tmp_path: Path
) -> None:
    zoo = tmp_path / "zoo.json"
    code, _, err = msat(capsys, "zoo", "set", "--zoo", str(zoo), "--with-shipped", *arguments)
    assert code == 2
    assert sentence in err
    assert "Traceback" not in err
    assert not zoo.exists()


def test_an_unknown_price_is_not_cheap_on_the_command_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    zoo, names = tmp_path / "zoo.json", ["mathstral-7B", "gpt-4o-2024-05-13", "gemma-2-2b-it"]
    shipped = Zoo.load(pretrained.ZOO).subset(names)
    for name in names:
        shipped.set(name, usd_per_mtok_in=None, usd_per_mtok_out=None)
    shipped.set("mathstral-7B", usd_per_mtok_in=0.2, usd_per_mtok_out=0.2)
    shipped.set("gemma-2-2b-it", usd_per_mtok_in=0.1, usd_per_mtok_out=0.1, reasoning=True)
    shipped.save(zoo)
    ask = ["route", "What is two plus two?", "--zoo", str(zoo)]
    for options in (["--objective", "target", "--target", "0.3"], ["--max-usd", "1"]):
        code, out, err = msat(capsys, *ask, *options, "--json")
        assert code == 0, err
        assert json.loads(out)["candidate"] == "mathstral-7B" or options[0] == "--objective"
        assert "1 left out: no price (gpt-4o-2024-05-13)" in json.loads(out)["reason"]
    code, out, _ = msat(capsys, *ask, "--max-usd", "inf", "--json")
    assert json.loads(out)["excluded"] == {}
    policy = tmp_path / "policy.yaml"
    policy.write_text("objective: target\ntarget: 0.99\nunpriced: allow\n")
    code, out, _ = msat(capsys, *ask, "--policy", str(policy), "--json")
    assert json.loads(out)["ranking"][-1] == "gpt-4o-2024-05-13"
    code, out, _ = msat(capsys, *ask)
    assert "×" in out  # how list prices compare, where the output is unknown
    shipped.set("mathstral-7B", usd_per_mtok_in=None)
    shipped.set("gemma-2-2b-it", usd_per_mtok_in=None)
    shipped.save(zoo)
    code, _, err = msat(capsys, *ask, "--objective", "target")
    assert code == 2
    assert "msat zoo set NAME" in err


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
    assert set(Exam.load(profiles / "exam").embeddings) == {tuned, shipped_digest()}
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
    assert sum(not c["coarse"] for c in candidates.values()) == 12
    assert candidates["gpt-4o-2024-08-06"]["coarse"]
    assert candidates["gemini-1.5-pro-002"]["usd_per_mtok_in"] == 1.25
    assert "Llama-2-70b-hf" not in candidates


def test_shipped_files_are_small() -> None:
    size = sum(path.stat().st_size for path in pretrained.FOLDER.rglob("*") if path.is_file())
    assert size < 60e6  # of which the encoder takes 45


def test_no_shot_of_the_exam_is_in_the_demo(real_records: Records) -> None:
    from support import RECORDS

    from msat_core import AptitudeTest

    sample = set(pq.read_table(RECORDS / "mmlu_pro" / "outputs_sample.parquet")["item_id"].to_pylist())
    texts = {t for i, t in zip(real_records.item_ids, real_records.text_sha256, strict=True) if i in sample}
    assert not texts & AptitudeTest.load().exam.text_hashes
