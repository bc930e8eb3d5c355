"""msat: knows, before asking, which LLM will get an instruction right.

The names below are the public ones. Each is loaded on first use, so that ``import msat_core`` loads
neither torch nor transformers.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from msat_core.aptitude.aptitude_test import AptitudeTest
    from msat_core.errors import MsatError
    from msat_core.exam import Exam
    from msat_core.profiles import CapabilityProfile, TaskResult
    from msat_core.records import Records
    from msat_core.routing.policy import RoutingDecision, RoutingPolicy, RoutingRequest
    from msat_core.routing.router import Router
    from msat_core.scoring.base import Scorer, Scores
    from msat_core.scoring.compact.scorer import CompactScorer
    from msat_core.scoring.model_sat.scorer import ModelSATScorer
    from msat_core.scoring.table import TableScorer
    from msat_core.zoo import Candidate, Zoo

_HOME = {
    "AptitudeTest": "aptitude.aptitude_test",
    "Candidate": "zoo",
    "CapabilityProfile": "profiles",
    "CompactScorer": "scoring.compact.scorer",
    "Exam": "exam",
    "ModelSATScorer": "scoring.model_sat.scorer",
    "MsatError": "errors",
    "Records": "records",
    "Router": "routing.router",
    "RoutingDecision": "routing.policy",
    "RoutingPolicy": "routing.policy",
    "RoutingRequest": "routing.policy",
    "Scorer": "scoring.base",
    "Scores": "scoring.base",
    "TableScorer": "scoring.table",
    "TaskResult": "profiles",
    "Zoo": "zoo",
}

__all__ = [
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


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any of the public names
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
