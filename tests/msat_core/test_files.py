from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msat_core.aptitude.journal import Answer, Journal
from msat_core.errors import ExamError, FeedbackError, FileError
from msat_core.files import file_aside, write_text
from msat_core.json_lines import JsonLines, Owner
from msat_core.routing.feedback import FeedbackLog

VECTOR = np.ones(4, np.float16)
FOREIGN = [b"sk-one-line-without-end", b'{"precious": 1}', b'{"precious": 1}\n', b"a\nb", b"[1]\n", b"\n", b"{}"]


def log(path: Path) -> JsonLines[int]:
    return JsonLines(path, Owner("log", "test-log"), lambda line: int(line["n"]), error=FileError)


def read(path: Path) -> list[int]:
    one = log(path)
    entries, _ = one.open(wait=False)
    one.close()
    return entries


def write(path: Path, *numbers: int) -> None:
    one = log(path)
    one.open(wait=False)
    one.append([{"n": n} for n in numbers])
    one.close()


@pytest.mark.parametrize("content", FOREIGN)
def test_a_foreign_file_is_refused_untouched(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "precious"
    path.write_bytes(content)
    with pytest.raises(FeedbackError, match="is not a feedback file"):
        FeedbackLog(path)
    with pytest.raises(ExamError, match="is not a journal"), Journal(path, {"exam": "e"}):
        pass
    assert path.read_bytes() == content


def test_another_exams_journal_whole_or_cut_is_refused_untouched(tmp_path: Path) -> None:
    path = tmp_path / "j"
    with Journal(path, {"exam": "e"}) as journal:
        journal.write([Answer("a", 0, "x")])
    for content in (path.read_bytes(), path.read_bytes()[:-5], path.read_bytes().split(b"\n")[0]):
        path.write_bytes(content)
        with pytest.raises(ExamError), Journal(path, {"exam": "other"}):
            pass
        with pytest.raises(FeedbackError):
            FeedbackLog(path)
        assert path.read_bytes() == content


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path, tmp_path / "pipe", Path("/dev/null")):
        with pytest.raises(FeedbackError, match="is not a feedback file"):
            FeedbackLog(place)
    with pytest.raises(FeedbackError, match="cannot be written"):
        FeedbackLog(tmp_path / "missing" / "f")
    with pytest.raises(FileError, match="not a regular file"):
        write_text(Path("/dev/null"), "x")


def test_an_empty_file_is_taken_and_a_new_one_is_private(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    FeedbackLog(tmp_path / "empty").add("a", VECTOR, 1.0, key="k")
    assert len(FeedbackLog(tmp_path / "empty")) == 1
    FeedbackLog(tmp_path / "new")
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o600


def test_a_feedback_file_without_first_line_is_read_and_given_one(tmp_path: Path) -> None:
    path = tmp_path / "f"
    FeedbackLog(path).add("a", VECTOR, 1.0, key="k")
    path.write_bytes(path.read_bytes().split(b"\n")[1])  # and no end
    assert len(FeedbackLog(path)) == 1
    assert path.read_bytes().startswith(b'{"kind": "msat-feedback"')
    assert len(FeedbackLog(path)) == 1


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_any_cut_keeps_every_whole_line(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log"
        write(path, 1, 22, 333)
        whole = path.read_bytes()
        cut = whole[: data.draw(st.integers(0, len(whole)))]
        path.write_bytes(cut)
        kept = [n for n in (1, 22, 333) if b'{"n": %d}' % n in cut]
        assert read(path) == kept
        write(path, 4)
        assert read(path) == [*kept, 4]


def full(*_: Any) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("call", ["write", "fsync"])
def test_a_full_disk_leaves_the_old_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    path = tmp_path / "f"
    kept = FeedbackLog(path, max_outcomes=2)
    kept.add("a", VECTOR, 1.0, key="k")
    before, real = path.read_bytes(), os.write

    def half(file: int, data: bytes) -> int:
        return real(file, data[:20]) if len(data) > 60 and len(data) % 20 else full()

    with monkeypatch.context() as broken:
        broken.setattr(os, call, half if call == "write" else full)
        with pytest.raises(FeedbackError, match="No space left"):
            kept.add("b", VECTOR, 1.0, key="k")
    assert path.read_bytes() == before and len(kept) == 1
    for name in "cdefg":
        kept.add(name, VECTOR, 1.0, key="k")
    assert {one.candidate for one in FeedbackLog(path).after(0)[2]} >= {"f", "g"}


def test_nothing_is_left_of_a_file_that_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_text(tmp_path / "a", "old")
    with pytest.raises(FileError, match="cannot be written"), file_aside(tmp_path / "a") as aside:
        aside.write_text("half")
        full()
    with pytest.raises(FileError):
        write_text(tmp_path / "a" / "below", "x")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "old"


def test_two_writers_lose_nothing_also_when_they_compact(tmp_path: Path) -> None:
    path = tmp_path / "f"
    code = (
        "import sys, numpy as np; from msat_core.routing.feedback import FeedbackLog\n"
        "log = FeedbackLog(sys.argv[1], max_outcomes=100)\n"
        "for i in range(50): log.add(sys.argv[2] + str(i), np.ones(4, np.float16), 1.0, key='k')\n"
    )
    old = FeedbackLog(path, max_outcomes=100)
    for i in range(170):
        old.add(f"old{i}", VECTOR, 1.0, key="k")
    writers = [subprocess.Popen([sys.executable, "-c", code, str(path), name]) for name in "ab"]
    assert [writer.wait() for writer in writers] == [0, 0]
    found = {one.candidate for one in FeedbackLog(path, max_outcomes=100).after(0)[2]}
    assert found == {f"{name}{i}" for name in "ab" for i in range(50)}
