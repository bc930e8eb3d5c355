"""The folders are the architecture: which room may import which."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import msat_core

ROOT = Path(msat_core.__file__).parent
GROUND = ["errors", "texts", "splits", "files", "documents", "tensor_files"]
NOUNS = ["profiles", "exam", "zoo", "records"]
RANK = {
    **{name: rank for rank, name in enumerate([*GROUND, *NOUNS])},
    "pretrained": 0,
    "encoders": 15,
    "scoring": 20,
    "aptitude": 30,
    "routing": 30,
    "importers": 40,
    "training": 40,
    "evaluation": 40,
    "cli": 50,
}
# Rooms of one floor are neighbours: they do not meet.


def imports() -> list[tuple[str, str, str]]:
    """(file, importing room, imported room) of every import inside msat_core."""
    found = []
    for path in ROOT.rglob("*.py"):
        room = path.relative_to(ROOT).parts[0].removesuffix(".py")
        if room == "__init__":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module] if node.module != "msat_core" else [f"msat_core.{n.name}" for n in node.names]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            for name in names:
                if name.startswith("msat_core."):
                    found.append((str(path.relative_to(ROOT)), room, name.split(".")[1]))
    return found


def test_every_import_goes_down() -> None:
    wrong = []
    for file, room, target in imports():
        if room != target and target in RANK and RANK[target] >= RANK[room]:
            wrong.append(f"{file} imports {target}")
    assert not wrong


def test_routing_sees_only_the_scorer_seam() -> None:
    allowed = {"base", "loading"}
    for path in (ROOT / "routing").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("msat_core.scoring"):
                parts = node.module.split(".")
                names = {parts[2]} if len(parts) > 2 else {alias.name for alias in node.names}
                assert names <= allowed, path


def test_only_files_renames() -> None:
    """A file that is written aside and renamed by hand forgets its temporary file, or whose the old one is."""
    own = {"os.replace", "os.rename", "os.renames", "shutil.move", "tempfile.mkstemp", "tempfile.mkdtemp"}
    for path in ROOT.rglob("*.py"):
        if path == ROOT / "files.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                assert ast.unparse(node.func) not in own, path
                takes_one = len(node.args) == 1 and not node.keywords  # str.replace takes two
                assert not (takes_one and node.func.attr in {"replace", "rename"}), path


def test_core_knows_no_framework() -> None:
    for path in ROOT.rglob("*.py"):
        text = path.read_text()
        assert "import langchain" not in text and "import llama_index" not in text, path
        assert "from langchain" not in text and "from llama_index" not in text, path


@pytest.mark.parametrize("package", ["msat_core", "langchain_msat", "llamaindex_msat"])
def test_import_is_light(package: str) -> None:
    heavy = "torch", "transformers", "sklearn", "langchain", "langchain_classic", "llama_index", "openai", "pyarrow"
    code = f"import sys, {package}; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_chat_model_needs_neither_torch_nor_the_rest() -> None:
    heavy = "torch", "transformers", "sklearn", "langchain", "langchain_classic", "llama_index", "openai", "pyarrow"
    code = f"import sys; from langchain_msat import ChatMSAT; print([n for n in {heavy!r} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_public_names() -> None:
    assert msat_core.__all__ == [
        "AptitudeTest",
        "Candidate",
        "CapabilityProfile",
        "CompactScorer",
        "Exam",
        "ModelSATScorer",
        "MsatError",
        "Records",
        "Router",
        "RoutingDecision",
        "RoutingPolicy",
        "RoutingRequest",
        "Scorer",
        "Scores",
        "TableScorer",
        "TaskResult",
        "Zoo",
    ]
    for name in msat_core.__all__:
        assert getattr(msat_core, name).__name__ == name
