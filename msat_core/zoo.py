"""The candidates that may be routed to: their profiles, prices and limits."""

from __future__ import annotations

import difflib
import json
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, field_validator

from msat_core.documents import Document, StringSet
from msat_core.errors import ConfigurationError, MsatError, ZooError
from msat_core.profiles import CapabilityProfile

Modality = Literal["text", "image", "audio", "video", "file"]

CHARS_PER_TOKEN = 4.0  # rule of thumb for English text, also used by `msat evaluate`
REPR_NAMES = 3  # candidates named in a zoo's repr
DEFAULT_OUTPUT_TOKENS = 250.0  # where a profile does not know how long the candidate's answers are


class Candidate(BaseModel):
    """An LLM that may be routed to.

    Attributes:
        profile: its exam result; the candidate's name is the profile's.
        aliases: other names it is known by (deployment names, dated versions).
        usd_per_mtok_in, usd_per_mtok_out: price per million tokens in USD; None if unknown.
        context_window: tokens it can take in all; None if unknown (then never excluded by length).
        modalities: what it accepts beside text.
        tools: whether it can call tools; None if unknown (then never excluded for it).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    profile: CapabilityProfile
    aliases: tuple[str, ...] = ()
    usd_per_mtok_in: float | None = Field(default=None, ge=0)
    usd_per_mtok_out: float | None = Field(default=None, ge=0)
    context_window: int | None = Field(default=None, gt=0)
    modalities: StringSet[Modality] = frozenset({"text"})
    tools: bool | None = None

    @property
    def name(self) -> str:
        """The candidate's name."""
        return self.profile.candidate

    def __repr__(self) -> str:
        return f"Candidate({self.name!r}, {self.profile.n_shots} shots, accuracy {self.profile.accuracy:.3f})"

    __str__ = __repr__

    def cost_usd(self, instruction_chars: int) -> float | None:
        """Expected price of one call in USD; None where the price is unknown.

        Instruction characters / 4 × input price + mean output characters / 4 × output price.
        """
        if self.usd_per_mtok_in is None or self.usd_per_mtok_out is None:
            return None
        output_chars = self.profile.mean_output_chars
        output_tokens = DEFAULT_OUTPUT_TOKENS if output_chars is None else output_chars / CHARS_PER_TOKEN
        input_tokens = instruction_chars / CHARS_PER_TOKEN
        return (input_tokens * self.usd_per_mtok_in + output_tokens * self.usd_per_mtok_out) / 1e6


class Zoo(Document):
    """An ordered set of candidates; its order is the order of score columns.

    ``add`` and ``remove`` may be called from any thread while others route: a route in progress
    keeps the candidates it started with.
    """

    kind: ClassVar[str] = "zoo"
    error: ClassVar[type[MsatError]] = ZooError
    model_config = ConfigDict(frozen=False, extra="forbid", validate_assignment=True)

    candidates: tuple[Candidate, ...] = ()

    _lock: threading.Lock = PrivateAttr(default_factory=threading.Lock)

    @field_validator("candidates")
    @classmethod
    def _unique(cls, candidates: tuple[Candidate, ...]) -> tuple[Candidate, ...]:
        seen: dict[str, str] = {}
        for candidate in candidates:
            for name in {candidate.name, *candidate.aliases}:
                if name in seen:
                    raise ZooError(
                        f"Two candidates of the zoo are called {name!r}: names and aliases must differ; "
                        "rename one profile or remove the other."
                    )
                seen[name] = candidate.name
        return candidates

    @classmethod
    def of(cls, candidates: Iterable[Candidate | CapabilityProfile]) -> Zoo:
        """A zoo of candidates, or of bare profiles without prices and limits."""
        return cls(candidates=tuple(c if isinstance(c, Candidate) else Candidate(profile=c) for c in candidates))

    @property
    def names(self) -> tuple[str, ...]:
        """The candidates' names in order."""
        return tuple(candidate.name for candidate in self.candidates)

    def add(self, candidate: Candidate | CapabilityProfile) -> None:
        """Add a candidate at the end. Raises ZooError if its name or an alias is taken."""
        new = candidate if isinstance(candidate, Candidate) else Candidate(profile=candidate)
        with self._lock:
            self.candidates = (*self.candidates, new)

    def remove(self, name: str) -> Candidate:
        """Remove a candidate by name or alias and return it. Raises ZooError if there is none."""
        with self._lock:
            found = self[name]
            self.candidates = tuple(c for c in self.candidates if c.name != found.name)
        return found

    def subset(self, names: Iterable[str]) -> Zoo:
        """A new zoo of the named candidates, in the given order. Raises ZooError for an unknown name."""
        return Zoo(candidates=tuple(self[name] for name in names))

    __hash__ = None  # type: ignore[assignment]  # candidates come and go: a hash of them would lose the zoo in a set

    def __repr__(self) -> str:
        few = ", ".join(self.names[:REPR_NAMES])
        return f"Zoo({len(self)} candidates: {few or 'none'}{', …' if len(self) > REPR_NAMES else ''})"

    __str__ = __repr__

    def __getstate__(self) -> dict[Any, Any]:
        """For another process, or a copy: the lock stays here."""
        state = super().__getstate__()
        return {**state, "__pydantic_private__": {"_digest": None}}

    def __setstate__(self, state: dict[Any, Any]) -> None:
        super().__setstate__({**state, "__pydantic_private__": {"_digest": None, "_lock": threading.Lock()}})

    def __copy__(self) -> Zoo:
        return Zoo(candidates=self.candidates)

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Zoo:
        return Zoo(candidates=self.candidates)  # candidates cannot change

    def __getitem__(self, name: str) -> Candidate:
        for candidate in self.candidates:
            if name == candidate.name or name in candidate.aliases:
                return candidate
        raise ZooError(self._unknown(name))

    def __contains__(self, name: object) -> bool:
        return any(name == c.name or name in c.aliases for c in self.candidates)

    def __len__(self) -> int:
        return len(self.candidates)

    def __iter__(self) -> Iterator[Candidate]:  # type: ignore[override]  # pydantic iterates fields; a zoo is its candidates
        return iter(self.candidates)

    def _unknown(self, name: str) -> str:
        known = [n for c in self.candidates for n in (c.name, *c.aliases)]
        folded = {n.lower(): n for n in known}
        near = [folded[n] for n in difflib.get_close_matches(name.lower(), folded, n=3, cutoff=0.4)]
        hint = f"did you mean {' or '.join(near)}?" if near else f"it holds {', '.join(known) or 'nothing'}."
        return (
            f"The zoo has no candidate {name!r}; {hint} To add it, give it a profile: "
            "`msat profile from-records` or Zoo.add(Candidate(profile=…))."
        )


def priced_zoo(profiles: Iterable[CapabilityProfile], prices: str | Path | None = None) -> Zoo:
    """A zoo of the profiles, with the prices of a JSON list of model, usd_per_mtok_in and usd_per_mtok_out.

    A candidate that the list lacks has no price. Raises ConfigurationError if the list cannot be read.
    """
    if prices is None:
        return Zoo.of(profiles)
    try:
        rows = {row["model"]: row for row in json.loads(Path(prices).read_text(encoding="utf-8"))}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigurationError(
            f"{prices} cannot be read ({error}): expected a JSON list of objects with model, usd_per_mtok_in and "
            "usd_per_mtok_out."
        ) from None
    return Zoo.of(
        Candidate(
            profile=profile,
            **{k: rows.get(profile.candidate, {}).get(k) for k in ("usd_per_mtok_in", "usd_per_mtok_out")},
        )
        for profile in profiles
    )
