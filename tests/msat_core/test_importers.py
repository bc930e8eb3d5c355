"""Evaluations in other people's formats: what is read, what is left out, and that it is said."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from commands import msat

from msat_core import CapabilityProfile, Exam, Records, Router, pretrained
from msat_core.aptitude.questions import QuestionSet
from msat_core.errors import ConfigurationError, RecordsError
from msat_core.importers.importing import import_records
from msat_core.importers.published import published_profiles
from msat_core.importers.rows import ImportOptions


def lines(path: Path, rows: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def outcome(records: Records, model: str) -> dict[str, float]:
    row = records.outcomes[records.candidates.index(model)]
    return {item: float(score) for item, score in zip(records.item_ids, row, strict=True) if score == score}


def lm_eval_sample(doc_id: int, score: float, **other: Any) -> dict[str, Any]:
    return {
        "doc_id": doc_id,
        "doc": {"question": f"Which one, {doc_id}?", "choices": {"text": ["one", "two"], "label": ["A", "B"]}},
        "target": 1,
        "arguments": {"gen_args_0": {"arg_0": "Which one?"}},
        "resps": [[["-1.5", "False"]]],
        "filtered_resps": [["-1.5", "False"]],
        "filter": "none",
        "metrics": ["acc", "acc_norm"],
        "acc": score,
        "acc_norm": 1.0,
        "doc_hash": "x",
        **other,
    }


def test_lm_eval_samples(tmp_path: Path) -> None:
    results = tmp_path / "results"
    lines(
        results / "org__model-a" / "samples_arc_easy_2024-07-02T10-12-13.123456.jsonl",
        [lm_eval_sample(0, 1.0), lm_eval_sample(1, 0.0), "{broken", lm_eval_sample(2, 7.0), {"doc_id": 3, "acc": 1.0}],
    )
    lines(results / "org__model-a" / "samples_arc_easy_2023-01-01T00-00-00.000000.jsonl", [lm_eval_sample(0, 0.0)])
    generated: dict[str, Any] = {"doc": {"question": "How many?"}, "target": "18", "metrics": ["exact_match"]}
    generated["resps"] = [["I think 18"]]
    both = [
        lm_eval_sample(0, 0.0, exact_match=score, filter=name, **generated)
        for name, score in (("strict-match", 1.0), ("flexible-extract", 0.0))
    ]
    lines(results / "org__model-b" / "samples_gsm8k_2024-07-02T10-12-13.123456.jsonl", both)
    report = import_records(results, tmp_path / "out", "lm-eval")
    assert (report.n_items, report.n_outcomes, report.n_bad) == (3, 3, 3)
    assert [row.why for row in report.bad][1:] == ["score 7.0 lies outside [0, 1]", "no doc"]
    assert ":3" in report.bad[0].where and "not JSON" in report.bad[0].why
    assert report.skipped == {"answer filter 'flexible-extract'": 1}
    records = Records.load(tmp_path / "out")
    assert outcome(records, "org/model-a") == {"arc_easy:0": 1.0, "arc_easy:1": 0.0}
    assert outcome(records, "org/model-b") == {"gsm8k:0": 1.0}
    assert records.output_chars[1].tolist()[-1] == len("I think 18")
    assert records.instructions[0] == "Which one, 0?\nA. one\nB. two"
    questions = [q for twins in QuestionSet.load(tmp_path / "out").by_text.values() for q in twins]
    assert {q.item_id: q.answer for q in questions} == {"arc_easy:0": "B", "arc_easy:1": "B", "gsm8k:0": "18"}
    other = import_records(results, tmp_path / "norm", "lm-eval", ImportOptions(metric="acc_norm", benchmark="arc"))
    assert other.n_bad == 2  # the broken line and the one without a doc
    assert set(Records.load(tmp_path / "norm").benchmarks) == {"arc"}


def test_lm_eval_never_guesses_the_metric(tmp_path: Path) -> None:
    sample = lm_eval_sample(0, 1.0, metrics=["f1", "rouge"], f1=0.5, rouge=0.2)
    del sample["acc"], sample["acc_norm"]
    lines(tmp_path / "m" / "samples_qa.jsonl", [sample])
    with pytest.raises(RecordsError, match="which metric is the score\\? it has f1, rouge"):
        import_records(tmp_path / "m", tmp_path / "out", "lm-eval")
    assert import_records(tmp_path / "m", tmp_path / "out", "lm-eval", ImportOptions(metric="f1")).n_outcomes == 1


def test_mmlu_pro_results_in_a_zip(tmp_path: Path) -> None:
    def row(number: int, output: str | None, pred: str | None) -> dict[str, Any]:
        found = {
            "question_id": number,
            "question": f"Which, {number}?",
            "options": ["x", "y", "z", "N/A"],
            "answer": "B",
            "category": "business",
            "src": "ori_mmlu-business_ethics",
            "pred": pred,
        }
        return found if output is None else {**found, "model_outputs": output}

    rows = [row(70, "The answer is (B).", "B"), row(71, "No idea.", "B"), row(72, None, "B"), {"question_id": 1}]
    with zipfile.ZipFile(tmp_path / "results.zip", "w") as archive:
        archive.writestr("eval/model_outputs_Some-Model-7B_5shots.json", json.dumps(rows))
        archive.writestr("eval/model_outputs_Cut-Model_5shots.json", json.dumps(rows[:2])[:-20])
        archive.writestr("eval/x_summary.json", "[]")
    report = import_records(tmp_path / "results.zip", tmp_path / "out", "mmlu-pro")
    records = Records.load(tmp_path / "out")
    assert outcome(records, "Some-Model-7B") == {"mmlu_pro:70": 1.0, "mmlu_pro:71": 0.0, "mmlu_pro:72": 1.0}
    assert outcome(records, "Cut-Model") == {"mmlu_pro:70": 1.0}
    assert set(records.tasks) == {"mmlu/business_ethics"}
    assert records.instructions[0] == "Which, 70?\nA. x\nB. y\nC. z"
    assert sorted(bad.why.split("(")[0] for bad in report.bad) == ["no options", "not JSON from here on "]
    (tmp_path / "results.json").write_text(json.dumps(rows))
    with pytest.raises(ConfigurationError, match="does not say which model answered"):
        import_records(tmp_path / "results.json", tmp_path / "other", "mmlu-pro")


def test_routerbench_csv(tmp_path: Path) -> None:
    path = tmp_path / "routerbench_0shot.csv"
    path.write_text(
        "sample_id,prompt,eval_name,gpt-4,claude-v2,gpt-4|model_response,claude-v2|model_response,gpt-4|total_cost,"
        "claude-v2|total_cost,oracle_model_to_route_to\n"
        "mmlu.1,\"['Please answer.\\nA) x', 'Now']\",mmlu-law,1.0,0.25,\"['A']\",['BB'],0.1,0.1,gpt-4\n"
        "mmlu.2,Plain text,mmlu-law,0.0,,B,,0.1,0.1,gpt-4\n"
        "mmlu.3,Other text,mmlu-law,nan,1,B,C,0.1,0.1,gpt-4\n"
    )
    report = import_records(path, tmp_path / "out", "routerbench")
    records = Records.load(tmp_path / "out")
    assert outcome(records, "gpt-4") == {"mmlu.1": 1.0, "mmlu.2": 0.0}
    assert outcome(records, "claude-v2") == {"mmlu.1": 0.25, "mmlu.3": 1.0}
    assert records.instructions[0] == "Please answer.\nA) x\nNow"
    assert report.skipped == {"no outcome of claude-v2": 1}
    assert [bad.why for bad in report.bad] == ["score 'nan' lies outside [0, 1]"]
    path.write_text("sample_id,prompt\n1,x\n")
    with pytest.raises(RecordsError, match="has no model's columns"):
        import_records(path, tmp_path / "other", "routerbench")
    (tmp_path / "x.pkl").write_bytes(b"\x80")
    with pytest.raises(RecordsError, match="is a pickle"):
        import_records(tmp_path / "x.pkl", tmp_path / "other", "routerbench")


def test_llmrouterbench_files_and_lines(tmp_path: Path) -> None:
    record = {"index": 1, "origin_query": "What?", "prompt": "Answer: What?", "prediction": "x", "ground_truth": "x"}
    result = {
        "performance": 0.5,
        "records": [{**record, "score": 1.0}, {**record, "index": 2, "origin_query": "Who?", "score": None}],
        "model_name": "Qwen3-8B",
        "dataset_name": "aime",
        "split": "test",
        "demo": False,
    }
    bench = tmp_path / "bench"
    bench.mkdir()
    (bench / "a.json").write_text(json.dumps(result))
    (bench / "demo.json").write_text(json.dumps({**result, "demo": True}))
    lines(
        bench / "b.jsonl",
        [
            {"query": "What?", "model": "GPT-5", "score": True, "dataset": "aime", "index": 1, "split": "test"},
            {"question": "New?", "dataset": "hle", "scores": {"GPT-5": 0.5, "Qwen3-8B": None, "Other": "?"}},
            ["no object"],
        ],
    )
    report = import_records(bench, tmp_path / "out", "llmrouterbench")
    records = Records.load(tmp_path / "out")
    assert outcome(records, "Qwen3-8B") == {"aime:test:1": 1.0}
    assert sorted(outcome(records, "GPT-5").values()) == [0.5, 1.0]
    assert set(records.benchmarks) == {"aime", "hle"}
    assert report.skipped == {"a demo run": 1, "no outcome of Qwen3-8B": 1}
    assert sorted(bad.why for bad in report.bad) == [
        "expected an object, got list",
        "no score or performance or correct or acc",
        "score '?' is not a number",
    ]


def test_plain_tables_with_a_mapping(tmp_path: Path) -> None:
    rows = [
        {"prompt": "What?", "who": "a", "ok": True, "subject": "law", "reply": "xyz"},
        {"prompt": "What?", "who": "b", "ok": "0.5", "subject": "law"},
        {"prompt": "What?", "who": "b", "ok": 1, "subject": "law"},
        {"prompt": " ", "who": "b", "ok": 1, "subject": "law"},
        {"prompt": "Why?", "who": "b", "subject": "law"},
    ]
    columns = {"instruction": "prompt", "model": "who", "score": "ok", "task": "subject", "output": "reply"}
    report = import_records(
        lines(tmp_path / "mine.jsonl", rows), tmp_path / "out", "jsonl", ImportOptions(columns=columns)
    )
    records = Records.load(tmp_path / "out")
    assert (records.tasks, records.benchmarks) == (("law",), ("mine",))
    assert list(outcome(records, "a").values()) == [1.0]
    assert list(outcome(records, "b").values()) == [0.5]
    assert [bad.why for bad in report.bad] == [
        "a second outcome of the same candidate on the same item",
        "no prompt",
        "no ok",
    ]
    saved = json.loads((tmp_path / "out" / "import.json").read_text())
    assert (saved["n_bad"], saved["format"], saved["source"]) == (3, "jsonl", "mine.jsonl")


def test_a_wide_csv(tmp_path: Path) -> None:
    path = tmp_path / "wide.csv"
    path.write_text("item_id,instruction,a,b\n1,What?,1,0\n1,Another text,1,0\n2,Why?,true,\n")
    report = import_records(path, tmp_path / "out", "csv", ImportOptions(wide=("a", "b", "c")))
    records = Records.load(tmp_path / "out")
    assert outcome(records, "a") == {"1": 1.0, "2": 1.0}
    assert outcome(records, "b") == {"1": 0.0}
    reasons = [bad.why for bad in report.bad]
    assert reasons.count("another text under the same item_id") == 2
    assert reasons.count("no column 'c'") == 3


def test_nothing_is_left_behind_when_an_import_fails(tmp_path: Path) -> None:
    source = lines(tmp_path / "bad.jsonl", ["{", "{"])
    with pytest.raises(RecordsError, match="holds no jsonl outcome that can be read; the first of 2 bad rows"):
        import_records(source, tmp_path / "out", "jsonl")
    assert list((tmp_path / "out").iterdir()) == []
    with pytest.raises(RecordsError, match="does not exist"):
        import_records(tmp_path / "nowhere", tmp_path / "out", "jsonl")
    with pytest.raises(ConfigurationError, match="no field 'prompt' to map"):
        ImportOptions(columns={"prompt": "x"})


def test_the_command_counts_and_lists(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    source = lines(tmp_path / "mine.jsonl", [{"q": "What?", "model": "a", "score": 1}, {"q": "Why?", "model": "a"}])
    arguments = ["records", "import", str(source), "--format", "jsonl", "--map", "instruction=q", "--out"]
    code, out, err = msat(capsys, *arguments, str(tmp_path / "one"), "--json")
    assert code == 0, err
    assert (json.loads(out)["n_outcomes"], json.loads(out)["n_bad"]) == (1, 1)
    code, out, _ = msat(capsys, *arguments, str(tmp_path / "two"))
    assert "1 bad rows left out" in out and "no score" in out
    code, _, err = msat(capsys, *arguments, str(tmp_path / "two"))
    assert code == 2 and "already holds records" in err
    code, _, err = msat(capsys, *arguments[:-2], "nonsense", "--out", str(tmp_path / "three"))
    assert code == 2 and "expected FIELD=COLUMN" in err
    assert msat(capsys, "records", "check", str(tmp_path / "one"))[0] == 0


PUBLISHED = """model,task,accuracy,n_questions,source,keywords
m1,math,0.55,1351,board 2026,algebra; geometry
m1,law,0.3,8,,
"""


def test_published_scores_make_coarse_profiles(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, shipped: Router
) -> None:
    table = tmp_path / "board.csv"
    table.write_text(PUBLISHED)
    code, out, err = msat(capsys, "profile", "from-scores", str(table), "--out", str(tmp_path / "profiles"), "--json")
    assert code == 0, err
    profile = CapabilityProfile.load(json.loads(out)["profiles"]["m1"]["file"])
    assert profile.exam_digest == Exam.load(pretrained.EXAM_AREAS).digest
    assert profile.provenance.coarse
    assert profile.provenance.protocol == "published"
    assert "board 2026, board.csv (0 of 2 tasks known to the scale; of the others only the area" in (
        profile.provenance.source
    )
    zoo = ["--zoo", str(tmp_path / "zoo.json"), "--with-shipped"]
    code, _, err = msat(capsys, "zoo", "add", str(tmp_path / "profiles" / "m1.json"), *zoo)
    assert code == 0
    assert "asked in different ways" in err and "sat different exams" in err
    scores = shipped.scorer.score(["Solve x + 2 = 5."], [profile])
    assert 0 < scores.probabilities[0, 0] < 1


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ("m1,math,55,100", r"board.csv:2: accuracy '55' is not a share in \[0, 1\] \(for percentages give --percent\)"),
        ("m1,math,x,100", "accuracy 'x' is not a number"),
        ("m1,math,0.5,0", "n_questions '0' is not a whole number above 0"),
        ("m1,math,0.5,", "n_questions '' is not a number"),
        (",math,0.5,10", "no model"),
        ("m1,math,0.5,10\nm1,math,0.6,10", "a second accuracy of 'm1' in 'math'"),
    ],
)
def test_a_wrong_published_score_is_named(tmp_path: Path, row: str, sentence: str) -> None:
    table = tmp_path / "board.csv"
    table.write_text(f"model,task,accuracy,n_questions\n{row}\n")
    with pytest.raises(RecordsError, match=sentence):
        published_profiles(table)


def test_percentages_and_other_column_names(tmp_path: Path) -> None:
    table = lines(tmp_path / "board.jsonl", [{"Category": "math", "Score": 55.0, "n": 10}])
    columns = {"task": "Category", "accuracy": "Score", "n_questions": "n"}
    [profile] = published_profiles(table, columns=columns, model="m", percent=True)
    assert (profile.candidate, profile.provenance.coarse) == ("m", True)
