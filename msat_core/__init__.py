"""msat: estimates, before asking, which LLM will get an instruction right.

The names below are the public ones. Each is loaded on first use, so that ``import msat_core`` loads
neither torch nor transformers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msat_core import lazy_names

if TYPE_CHECKING:
    from msat_core.aptitude.adaptive import AdaptiveOrder
    from msat_core.aptitude.aptitude_test import AptitudeTest, ExamRun
    from msat_core.aptitude.clients import ExamClient, FunctionClient, Reply
    from msat_core.aptitude.exam_selection import ExamRule, select_exam
    from msat_core.aptitude.openai_client import OpenAIClient
    from msat_core.aptitude.own_exam import own_exam
    from msat_core.aptitude.paper import ExamPaper, Prices
    from msat_core.aptitude.questions import Question, QuestionSet
    from msat_core.aptitude.sitting import RunSettings
    from msat_core.bulk.job import RoutedFile, route_file
    from msat_core.candidates import Candidate, Modality, ModelFacts
    from msat_core.errors import (
        ArtefactError,
        ConfigurationError,
        DispatchError,
        EmptyAnswerError,
        ExamError,
        FeedbackError,
        InstructionError,
        MsatError,
        NoCandidateError,
        PolicyError,
        ProfileError,
        RecordsError,
        ZooError,
    )
    from msat_core.evaluation.assessment import Assessment, Calibrated
    from msat_core.evaluation.comparison import Evaluation
    from msat_core.exam import Exam
    from msat_core.importers.importing import import_records
    from msat_core.importers.published import published_profiles
    from msat_core.importers.rows import ImportOptions
    from msat_core.lazy_names import load_name
    from msat_core.profiles import CapabilityProfile, Provenance, TaskResult, load_profiles
    from msat_core.records import Records
    from msat_core.routing.attempts import Attempt, Attempts
    from msat_core.routing.calls import Opened, afirst_answer, afirst_stream, first_answer, first_stream
    from msat_core.routing.conversation import (
        MEDIUM_CHARS,
        Sticky,
        Turn,
        TurnRole,
        media_in,
        modalities_of,
        role_of,
        size_of,
    )
    from msat_core.routing.cooldown import Cooldown
    from msat_core.routing.decision import RoutingDecision, RoutingRequest
    from msat_core.routing.decision_log import DecisionLog, DecisionRecord, read_decisions
    from msat_core.routing.dispatch import RoutingAsk, common_abilities, decide_all, names_in_zoo
    from msat_core.routing.fallback import Fallback
    from msat_core.routing.feedback import FeedbackLog, FeedbackSource
    from msat_core.routing.observing import Observer, TokenUsage, observers_of
    from msat_core.routing.policy import Objective, RoutingPolicy
    from msat_core.routing.router import Router
    from msat_core.routing.tags import TAG, TOP_SCORES, believed, learn_from, tag_of
    from msat_core.routing.telemetry import DecisionTelemetry
    from msat_core.scoring.base import Learner, Scorer, Scores, WeightedOutcome
    from msat_core.scoring.compact.scorer import CompactScorer
    from msat_core.scoring.loading import load as load_scorer
    from msat_core.scoring.model_sat.scorer import ModelSATScorer
    from msat_core.scoring.table_scorer import TableScorer
    from msat_core.texts import normalised, text_sha256
    from msat_core.training.compact.encoder_tuning import TuningSettings, tune_encoder
    from msat_core.training.compact.run import train_on_records
    from msat_core.training.compact.train import CompactSettings, train_compact
    from msat_core.training.holdout import training_items
    from msat_core.training.model_sat.settings import StageSettings, TrainingSettings
    from msat_core.training.model_sat.train import train_model_sat
    from msat_core.trial.candidates import Contender
    from msat_core.trial.opening import open_trial
    from msat_core.trial.report import write_result
    from msat_core.trial.shadow import ShadowResult, trial_from_log
    from msat_core.trial.shadow_report import write_shadow
    from msat_core.trial.trial import Trial, TrialResult
    from msat_core.zoo import Zoo

    __version__: str

DISTRIBUTION = "model-sat-router"

# Where each public name lives: its module, and its name there after a colon if that differs. Type checkers read
# the imports above; a test holds the two and ``__all__`` together.
_HOME = {
    "AdaptiveOrder": "aptitude.adaptive",
    "AptitudeTest": "aptitude.aptitude_test",
    "ArtefactError": "errors",
    "Assessment": "evaluation.assessment",
    "Attempt": "routing.attempts",
    "Attempts": "routing.attempts",
    "Calibrated": "evaluation.assessment",
    "Candidate": "candidates",
    "CapabilityProfile": "profiles",
    "CompactScorer": "scoring.compact.scorer",
    "CompactSettings": "training.compact.train",
    "ConfigurationError": "errors",
    "Contender": "trial.candidates",
    "Cooldown": "routing.cooldown",
    "DecisionLog": "routing.decision_log",
    "DecisionRecord": "routing.decision_log",
    "DecisionTelemetry": "routing.telemetry",
    "DispatchError": "errors",
    "EmptyAnswerError": "errors",
    "Evaluation": "evaluation.comparison",
    "Exam": "exam",
    "ExamClient": "aptitude.clients",
    "ExamError": "errors",
    "ExamPaper": "aptitude.paper",
    "ExamRule": "aptitude.exam_selection",
    "ExamRun": "aptitude.aptitude_test",
    "Fallback": "routing.fallback",
    "FeedbackError": "errors",
    "FeedbackLog": "routing.feedback",
    "FeedbackSource": "routing.feedback",
    "FunctionClient": "aptitude.clients",
    "ImportOptions": "importers.rows",
    "InstructionError": "errors",
    "Learner": "scoring.base",
    "MEDIUM_CHARS": "routing.conversation",
    "Modality": "candidates",
    "ModelFacts": "candidates",
    "ModelSATScorer": "scoring.model_sat.scorer",
    "MsatError": "errors",
    "NoCandidateError": "errors",
    "Objective": "routing.policy",
    "Observer": "routing.observing",
    "OpenAIClient": "aptitude.openai_client",
    "Opened": "routing.calls",
    "PolicyError": "errors",
    "Prices": "aptitude.paper",
    "ProfileError": "errors",
    "Provenance": "profiles",
    "Question": "aptitude.questions",
    "QuestionSet": "aptitude.questions",
    "Records": "records",
    "RecordsError": "errors",
    "Reply": "aptitude.clients",
    "RoutedFile": "bulk.job",
    "Router": "routing.router",
    "RoutingAsk": "routing.dispatch",
    "RoutingDecision": "routing.decision",
    "RoutingPolicy": "routing.policy",
    "RoutingRequest": "routing.decision",
    "RunSettings": "aptitude.sitting",
    "Scorer": "scoring.base",
    "Scores": "scoring.base",
    "ShadowResult": "trial.shadow",
    "StageSettings": "training.model_sat.settings",
    "Sticky": "routing.conversation",
    "TAG": "routing.tags",
    "TOP_SCORES": "routing.tags",
    "TableScorer": "scoring.table_scorer",
    "TaskResult": "profiles",
    "TokenUsage": "routing.observing",
    "TrainingSettings": "training.model_sat.settings",
    "Trial": "trial.trial",
    "TrialResult": "trial.trial",
    "TuningSettings": "training.compact.encoder_tuning",
    "Turn": "routing.conversation",
    "TurnRole": "routing.conversation",
    "WeightedOutcome": "scoring.base",
    "Zoo": "zoo",
    "ZooError": "errors",
    "afirst_answer": "routing.calls",
    "afirst_stream": "routing.calls",
    "believed": "routing.tags",
    "common_abilities": "routing.dispatch",
    "decide_all": "routing.dispatch",
    "first_answer": "routing.calls",
    "first_stream": "routing.calls",
    "import_records": "importers.importing",
    "learn_from": "routing.tags",
    "load_name": "lazy_names",
    "load_profiles": "profiles",
    "load_scorer": "scoring.loading:load",
    "media_in": "routing.conversation",
    "modalities_of": "routing.conversation",
    "names_in_zoo": "routing.dispatch",
    "normalised": "texts",
    "observers_of": "routing.observing",
    "open_trial": "trial.opening",
    "own_exam": "aptitude.own_exam",
    "published_profiles": "importers.published",
    "read_decisions": "routing.decision_log",
    "role_of": "routing.conversation",
    "route_file": "bulk.job",
    "select_exam": "aptitude.exam_selection",
    "size_of": "routing.conversation",
    "tag_of": "routing.tags",
    "text_sha256": "texts",
    "train_compact": "training.compact.train",
    "train_model_sat": "training.model_sat.train",
    "train_on_records": "training.compact.run",
    "training_items": "training.holdout",
    "trial_from_log": "trial.shadow",
    "tune_encoder": "training.compact.encoder_tuning",
    "write_result": "trial.report",
    "write_shadow": "trial.shadow_report",
}

__all__ = [
    "MEDIUM_CHARS",
    "TAG",
    "TOP_SCORES",
    "AdaptiveOrder",
    "AptitudeTest",
    "ArtefactError",
    "Assessment",
    "Attempt",
    "Attempts",
    "Calibrated",
    "Candidate",
    "CapabilityProfile",
    "CompactScorer",
    "CompactSettings",
    "ConfigurationError",
    "Contender",
    "Cooldown",
    "DecisionLog",
    "DecisionRecord",
    "DecisionTelemetry",
    "DispatchError",
    "EmptyAnswerError",
    "Evaluation",
    "Exam",
    "ExamClient",
    "ExamError",
    "ExamPaper",
    "ExamRule",
    "ExamRun",
    "Fallback",
    "FeedbackError",
    "FeedbackLog",
    "FeedbackSource",
    "FunctionClient",
    "ImportOptions",
    "InstructionError",
    "Learner",
    "Modality",
    "ModelFacts",
    "ModelSATScorer",
    "MsatError",
    "NoCandidateError",
    "Objective",
    "Observer",
    "OpenAIClient",
    "Opened",
    "PolicyError",
    "Prices",
    "ProfileError",
    "Provenance",
    "Question",
    "QuestionSet",
    "Records",
    "RecordsError",
    "Reply",
    "RoutedFile",
    "Router",
    "RoutingAsk",
    "RoutingDecision",
    "RoutingPolicy",
    "RoutingRequest",
    "RunSettings",
    "Scorer",
    "Scores",
    "ShadowResult",
    "StageSettings",
    "Sticky",
    "TableScorer",
    "TaskResult",
    "TokenUsage",
    "TrainingSettings",
    "Trial",
    "TrialResult",
    "TuningSettings",
    "Turn",
    "TurnRole",
    "WeightedOutcome",
    "Zoo",
    "ZooError",
    "__version__",
    "afirst_answer",
    "afirst_stream",
    "believed",
    "common_abilities",
    "decide_all",
    "first_answer",
    "first_stream",
    "import_records",
    "learn_from",
    "load_name",
    "load_profiles",
    "load_scorer",
    "media_in",
    "modalities_of",
    "names_in_zoo",
    "normalised",
    "observers_of",
    "open_trial",
    "own_exam",
    "published_profiles",
    "read_decisions",
    "role_of",
    "route_file",
    "select_exam",
    "size_of",
    "tag_of",
    "text_sha256",
    "train_compact",
    "train_model_sat",
    "train_on_records",
    "training_items",
    "trial_from_log",
    "tune_encoder",
    "write_result",
    "write_shadow",
]


def _public(name: str) -> Any:  # noqa: ANN401 - any of the public names
    value = _version() if name == "__version__" else lazy_names.load_name(__name__, _HOME, name)
    globals()[name] = value
    return value


if not TYPE_CHECKING:  # a type checker would take any name for a public one
    __getattr__ = _public


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _version() -> str:
    """What is installed; the version is written down in pyproject.toml alone."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return "unknown (not installed)"
