"""LangChain's own agent tests, plain and with every agent's model a router of two: what fails only when wrapped.

    python examples/reproduce/upstream_langchain.py [--tests agents/test_react_agent.py …]

Takes the tests from the sdist of the installed langchain (pip downloads it), runs them twice and lists the tests whose
outcome differs. The second candidate is the same model, so that what both do is what one does: a test that counts calls
of a failing model sees two.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tarfile
import tempfile
import xml.etree.ElementTree as ElementTree
from importlib.metadata import version
from pathlib import Path

TEST_ONLY = ("blockbuster", "forbiddenfruit", "pytest-mock")  # what those tests need beside what is installed here
PLUGIN = """
import functools
import langchain.agents, langchain.agents.factory
from langchain_core.language_models import BaseChatModel
from langchain_msat import ChatMSAT
from msat_core import Candidate, CapabilityProfile, Router, TableScorer, TaskResult, Zoo
from msat_core.profiles import Provenance

def candidate(name, right):
    result = TaskResult(task="general", n_shots=10, n_correct=right)
    return Candidate(profile=CapabilityProfile(candidate=name, provenance=Provenance(source="x"), results=(result,)))

def wrapped(model):
    if not isinstance(model, BaseChatModel) or isinstance(model, ChatMSAT):
        return model
    zoo = Zoo(candidates=(candidate("chosen", 9), candidate("other", 5)))
    return ChatMSAT({"chosen": model, "other": model}, router=Router(TableScorer(None), zoo))

plain = langchain.agents.factory.create_agent

@functools.wraps(plain)
def create_agent(model=None, *args, **kwargs):
    return plain(wrapped(model), *args, **kwargs)

langchain.agents.create_agent = langchain.agents.factory.create_agent = create_agent
"""


def outcomes(tests: list[str], folder: Path, plugin: str | None) -> dict[str, str]:
    """The outcome of each test: passed, failed or skipped."""
    report = folder / f"{plugin or 'plain'}.xml"
    extra = ["-p", plugin] if plugin else []
    command = [sys.executable, "-m", "pytest", "-q", f"--junitxml={report}", *extra, *tests]
    command += [
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "-p",
        "no:benchmark",
        "-W",
        "ignore",
        "--snapshot-warn-unused",
    ]
    subprocess.run(command, cwd=folder, capture_output=True, check=False, env=_environment(folder))
    found = {}
    for case in ElementTree.parse(report).iter("testcase"):
        kinds = {child.tag for child in case}
        outcome = "failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"
        why = next((child.get("message") or "" for child in case if child.tag in ("failure", "error")), "")
        found[f"{case.get('classname')}::{case.get('name')}"] = f"{outcome} {why[:150]}".strip()
    return found


def _environment(folder: Path) -> dict[str, str]:
    import os

    paths = [str(folder), str(folder / "extra"), str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "LANGSMITH_TRACING": "false"}


def main() -> None:
    """Download, run twice, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tests", nargs="*", default=["agents"])
    tests = [f"tests/unit_tests/{name}" for name in parser.parse_args().tests]
    of = f"langchain=={version('langchain')}"
    with tempfile.TemporaryDirectory() as scratch:
        download = [sys.executable, "-m", "pip", "download", "-q", "--no-binary", "langchain", "--no-deps", of]
        subprocess.run([*download, "-d", scratch], check=True)
        archive = next(Path(scratch).glob("langchain-*.tar.gz"))
        with tarfile.open(archive) as packed:
            packed.extractall(scratch, filter="data")
        folder = next(path for path in Path(scratch).iterdir() if path.is_dir())
        install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder / "extra")]
        subprocess.run([*install, *TEST_ONLY], check=True)
        (folder / "msat_wrapped.py").write_text(PLUGIN)
        plain, ours = outcomes(tests, folder, None), outcomes(tests, folder, "msat_wrapped")
    passing = [name for name, outcome in plain.items() if outcome.startswith("passed")]
    only = [name for name in passing if not ours.get(name, "failed: not run").startswith("passed")]
    print(f"{of}: {len(plain)} tests, {len(passing)} pass plain, {len(only)} of them not when wrapped")
    for name in only:
        print(f"  {name}\n      {ours.get(name)}")


if __name__ == "__main__":
    main()
