"""What the site takes from elsewhere: the repository's own texts, the reference of every public name and command."""

from __future__ import annotations

import importlib
import json
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from msat_core.cli import app

ROOT = Path(__file__).parents[1]

# Pages that are files of the repository, each kept in one place.
TEXTS = {
    "results/evaluation.md": "examples/reproduce/results/evaluation.md",
    "results/log.md": "examples/reproduce/LOG.md",
    "results/model-card.md": "msat_core/pretrained/MODEL_CARD.md",
    "changelog.md": "CHANGELOG.md",
}
IMAGES = "examples/reproduce/results/*.png"  # beside the pages of results

# What a page of the reference is about, and the modules whose public names it holds, foremost first.
PAGES = {
    "routing": (
        "Routing",
        [f"routing.{room}" for room in ("router", "policy", "fallback", "feedback", "decision_log", "telemetry")],
    ),
    "candidates": ("Candidates, profiles, records", ["candidates", "zoo", "profiles", "records", "importers", "texts"]),
    "exams": ("Exams", ["aptitude", "exam"]),
    "trials": ("Trial, evaluation, bulk", ["trial", "evaluation", "bulk"]),
    "training": ("Scorers and training", ["scoring", "training"]),
    "adapters": ("For whoever dispatches", ["routing", "lazy_names"]),
    "index": ("Python", ["errors"]),
}
PLACES = {source: page for page, source in TEXTS.items()} | {
    str(image.relative_to(ROOT)): f"results/{image.name}" for image in ROOT.glob(IMAGES)
}
LINK = re.compile(r"\]\((\.\./[^)#:]+|[^)#:/]+/\w+\.ipynb)(#[^)]*)?\)")  # out of the folder, or to a notebook
ROLE = re.compile(r":(?:attr|class|exc|func|meth|mod):<code>[~.]?(?:[\w.]+\.)?(\w+)</code>")
ADAPTERS = {"langchain": ("LangChain", "langchain_msat"), "llamaindex": ("LlamaIndex", "llamaindex_msat")}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what is not written in docs/."""
    for page, source in TEXTS.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    for image in sorted(ROOT.glob(IMAGES)):
        files.append(File.generated(config, f"results/{image.name}", abs_src_path=str(image)))
    for path in sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")):
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=notebook(path)))
    files.append(File.generated(config, "reference/cli.md", content=commands()))
    for page, content in references():
        files.append(File.generated(config, f"reference/{page}.md", content=content))
    return files


def notebook(path: Path) -> str:
    """A notebook as a page: its cells, and what they print."""
    parts = []
    for cell in json.loads(path.read_text())["cells"]:
        text = "".join(cell["source"])
        said = "".join("".join(output.get("text", "")) for output in cell.get("outputs", ())).strip()
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
        if said:
            parts.append(f"```text\n{said}\n```")
    link = f"[This page as a notebook]({path.name}){{ download }}"
    return "\n\n".join([parts[0], link, *parts[1:]]) + "\n"


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:  # noqa: ANN401 - what mkdocs hands over besides
    """A block that no test runs looks like any other; links that hold in the repository hold on the site too."""
    here = posixpath.dirname(page.file.src_uri)

    def on_the_site(link: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join("docs", here, link[1]))
        place = PLACES.get(path) or path.removeprefix("docs/").replace(".ipynb", ".md")
        return f"]({posixpath.relpath(place, here)}{link[2] or ''})"

    moved = LINK.sub(on_the_site, markdown) if page.file.src_uri not in TEXTS else markdown
    return moved.replace("```python no-run\n", "```python\n")


def on_page_content(html: str, **_: Any) -> str:  # noqa: ANN401 - what mkdocs hands over besides
    """Docstrings name things and begin examples as Sphinx does; here the last part of a name is enough."""
    return ROLE.sub(r"<code>\1</code>", html).replace("::</p>", ":</p>")


def references() -> Iterator[tuple[str, str]]:
    """(page, text): every public name of the packages stands on one page."""
    homes = dict(importlib.import_module("msat_core")._HOME)
    for page, (title, rooms) in PAGES.items():
        places = {name: _place(home, rooms) for name, home in homes.items()}
        named = sorted((place, not name[0].isupper(), name) for name, place in places.items() if place is not None)
        yield page, _reference(title, "msat_core", {name: homes.pop(name) for _, _, name in named})
    if homes:
        raise ValueError(f"No page of the reference holds {', '.join(sorted(homes))}.")
    for page, (title, package) in ADAPTERS.items():
        yield page, _reference(title, package, importlib.import_module(package)._HOME)


def _place(home: str, rooms: list[str]) -> int | None:
    """Position of the room that a name lives in; None for none of them."""
    module = home.partition(":")[0]
    return next((at for at, room in enumerate(rooms) if f"{module}.".startswith(f"{room}.")), None)


def _reference(title: str, package: str, homes: dict[str, str]) -> str:
    lines = [f"# {title}", "", f"Import these names from `{package}`."]
    if title == "Python":
        lines += ["Every public name is on a page of this section; here are the errors. `MsatError` is their root."]
    for name, home in homes.items():
        module, _, inner = home.partition(":")
        lines += ["", f"::: {package}.{module}.{inner or name}", "    options:", f"      heading: {name}"]
    return "\n".join(lines) + "\n"


def commands() -> str:
    """Every command with its arguments and options, as ``--help`` tells them."""
    lines = ["# Commands", "", "Every command says the same with `--help`, and takes `--json`: the result goes to"]
    lines += ["standard output as one JSON object, everything else to standard error."]
    found = list(leaves(typer.main.get_command(app), "msat"))
    lines += ["", "| command | |", "| --- | --- |"]
    lines += [f"| [`{name}`](#{name.replace(' ', '-')}) | {first_line(command)} |" for name, command in found]
    for name, command in found:
        lines += ["", f"## {name}", "", (command.help or "").strip(), "", "```text", usage(name, command), "```", ""]
        lines += ["| option | | default |", "| --- | --- | --- |"]
        lines += [_row(option) for option in command.params if option.name != "help"]
    return "\n".join(lines) + "\n"


def leaves(command: Any, name: str) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - of click, or of typer's own copy
    """(name, command) of everything that can be called."""
    inner = getattr(command, "commands", None)
    if inner is None:
        yield name, command
    for word, below in (inner or {}).items():
        yield from leaves(below, f"{name} {word}")


def first_line(command: Any) -> str:  # noqa: ANN401 - as above
    """What a command is for."""
    return (command.help or "").strip().splitlines()[0].replace("|", "\\|")


def usage(name: str, command: Any) -> str:  # noqa: ANN401 - as above
    """The command's first line of help."""
    arguments = [_shown(p) for p in command.params if p.param_type_name == "argument"]
    needed = [f"{p.opts[0]} {_shown(p)}" for p in command.params if p.param_type_name == "option" and p.required]
    return " ".join([name, *arguments, *needed, "[OPTIONS]"])


def _shown(param: Any) -> str:  # noqa: ANN401 - as above
    return str(param.metavar or (param.name or "").upper())


def _row(option: Any) -> str:  # noqa: ANN401 - as above
    names = [_shown(option)] if option.param_type_name == "argument" else [*option.opts, *option.secondary_opts]
    default = option.default
    if option.required:
        said = "needed"
    elif default is None or callable(default) or default in ((), [], False, ""):
        said = ""
    else:
        said = f"`{getattr(default, 'value', default)}`"
    text = re.sub(r"\s+", " ", getattr(option, "help", "") or "").replace("|", "\\|")
    return f"| `{', '.join(names)}` | {text} | {said} |"
