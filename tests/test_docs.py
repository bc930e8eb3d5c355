"""What README and the site tell: Python blocks run and print what stands below them, commands and links exist.

A ``text`` block is what the Python block above it prints: words to the letter, numbers nearly. One marked ``no-run``
needs keys or a network; it must be Python at least.
"""

from __future__ import annotations

import ast
import contextlib
import io
import re
import shlex
from pathlib import Path
from typing import Any

import nbformat
import pytest
import typer
from nbclient import NotebookClient

from msat_core import Zoo, pretrained
from msat_core.cli import app

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w+)( no-run)?\n(.*?)^```$(?:\n+^```text\n(.*?)^```$)?", re.DOTALL | re.MULTILINE)
NUMBER = re.compile(r"\d+(?:\.\d+)?")
REPOSITORY = re.compile(
    r"https://(?:github\.com/model-sat-router/model-sat-router/(?:blob|tree)/main"
    r"|raw\.githubusercontent\.com/model-sat-router/model-sat-router/main)/([^)\s#\"]+)"
)
NEARLY = 0.021  # between machines, and between a scorer and the same one trained again
MOST_LINES = 120  # of README


def blocks(page: Path, language: str) -> list[tuple[bool, str, str]]:
    """(whether it runs, text, what it prints) of each block."""
    found = BLOCK.findall(page.read_text())
    return [(not skipped, text, printed) for name, skipped, text, printed in found if name == language]


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


RUN = [page for page in PAGES if any(runs for runs, _, _ in blocks(page, "python"))]


@pytest.mark.parametrize("page", RUN, ids=named)
def test_python_prints_what_the_page_says(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MSAT_CACHE", str(tmp_path))
    names: dict[str, Any] = {"__name__": "__main__"}
    for runs, text, printed in blocks(page, "python"):
        if not runs:
            ast.parse(text)
            continue
        heard = io.StringIO()
        with contextlib.redirect_stdout(heard):
            exec(compile(text, named(page), "exec"), names)
        said = heard.getvalue().strip()
        assert not said or printed, f"the page does not show what is printed:\n{said}"
        assert words(said) == words(printed.strip()), said
        assert numbers(said) == pytest.approx(numbers(printed), abs=NEARLY), said


def words(text: str) -> list[str]:
    """All but the numbers; how wide a column is does not matter."""
    return NUMBER.sub("0", text).split()


def numbers(text: str) -> list[float]:
    return [float(number) for number in NUMBER.findall(text)]


@pytest.mark.enable_socket  # a kernel is a process that is spoken to
@pytest.mark.filterwarnings("ignore")  # of Jupyter's own
@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")), ids=named)
def test_notebooks_print_what_stands_in_them(path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MSAT_CACHE", str(tmp_path))
    kept, ran = (nbformat.read(path, as_version=4) for _ in range(2))
    NotebookClient(ran, timeout=120, kernel_name="python3").execute()
    for before, after in zip(kept.cells, ran.cells, strict=True):
        shown, said = (printed_by(cell) for cell in (before, after))
        assert words(said) == words(shown), said
        assert numbers(said) == pytest.approx(numbers(shown), abs=NEARLY), said


def printed_by(cell: Any) -> str:
    return "".join(output.get("text", "") for output in cell.get("outputs", ()) if output.get("name") == "stdout")


@pytest.mark.parametrize("page", [page for page in PAGES if page not in RUN], ids=named)
def test_other_blocks_are_python(page: Path) -> None:
    for _, text, _ in blocks(page, "python"):
        ast.parse(text)


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_commands_exist(page: Path) -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for _, text, _ in blocks(page, "sh"):
        for line in text.replace("\\\n", " ").splitlines():
            called = shlex.split(line, comments=True)
            if called[:1] == ["msat"]:
                check_options(called)
            elif called[:1] == ["make"]:
                assert called[1] in targets, line
            elif called[:1] == ["python"] and not called[1].startswith("-"):
                assert (ROOT / called[1]).is_file(), line


def check_options(called: list[str]) -> None:
    command: Any = typer.main.get_command(app)
    rest = called[1:]
    while hasattr(command, "commands"):
        assert rest and rest[0] in command.commands, f"no such command: {shlex.join(called)}"
        command = command.commands[rest.pop(0)]
    known = {option for param in command.params for option in (*param.opts, *param.secondary_opts)} | {"--help"}
    unknown = [word for word in rest if word.startswith("--") and word.partition("=")[0] not in known]
    assert not unknown, f"{shlex.join(called)}: no option {', '.join(unknown)}"


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_into_the_repository_lead_somewhere(page: Path) -> None:
    for path in REPOSITORY.findall(page.read_text()):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("page", PAGES[1:], ids=named)
def test_links_hold_where_the_repository_is_read(page: Path) -> None:
    """On a page of files, too, not on the site alone."""
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / link).exists(), link


def test_readme_is_short_and_stands_alone() -> None:
    """PyPI shows it without the repository around it."""
    text = README.read_text()
    assert len(text.splitlines()) <= MOST_LINES
    assert all(link.startswith("https://") for link in re.findall(r"\]\(([^)]+)\)", text))
    assert any(runs for runs, _, _ in blocks(README, "python"))


def test_readme_counts_the_shipped_zoo() -> None:
    zoo = Zoo.load(pretrained.ZOO)
    borrowed = sum(not one.has_results for one in zoo)
    sat = sum(one.has_results and not one.profile.provenance.coarse for one in zoo)
    text = " ".join(README.read_text().split())
    assert f"{len(zoo)} (`msat zoo list`)" in text
    assert f"{sat} sat an exam question by question, {len(zoo) - sat - borrowed} are placed" in text
    assert f"the {borrowed} newest" in text
