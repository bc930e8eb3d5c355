"""What careless and hostile users hand in, where it is stated: one sentence, and nothing read, sent or lost."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import msat
from support import table_router

from msat_core import (
    ConfigurationError,
    DecisionLog,
    FeedbackLog,
    InstructionError,
    MsatError,
    OpenAIClient,
    PolicyError,
    RecordsError,
    RoutingPolicy,
    Zoo,
    ZooError,
)
from msat_core.aptitude import bounded_http
from msat_core.aptitude.clients import MalformedReply
from msat_core.aptitude.graders.structured import same_json
from msat_core.aptitude.journal import Answer, Journal
from msat_core.encoders.cache import EmbeddingCache
from msat_core.encoders.hashed import HashEncoder
from msat_core.evaluation.cost import CurvePoint, area_under_curve
from msat_core.price_tables import read_price_table
from msat_core.reading import parse_yaml, read_csv, read_rows
from msat_core.records import Records
from msat_core.scrubbing import kept_text
from msat_core.trial.candidates import read_candidates
from msat_core.trial.questions import read_questions

NAN, INFINITY = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("max_usd", NAN, "got nan"),
        ("max_usd", -INFINITY, "got -inf"),
        ("max_usd", True, "expected a number"),
        ("max_usd", "much", "got 'much'"),
        ("target", NAN, "got nan"),
        ("target", True, "expected a number"),
        ("usd_weight", INFINITY, "got inf"),
        ("allow", "good", "expected a list of names, got 'good'"),
        ("deny", {"good": 1}, "expected a list of names"),
    ],
)
def test_a_policys_numbers_and_lists_say_what_came(setting: str, value: Any, said: str) -> None:
    objective = {"usd_weight": "value", "target": "target"}.get(setting, "quality")
    with pytest.raises(PolicyError, match=said) as raised:
        RoutingPolicy(objective=objective, **{setting: value})
    assert "\n" not in str(raised.value)


def test_a_calls_policy_names_no_file(tmp_path: Path) -> None:
    (tmp_path / "policy.json").write_text('{"deny": ["good"]}')
    for given in (str(tmp_path / "policy.json"), tmp_path / "policy.json", 5):
        with pytest.raises(PolicyError, match="mapping of its settings"):
            table_router().route("Which?", policy=given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a: 1\na: 2", "given twice"),
        ("a: &b [1]\nc: *b", "references"),
        ("- " * 5000, "nested"),
        ("x: !!python/object/apply:os.getcwd []", "constructor"),
        ("a: " + "x" * (1 << 20), "write JSON"),
    ],
)
def test_yaml_is_plain_values_written_out(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_yaml(text)


def test_a_csv_row_that_is_not_certain_is_no_row(tmp_path: Path) -> None:
    table = tmp_path / "a.csv"
    table.write_bytes(b"name,score\na,1\nb,1,2\ncaf\xe9,1\nd\n")
    rows = dict(read_csv(table))
    assert [isinstance(row, ValueError) for row in rows.values()] == [False, True, True, False]
    assert rows[5] == {"name": "d", "score": None}
    with pytest.raises(ValueError, match="line 3: more cells"):
        list(read_rows(table))
    table.write_text("name,name\na,b\n")
    with pytest.raises(ValueError, match="column 'name' is given twice"):
        list(read_csv(table))


@pytest.mark.parametrize("score", ["[0.5]", "[[0.5]]", '"0.5"', '{"a": 1}', "1" + "0" * 400])
def test_a_score_is_a_number_and_no_list_of_them(score: str, tmp_path: Path) -> None:
    (tmp_path / "items.jsonl").write_text('{"item_id": "1", "task": "t", "instruction": "q"}\n')
    (tmp_path / "outcomes.jsonl").write_text(f'{{"item_id": "1", "model": "m", "score": {score}}}\n')
    with pytest.raises(RecordsError, match=r"row 0: score is .* expected a number"):
        Records.load(tmp_path)


@pytest.mark.parametrize("what", ["pipe", "device", "loop", "folder"])
def test_odd_files_of_a_trial_are_refused(what: str, tmp_path: Path) -> None:
    for name, read in (("q.jsonl", read_questions), ("c.yaml", read_candidates), ("p.csv", read_price_table)):
        place = tmp_path / name
        make = {"pipe": os.mkfifo, "device": lambda p: p.symlink_to("/dev/zero"), "folder": os.mkdir}
        make.get(what, lambda p: p.symlink_to(p))(place)
        with pytest.raises(MsatError):
            read(place)


def test_a_candidate_has_one_price(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("model,usd_per_mtok_in\nm,1\nm,2\n")
    with pytest.raises(ConfigurationError, match="m has two rows"):
        read_price_table(tmp_path / "p.csv")


@pytest.mark.parametrize(
    ("format", "line"),
    [
        ("langsmith", '{"extra": 5, "feedback_stats": [1], "inputs": {"input": "q"}, "run_type": "llm"}'),
        ("langfuse", '{"observations": 5, "scores": 7, "input": "q"}'),
        ("otel", '{"resourceSpans": 5}'),
    ],
)
def test_traces_of_another_shape_are_left_out_and_counted(format: Any, line: str, tmp_path: Path) -> None:
    (tmp_path / "traces.jsonl").write_text(line + "\n")
    with pytest.raises(RecordsError, match=f"not as {format} writes it"):
        read_questions(tmp_path / "traces.jsonl", format=format)


@pytest.mark.parametrize(
    "line",
    [
        {"item_id": ["1"], "rotation": 0, "text": "A"},
        {"item_id": "1", "rotation": True, "text": "A"},
        {"item_id": "1", "rotation": 0, "text": None},
        {"item_id": "1", "rotation": 0, "text": "A", "input_tokens": -5},
        {"usd_lost": "0.5"},
        {"usd_lost": -3},
    ],
)
def test_a_journals_line_holds_what_it_should(line: dict[str, Any], tmp_path: Path) -> None:
    with Journal(tmp_path / "j.jsonl", {}) as journal:
        journal.write([Answer("1", 0, "A")])
    with (tmp_path / "j.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    with pytest.raises(MsatError, match="line 3 is damaged"), Journal(tmp_path / "j.jsonl", {}):
        pass


def test_a_damaged_cache_is_made_again(tmp_path: Path) -> None:
    cache = EmbeddingCache(HashEncoder(), tmp_path)
    whole = cache.encode(["Which?", "Whose?"]).vectors
    (shard,) = tmp_path.rglob("*.safetensors")
    for data in (b"", shard.read_bytes()[:-40], b"x" * 900):
        shard.write_bytes(data)
        np.testing.assert_array_equal(cache.encode(["Which?", "Whose?"]).vectors, whole)


def test_whole_numbers_beyond_all_others_equal_themselves() -> None:
    assert same_json(10**400, 10**400)
    assert not same_json(10**400, 1.0)


def test_a_long_error_is_kept_short_and_clean() -> None:
    kept = kept_text(RuntimeError("denied\n" + "a" * 100_000 + " Bearer sk-SECRET-123"))
    assert len(kept) <= 300
    assert "SECRET" not in kept
    assert "\n" not in kept


def test_the_area_under_a_line_is_the_trapezoids() -> None:
    points = [CurvePoint(0, cost_usd=1.0, accuracy=0.5), CurvePoint(1, cost_usd=3.0, accuracy=0.9)]
    assert area_under_curve(points, 1.0, 3.0) == pytest.approx(0.7)


@contextmanager
def endpoint(body: bytes, headers: dict[str, str]) -> Iterator[str]:
    """A server on this machine that answers everything with these bytes."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            for name, value in {"Content-Type": "application/json", **headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            try:
                self.wfile.write(body)
            except OSError:  # whoever asked has gone
                pass

        def log_message(self, *given: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.enable_socket
@pytest.mark.parametrize(
    ("headers", "why"), [({}, "more than 1,000 bytes"), ({"Content-Encoding": "gzip"}, "packed answer")]
)
async def test_an_answer_of_an_endpoint_is_bounded(
    headers: dict[str, str], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded_http, "MOST_BODY", 1000)
    with endpoint(b"[" + b" " * 100_000 + b"]", headers) as url:
        client = OpenAIClient("m", base_url=url, api_key="none")
        with pytest.raises(MalformedReply, match=why):
            await client.ask("Which?")
        await client.aclose()


def test_an_address_that_is_none_is_one_sentence() -> None:
    with pytest.raises(ConfigurationError, match="address cannot be read"):
        OpenAIClient("m", base_url="http://[::1", api_key="none")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["records", "import", "{q}", "--format", "jsonl", "--out", "{q}"], "is a file"),
        (["profile", "from-scores", "nowhere.csv", "--out", "{q}"], "is a file"),
        (["profile", "from-records", "nowhere", "--model", "m", "--out", "{q}/x"], "cannot be written"),
        (["zoo", "remove", "m", "--zoo", "/dev/null/zoo.json"], "cannot be written"),
        (["zoo", "add", "nowhere.json", "--zoo", "/proc/zoo.json"], "cannot be written"),
        (["trial", "{q}", "--candidates", "{c}", "--out", "{q}"], "is a file"),
        (["trial", "{q}", "--candidates", "{c}", "--out", "{o}", "--target", "nan"], "accuracy above 0"),
        (["trial", "{q}", "--candidates", "{c}", "--out", "{o}", "--timeout", "nan"], "timeout must be above 0"),
        (["trial", "{q}", "--candidates", "{c}", "--out", "{o}", "--rubric", "/dev/zero"], "not a regular file"),
    ],
)
def test_outputs_and_numbers_are_checked_before_the_work(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    questions, candidates = tmp_path / "q.jsonl", tmp_path / "c.json"
    questions.write_text('{"instruction": "Which?", "answer": "x"}\n')
    url = "http://127.0.0.1:9/v1"
    candidates.write_text(json.dumps([{"client": f"openai:{n}", "base_url": url} for n in "ab"]))
    places = {"q": questions, "c": candidates, "o": tmp_path / "out"}
    code, _, err = msat(capsys, *(argument.format(**places) for argument in arguments))
    assert (code, sentence in err) == (2, True), err
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.rglob(".*"))


def test_a_name_is_no_markup_and_is_never_cut(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    name = "[/bold]" + "a-long-name-of-a-candidate-" * 6 + "[red]:smile:"
    (tmp_path / "items.jsonl").write_text('{"item_id": "1", "task": "t", "instruction": "q"}\n')
    (tmp_path / "outcomes.jsonl").write_text(json.dumps({"item_id": "1", "model": name, "score": 0.5}) + "\n")
    code, out, err = msat(capsys, "records", "check", str(tmp_path))
    assert code == 0, err
    assert name in out


@pytest.mark.parametrize(
    "odd",
    [
        {"source": []},
        {"outcome": 10**400},
        {"at": 10**400},
        {"decision": 5},
        {"decision": "\ud800"},
        {"key": ""},
        {"candidate": None},
        {"candidate": ""},
        {"candidate": "\ud800"},
        {"vector": ["a"]},
        {"vector": [1j]},
        {"vector": [10**400]},
    ],
)
def test_odd_feedback_is_one_sentence_and_is_not_written(odd: dict[str, Any], tmp_path: Path) -> None:
    log = FeedbackLog(tmp_path / "f.jsonl")
    before = (tmp_path / "f.jsonl").read_bytes()
    whole = {"candidate": "good", "vector": np.ones(4, np.float16), "outcome": 1.0, "key": "k", **odd}
    with pytest.raises(ConfigurationError) as raised:
        log.add(**whole)
    assert len(str(raised.value)) < 250
    assert "\n" not in str(raised.value)
    assert (tmp_path / "f.jsonl").read_bytes() == before


@pytest.mark.parametrize("name", ["x\0y", "a" * 5000, "/proc/self/mem", "/dev/zero", "/"])
@pytest.mark.parametrize("open_it", [FeedbackLog, DecisionLog, Records.load, Zoo.load])
def test_what_is_no_file_is_refused(name: str, open_it: Any) -> None:
    with pytest.raises(MsatError):
        open_it(name)


@pytest.mark.parametrize("name", [None, 5, ["good"], "x" * 10**6])
def test_a_name_of_any_kind_that_nobody_has_is_one_sentence(name: Any) -> None:
    with pytest.raises(ZooError, match="no candidate") as raised:
        table_router().zoo[name]
    assert len(str(raised.value)) < 500
    with pytest.raises(PolicyError) as refused:
        table_router(policy=RoutingPolicy(deny=["x" * 10**6]))
    assert len(str(refused.value)) < 500


@pytest.mark.parametrize("instructions", [None, 5, "one"])
def test_a_batch_is_a_sequence(instructions: Any) -> None:
    with pytest.raises(InstructionError, match="Expected a sequence of instructions"):
        table_router().route_batch(instructions)
