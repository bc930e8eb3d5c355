from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import exam_world
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msat_core.aptitude.journal import Answer, Journal
from msat_core.errors import ExamError

HEADER = {"exam": "e", "candidate": "c"}


async def written(path: Path, answers: list[Answer]) -> None:
    with Journal(path, HEADER) as journal:
        await journal.append(answers)


def read(path: Path) -> list[Answer]:
    with Journal(path, HEADER) as journal:
        return list(journal.answers.values())


async def test_answers_are_on_disk_when_append_returns(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "journal.jsonl"
    with Journal(path, HEADER) as journal:
        await journal.append([Answer("a", 0, "line one\nline two 日本", 3, 4)])
        assert "line one" in path.read_text()
        assert journal.answers["a", 0].text.endswith("日本")
    assert read(path) == [Answer("a", 0, "line one\nline two 日本", 3, 4)]


async def test_answers_written_together_share_a_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr("os.fsync", synced.append)
    answers = [Answer(f"q{i}", 0, "x") for i in range(200)]
    await written(tmp_path / "j", answers)
    assert len(synced) == 3  # the header, the folder, the answers
    assert read(tmp_path / "j") == answers


async def test_a_whole_last_line_without_its_end_counts(tmp_path: Path) -> None:
    path = tmp_path / "j"
    await written(path, [Answer("a", 0, "x")])
    path.write_bytes(path.read_bytes().removesuffix(b"\n"))
    assert read(path) == [Answer("a", 0, "x")]
    assert read(path) == [Answer("a", 0, "x")]


async def test_a_journal_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "j"
    await written(path, [Answer("a", 0, "x")])
    with (
        pytest.raises(ExamError, match="its candidate is 'c', this one's is 'd'"),
        Journal(path, {**HEADER, "candidate": "d"}),
    ):
        pass
    with pytest.raises(ExamError, match="its exam is 'e', this one's is 'f'"), Journal(path, {**HEADER, "exam": "f"}):
        pass
    (tmp_path / "notes.txt").write_text('{"some": "notes"}\n')
    with pytest.raises(ExamError, match="is not a journal"):
        read(tmp_path / "notes.txt")
    assert (tmp_path / "notes.txt").read_text() == '{"some": "notes"}\n'


async def test_damage_inside_is_refused_and_named(tmp_path: Path) -> None:
    path = tmp_path / "j"
    await written(path, [Answer("a", 0, "x"), Answer("b", 0, "y")])
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(lines[0] + lines[1][:10] + "\n" + lines[2])
    with pytest.raises(ExamError, match="line 2 is damaged"):
        read(path)


async def test_one_run_at_a_time(tmp_path: Path) -> None:
    with Journal(tmp_path / "j", HEADER), pytest.raises(ExamError, match="in use by another run"):
        read(tmp_path / "j")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, str]:
    """The journal of an uninterrupted sitting, and the profile that came of it."""
    path = tmp_path_factory.mktemp("whole") / "journal.jsonl"
    client = exam_world.KnowingClient()
    sat = asyncio.run(exam_world.aptitude_test().sit(exam_world.paper(n_rotations=1), client, path))
    return path.read_bytes(), sat.profile.to_json()


def n_answers(journal: bytes) -> int:
    """Answers that stand whole in it, the last one with or without its line's end."""
    lines = journal.split(b"\n")
    return sum(line.startswith(b'{"item_id"') and line.endswith(b"}") for line in lines)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_prefix_of_a_journal_resumes_to_the_same_profile(whole: tuple[bytes, str], data: st.DataObject) -> None:
    journal, profile = whole
    cut = data.draw(st.integers(0, len(journal)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.jsonl"
        path.write_bytes(journal[:cut])
        client = exam_world.KnowingClient()
        sat = asyncio.run(exam_world.aptitude_test().sit(exam_world.paper(n_rotations=1), client, path))
        assert sat.profile.to_json() == profile
        assert len(client.asked) == n_answers(journal) - n_answers(journal[:cut])
        lines = path.read_text().splitlines()
        assert len(lines) == len(set(lines)) == journal.count(b"\n")


@settings(max_examples=40, deadline=None)
@given(st.binary(min_size=1, max_size=40).filter(lambda tail: b"\n" not in tail))
def test_a_damaged_last_line_is_mended(tail: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "j"
        asyncio.run(written(path, [Answer("a", 0, "x")]))
        with path.open("ab") as file:
            file.write(tail)
        assert read(path) == [Answer("a", 0, "x")]
        asyncio.run(written(path, [Answer("b", 0, "y")]))
        assert read(path) == [Answer("a", 0, "x"), Answer("b", 0, "y")]
