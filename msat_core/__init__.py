"""msat: knows, before asking, which LLM will get an instruction right.

The names below are the public ones. Each is loaded on first use, so that ``import msat_core`` loads
neither torch nor transformers.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from msat_core.aptitude.aptitude_test import AptitudeTest
    from msat_core.aptitude.clients import ExamClient, Reply
    from msat_core.errors import ConfigurationError, DispatchError, EmptyAnswerError, MsatError
    from msat_core.exam import Exam
    from msat_core.profiles import CapabilityProfile, TaskResult
    from msat_core.records import Records
    from msat_core.routing.calls import Opened, afirst_answer, afirst_stream, first_answer, first_stream
    from msat_core.routing.conversation import (
        MEDIUM_CHARS,
        Role,
        Sticky,
        Turn,
        media_in,
        modalities_of,
        role_of,
        size_of,
    )
    from msat_core.routing.cooldown import Cooldown
    from msat_core.routing.dispatch import Ask, common_abilities, decide_all, names_of
    from msat_core.routing.fallback import Attempt, Attempts, Fallback
    from msat_core.routing.feedback import Source
    from msat_core.routing.policy import RoutingDecision, RoutingPolicy, RoutingRequest
    from msat_core.routing.router import Router
    from msat_core.routing.tags import TAG, TOP_SCORES, believed, learn_from, tag_of
    from msat_core.scoring.base import Scorer, Scores
    from msat_core.scoring.compact.scorer import CompactScorer
    from msat_core.scoring.model_sat.scorer import ModelSATScorer
    from msat_core.scoring.table import TableScorer
    from msat_core.zoo import Candidate, Modality, Zoo

_HOME = {
    "AptitudeTest": "aptitude.aptitude_test",
    "Ask": "routing.dispatch",
    "Attempt": "routing.fallback",
    "Attempts": "routing.fallback",
    "Candidate": "zoo",
    "CapabilityProfile": "profiles",
    "CompactScorer": "scoring.compact.scorer",
    "ConfigurationError": "errors",
    "Cooldown": "routing.cooldown",
    "DispatchError": "errors",
    "EmptyAnswerError": "errors",
    "Exam": "exam",
    "ExamClient": "aptitude.clients",
    "Fallback": "routing.fallback",
    "MEDIUM_CHARS": "routing.conversation",
    "Modality": "zoo",
    "ModelSATScorer": "scoring.model_sat.scorer",
    "MsatError": "errors",
    "Opened": "routing.calls",
    "Records": "records",
    "Reply": "aptitude.clients",
    "Role": "routing.conversation",
    "Router": "routing.router",
    "RoutingDecision": "routing.policy",
    "RoutingPolicy": "routing.policy",
    "RoutingRequest": "routing.policy",
    "Scorer": "scoring.base",
    "Scores": "scoring.base",
    "Source": "routing.feedback",
    "Sticky": "routing.conversation",
    "TAG": "routing.tags",
    "TOP_SCORES": "routing.tags",
    "TableScorer": "scoring.table",
    "TaskResult": "profiles",
    "Turn": "routing.conversation",
    "Zoo": "zoo",
    "afirst_answer": "routing.calls",
    "afirst_stream": "routing.calls",
    "believed": "routing.tags",
    "common_abilities": "routing.dispatch",
    "decide_all": "routing.dispatch",
    "first_answer": "routing.calls",
    "first_stream": "routing.calls",
    "learn_from": "routing.tags",
    "media_in": "routing.conversation",
    "modalities_of": "routing.conversation",
    "names_of": "routing.dispatch",
    "role_of": "routing.conversation",
    "size_of": "routing.conversation",
    "tag_of": "routing.tags",
}

__all__ = [
    "MEDIUM_CHARS",
    "TAG",
    "TOP_SCORES",
    "AptitudeTest",
    "Ask",
    "Attempt",
    "Attempts",
    "Candidate",
    "CapabilityProfile",
    "CompactScorer",
    "ConfigurationError",
    "Cooldown",
    "DispatchError",
    "EmptyAnswerError",
    "Exam",
    "ExamClient",
    "Fallback",
    "Modality",
    "ModelSATScorer",
    "MsatError",
    "Opened",
    "Records",
    "Reply",
    "Role",
    "Router",
    "RoutingDecision",
    "RoutingPolicy",
    "RoutingRequest",
    "Scorer",
    "Scores",
    "Source",
    "Sticky",
    "TableScorer",
    "TaskResult",
    "Turn",
    "Zoo",
    "afirst_answer",
    "afirst_stream",
    "believed",
    "common_abilities",
    "decide_all",
    "first_answer",
    "first_stream",
    "learn_from",
    "media_in",
    "modalities_of",
    "names_of",
    "role_of",
    "size_of",
    "tag_of",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any of the public names
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
