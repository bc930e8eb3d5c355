"""Evaluators that people have already: any callable in the manner of ``openevals`` and LangSmith."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from msat_core.aptitude.graders.base import UNREADABLE, Grade
from msat_core.errors import ConfigurationError
from msat_core.scrubbing import LONGEST_READ, scrubbed

if TYPE_CHECKING:
    from msat_core.aptitude.questions import Question

_TAKEN = ("inputs", "outputs", "reference_outputs")


class Evaluator:
    """Marks by a callable that takes ``inputs``, ``outputs``, ``reference_outputs`` (those of them that it names).

    It gives ``{"score": …}``, a number, or a truth value; a score of None is unreadable.

    Args:
        evaluate: the callable.
        name: what it is called; None for the callable's own name.
    """

    costly = True

    def __init__(self, evaluate: Callable[..., Any], name: str | None = None) -> None:
        self._evaluate = evaluate
        self.name = str(name or getattr(evaluate, "__name__", type(evaluate).__name__))
        parameters = inspect.signature(evaluate).parameters
        takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
        self._taken = [name for name in _TAKEN if takes_any or name in parameters]
        if "outputs" not in self._taken:
            raise ConfigurationError(
                f"The evaluator {self.name} takes {', '.join(parameters) or 'nothing'}: expected `outputs`, and as it "
                "likes `inputs` and `reference_outputs`."
            )

    @classmethod
    def imported(cls, path: str) -> Evaluator:
        """The evaluator at ``package.module.attribute``. Raises ConfigurationError where there is none."""
        module, _, attribute = path.rpartition(".")
        try:
            return cls(getattr(importlib.import_module(module), attribute), path)
        except (ImportError, AttributeError, ValueError) as error:
            raise ConfigurationError(
                f"There is no evaluator {path!r} ({error}): expected package.module.attribute."
            ) from None

    def grade(self, question: Question, reply: str) -> Grade:
        """What the callable says."""
        fields = {"inputs": question.with_options(), "outputs": reply, "reference_outputs": question.answer or None}
        result = self._evaluate(**{name: fields[name] for name in self._taken})
        result = result[0] if isinstance(result, list) and result else result
        comment = str(result.get("comment") or "") if isinstance(result, Mapping) else ""
        score = result.get("score") if isinstance(result, Mapping) else result
        if score is None:
            return UNREADABLE
        if not isinstance(score, (bool, int, float)) or not 0 <= score <= 1:
            raise ConfigurationError(
                f"The evaluator {self.name} gave {score!r}: expected a truth value or a number in [0, 1]."
            )
        return Grade.of(score, scrubbed(comment[:LONGEST_READ]))
