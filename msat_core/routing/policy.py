"""What the user wants of a choice: data only."""

from __future__ import annotations

import difflib
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from msat_core.candidates import Candidate
from msat_core.documents import Document, StringSet
from msat_core.errors import MsatError, PolicyError
from msat_core.reading import parse_json, parse_yaml
from msat_core.zoo import Zoo

Objective = Literal["quality", "value", "target"]

DEFAULT_MARGIN = 0.05  # measured: examples/reproduce/LOG.md, "Leaving the best by exam"

_OF_A_FILE = ("kind", "version", "digest")  # what policy files of earlier versions hold beside the settings


class CalibratedFor(BaseModel):
    """What a calibrated policy's guarantee was found with, and holds for.

    Attributes:
        threshold: the policy's target that was found.
        accuracy, confidence: what is guaranteed.
        n_items: that it was calibrated on.
        profiles: digest of each candidate's profile, by name.
        prices: USD per million input and output tokens, by name; null where unknown.
        scorer: its digest.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    threshold: float
    accuracy: float
    confidence: float
    n_items: int
    profiles: dict[str, str]
    prices: dict[str, tuple[float | None, float | None]]
    scorer: str

    def differences(self, candidates: Sequence[Candidate], scorer: str) -> list[str]:
        """In words, what is not as it was at calibration: candidates, their profiles or prices, the scorer."""
        by_name = {candidate.name: candidate for candidate in candidates}
        both = [name for name in self.profiles if name in by_name]
        parts = {
            "missing": [name for name in self.profiles if name not in by_name],
            "new": [name for name in by_name if name not in self.profiles],
            "of another profile": [n for n in both if by_name[n].profile.digest != self.profiles[n]],
            "of another price": [n for n in both if prices_of(by_name[n]) != self.prices.get(n)],
        }
        said = {how: ", ".join(names) + (" is" if len(names) == 1 else " are") for how, names in parts.items() if names}
        differences = [f"{who} {how}" for how, who in said.items()]
        return [*differences, *(["the scorer is another one"] if scorer != self.scorer else [])]


def prices_of(candidate: Candidate) -> tuple[float | None, float | None]:
    """What a calibrated policy notes of a candidate's price."""
    return candidate.usd_per_mtok_in, candidate.usd_per_mtok_out


class RoutingPolicy(Document):
    """What the user wants of a choice. Written by hand in JSON or YAML, as a mapping of these fields.

    Attributes:
        objective: ``quality`` takes the highest score; ``value`` the highest score − usd_weight ×
            expected cost; ``target`` the cheapest candidate whose score reaches ``target``, or the
            highest score where none does.
        usd_weight: λ, the score given up to save one USD per call; ``value`` needs it. 200 means that one point
            of P(correct) is worth 0.05 USD per 1,000 calls.
        target: the score that is good enough, in [0, 1].
        margin: of ``quality``: how sure another candidate's lead must be before the best by exam is left for it, in
            standard deviations of the difference of their logits; 0 for the highest score in any case. Scores without
            a deviation (another scorer's) have no margin.
        max_usd: price cap on the expected cost of one call, in USD.
        unpriced: what ``value``, ``target`` and ``max_usd`` do with a candidate of unknown price: ``exclude`` it,
            or ``allow`` it behind all others. Nobody of unknown price is taken for cheap.
        unknown_modalities: what happens to candidates of which nobody knows whether they take an image, a file or
            whatever else the input holds: they come ``last``, or are left out (``exclude``).
        allow: names that may be chosen; None for all.
        deny: names that may not.
        default: chosen where no candidate is within the limits. It is the user's own exception: the
            limits do not bind it. Without it such a call raises NoCandidateError.
        observe: shadow mode: the one candidate that is served whatever the choice is, which is only noted
            (:attr:`RoutingDecision.recommended`). No limit binds it, and nobody steps in for it.
        explore: probability with which another candidate within the limits is served, each as likely, so that a
            log of decisions says what they would do; see :mod:`msat_core.routing.exploration`.
        explore_seed: of that chance; the same instruction and seed have the same fate.
        calibrated_for: where ``target`` comes with a guarantee: what that holds for.
    """

    kind: ClassVar[str] = "routing-policy"
    error: ClassVar[type[MsatError]] = PolicyError

    objective: Objective = "quality"
    usd_weight: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    target: float = Field(default=0.8, ge=0, le=1)
    margin: float = Field(default=DEFAULT_MARGIN, ge=0, allow_inf_nan=False)
    max_usd: float | None = Field(default=None, ge=0)
    unpriced: Literal["exclude", "allow"] = "exclude"
    unknown_modalities: Literal["last", "exclude"] = "last"
    allow: StringSet[str] | None = None
    deny: StringSet[str] = frozenset()
    default: str | None = None
    observe: str | None = None
    explore: float = Field(default=0.0, ge=0, le=1)
    explore_seed: int = 0
    calibrated_for: CalibratedFor | None = None

    @model_validator(mode="before")
    @classmethod
    def _no_unknown_setting(cls, data: Any) -> Any:  # noqa: ANN401 - whatever was given
        for name in data if isinstance(data, Mapping) else ():
            if name not in cls.model_fields:
                near = difflib.get_close_matches(str(name), cls.model_fields, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(cls.model_fields)}."
                raise PolicyError(f"A routing policy has no setting {name!r}; {hint}")
        return data

    @field_validator("allow", "deny", mode="before")
    @classmethod
    def _names(cls, value: Any) -> Any:  # noqa: ANN401 - whatever was given
        if isinstance(value, (str, bytes, Mapping)):
            raise ValueError(f"expected a list of names, got {value!r:.60}")
        return value

    @field_validator("usd_weight", "target", "margin", "max_usd", "explore", "explore_seed", mode="before")
    @classmethod
    def _number(cls, value: Any) -> Any:  # noqa: ANN401 - whatever was given
        if isinstance(value, bool):
            raise ValueError(f"expected a number, got {value}")
        return value

    @field_validator("max_usd")
    @classmethod
    def _no_cap(cls, value: float | None) -> float | None:
        return None if value == float("inf") else value  # which caps nothing, and JSON cannot say

    @model_validator(mode="after")
    def _weight_has_effect(self) -> RoutingPolicy:
        if self.usd_weight and self.objective != "value":
            raise ValueError(
                f"usd_weight {self.usd_weight} has no effect on objective {self.objective!r}: "
                "use objective='value', or leave it out"
            )
        if self.objective == "value" and not self.usd_weight:
            raise ValueError(
                "objective 'value' needs usd_weight, the score given up to save one USD per call: 200 makes one "
                "point worth 0.05 USD per 1,000 calls"
            )
        return self

    @property
    def exchange_rate(self) -> str:
        """What ``value`` pays for quality, in words; empty for other objectives."""
        if self.objective != "value":
            return ""
        return f"one point is worth {10 / self.usd_weight:.3g} USD per 1,000 calls"

    @property
    def needs_prices(self) -> bool:
        """Whether a candidate of unknown price cannot be judged; an infinite cap caps nothing."""
        return self.objective in ("value", "target") or (self.max_usd is not None and self.max_usd != float("inf"))

    @classmethod
    def of(cls, given: RoutingPolicy | Mapping[str, Any] | str | Path | None) -> RoutingPolicy:
        """A policy from what a user may give: one, its settings as a mapping, a file of them, or None for the default.

        Raises:
            PolicyError: a setting that does not exist or cannot be.
        """
        if given is None:
            return cls()
        if isinstance(given, cls):
            return given
        if isinstance(given, Mapping):
            return cls(**{str(key): value for key, value in given.items()})
        if isinstance(given, (str, Path)):
            return cls.load(given)
        raise PolicyError(
            f"Expected a routing policy, a mapping of its settings or a file, got {type(given).__name__}."
        )

    @classmethod
    def of_call(cls, given: object) -> RoutingPolicy:
        """A policy that came with a call: one, or a mapping of its settings. A call names no file to read.

        Raises:
            PolicyError: neither, or a setting that does not exist or cannot be.
        """
        if not isinstance(given, (cls, Mapping)):
            raise PolicyError(f"A call's policy is a RoutingPolicy or a mapping of its settings, got {given!r:.60}.")
        return cls.of(given)

    def to_json(self) -> str:
        """The settings that differ from the default, as JSON."""
        return json.dumps(self.model_dump(mode="json", exclude_defaults=True), indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str, *, where: str = "the given text") -> RoutingPolicy:
        """Read settings written in JSON or YAML, by hand or by any version of msat.

        Raises:
            PolicyError: neither, or a setting that does not exist or cannot be.
        """
        try:
            data = parse_json(text) if text.lstrip().startswith("{") else parse_yaml(text)
        except ValueError as error:
            raise PolicyError(f"{where} is neither JSON nor YAML ({error}): expected a policy's settings.") from None
        if not isinstance(data, dict) or data.get("kind", cls.kind) != cls.kind:
            content = type(data).__name__ if not isinstance(data, dict) else repr(data["kind"])
            raise PolicyError(
                f"{where} holds {content}, expected a policy's settings, such as "
                '{"objective": "target", "target": 0.7}.'
            )
        try:
            return cls.of({key: value for key, value in data.items() if key not in _OF_A_FILE})
        except PolicyError as error:
            raise PolicyError(f"{where}: {error}") from None

    def differences(self, candidates: Sequence[Candidate], scorer: str) -> list[str]:
        """In words, why a calibrated policy's guarantee does not hold here; empty where it does or there is none."""
        calibrated = self.calibrated_for
        if calibrated is None:
            return []
        differences = calibrated.differences(candidates, scorer)
        if self.objective != "target" or self.target != calibrated.threshold:
            differences.append("the threshold is another one")
        limits = self.max_usd is not None or self.allow is not None or self.deny or self.unpriced == "allow"
        chance = self.explore and self.observe is None  # an observed candidate is served without a guarantee anyway
        return [*differences, *(["there are limits"] if limits else []), *(["others are explored"] if chance else [])]

    def within(self, limits: RoutingPolicy) -> RoutingPolicy:
        """This policy with the other's limits too: how to choose is this one's, who may be chosen is both's.

        The default, which no limit binds, is the other's, and so is who is served instead of the choice.
        """
        caps = [cap for cap in (self.max_usd, limits.max_usd) if cap is not None]
        lists = [names for names in (self.allow, limits.allow) if names is not None]
        return self.changed(
            max_usd=min(caps, default=None),
            allow=frozenset.intersection(*lists) if lists else None,
            deny=self.deny | limits.deny,
            unpriced="exclude" if "exclude" in (self.unpriced, limits.unpriced) else "allow",
            unknown_modalities="exclude"
            if "exclude" in (self.unknown_modalities, limits.unknown_modalities)
            else "last",
            default=limits.default,
            observe=limits.observe,
            explore=limits.explore,
            explore_seed=limits.explore_seed,
        )

    @property
    def of_limits(self) -> RoutingPolicy:
        """This policy without observation and exploration: who is within its limits."""
        served = self.observe is not None or self.explore
        return self.changed(observe=None, explore=0.0) if served else self

    def check_names(self, zoo: Zoo, known: Collection[str] = ()) -> None:
        """Raise PolicyError where ``allow``, ``deny``, ``default`` or ``observe`` names nobody.

        Args:
            zoo: who may be named.
            known: names that are right although the zoo has none such now.
        """
        single = {"default": self.default, "observe": self.observe}
        named = {setting: [] if name is None else [name] for setting, name in single.items()}
        for setting, names in {"allow": self.allow or (), "deny": self.deny, **named}.items():
            for name in sorted(names):
                if name not in known and name not in zoo:
                    raise PolicyError(
                        f"The policy's {setting} names {name!r:.100}, which the zoo has not; {zoo.hint(name)}"
                    )

    def check(self, candidates: Sequence[Candidate], scorer: str) -> None:
        """Raise PolicyError where a calibrated policy's guarantee does not hold for these candidates and scorer."""
        if differences := self.differences(candidates, scorer):
            raise PolicyError(
                f"This policy was calibrated for something else: {'; '.join(differences)}. Calibrate again with "
                "`msat calibrate`, use the zoo and scorer that it was calibrated for, or remove calibrated_for to use "
                "the threshold without its guarantee."
            )
