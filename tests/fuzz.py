"""Files and texts that nobody would write: every error is msat's own, and no damage goes unnoticed.

``make fuzz`` runs this for ``MSAT_FUZZ_S`` seconds (60) and prints what it tried; the tests run it for three.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from commands import written
from support import profile, synthetic_records, table_router

from msat_core import Exam, FeedbackLog, MsatError, Records, RoutingPolicy, Zoo, import_records, pretrained
from msat_core.aptitude.answers import read_choice
from msat_core.aptitude.journal import Answer, Journal
from msat_core.importers.importing import FORMATS
from msat_core.trial.candidates import read_candidates
from msat_core.trial.questions import read_questions

SLOW_S = 20.0  # a single case may take so long, then it counts as hanging
PIECES = [b"[", b"{", b"}", b'"', b"\\ud800", b"NaN", b"1e999", b"\x00", b"\xff", b"null", b"true", b",", b"\n"]
SOURCES = {
    "samples_t_2024-01-01T00-00-00.0.jsonl": (
        b'{"doc_id": 0, "doc": {"question": "q", "choices": ["a"]}, "target": "0", "acc": 1}\n'
    ),
    "a.jsonl": b'{"model": "m", "item_id": "1", "score": 1, "instruction": "q?", "dataset": "d", "split": "s"}\n',
    "a.csv": b"model,item_id,score,instruction\nm,1,1,q?\n",
    "b.csv": b"sample_id,prompt,eval_name,m,m|total_cost\n1,q,e,1,0\n",
    "model_outputs_m_5shots.json": (
        b'[{"question_id": 1, "question": "q", "options": ["a"], "answer": "A", "pred": "A", "category": "c"}]'
    ),
}

POLICIES = [
    RoutingPolicy(max_usd=1, deny={"poor"}).to_json().encode(),
    b"objective: target\ntarget: 0.7  # by hand\nunpriced: allow\ndeny: [poor]\ndefault: good\n",
    b"objective: value\nusd_weight: 200\nallow:\n- good\n- fair\nmax_usd: 0.5\n",
]
QUESTIONS = {
    "q.jsonl": b'{"instruction": "q?", "answer": "{\\"a\\": 1}", "grader": "json", "scores": {"m": 0.5}}\n'
    b'{"instruction": "r?", "answer": "4", "grader": "number:0.1", "task": "t"}\n',
    "q.json": b'[{"instruction": "q?", "answer": "x", "tools": "[{\\"name\\": \\"f\\"}]", "grader": "regex:x+"}]',
    "q.csv": b'instruction,answer,scores\nq?,x,"{""m"": 1}"\nr?,y,\n',
}
TRACES = {
    "langsmith": b'{"run_type": "llm", "inputs": {"messages": [[{"kwargs": {"type": "human", "content": "q?"}}]]}, '
    b'"extra": {"metadata": {"ls_model_name": "m"}}, "feedback_stats": {"ok": {"avg": 1}}}\n',
    "langfuse": b'{"type": "GENERATION", "input": [{"role": "user", "content": "q?"}], "model": "m", '
    b'"scores": [{"name": "ok", "value": 1}], "observations": []}\n',
    "otel": b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"attributes": [{"key": "gen_ai.prompt.0.content", '
    b'"value": {"stringValue": "q?"}}, {"key": "gen_ai.prompt.0.role", "value": {"stringValue": "user"}}]}]}]}]}\n',
}
CANDIDATES = {
    "c.yaml": b'- {name: a, client: "openai:m", base_url: "http://127.0.0.1:9/v1", usd_per_mtok_in: 1}\n- name: b\n',
    "c.json": b'{"candidates": [{"name": "a"}, {"name": "b", "priced_as": "openai:gpt-5-mini"}]}',
    "c.csv": b"name,client,temperature\na,,\nb,,0.5\n",
}


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Some bytes changed, cut out, put in, or repeated."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(changed) + 1)
        match rng.randrange(5):
            case 0 if at < len(changed):
                changed[at] ^= 1 << rng.randrange(8)
            case 1:
                del changed[at : at + rng.randint(1, 30)]
            case 2:
                changed[at:at] = rng.choice(PIECES)
            case 3:
                changed[at:at] = rng.choice(PIECES) * rng.randint(2, 3000)
            case _:
                del changed[at:]
    return bytes(changed)


class Fuzz:
    """Cases by kind, and what went wrong."""

    def __init__(self, folder: Path, seed: int = 0) -> None:
        self.folder, self.rng = folder, random.Random(seed)
        self.tried: Counter[str] = Counter()
        self.raw: list[str] = []
        self.hung: list[str] = []
        self.silent: list[str] = []
        self.router = table_router()
        self.zoo = Zoo.of([profile("alpha"), profile("beta")])
        self.exam_whole = Exam.load(pretrained.EXAMS[-1])
        self.records = written(synthetic_records(n_items=12, n_candidates=2), folder / "whole")

    def run(self, seconds: float) -> None:
        """Every kind in turn until the time is over."""
        kinds: list[Callable[[Path], None]] = [
            self.instruction,
            self.zoo_file,
            self.policy_file,
            self.records_folder,
            self.importer,
            self.feedback,
            self.exam,
            self.journal,
            self.questions,
            self.traces,
            self.candidates,
        ]
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for kind in kinds:
                place = Path(tempfile.mkdtemp(dir=self.folder))
                state, started = self.rng.getstate(), time.monotonic()
                self.tried[kind.__name__] += 1
                try:
                    kind(place)
                except MsatError:
                    pass
                except Exception as error:
                    self.raw.append(f"{kind.__name__} {self.tried[kind.__name__]}: {type(error).__name__}: {error}")
                if time.monotonic() - started > SLOW_S:
                    self.hung.append(f"{kind.__name__} {hash(state)}")
                shutil.rmtree(place, ignore_errors=True)

    def instruction(self, place: Path) -> None:
        text = damaged("What is it? 日本語 \u202e".encode(), self.rng).decode("utf-8", "surrogateescape")
        self.router.route(text)

    def zoo_file(self, place: Path) -> None:
        (place / "zoo.json").write_bytes(damaged(self.zoo.to_json().encode(), self.rng))
        if Zoo.load(place / "zoo.json") != self.zoo:
            self.silent.append(f"zoo_file {self.tried['zoo_file']}")

    def policy_file(self, place: Path) -> None:
        (place / "policy").write_bytes(damaged(self.rng.choice(POLICIES), self.rng))
        self.router.route("Which is it?", policy=RoutingPolicy.load(place / "policy"))

    def records_folder(self, place: Path) -> None:
        shutil.copytree(self.records, place / "records")
        file = self.rng.choice(sorted((place / "records").iterdir()))
        file.write_bytes(damaged(file.read_bytes(), self.rng))
        Records.load(place / "records")

    def importer(self, place: Path) -> None:
        name = self.rng.choice(sorted(SOURCES))
        (place / "in").mkdir()
        (place / "in" / name).write_bytes(damaged(SOURCES[name] * 3, self.rng))
        try:
            import_records(place / "in", place / "out", self.rng.choice(FORMATS))
        except MsatError:
            if any((place / "out").glob("*")):
                self.silent.append(f"importer {self.tried['importer']}: something half-written remains")
            raise

    def feedback(self, place: Path) -> None:
        log = FeedbackLog(place / "f.jsonl")
        for outcome in (0.0, 1.0):
            log.add("alpha", np.ones(8, np.float16), outcome, key="k", at=1.7e9)
        (place / "f.jsonl").write_bytes(damaged((place / "f.jsonl").read_bytes(), self.rng))
        len(FeedbackLog(place / "f.jsonl"))

    def journal(self, place: Path) -> None:
        with Journal(place / "j.jsonl", {"candidate": "m"}) as journal:
            journal.write([Answer("1", 0, "The answer is (A).", 5, 7, "stop"), Answer("2", 0, "B")])
            journal.write_loss(0.25)
        (place / "j.jsonl").write_bytes(damaged((place / "j.jsonl").read_bytes(), self.rng))
        with Journal(place / "j.jsonl", {"candidate": "m"}) as journal:
            journal.write([Answer("3", 0, "C")])
        for answer in journal.answers.values():
            read_choice(answer.text, ["a", "b", "c"])

    def questions(self, place: Path) -> None:
        name = self.rng.choice(sorted(QUESTIONS))
        (place / name).write_bytes(damaged(QUESTIONS[name], self.rng))
        for one in read_questions(place / name).questions:
            if one.question.grader is not None:
                one.question.grade(damaged(b'{"answer": "A", "n": [1, {"a": 2}]}', self.rng).decode(errors="replace"))

    def traces(self, place: Path) -> None:
        format = self.rng.choice(sorted(TRACES))
        (place / "t.jsonl").write_bytes(damaged(TRACES[format], self.rng))
        read_questions(place / "t.jsonl", format=format)  # type: ignore[arg-type]

    def candidates(self, place: Path) -> None:
        name = self.rng.choice(sorted(CANDIDATES))
        (place / name).write_bytes(damaged(CANDIDATES[name], self.rng))
        read_candidates(place / name)

    def exam(self, place: Path) -> None:
        shutil.copytree(pretrained.EXAMS[-1], place / "exam")
        file = self.rng.choice(sorted((place / "exam").iterdir()))
        file.write_bytes(damaged(file.read_bytes(), self.rng))
        found, whole = Exam.load(place / "exam"), self.exam_whole
        there = found.embeddings
        same = all(key in there and np.array_equal(rows, there[key]) for key, rows in whole.embeddings.items())
        if found.digest != whole.digest or not same:
            self.silent.append(f"exam {self.tried['exam']}")

    def report(self) -> str:
        """What was tried and what went wrong, for people."""
        head = f"{self.tried.total()} cases ({', '.join(f'{n} {kind}' for kind, n in self.tried.items())})"
        lines = [
            head,
            f"raw errors {len(self.raw)}, hangs {len(self.hung)}, damage accepted silently {len(self.silent)}",
        ]
        return "\n".join([*lines, *self.raw[:10], *self.hung[:10], *self.silent[:10]])

    @property
    def clean(self) -> bool:
        return not (self.raw or self.hung or self.silent)


def main() -> None:
    """Run for the budget; exit code 1 if anything went wrong."""
    with tempfile.TemporaryDirectory() as folder:
        fuzz = Fuzz(Path(folder), seed=int(os.environ.get("MSAT_FUZZ_SEED", "0")))
        fuzz.run(float(os.environ.get("MSAT_FUZZ_S", "60")))
        print(fuzz.report())  # noqa: T201 - what the command is for
        raise SystemExit(0 if fuzz.clean else 1)


if __name__ == "__main__":
    main()
