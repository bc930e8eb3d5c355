"""Capability profiles: what a candidate got right in an exam, as data."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from msat_core.documents import Document
from msat_core.errors import ArtefactError, MsatError, ProfileError
from msat_core.files import file_stem

SHOWN_KEYWORDS = 3  # of a task, in a sentence for people
Z_95 = 1.959963984540054  # the normal quantile of a two-sided 95% interval
PUBLISHED = "published"  # the protocol of results that nobody sat for: expected from published scores
UNKNOWN_PROTOCOL = "unknown"  # of results of which nobody says how the questions were asked


class Interval(BaseModel):
    """A confidence interval of a proportion, both ends in [0, 1]."""

    model_config = ConfigDict(frozen=True)

    low: float
    high: float


class TaskResult(BaseModel):
    """A candidate's result in one task of an exam.

    Attributes:
        task: the task's name.
        keywords: up to five words that say what the task is about.
        n_shots: questions asked (a *shot* is one scored exam question, not an in-context example).
        n_correct: sum of the shots' scores in [0, 1]; fractional where grades are soft.
        shots: score of each shot by its item id; empty if only the counts are known.
        mean_output_tokens: of an answer, as the endpoint counted them, hidden thinking included; None if it did not.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str = Field(min_length=1)
    keywords: tuple[str, ...] = ()
    n_shots: int = Field(ge=0)
    n_correct: float = Field(ge=0)
    shots: Mapping[str, float] = Field(default_factory=dict)
    mean_output_tokens: float | None = Field(default=None, ge=0)

    @model_serializer(mode="wrap")
    def _without_what_is_absent(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave uncounted tokens out, so that profiles made before they were counted keep their digests."""
        data: dict[str, Any] = plain(self)
        return {key: value for key, value in data.items() if value is not None or key != "mean_output_tokens"}

    @model_validator(mode="after")
    def _consistent(self) -> TaskResult:
        if self.n_correct > self.n_shots + 1e-6:
            raise ValueError(f"task {self.task!r}: n_correct {self.n_correct} exceeds n_shots {self.n_shots}")
        if self.shots:
            if len(self.shots) != self.n_shots or abs(sum(self.shots.values()) - self.n_correct) > 1e-3:
                raise ValueError(f"task {self.task!r}: the shots do not add up to n_shots and n_correct")
            if any(not 0 <= score <= 1 for score in self.shots.values()):
                raise ValueError(f"task {self.task!r}: a shot's score lies outside [0, 1]")
        return self

    @property
    def accuracy(self) -> float:
        """Share of right answers; NaN where nothing was asked."""
        return self.n_correct / self.n_shots if self.n_shots else math.nan

    @property
    def interval(self) -> Interval:
        """95% Wilson interval of the accuracy."""
        return wilson_interval(self.n_correct, self.n_shots)

    @property
    def about(self) -> str:
        """What the task is about, for people: its first keywords, else the last part of its name in words."""
        return ", ".join(self.keywords[:SHOWN_KEYWORDS]) or re.sub(r"[\W_]+", " ", self.task.rpartition("/")[2]).strip()

    @property
    def clause(self) -> str:
        """The result in words, after Model-SAT (AAAI 2025)."""
        about = f" ({', '.join(self.keywords)})" if self.keywords else ""
        return f"The model achieves accuracy {self.accuracy:.0%} on the task {self.task}{about}."


class Sitting(BaseModel):
    """How an exam was sat at a live endpoint.

    Attributes:
        questions: where the questions came from, with the revision where there is one.
        questions_sha256: of everything that was asked, so that two profiles can be told to be comparable.
        protocol_version: of the provenance's protocol.
        settings: what else decided the answers (temperature, most output tokens).
        order: ``"spread"`` over the tasks, or ``"adaptive"``: by expected information, where the plain
            accuracy is that of the questions chosen and not of the exam.
        n_rotations: the circle test: a question counts as right only if it was got right at every rotation.
        n_planned: questions of the exam that were to be asked; None where it was left open (adaptive).
        n_unreadable: questions counted as wrong because a reply stated no answer.
        n_cut, n_refused, n_empty: because it was cut short, declined, or held not a word.
        n_inconsistent: questions counted as wrong because a rotated asking went wrong.
        input_tokens, output_tokens, usd: what it took; tokens are estimated where the endpoint does not
            count them, and usd is None where no price was given.
        warnings: what a reader of the profile should know.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    questions: str
    questions_sha256: str
    protocol_version: int
    settings: Mapping[str, str | int | float | bool | None] = Field(default_factory=dict)
    order: Literal["spread", "adaptive"] = "spread"
    n_rotations: int = Field(default=0, ge=0)
    n_planned: int | None = Field(default=None, ge=0)
    n_unreadable: int = Field(default=0, ge=0)
    n_cut: int = Field(default=0, ge=0)
    n_refused: int = Field(default=0, ge=0)
    n_empty: int = Field(default=0, ge=0)
    n_inconsistent: int = Field(default=0, ge=0)
    input_tokens: int = Field(default=0, ge=0)
    output_tokens: int = Field(default=0, ge=0)
    usd: float | None = Field(default=None, ge=0)
    warnings: tuple[str, ...] = ()

    @model_serializer(mode="wrap")
    def _without_what_did_not_happen(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave counts of 0 out that older profiles do not have, so that those keep their digests."""
        data: dict[str, Any] = plain(self)
        return {key: value for key, value in data.items() if value or key not in ("n_cut", "n_refused", "n_empty")}


class Provenance(BaseModel):
    """Where a profile's outcomes come from.

    Attributes:
        source: what produced the outcomes, for example ``"records"`` or an endpoint's address.
        protocol: how the questions were asked, for example ``"five-shot-cot"``.
        coarse: the exam is much smaller or narrower than the shipped one; its scores are wider.
        created: ISO date, or empty.
        borrowed_from: the candidate whose results stand in, where this one has none yet; else empty.
        sitting: how the exam was sat; None where the outcomes were not got by asking.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    protocol: str = UNKNOWN_PROTOCOL
    coarse: bool = False
    created: str = ""
    borrowed_from: str = ""
    sitting: Sitting | None = None

    @property
    def is_expected(self) -> bool:
        """Whether the results are expectations from published scores, and not answers that were marked."""
        return self.protocol == PUBLISHED

    @model_serializer(mode="wrap")
    def _without_what_is_absent(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what is absent, so that profiles made before there were such fields keep their digests."""
        data: dict[str, Any] = plain(self)
        return {key: value for key, value in data.items() if value or key not in ("sitting", "borrowed_from")}


class CapabilityProfile(Document):
    """What one candidate LLM can do, measured by one exam.

    Attributes:
        candidate: the LLM's name.
        exam_digest: digest of the exam that was sat; empty if it is not an msat exam.
        results: one result per task, in the exam's order.
        provenance: where the outcomes come from.
        mean_output_chars: mean length of its answers in characters, if known (used for cost).
        notes: free text (languages, modalities, known strengths); rendered, never scored by the
            compact scorer.
    """

    kind: ClassVar[str] = "capability-profile"
    error: ClassVar[type[MsatError]] = ProfileError

    candidate: str = Field(min_length=1)
    exam_digest: str = ""
    results: tuple[TaskResult, ...]
    provenance: Provenance
    mean_output_chars: float | None = Field(default=None, ge=0)
    notes: str = ""

    @model_validator(mode="after")
    def _has_evidence(self) -> CapabilityProfile:
        names = [result.task for result in self.results]
        if len(set(names)) != len(names):
            raise ValueError(f"profile of {self.candidate!r}: a task is listed twice")
        if not any(result.n_shots for result in self.results):
            raise ValueError(f"profile of {self.candidate!r}: no exam question was answered")
        return self

    @property
    def n_shots(self) -> int:
        """Exam questions asked in all."""
        return sum(result.n_shots for result in self.results)

    @property
    def accuracy(self) -> float:
        """Share of right answers over the whole exam: the candidate's aptitude."""
        return sum(result.n_correct for result in self.results) / self.n_shots

    @property
    def interval(self) -> Interval:
        """95% Wilson interval of the accuracy."""
        return wilson_interval(sum(result.n_correct for result in self.results), self.n_shots)

    @property
    def shots(self) -> dict[str, float]:
        """Score of every shot by item id, over all tasks."""
        return {item: score for result in self.results for item, score in result.shots.items()}

    @cached_property
    def output_tokens(self) -> dict[str, float]:
        """Mean tokens of an answer by task, where the endpoint counted them."""
        return {r.task: r.mean_output_tokens for r in self.results if r.mean_output_tokens is not None}

    @cached_property
    def mean_output_tokens(self) -> float | None:
        """Mean tokens of an answer over the whole exam; None where none were counted."""
        counted = [(r.n_shots, r.mean_output_tokens) for r in self.results if r.mean_output_tokens is not None]
        n_shots = sum(n for n, _ in counted)
        return sum(n * tokens for n, tokens in counted) / n_shots if n_shots else None

    def __repr__(self) -> str:
        return f"CapabilityProfile({self.candidate!r}, {len(self.results)} tasks, {self.n_shots} shots)"

    __str__ = __repr__

    def to_text(self) -> str:
        """The capability representation in words, one line a task, as in Model-SAT (AAAI 2025)."""
        lines = [result.clause for result in self.results if result.n_shots]
        return "\n".join([*lines, self.notes] if self.notes else lines)


def wilson_interval(n_correct: float, n_shots: int, z: float = Z_95) -> Interval:
    """Wilson's score interval of a proportion (Wilson 1927); [0, 1] where nothing was asked."""
    if n_shots == 0:
        return Interval(low=0.0, high=1.0)
    share = n_correct / n_shots
    centre = (share + z * z / (2 * n_shots)) / (1 + z * z / n_shots)
    half = z / (1 + z * z / n_shots) * math.sqrt(share * (1 - share) / n_shots + z * z / (4 * n_shots**2))
    return Interval(low=max(0.0, centre - half), high=min(1.0, centre + half))


def profile_file(folder: str | Path, candidate: str) -> Path:
    """Where a candidate's profile is kept in a folder of profiles."""
    return Path(folder) / f"{file_stem(candidate)}.json"


def load_profiles(folder: str | Path, names: Sequence[str] = ()) -> list[CapabilityProfile]:
    """The named profiles of a folder, in that order, or all of them, by file name, if none is named.

    Raises:
        ArtefactError: there is no such folder, no profile in it, or none of a name.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ArtefactError(f"{folder} is not a folder: expected one with profiles, as `msat profile` writes.")
    profiles = {profile.candidate: profile for profile in map(CapabilityProfile.load, sorted(folder.glob("*.json")))}
    missing = [name for name in names if name not in profiles]
    if missing or not profiles:
        raise ArtefactError(
            f"{folder} holds {'no profile of ' + repr(missing[0]) if missing else 'no profile'}; "
            f"it has {', '.join(profiles) or 'none'}: make it with `msat profile from-records`."
        )
    return [profiles[name] for name in names] if names else list(profiles.values())
