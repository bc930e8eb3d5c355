"""Who takes part in a trial: endpoints listed in a file, or clients of the caller's own."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from msat_core.aptitude.clients import ExamClient
from msat_core.aptitude.openai_client import client_named
from msat_core.aptitude.paper import Prices
from msat_core.candidates import Candidate
from msat_core.errors import ConfigurationError
from msat_core.facts import today
from msat_core.price_library import LibraryFacts, library_facts
from msat_core.profiles import CapabilityProfile
from msat_core.reading import parse_yaml, read_json, read_rows, read_text


class CandidateLine(BaseModel):
    """One entry of a file of candidates.

    Attributes:
        name: in the zoo; empty: the client's, with its effort.
        client: ``openai:NAME`` of any OpenAI-compatible endpoint; empty where the questions hold every outcome of it.
        base_url: the endpoint; None for OpenAI's own.
        api_key_env: name of the environment variable that holds the key; never the key itself.
        effort: reasoning effort; a model at two efforts is two candidates.
        temperature, max_tokens: None: 0 where the endpoint takes it, and a limit that leaves room for thinking.
        usd_per_mtok_in, usd_per_mtok_out: prices; None: what the price library knows.
        priced_as: its name there, with who sells it; empty: the client, where it is OpenAI's own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = ""
    client: str = ""
    base_url: str | None = None
    api_key_env: str | None = None
    effort: str | None = None
    temperature: float | None = Field(default=0.0, ge=0)
    max_tokens: int | None = Field(default=None, gt=0)
    usd_per_mtok_in: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    usd_per_mtok_out: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    priced_as: str = ""

    def contender(self, *, keys: bool = True) -> Contender:
        """What it says. Raises ConfigurationError if its key is not set, unless no keys are wanted."""
        facts = {name: getattr(self, name) for name in ("usd_per_mtok_in", "usd_per_mtok_out")}
        stated = {name: value for name, value in facts.items() if value is not None}
        model_name = self.client if self.base_url is None and self.client else None
        client = self.sitter(keys=keys) if self.client else None
        return Contender.of(client, self.name or None, priced_as=self.priced_as or model_name, **stated)

    def sitter(self, *, keys: bool = True) -> ExamClient:
        """The client that asks it. Raises ConfigurationError if its key is not set; without keys it can ask nobody."""
        key = None if keys else NO_KEY
        if keys and self.api_key_env:
            key = os.environ.get(self.api_key_env)
            if not key:
                raise ConfigurationError(f"{self.client}: the environment variable {self.api_key_env} holds no key.")
        return client_named(
            self.client,
            base_url=self.base_url,
            api_key=key,
            candidate=self.name or None,
            temperature=self.temperature,
            max_output_tokens=self.max_tokens,
            effort=self.effort,
        )


NO_KEY = "none"  # in a client's key's place, where nobody is asked


@dataclass(frozen=True)
class Contender:
    """A candidate in a trial.

    Attributes:
        client: who answers; None where every outcome is known already.
        name: in the zoo.
        facts: what the user states of it (prices, window, modalities), by :class:`Candidate`'s fields.
        library: what the price library knows of it; None where it does not know it, or nobody says who sells it.
    """

    client: ExamClient | None
    name: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    library: LibraryFacts | None = None

    @classmethod
    def of(
        cls,
        client: ExamClient | None,
        name: str | None = None,
        *,
        priced_as: str | None = None,
        **facts: Any,  # noqa: ANN401 - of Candidate
    ) -> Contender:
        """A contender by its client.

        Args:
            client: who answers; None where the questions hold every outcome of it.
            name: None for the client's.
            priced_as: its name in the price library, with who sells it: ``openai:gpt-5-mini``.
            **facts: what is known of it; comes before what the library says.

        Raises:
            ConfigurationError: there is neither a client nor a name.
        """
        label = name or (client.candidate if client is not None else None)
        if not label:
            raise ConfigurationError("A candidate needs a client, or the name of one whose outcomes are recorded.")
        library = None if priced_as is None else library_facts(priced_as, at=datetime.now(timezone.utc))
        return cls(client, label, facts, library)

    @property
    def prices(self) -> Prices:
        """USD per million tokens."""
        facts = {**(self.library.values if self.library is not None else {}), **self.facts}
        return Prices(facts.get("usd_per_mtok_in"), facts.get("usd_per_mtok_out"))

    def candidate(self, profile: CapabilityProfile) -> Candidate:
        """The zoo's entry, each fact with its source."""
        candidate = Candidate(profile=profile)
        if self.facts:
            candidate = candidate.stated(self.facts, source="user", on=today())
        if (entry := self.library) is not None:
            candidate = candidate.stated(
                entry.values, source="library", on=today(), note=entry.note, notes=entry.notes, tariff=entry.tariff
            )
        return candidate


def read_candidates(path: str | Path, *, keys: bool = True) -> list[Contender]:
    """The candidates of a file: a list in JSON or YAML, lines of JSON, or a CSV table; see :class:`CandidateLine`.

    Args:
        path: of the file.
        keys: whether the keys that it names must be set; a plan asks nobody.

    Raises:
        ConfigurationError: the file cannot be read, or an entry is not one.
    """
    path = Path(path)
    contenders = []
    for number, row in enumerate(_rows(path), start=1):
        try:
            line = CandidateLine(**{key: value for key, value in row.items() if value not in (None, "")})
        except (ValidationError, TypeError) as error:
            raise ConfigurationError(f"{path}, candidate {number}: {_first_problem(error)}.") from None
        if not line.client and not line.name:
            raise ConfigurationError(f"{path}, candidate {number}: expected a `client`, or the `name` of one recorded.")
        contenders.append(line.contender(keys=keys))
    names = [contender.name for contender in contenders]
    if not names or len(set(names)) != len(names):
        twice = next((name for name in names if names.count(name) > 1), None)
        raise ConfigurationError(
            f"{path} names {twice!r} twice: give each a `name` of its own." if twice else f"{path} names no candidate."
        )
    return contenders


def _rows(path: Path) -> list[Mapping[str, Any]]:
    try:
        if path.suffix in (".csv", ".jsonl"):
            return list(read_rows(path))
        rows = parse_yaml(read_text(path)) if path.suffix in (".yaml", ".yml") else read_json(path)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path} cannot be read ({error}): expected a list of candidates.") from None
    if isinstance(rows, dict):
        rows = rows.get("candidates")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ConfigurationError(f"{path}: expected a list of objects, each with a `client`.")
    return rows


def _first_problem(error: ValidationError | TypeError) -> str:
    if isinstance(error, TypeError):
        return str(error)
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"]))
    if first["type"] != "extra_forbidden":
        return f"{place}: {first['msg'].rstrip('.')}"
    near = difflib.get_close_matches(place, CandidateLine.model_fields, n=1)
    return f"there is no field {place!r}" + (f"; did you mean {near[0]!r}?" if near else "")
