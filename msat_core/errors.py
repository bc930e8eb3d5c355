"""Every error that msat raises on purpose, in one tree.

```
MsatError
├── ConfigurationError     a setting, argument or combination that cannot work
├── InstructionError       the text to route is unusable (empty, not a string)
├── ProfileError           a capability profile is damaged, inconsistent or of another version
├── ZooError               a zoo is empty, names a candidate twice, or lacks the one asked for
├── RecordsError           a records folder is missing, malformed or contradicts itself
├── PolicyError            a routing policy contradicts itself
├── ArtefactError          saved weights, an exam or a scorer folder is missing, damaged or unsafe
├── ExamError              questions, a journal or an endpoint with which an exam cannot be sat
├── NoCandidateError       the policy's hard limits leave no candidate and it names no default
├── FeedbackError          a feedback file is damaged or holds something else
├── FileError              a file or folder cannot be written where it was asked for
├── MissingExtraError      a library that only one of msat's extras brings is not installed
└── DispatchError          nobody could be tried; where candidates failed, the first one's own error is raised
    └── EmptyAnswerError   a candidate answered without a single token, and no other one answered
```

Each message says what was expected, what came, and what to do. Errors about data files are not
ValueErrors, because pydantic would wrap those and hide the sentence in a list.
Errors raised by a framework or by a candidate's own client pass through untouched.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal


class MsatError(Exception):
    """Root of every error that msat raises on purpose."""


class ConfigurationError(MsatError, ValueError):
    """A setting, argument or combination of settings that cannot work."""


class InstructionError(MsatError, ValueError):
    """The text to route is unusable: empty, blank or not a string."""


class ProfileError(MsatError):
    """A capability profile is damaged, inconsistent or of another version."""


class ZooError(MsatError):
    """A zoo is empty, names a candidate twice, or lacks the one asked for."""


class RecordsError(MsatError):
    """A records folder is missing, malformed or contradicts itself."""


class PolicyError(MsatError):
    """A routing policy contradicts itself or names a setting that does not exist."""


class ArtefactError(MsatError):
    """Saved weights, an exam or a scorer folder is missing, damaged or unsafe to load."""


class ExamError(MsatError):
    """Questions, a journal or an endpoint with which an exam cannot be sat."""


class NoCandidateError(MsatError):
    """The policy's hard limits leave no candidate, and it names no default."""


class FeedbackError(MsatError):
    """A feedback file is damaged or holds something else."""


class FileError(MsatError):
    """A file or folder cannot be written where it was asked for."""


class MissingExtraError(MsatError, ModuleNotFoundError):
    """A library that only one of msat's extras brings is not installed."""


EXTRAS = {
    "langchain": ("langchain_core",),
    "langchain-classic": ("langchain_classic",),
    "agents": ("langchain",),
    "llamaindex": ("llama_index",),
    "eval": ("pyarrow", "scipy", "sklearn"),
    "gpu": ("torch", "transformers"),
    "train": ("accelerate", "onnx", "peft", "tensorboard"),
    "exam": ("anyio", "datasets", "ijson", "jsonschema", "openai", "tenacity"),
    "reasoning-gym": ("reasoning_gym",),
    "plots": ("matplotlib",),
    "ray": ("ray",),
}


@contextmanager
def extras() -> Iterator[None]:
    """Import what an extra brings; a missing library is one sentence (MissingExtraError)."""
    try:
        yield
    except ModuleNotFoundError as error:
        library = (error.name or "").split(".")[0]
        name = next((extra for extra, libraries in EXTRAS.items() if library in libraries), None)
        if name is None or isinstance(error, MissingExtraError):
            raise
        sentence = f'This needs `{library}`: pip install "model-sat-router[{name}]".'
        raise MissingExtraError(sentence, name=error.name) from None


class DispatchError(MsatError):
    """Nobody could be tried; where candidates failed, the first one's own error is raised."""


class EmptyAnswerError(DispatchError):
    """A candidate answered without a single token, or without a finish reason where one is asked for.

    Attributes:
        answer: what it gave; returned after all where nobody gives more.
        kind: ``empty`` or ``cut``.
    """

    def __init__(self, message: str, answer: object = None, kind: Literal["empty", "cut"] = "empty") -> None:
        super().__init__(message)
        self.answer = answer
        self.kind = kind


def some_of(names: Sequence[str], most: int = 3) -> str:
    """The first few names for a sentence, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
