"""Own questions from tables, records and traces; candidates from files; a judge beside people."""

from __future__ import annotations

import asyncio
import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import msat
from exam_world import write_records

from msat_core.aptitude.clients import FunctionClient
from msat_core.aptitude.graders.judge import Judge
from msat_core.aptitude.graders.naming import Graders
from msat_core.errors import ConfigurationError, MsatError, RecordsError
from msat_core.trial.agreement import agreement, read_human_marks
from msat_core.trial.candidates import Contender, read_candidates
from msat_core.trial.marking import JudgePaper
from msat_core.trial.parts import split
from msat_core.trial.promise import promised
from msat_core.trial.questions import OwnQuestions, read_questions
from msat_core.trial.trial import Trial

ROWS: list[dict[str, Any]] = [
    {"instruction": "What is 2 + 2?", "answer": 4, "task": "sums"},
    {"instruction": "Is it late?", "answer": True},
    {"instruction": "Which?\nA. this\nB. that", "answer": "B"},
    {"instruction": "Give me JSON.", "answer": {"a": [1]}, "grader": "json-schema"},
    {"instruction": "Who won?", "scores": {"old-1": 1, "old-2": 0.25}},
]


def texts(found: OwnQuestions) -> list[tuple[str, str, str, str | None]]:
    return [
        (one.question.with_options(), one.question.answer, one.question.category, getattr(one.grader, "name", None))
        for one in found.questions
    ]


EXPECTED = [
    ("What is 2 + 2?", "4", "sums", "number"),
    ("Is it late?", "true", "questions", "short"),
    ("Which?\nA. this\nB. that", "B", "questions", "choice"),
    ("Give me JSON.", '{"a": [1]}', "questions", "json-schema"),
    ("Who won?", "", "questions", None),
]


def test_every_kind_of_table_says_the_same(tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    (tmp_path / "q.json").write_text(json.dumps(ROWS))
    fields = ("instruction", "answer", "task", "grader", "scores")
    flat = [{k: v if isinstance(v := row.get(k, ""), str) else json.dumps(v) for k in fields} for row in ROWS]
    with (tmp_path / "q.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fields)
        writer.writeheader()
        writer.writerows(flat)
    pq.write_table(pa.Table.from_pylist(flat), tmp_path / "q.parquet")
    for name in ("q.jsonl", "q.json", "q.csv", "q.parquet"):
        found = read_questions(tmp_path / name)
        assert texts(found) == EXPECTED, name
        assert found.questions[4].outcomes == {"old-1": 1.0, "old-2": 0.25}
    assert texts(read_questions(ROWS)) == EXPECTED


def test_records_are_questions_with_earlier_outcomes(tmp_path: Path) -> None:
    found = read_questions(write_records(tmp_path / "toy"))
    assert len(found) == 12
    assert {one.question.category for one in found.questions} == {"algebra", "law", "biology"}
    assert all(set(one.outcomes) == {"toy-1"} and one.grader is not None for one in found.questions)


def test_what_cannot_be_used_is_counted(tmp_path: Path) -> None:
    rows = [*ROWS, ROWS[0], {"instruction": " "}, {"instruction": "No answer?"}, {"question": "x"}]
    found = read_questions(rows)
    assert len(found) == 5
    assert found.left_out == {"the same question once more": 1, "no instruction": 2, "nothing to mark it by": 1}
    assert len(read_questions(rows, grader="judge")) == 6
    assert len(read_questions([{"q": "How?", "a": "so"}], columns={"instruction": "q", "answer": "a"})) == 1
    (tmp_path / "q.jsonl").write_text('{"instruction": "a", "answer": "b"}\nnot json\n[1]\n')
    assert read_questions(tmp_path / "q.jsonl").left_out == {"not JSON": 1, "not an object": 1}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "holds no question that can be used"),
        ('{"instruction": "a", "answer": "b", "grader": "python:os.system"}', "may not name Python"),
        ('{"instruction": "a", "answer": "b", "grader": "code"}', "--run-code"),
        ('{"instruction": "a", "scores": {"x": 7}}', "outside"),
        ('{"instruction": "a", "answer": "b", "tools": [3]}', "tools"),
    ],
)
def test_a_bad_file_is_one_sentence(tmp_path: Path, content: str, sentence: str) -> None:
    (tmp_path / "q.jsonl").write_text(content)
    with pytest.raises(MsatError, match=sentence):
        read_questions(tmp_path / "q.jsonl")
    with pytest.raises(RecordsError, match="does not exist"):
        read_questions(tmp_path / "nowhere.jsonl")


def test_larger_samples_hold_smaller_ones_and_spread_over_tasks() -> None:
    rows = [{"instruction": f"Question {i}?", "answer": "a", "task": "many" if i < 90 else "few"} for i in range(100)]
    found = read_questions(rows)
    small, large = ({one.item_id for one in found.sample(n).questions} for n in (10, 40))
    assert small < large
    assert sum(one.question.category == "few" for one in found.sample(20).questions) == 10


def test_no_text_is_in_both_parts() -> None:
    rows = [{"instruction": f"Question {i // 2}{'?' * (1 + i % 2)}", "answer": "a"} for i in range(100)]
    questions = read_questions(rows).questions
    assert len(questions) == 100  # the same words, other marks: two questions
    parts = split(questions)
    both = [{questions[i].question.text_sha256 for i in part} for part in (parts.exam, parts.calibration)]
    assert not both[0] & both[1]
    assert sorted([*parts.exam, *parts.calibration]) == list(range(100))
    assert 20 <= len(parts.calibration) <= 40


LONGER = [{"role": role, "content": role} for role in ("user", "assistant", "user")]
SERIALISED = {"lc": 1, "type": "constructor", "kwargs": {"content": "What is love?", "type": "human"}}
LANGSMITH = [
    {
        "id": "1",
        "run_type": "llm",
        "inputs": {"messages": [[SERIALISED]]},
        "outputs": {"generations": [[{"text": "Baby"}]]},
        "extra": {"metadata": {"ls_model_name": "gpt-x"}},
        "feedback_stats": {"correctness": {"n": 1, "avg": 0.5}},
    },
    {"id": "2", "run_type": "chain", "inputs": {"input": "ignored"}},
    {"id": "3", "run_type": "llm", "inputs": {"messages": LONGER}},
    {"id": "4", "run_type": "llm", "inputs": {"messages": [{"role": "user", "content": "boom"}]}, "error": "500"},
    {"inputs": {"question": "What is the capital of France?"}, "outputs": {"answer": "Paris"}},
]
LANGFUSE = [
    {
        "type": "GENERATION",
        "model": "gpt-x",
        "input": [{"role": "system", "content": "Sing."}, {"role": "user", "content": "What is love?"}],
        "output": "Baby",
        "scores": [{"name": "correctness", "value": 0.5, "dataType": "NUMERIC"}],
    },
    {"type": "SPAN", "input": "ignored"},
    {"type": "GENERATION", "input": LONGER},
    {"type": "GENERATION", "level": "ERROR", "input": "boom"},
    {"input": "What is the capital of France?", "expectedOutput": "Paris"},
]


def span(**attributes: Any) -> dict[str, Any]:
    def typed(value: Any) -> dict[str, Any]:
        return {"intValue": str(value)} if isinstance(value, int) else {"stringValue": value}

    return {"name": "chat", "attributes": [{"key": key, "value": typed(value)} for key, value in attributes.items()]}


def otlp() -> list[dict[str, Any]]:
    told = [{"role": "user", "parts": [{"type": "text", "content": "What is love?"}]}]
    first = span(**{"gen_ai.request.model": "gpt", "gen_ai.response.model": "gpt-x", "gen_ai.usage.input_tokens": 3,
                    "gen_ai.input.messages": json.dumps(told)})  # fmt: skip
    judged = {"gen_ai.evaluation.name": "correctness", "gen_ai.evaluation.score.value": 0.5}
    first["events"] = [{"name": "gen_ai.evaluation.result", "attributes": judged}]
    second = span(**{"gen_ai.request.model": "gpt-x"})
    turns = ["gen_ai.user.message", "gen_ai.assistant.message", "gen_ai.user.message"]
    second["events"] = [{"name": name, "attributes": {"content": "a"}} for name in turns]
    failed = {**span(**{"gen_ai.prompt.0.role": "user", "gen_ai.prompt.0.content": "boom"}), "status": {"code": 2}}
    spans = [first, span(**{"http.method": "GET"}), second, failed]
    return [{"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}]


@pytest.mark.parametrize(
    ("format", "export"), [("langsmith", LANGSMITH), ("langfuse", LANGFUSE), ("otel", otlp())], ids=str
)
@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
def test_traces_of_three_tools(tmp_path: Path, format: Any, export: list[Any], suffix: str) -> None:
    file = tmp_path / f"export{suffix}"
    file.write_text(json.dumps(export) if suffix == ".json" else "\n".join(map(json.dumps, export)))
    found = read_questions(file, format=format)
    first, *rest = found.questions
    assert first.question.text == "What is love?"
    assert first.outcomes == {"gpt-x": 0.5}
    assert [(one.question.text, one.question.answer) for one in rest] == (
        [] if format == "otel" else [("What is the capital of France?", "Paris")]
    )
    assert found.left_out == {"amid a longer conversation": 1, "the call failed": 1}


def test_feedback_of_several_kinds_has_to_be_named(tmp_path: Path) -> None:
    scores = [{"name": "correctness", "value": 1}, {"name": "tone", "value": 0}]
    file = tmp_path / "f.jsonl"
    file.write_text(json.dumps({"type": "GENERATION", "model": "m", "input": "Hi?", "scores": scores}))
    with pytest.raises(RecordsError, match="name one with --feedback"):
        read_questions(file, format="langfuse")
    assert read_questions(file, format="langfuse", feedback="tone").questions[0].outcomes == {"m": 0.0}


def test_candidates_come_from_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "secret")
    rows = [
        {"client": "openai:gpt-5-mini", "api_key_env": "MY_KEY", "effort": "high"},
        {"name": "local", "client": "openai:q", "base_url": "http://127.0.0.1:1/v1", "usd_per_mtok_in": 0.5},
        {"name": "recorded"},
    ]
    (tmp_path / "c.json").write_text(json.dumps(rows))
    (tmp_path / "c.yaml").write_text(json.dumps({"candidates": rows}))
    (tmp_path / "c.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for name in ("c.json", "c.yaml", "c.jsonl"):
        first, second, third = read_candidates(tmp_path / name)
        assert first.name == "gpt-5-mini:high"
        assert first.prices.known  # OpenAI's own endpoint at OpenAI's price
        assert (second.name, second.prices.usd_per_mtok_in, second.prices.usd_per_mtok_out) == ("local", 0.5, None)
        assert third.client is None
        assert "secret" not in json.dumps(first.client.settings | {"source": first.client.source})  # type: ignore[union-attr,operator]


def test_a_plan_needs_no_key_and_says_when_the_cap_is_below_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    rows = [{"client": "openai:gpt-5-mini", "api_key_env": "NOT_SET_ANYWHERE"}, {"client": "openai:gpt-5-nano"}]
    (tmp_path / "c.json").write_text(json.dumps(rows))
    questions = [{"instruction": f"What is {i} + {i}?", "answer": str(2 * i)} for i in range(30)]
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, questions)))
    asked = ["trial", str(tmp_path / "q.jsonl"), "--candidates", str(tmp_path / "c.json"), "--out", str(tmp_path / "t")]
    code, _, err = msat(capsys, *asked, "--dry-run", "--max-usd", "0.001")
    assert code == 0 and "above the cap of 0.001" in " ".join(err.split())
    code, _, err = msat(capsys, *asked)
    assert code == 2 and "NOT_SET_ANYWHERE holds no key" in " ".join(err.split())
    assert not (tmp_path / "t").exists()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ('[{"client": "openai:x", "base_url": "http://h/v1", "eFfort": "low"}]', "did you mean 'effort'"),
        ('[{"client": "openai:x", "api_key_env": "NOT_SET_ANYWHERE"}]', "holds no key"),
        ('[{"name": "a"}, {"name": "a"}]', "names 'a' twice"),
        ('[{"effort": "low"}]', "expected a `client`"),
        ('[{"client": "ftp:x"}]', "names no client"),
        ("[]", "names no candidate"),
        ("{", "cannot be read"),
        ('[{"name": "a", "usd_per_mtok_in": -1}]', "usd_per_mtok_in"),
    ],
)
def test_a_bad_file_of_candidates_is_one_sentence(tmp_path: Path, content: str, sentence: str) -> None:
    (tmp_path / "c.json").write_text(content)
    with pytest.raises(ConfigurationError, match=sentence):
        read_candidates(tmp_path / "c.json")


def test_a_judge_is_held_against_people(tmp_path: Path) -> None:
    rows = [
        {"instruction": f"Q{i}", "output": "good" if i % 2 else "bad", "score": float(i % 2 if i else 1)}
        for i in range(10)
    ]
    (tmp_path / "marks.jsonl").write_text("\n".join(map(json.dumps, rows)))
    marks = read_human_marks(tmp_path / "marks.jsonl", Judge())
    paper = JudgePaper({one.reply.item_id: one.reply for one in marks})

    async def says(prompt: str) -> str:
        return "Grade: 9" if "good" in prompt else "Grade: 1"

    trial = Trial(
        read_questions([{"instruction": f"Z{i}", "scores": {"a": i % 2, "b": i % 3 == 0}} for i in range(40)]),
        [Contender.of(None, "a"), Contender.of(None, "b")],
        Contender.of(FunctionClient("j", says)),
        human_marks=marks,
    )
    found = asyncio.run(trial.run(tmp_path / "out")).judge_agreement
    assert found is not None
    assert (found.n, found.same_side) == (10, 0.9)  # they differ on the first answer
    assert found.kappa == pytest.approx(0.8)
    assert found.mean_difference == pytest.approx((5 * 0.9 + 5 * 0.1) / 10 - 0.6)
    assert agreement(marks, paper, {}) is None


def test_answers_that_need_a_judge_need_one(tmp_path: Path) -> None:
    async def says(prompt: str) -> str:
        return "Yes."

    rows = [{"instruction": f"Q{i}", "rubric": "Is it so?"} for i in range(5)]
    contenders = [Contender.of(FunctionClient(name, says)) for name in "ab"]
    with pytest.raises(ConfigurationError, match="5 answers need a judge"):
        asyncio.run(Trial(read_questions(rows), contenders).run(tmp_path))


def test_a_cap_on_spending_needs_prices_and_holds(tmp_path: Path) -> None:
    asked = []

    async def says(prompt: str) -> str:
        asked.append(prompt)
        return "The answer is a."

    questions = read_questions([{"instruction": f"Q{i}", "answer": "a"} for i in range(50)])
    with pytest.raises(ConfigurationError, match="needs prices, and a, b have none"):
        Trial(questions, [Contender.of(FunctionClient(name, says)) for name in "ab"], max_usd=1.0)
    priced = [
        Contender.of(FunctionClient(name, says, max_output_tokens=1000), usd_per_mtok_in=0, usd_per_mtok_out=1000)
        for name in "ab"
    ]
    trial = Trial(questions, priced, max_usd=10.0)
    plan = trial.plan(tmp_path)
    assert plan["a"].n_calls == 50 and plan["a"].usd == pytest.approx(50 * 250 * 1000 / 1e6)
    asyncio.run(trial.run(tmp_path))  # an answer of four tokens costs 0.004 USD, and may cost one dollar
    assert len(asked) == 100


@pytest.mark.parametrize("n", [20, 60, 200])
def test_a_promise_is_kept_as_often_as_it_says(n: int) -> None:
    rng, truth, kept = np.random.default_rng(0), 0.8, 0
    for _ in range(300):
        kept += promised((rng.random(n) < truth).astype(float)).accuracy <= truth
    assert kept / 300 >= 0.93  # 0.95 less the noise of 300 draws
    assert promised(np.ones(n)).accuracy == pytest.approx(0.05 ** (1 / n), abs=1e-6)  # all right: (accuracy)^n = 5%
    assert promised(np.ones(n), n_choices=10).accuracy < promised(np.ones(n)).accuracy


def test_similarity_can_be_named_where_there_is_an_encoder() -> None:
    found = Graders(embed=lambda some: np.eye(2, dtype=np.float32)).named("similarity")
    assert not isinstance(found, Judge)
