"""The folders are the architecture: which room may import which."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import msat_core

ROOT = Path(msat_core.__file__).parent
GROUND = [
    "special_functions",
    "errors",
    "checks",
    "lazy_names",
    "http_errors",
    "lettered_options",
    "mmlu_pro",
    "texts",
    "scrubbing",
    "families",
    "reading",
    "files",
    "json_lines",
    "documents",
    "tensor_files",
]
NOUNS = ["profiles", "exam", "facts", "price_library", "price_tables", "candidates", "zoo", "records", "score_scale"]
RANK = {
    **{name: rank for rank, name in enumerate([*GROUND, *NOUNS])},
    "pretrained": 0,
    "encoders": 24,
    "scoring": 25,
    "aptitude": 30,
    "routing": 30,
    "bulk": 40,
    "importers": 40,
    "training": 40,
    "evaluation": 40,
    "trial": 45,
    "cli": 50,
    "__main__": 60,
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


@pytest.mark.parametrize("command", [["--help"], ["--version"], ["zoo", "list"], ["profile", "run", "--help"]])
def test_light_commands_load_no_torch(command: list[str]) -> None:
    heavy = "torch", "transformers", "sklearn", "pyarrow"
    code = (
        f"import sys\nfrom msat_core.cli import main\nsys.argv = ['msat', *{command!r}]\ntry:\n    main()\n"
        f"except SystemExit:\n    pass\nprint('loaded', [name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("loaded []")


def test_the_version_is_the_installed_distributions() -> None:
    assert msat_core.__version__ == importlib.metadata.version("model-sat-router")
    done = subprocess.run([sys.executable, "-m", "msat_core", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"msat {msat_core.__version__}"


# The public surface: what README, the numbered examples and the adapters may use.
PUBLIC = """
AdaptiveOrder AptitudeTest ArtefactError Assessment Attempt Attempts Calibrated Candidate CapabilityProfile
CompactScorer CompactSettings ConfigurationError Contender Cooldown DecisionLog DecisionRecord DecisionTelemetry
DispatchError EmptyAnswerError Evaluation Exam ExamClient ExamError ExamPaper ExamRule ExamRun Fallback
FeedbackError FeedbackLog FeedbackSource FunctionClient ImportOptions InstructionError Learner MEDIUM_CHARS
Modality ModelFacts ModelSATScorer MsatError NoCandidateError Objective Observer OpenAIClient Opened
PolicyError Prices ProfileError Provenance Question QuestionSet Records RecordsError Reply RoutedFile Router
RoutingAsk RoutingDecision RoutingPolicy RoutingRequest RunSettings Scorer Scores ShadowResult StageSettings Sticky
TAG TOP_SCORES TableScorer TaskResult TokenUsage TrainingSettings Trial TrialResult TuningSettings Turn TurnRole
WeightedOutcome
Zoo ZooError __version__ afirst_answer afirst_stream believed common_abilities decide_all first_answer first_stream
import_records learn_from load_name load_profiles load_scorer media_in modalities_of names_in_zoo normalised
observers_of open_trial own_exam published_profiles read_decisions role_of route_file select_exam size_of tag_of
text_sha256 train_compact train_model_sat train_on_records training_items trial_from_log tune_encoder write_result
write_shadow
""".split()


def test_public_names() -> None:
    assert sorted(msat_core.__all__) == sorted(PUBLIC)
    for name in msat_core.__all__:
        assert getattr(msat_core, name) is not None
    assert set(PUBLIC) <= set(dir(msat_core))


def test_type_checkers_see_what_is_loaded() -> None:
    """The imports under TYPE_CHECKING and the table of homes name the same things."""
    seen = {}
    branches = [node for node in ast.parse((ROOT / "__init__.py").read_text()).body if isinstance(node, ast.If)]
    (checked,) = (node for node in branches if ast.unparse(node.test) == "TYPE_CHECKING")
    for node in ast.walk(checked):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("msat_core."):
            for alias in node.names:
                name = alias.asname or alias.name
                home = node.module.removeprefix("msat_core.")
                seen[name] = home if name == alias.name else f"{home}:{alias.name}"
    assert seen == msat_core._HOME
    assert {*seen, "__version__"} == set(PUBLIC)


REPOSITORY = ROOT.parent
OUTSIDERS = [
    *(REPOSITORY / "langchain_msat").rglob("*.py"),
    *(REPOSITORY / "llamaindex_msat").rglob("*.py"),
    *(REPOSITORY / "examples").glob("*.py"),
]


@pytest.mark.parametrize("path", OUTSIDERS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_adapters_and_examples_import_public_names_alone(path: Path) -> None:
    """Wherever the import stands. Scripts in examples/reproduce may read internals: they study them."""
    allowed = {*PUBLIC, "pretrained"}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert all(alias.name == "msat_core" or not alias.name.startswith("msat_core") for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "msat_core":
            assert node.module == "msat_core", ast.unparse(node)
            assert {alias.name for alias in node.names} <= allowed, ast.unparse(node)


def test_reproduce_imports_public_names_from_the_top() -> None:
    """A name that is public has one address, also in the scripts that study internals."""
    wrong = []
    for path in (REPOSITORY / "examples" / "reproduce").glob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("msat_core."):
                home = str(node.module).removeprefix("msat_core.")
                wrong += [f"{path.name}: {a.name}" for a in node.names if msat_core._HOME.get(a.name) == home]
    assert not wrong


def test_the_oldest_versions_are_the_floors_of_every_dependency() -> None:
    """What ``make compat`` installs is what ``pyproject.toml`` claims to work with."""
    tomllib = pytest.importorskip("tomllib", reason="of Python 3.11")
    project = tomllib.loads((ROOT.parent / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    users = [name for name in extras if name not in ("dev", "docs", "examples")]  # for users
    stated = [*project["dependencies"], *(one for name in users for one in extras[name])]
    wanted = [one for one in map(Requirement, stated) if one.name != project["name"]]
    lines = [line.split("#")[0].strip() for line in (ROOT.parent / "tests/oldest.txt").read_text().splitlines()]
    pinned = {one.name: one for one in map(Requirement, filter(None, lines))}
    for one in wanted:
        floor = next(Version(part.version) for part in one.specifier if part.operator in (">=", "=="))
        (pin,) = pinned[one.name].specifier
        assert Version(Version(pin.version).base_version) == floor, one


@pytest.mark.parametrize(
    ("library", "extra", "call"),
    [
        ("pyarrow", "eval", "Records.load(folder)"),
        ("sklearn", "eval", "select_exam(synthetic_records(), n_tasks=2, n_shots=5)"),
        ("torch", "gpu", "Router.from_pretrained(device='cuda')"),
        ("torch", "gpu", "msat_core.train_compact"),
    ],
)
def test_a_missing_extra_is_one_sentence(library: str, extra: str, call: str, tmp_path: Path) -> None:
    """In Python as on the command line: which library is missing, and what installs it."""
    for table in ("items", "outcomes"):
        (tmp_path / f"{table}.parquet").write_bytes(b"PAR1")
    code = (
        f"import sys; sys.modules[{library!r}] = None; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import msat_core; from msat_core import MsatError, Records, Router, select_exam\n"
        f"from support import synthetic_records; folder = {str(tmp_path)!r}\n"
        f"try:\n    {call}\nexcept MsatError as error:\n    print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    expected = f'MissingExtraError This needs `{library}`: pip install "model-sat-router[{extra}]".'
    assert done.stdout.strip() == expected, done.stderr


def test_the_rooms_that_the_architecture_page_names_are_there() -> None:
    root = ROOT.parent
    rows = [line for line in (root / "docs/concepts/architecture.md").read_text().splitlines() if line.startswith("| ")]
    named = [place for row in rows for place in re.findall(r"`([^`]+)`", row)]
    assert len(named) > 12
    assert not [place for place in named if not (root / place).exists()]
