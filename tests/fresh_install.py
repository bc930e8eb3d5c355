"""What `pip install "model-sat-router[langchain]"` brings, in an environment of its own.

    python tests/fresh_install.py [EXTRA] [FRAMEWORK]

Builds the sdist and from it the wheel; checks what they say of themselves (`twine check`) and hold. Installs the
framework alone, then the wheel with the extra; checks the size that msat adds, that routing loads none of the heavy
libraries, and README's first Python block. Prints the first route's time as a ratio to `import numpy`.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
MOST_MB = 350
HEAVY = ("torch", "transformers", "scipy", "sklearn", "pyarrow", "sentence_transformers")
ROUTE = "from msat_core import Router; print(Router.from_pretrained().route('Hello?').candidate)"
CHECK = f"{ROUTE}\nimport sys; loaded = [n for n in {HEAVY!r} if n in sys.modules]; assert not loaded, loaded"
ROUNDS = 5
PACKAGES = ("msat_core", "langchain_msat", "llamaindex_msat")
NEEDED = ("pretrained/zoo.json", "pretrained/compact/", "pretrained/encoder/", "py.typed")  # of msat_core
ABSENT = (".parquet", ".pyc", ".cache", ".venv")


def main(extra: str = "langchain", framework: str = "langchain-core") -> None:
    """Install, check, print."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        python = Path(folder) / "bin" / "python"
        wheel = built(Path(folder) / "dist")
        install(python, framework)
        before = size_mb(Path(folder))
        install(python, f"{wheel}[{extra}]")
        added = size_mb(Path(folder)) - before
        print(f"{added:.0f} MB beside {framework}")
        assert added <= MOST_MB, f"expected at most {MOST_MB} MB"
        run(python, CHECK, folder)
        run(python, first_block((ROOT / "README.md").read_text()), folder)
        ratio = seconds(python, ROUTE, folder) / seconds(python, "import numpy", folder)
        print(f"from an empty process to the first route: {ratio:.1f} × `import numpy`")


def built(out: Path) -> Path:
    """The wheel, made of the sdist; both checked."""
    subprocess.run(
        [sys.executable, "-m", "build", "--outdir", str(out), str(ROOT)], check=True, stdout=subprocess.DEVNULL
    )
    (wheel,), (sdist,) = out.glob("*.whl"), out.glob("*.tar.gz")
    subprocess.run([sys.executable, "-m", "twine", "check", "--strict", str(wheel), str(sdist)], check=True)
    with zipfile.ZipFile(wheel) as archive:
        held = archive.namelist()
    others = {name.split("/")[0] for name in held if ".dist-info/" not in name} - {*PACKAGES}
    assert not others, f"the wheel holds more than its packages: {others}"
    missing = [part for part in NEEDED if not any(name.startswith(f"msat_core/{part}") for name in held)]
    assert not missing, f"the wheel lacks {missing}"
    with tarfile.open(sdist) as source:
        names = [name.partition("/")[2] for name in source.getnames()]
    assert {"README.md", "LICENSE", "NOTICE", "CITATION.cff", "CHANGELOG.md", "tests/support.py"} <= {*names}
    assert "examples/data/reasoning_outcomes.json" in names
    unwanted = [name for name in [*held, *names] if any(part in name for part in ABSENT)]
    assert not unwanted, f"not to be shipped: {unwanted[:5]}"
    print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.0f} MB; {sdist.name}: {sdist.stat().st_size / 1e6:.0f} MB")
    return wheel


def install(python: Path, what: str) -> None:
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*command, "-c", str(ROOT / "constraints.txt"), what], check=True)


def size_mb(folder: Path) -> float:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def run(python: Path, code: str, folder: str) -> None:
    subprocess.run([str(python), "-c", code], check=True, cwd=folder)


def seconds(python: Path, code: str, folder: str) -> float:
    """The fastest of some rounds: what else the machine does is not of interest."""
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        subprocess.run([str(python), "-c", code], check=True, cwd=folder, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - start)
    return min(times)


def first_block(text: str) -> str:
    """The first block of Python in a Markdown text."""
    return text.partition("```python\n")[2].partition("```")[0]


if __name__ == "__main__":
    main(*sys.argv[1:])
