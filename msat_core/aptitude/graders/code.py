"""The grader that runs what a candidate wrote. Off unless it is allowed by name.

What it does: the reply's Python is written to a temporary folder together with the question's tests and run by this
Python in a process of its own, isolated from the user's packages and environment variables, with limits on time,
memory, and file size; its process group is killed when time is up. What it does not do: it is no sandbox. The code
runs as the user and could read files and reach the network. Run it in a container where candidates are not trusted.
"""

from __future__ import annotations

import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from msat_core.aptitude.graders.base import UNREADABLE, Grade
from msat_core.errors import ConfigurationError

if TYPE_CHECKING:
    from msat_core.aptitude.questions import Question

TIMEOUT_S = 10.0  # chosen: unit tests take far less
MEMORY_MB = 1024  # of the address space; chosen: enough for Python and its libraries
FILE_MB = 16  # the largest file it may write; chosen
_BLOCK = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)```", re.DOTALL | re.IGNORECASE)
_FIRST_LINE = re.compile(r"^(?:def|class|import|from|async def|@)\b", re.MULTILINE)
# The child limits itself before anything else runs in it; setting limits between fork and exec is not thread-safe.
_LIMITED = """
import resource, runpy, sys
seconds, memory, size = (int(value) for value in sys.argv[2:5])
for what, most in ((resource.RLIMIT_CPU, seconds), (resource.RLIMIT_AS, memory), (resource.RLIMIT_FSIZE, size),
                   (resource.RLIMIT_CORE, 0)):
    resource.setrlimit(what, (most, most))
runpy.run_path(sys.argv[1], run_name="__main__")
"""


@dataclass(frozen=True)
class CodeTests:
    """The reply's Python passes the question's tests: statements that raise where it fails.

    Attributes:
        timeout_s: seconds for one reply.
    """

    timeout_s: float = TIMEOUT_S
    name: str = "code"
    costly: ClassVar[bool] = True

    def grade(self, question: Question, reply: str) -> Grade:
        """1, 0 with the last line of what went wrong, or unreadable where the reply holds no code."""
        if not question.tests.strip():
            raise ConfigurationError(f"Question {question.item_id}: the grader `code` needs tests.")
        code = code_in(reply)
        if code is None:
            return UNREADABLE
        passed = f"passed {secrets.token_hex(16)}"  # so that leaving early is not passing
        with tempfile.TemporaryDirectory(prefix="msat-code-") as folder:
            script = Path(folder) / "answer_and_tests.py"
            script.write_text(f"{code}\n\n{question.tests}\n\nprint({passed!r})\n", encoding="utf-8")
            streams = self._run(script)
        if streams is None:
            return Grade(0.0, f"not done after {self.timeout_s:g} s")
        out, wrong = streams
        if passed in out.splitlines():
            return Grade(1.0)
        lines = wrong.strip().splitlines()
        return Grade(0.0, lines[-1][:200] if lines else "ended without passing the tests")

    def _run(self, script: Path) -> tuple[str, str] | None:
        """Standard output and error; None if time was up."""
        if os.name != "posix":
            raise ConfigurationError("The grader `code` needs the limits of a POSIX system: run it on Linux or macOS.")
        limits = [str(int(self.timeout_s) + 1), str(MEMORY_MB << 20), str(FILE_MB << 20)]
        kept = {key: os.environ[key] for key in ("PATH", "LANG", "LC_ALL") if key in os.environ}
        with subprocess.Popen(
            [sys.executable, "-I", "-c", _LIMITED, str(script), *limits],
            cwd=script.parent,
            env=kept,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        ) as process:
            try:
                out, wrong = process.communicate(timeout=self.timeout_s)
            except subprocess.TimeoutExpired:
                return None
            finally:
                _end(process)
        return out, wrong


def code_in(reply: str) -> str | None:
    """The Python of a reply: its fenced blocks, one after the other, or all of a reply that begins with code."""
    blocks = _BLOCK.findall(reply)
    if blocks:
        return "\n\n".join(blocks)
    return reply if _FIRST_LINE.match(reply.strip()) else None


def _end(process: subprocess.Popen[str]) -> None:
    """Kill what the code may have left running."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass
