"""Graders of structured answers: JSON by schema, JSON by value, and tool calls."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from msat_core.aptitude.graders.base import UNREADABLE, Grade
from msat_core.errors import ConfigurationError
from msat_core.reading import parse_json

if TYPE_CHECKING:
    from msat_core.aptitude.questions import Question

RELATIVE_TOLERANCE = 1e-9  # of numbers in JSON, where 0.1 + 0.2 and 0.3 are the same
_FENCED = re.compile(r"```[a-zA-Z]*\n(.*?)```", re.DOTALL)
_NAMES, _ARGUMENTS = ("name", "tool", "tool_name", "function"), ("arguments", "args", "parameters", "input")
_NOTHING = object()
_OPENING = re.compile(r"[{\[]")
MAX_BRACKETS = 50  # that begin no JSON, before a text is given up: each may cost a reading of all that follows


@dataclass(frozen=True)
class JsonEqual:
    """The JSON in the reply has the answer's value: order counts in lists and not in objects."""

    name: str = "json"

    def grade(self, question: Question, reply: str) -> Grade:
        """1, 0, or unreadable."""
        value = json_in(reply)
        return UNREADABLE if value is _NOTHING else Grade.of(same_json(value, expected_json(question)))


@dataclass(frozen=True)
class JsonSchema:
    """The JSON in the reply fits a schema.

    Attributes:
        schema: None: each question's answer is its schema.
        label: what the schema is called.
    """

    schema: Mapping[str, Any] | None = None
    label: str = ""
    name: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", f"json-schema:{self.label}" if self.label else "json-schema")
        if self.schema is not None:
            _validator(self.schema)

    def grade(self, question: Question, reply: str) -> Grade:
        """1, 0 with the first thing that does not fit, or unreadable."""
        value = json_in(reply)
        if value is _NOTHING:
            return UNREADABLE
        schema = expected_json(question) if self.schema is None else self.schema
        first = next(iter(_validator(schema).iter_errors(value)), None)
        return Grade.of(first is None, "" if first is None else first.message)


@dataclass(frozen=True)
class ToolCall:
    """The tools called, with their arguments, are the right ones, in the right order.

    Calls are read from an endpoint's own calls, which a client writes down as JSON, or from JSON in the text.

    Attributes:
        names_only: arguments do not count.
    """

    names_only: bool = False

    @property
    def name(self) -> str:
        """With ``:name`` where arguments do not count."""
        return "tool-call:name" if self.names_only else "tool-call"

    def grade(self, question: Question, reply: str) -> Grade:
        """1, 0, or unreadable where nothing is called."""
        expected = _calls(expected_json(question))
        if not expected:
            raise ConfigurationError(
                f'Question {question.item_id}: `tool-call` needs {{"name": …, "arguments": {{…}}}} as answer.'
            )
        calls = _calls(json_in(reply))
        if not calls:
            return UNREADABLE
        if [name for name, _ in calls] != [name for name, _ in expected]:
            return Grade(0.0, f"called {', '.join(name for name, _ in calls)}")
        if self.names_only:
            return Grade(1.0)
        right = all(same_json(a, b) for (_, a), (_, b) in zip(calls, expected, strict=True))
        return Grade.of(right, "" if right else "the arguments differ")


def json_in(text: str) -> Any:  # noqa: ANN401 - any JSON value
    """The JSON value that a text is or holds: in a fenced block, between its outer brackets, or the last of several."""
    places = [text, *(block for block in reversed(_FENCED.findall(text)))]
    starts = [at for at in (text.find("{"), text.find("[")) if at >= 0]
    end = max(text.rfind("}"), text.rfind("]"))
    if starts and end > min(starts):
        places += [text[start : end + 1] for start in sorted(starts)]
    for place in places:
        try:
            return parse_json(place)
        except ValueError:
            continue
    return _last_value(text)


def _last_value(text: str) -> Any:  # noqa: ANN401 - any JSON value
    """The last of several values with words between them; a text with many brackets that begin nothing has none."""
    value, at, failures = _NOTHING, 0, 0
    while failures < MAX_BRACKETS and (opening := _OPENING.search(text, at)):
        at = opening.start()
        try:
            value, at = _DECODER.raw_decode(text, at)
        except (ValueError, RecursionError):
            at, failures = at + 1, failures + 1
    return value


def expected_json(question: Question) -> Any:  # noqa: ANN401 - any JSON value
    """A question's answer as JSON. Raises ConfigurationError where it is none."""
    try:
        return parse_json(question.answer)
    except ValueError:
        raise ConfigurationError(f"Question {question.item_id}: its grader needs JSON as answer.") from None


def same_json(left: Any, right: Any) -> bool:  # noqa: ANN401 - any JSON values
    """Have the two the same value? Truth values are no numbers; numbers agree to nine digits."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, (int, float)) and isinstance(right, (int, float)):
        return left == right or math.isclose(_real(left), _real(right), rel_tol=RELATIVE_TOLERANCE, abs_tol=0.0)
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same_json(value, right[key]) for key, value in left.items())
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same_json, left, right))
    return type(left) is type(right) and bool(left == right)


def _real(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # a whole number beyond all others equals only itself
        return math.nan


def _calls(value: Any) -> list[tuple[str, Any]]:  # noqa: ANN401 - any JSON value
    """(name, arguments) of each call, in the forms that providers and people write; none where it is no call."""
    if isinstance(value, list):
        return [call for part in value for call in _calls(part)]
    if not isinstance(value, dict):
        return []
    if isinstance(value.get("tool_calls"), list):
        return _calls(value["tool_calls"])
    if isinstance(value.get("function"), dict):
        return _calls(value["function"])
    name = next((value[key] for key in _NAMES if isinstance(value.get(key), str)), None)
    if name is None:
        return []
    arguments: Any = next((value[key] for key in _ARGUMENTS if key in value), {})
    if isinstance(arguments, str):
        parsed = json_in(arguments) if arguments.strip() else {}
        arguments = arguments if parsed is _NOTHING else parsed
    return [(name, arguments)]


def _validator(schema: Mapping[str, Any]) -> Any:  # noqa: ANN401 - jsonschema ships no types
    try:
        import jsonschema
    except ImportError:
        raise ConfigurationError(
            'The grader `json-schema` needs jsonschema: pip install "model-sat-router[exam]".'
        ) from None
    kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    try:
        kind.check_schema(schema)
    except jsonschema.SchemaError as error:
        raise ConfigurationError(f"The schema of the grader `json-schema` is none ({error.message}).") from None
    return kind(schema)


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse)
