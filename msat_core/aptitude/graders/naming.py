"""Graders by name: ``NAME`` or ``NAME:ARGUMENT``, as on the command line and in a column of the questions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from msat_core.aptitude.answers import is_number
from msat_core.aptitude.graders.base import Grader
from msat_core.aptitude.graders.code import CodeTests
from msat_core.aptitude.graders.evaluator import Evaluator
from msat_core.aptitude.graders.judge import DEFAULT_RUBRIC, Judge
from msat_core.aptitude.graders.similarity import Embed, Similarity
from msat_core.aptitude.graders.structured import JsonEqual, JsonSchema, ToolCall
from msat_core.aptitude.graders.texts import (
    DEFAULT_TOLERANCE,
    Choice,
    Contains,
    Exact,
    Number,
    Pattern,
    SameWords,
    ShortAnswer,
)
from msat_core.errors import ConfigurationError
from msat_core.reading import parse_json, read_json

if TYPE_CHECKING:
    from msat_core.aptitude.questions import Question

PLAIN: Mapping[str, Callable[[], Grader]] = {
    "exact": Exact,
    "text": SameWords,
    "contains": Contains,
    "short": ShortAnswer,
    "choice": Choice,
    "json": JsonEqual,
}
NAMES = (*PLAIN, "number", "regex", "json-schema", "tool-call", "code", "similarity", "judge", "judge-pair", "python")


@dataclass(frozen=True)
class Graders:
    """Makes graders from their names.

    Attributes:
        run_code: whether code may be run.
        embed: N texts → (N, D) unit vectors, for ``similarity``; None where there is no encoder.
        rubric: of judges, where a question has none.
    """

    run_code: bool = False
    embed: Embed | None = None
    rubric: str = DEFAULT_RUBRIC

    def named(self, spec: str, *, trusted: bool = True) -> Grader | Judge:
        """The grader that a name, with or without an argument, stands for.

        Args:
            spec: ``NAME`` or ``NAME:ARGUMENT``.
            trusted: whether the user typed it; a questions file may name neither Python to import nor files to read.

        Raises:
            ConfigurationError: there is none of that name, or it may not be used.
        """
        name, _, argument = spec.partition(":")
        if not trusted and argument and name in ("python", "json-schema"):
            raise ConfigurationError(
                f"A questions file may not name Python to run or a file to read ({spec}): use --grader {spec}."
            )
        if name in PLAIN and not argument:
            return PLAIN[name]()
        if name in ("judge", "judge-pair") and not argument:
            return Judge("judge-pair" if name == "judge-pair" else "judge", self.rubric)
        if name == "code" and not argument:
            return self._code()
        if name == "tool-call" and argument in ("", "name"):
            return ToolCall(names_only=argument == "name")
        if name == "python" and argument:
            return Evaluator.imported(argument)
        return self._with_argument(name, argument, spec)

    def _with_argument(self, name: str, argument: str, spec: str) -> Grader:
        if name == "number":
            return Number(_number(argument, spec) if argument else DEFAULT_TOLERANCE)
        if name == "regex":
            return Pattern(argument or None)
        if name == "similarity":
            return self._similarity(_number(argument, spec) if argument else None)
        if name == "json-schema":
            return JsonSchema(_schema(argument), argument) if argument else JsonSchema()
        raise ConfigurationError(f"There is no grader {spec!r}: choose one of {', '.join(NAMES)}.")

    def fitting(self, question: Question) -> Grader | Judge | None:
        """The grader that fits what is known of a question; None if nothing is."""
        if question.tests:
            return self._code()
        if question.rubric:
            return Judge("judge", self.rubric)
        if question.options:
            return Choice()
        if not question.answer:
            return None
        if is_number(question.answer):
            return Number()
        if question.answer.lstrip()[:1] in ("{", "[") and _is_json(question.answer):
            return JsonEqual()
        return ShortAnswer()

    def _code(self) -> Grader:
        if not self.run_code:
            raise ConfigurationError(
                "The grader `code` runs what candidates wrote, on this machine, in a process with limits on time and "
                "memory but no sandbox: allow it with --run-code (run_code=True)."
            )
        return CodeTests()

    def _similarity(self, threshold: float | None) -> Grader:
        if self.embed is None:
            raise ConfigurationError("The grader `similarity` needs an encoder, and none was given.")
        return Similarity(self.embed, threshold)


def _number(argument: str, spec: str) -> float:
    try:
        return float(argument)
    except ValueError:
        raise ConfigurationError(f"The grader {spec!r} has {argument!r} where a number is expected.") from None


def _schema(path: str) -> Mapping[str, object]:
    try:
        schema = read_json(path)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path} holds no JSON schema ({error}).") from None
    if not isinstance(schema, dict):
        raise ConfigurationError(f"{path} holds no JSON schema: expected an object.")
    return schema


def _is_json(text: str) -> bool:
    try:
        parse_json(text)
    except ValueError:
        return False
    return True
