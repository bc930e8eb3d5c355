"""The candidates that may be routed to, in order."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

from pydantic import ConfigDict, PrivateAttr, field_validator

from msat_core.candidates import Candidate
from msat_core.documents import Document, digest_of
from msat_core.errors import MsatError, ZooError, some_of
from msat_core.facts import PRICES, today
from msat_core.forking import Lock
from msat_core.price_library import library_facts
from msat_core.price_tables import read_price_table
from msat_core.profiles import CapabilityProfile

REPR_NAMES = 3  # candidates named in a zoo's repr


@dataclass(frozen=True)
class Change:
    """One fact that reading a source again has changed."""

    candidate: str
    field: str
    old: Any
    new: Any


class Zoo(Document):
    """An ordered set of candidates; its order is the order of score columns.

    ``add`` and ``remove`` may be called from any thread while others route: a route in progress
    keeps the candidates it started with.
    """

    kind: ClassVar[str] = "zoo"
    current_version: ClassVar[int] = 2
    error: ClassVar[type[MsatError]] = ZooError
    model_config = ConfigDict(frozen=False, extra="forbid", validate_assignment=True)

    candidates: tuple[Candidate, ...] = ()

    _lock: Lock = PrivateAttr(default_factory=Lock)
    _digested: tuple[tuple[Candidate, ...], str] | None = PrivateAttr(default=None)  # the digest, and whose it is

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

    @classmethod
    def _of_data(cls, data: Any, where: str) -> Zoo:  # noqa: ANN401 - any JSON value
        """Of a zoo file, also one of version 1, in which "text only" was written where nobody had said so."""
        if isinstance(data, dict) and data.get("kind") == cls.kind and repr(data.get("version")) == "1":
            content = {key: value for key, value in data.items() if key not in ("kind", "version", "digest")}
            if digest_of(content) != data.get("digest"):
                raise ZooError(f"{where} has been changed: its content does not match its digest. Make it again.")
            listed = content.get("candidates")
            for candidate in listed if isinstance(listed, list) else ():
                if isinstance(candidate, dict) and candidate.get("modalities") == ["text"]:
                    candidate["modalities"] = None
            data = {"kind": cls.kind, "version": 2, "digest": digest_of(content), **content}
        return super()._of_data(data, where)

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the content; computed again when a candidate has changed."""
        candidates, kept = self.candidates, self._digested
        if kept is None or kept[0] is not candidates:
            self._digested = kept = (candidates, super().digest)
        return kept[1]

    def _read_with(self, digest: str) -> None:
        self._digested = (self.candidates, digest)

    @property
    def names(self) -> tuple[str, ...]:
        """The candidates' names in order."""
        return tuple(candidate.name for candidate in self.candidates)

    def add(self, candidate: Candidate | CapabilityProfile, *, replace: bool = False) -> None:
        """Add a candidate at the end. Raises ZooError if its name or an alias is taken.

        Args:
            candidate: whom.
            replace: take the place of the candidate that has the name, if there is one.
        """
        new = candidate if isinstance(candidate, Candidate) else Candidate(profile=candidate)
        with self._lock:
            if replace and new.name in self.names:
                self._put(new)
            else:
                self.candidates = (*self.candidates, new)

    def set(self, name: str, **facts: Any) -> Candidate:  # noqa: ANN401 - facts of a candidate
        """State facts of a candidate yourself: they are believed before anybody else's; None forgets one.

        For example ``zoo.set("gpt-5-mini", usd_per_mtok_in=0.25, usd_per_mtok_out=2, context_window=400_000)``.

        Raises:
            ZooError: the candidate is not in the zoo, or a value cannot be.
            ConfigurationError: a name that is no fact.
        """
        with self._lock:
            changed = self[name].stated(facts, source="user", on=today())
            self._put(changed)
        return changed

    def set_all(self, table: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
        """State facts of many candidates yourself, all of them or, where one cannot be, none.

        Args:
            table: facts by a candidate's name or alias, as :func:`msat_core.price_tables.read_price_table` reads them.

        Returns:
            The table's names that no candidate has.

        Raises:
            ZooError: the table names none of the candidates, or a value cannot be.
        """
        on = today()
        with self._lock:
            if len(self) and not any(name in self for name in table):
                raise ZooError(f"None of {some_of(list(table))} is in the zoo, which holds {some_of(self.names)}.")
            changed = {c.name: c for c in self.candidates}
            for name, facts in table.items():
                if name in self:
                    main_name = self[name].name
                    changed[main_name] = changed[main_name].stated(facts, source="user", on=on)
            self.candidates = tuple(changed.values())
        return tuple(name for name in table if name not in self)

    def refresh(self, *, at: datetime) -> list[Change]:
        """Read the installed price library again, for every candidate that it knows, and say what has changed.

        What the user has stated stays.
        """
        changes = []
        for old in self.candidates:
            new = looked_up(old, at)
            changes += [
                Change(old.name, field, getattr(old, field), value)
                for field in (*PRICES, "context_window")
                if (value := getattr(new, field)) != getattr(old, field)
            ]
            with self._lock:
                if new != old and old in self.candidates:
                    self._put(new)
        return changes

    def _put(self, candidate: Candidate) -> None:
        self.candidates = tuple(candidate if c.name == candidate.name else c for c in self.candidates)

    def remove(self, name: str) -> Candidate:
        """Remove a candidate by name or alias and return it. Raises ZooError if there is none."""
        with self._lock:
            candidate = self[name]
            self.candidates = tuple(c for c in self.candidates if c.name != candidate.name)
        return candidate

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
        super().__setstate__({**state, "__pydantic_private__": {"_digest": None, "_digested": None, "_lock": Lock()}})

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

    def hint(self, name: str) -> str:
        """For a sentence about a name that nobody has: whose it may have been meant to be, whatever its case."""
        names = [n for c in self.candidates for n in (c.name, *c.aliases)]
        folded = {n.lower(): n for n in names}
        near = [folded[n] for n in difflib.get_close_matches(f"{name:.100}".lower(), folded, n=3, cutoff=0.4)]
        return f"did you mean {' or '.join(near)}?" if near else f"it holds {some_of(self.names) or 'nothing'}."

    def _unknown(self, name: str) -> str:
        return (
            f"The zoo has no candidate {name!r:.100}; {self.hint(str(name))} To add it, give it a profile (let it sit "
            "the exam: `msat profile run`; or put its published scores on the scale: `msat profile from-scores`), then "
            "`msat zoo add` or Zoo.add(Candidate(profile=…))."
        )


def looked_up(candidate: Candidate, at: datetime) -> Candidate:
    """The candidate with what the price library says of it now, found where it was before, or by its names."""
    tariff = candidate.tariff
    places = [(tariff.model, tariff.provider)] if tariff else [(n, None) for n in (candidate.name, *candidate.aliases)]
    for name, provider in places:
        if (entry := library_facts(name, provider=provider, at=at)) is not None:
            return candidate.stated(
                entry.values,
                source="library",
                on=at.date().isoformat(),
                note=entry.note,
                notes=entry.notes,
                tariff=entry.tariff,
            )
    return candidate


def priced_zoo(profiles: Iterable[CapabilityProfile], prices: str | Path | None = None) -> Zoo:
    """A zoo of the profiles, with the prices of a table (see :func:`msat_core.price_tables.read_price_table`).

    A candidate that the table lacks has no price. Raises ConfigurationError if the table cannot be read.
    """
    if prices is None:
        return Zoo.of(profiles)
    rows = {name: {k: v for k, v in row.items() if k in PRICES} for name, row in read_price_table(prices).items()}
    return Zoo.of(
        Candidate(profile=profile).stated(rows.get(profile.candidate, {}), source="user", on=today(), note=str(prices))
        for profile in profiles
    )
