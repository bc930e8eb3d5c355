"""Who takes part in a trial: endpoints listed in a file, or clients of the caller's own."""

from __future__ import annotations

import csv
import difflib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from msat_core import pretrained
from msat_core.aptitude.clients import ExamClient
from msat_core.aptitude.openai_client import client_named
from msat_core.aptitude.paper import Prices
from msat_core.errors import ConfigurationError
from msat_core.profiles import CapabilityProfile
from msat_core.zoo import Candidate, Zoo


class CandidateLine(BaseModel):
    """One entry of a file of candidates.

    Attributes:
        name: in the zoo; empty: the client's, with its effort.
        client: ``openai:NAME`` of any OpenAI-compatible endpoint; empty where the questions hold every outcome of it.
        base_url: the endpoint; None for OpenAI's own.
        api_key_env: name of the environment variable that holds the key; never the key itself.
        effort: reasoning effort; a model at two efforts is two candidates.
        temperature, max_tokens: None: 0 where the endpoint takes it, and a limit that leaves room for thinking.
        usd_per_mtok_in, usd_per_mtok_out: prices; None: what the shipped zoo knows of that name.
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

    def sitter(self) -> ExamClient:
        """The client that asks it. Raises ConfigurationError if its key is not set."""
        key = None
        if self.api_key_env:
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


@dataclass(frozen=True)
class Contender:
    """A candidate in a trial.

    Attributes:
        client: who answers; None where every outcome is known already.
        name: in the zoo.
        facts: of a :class:`Candidate`, beside its profile: prices, window, aliases.
    """

    client: ExamClient | None
    name: str
    facts: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, client: ExamClient, **facts: Any) -> Contender:  # noqa: ANN401 - Candidate's fields
        """A contender by its client, with what is known of it; what is not given comes from the shipped zoo."""
        return cls(client, client.candidate, _known(client.candidate, facts))

    @classmethod
    def recorded(cls, name: str, **facts: Any) -> Contender:  # noqa: ANN401 - Candidate's fields
        """A contender who is not asked: the questions hold every outcome of it."""
        return cls(None, name, _known(name, facts))

    @property
    def prices(self) -> Prices:
        """USD per million tokens."""
        return Prices(self.facts.get("usd_per_mtok_in"), self.facts.get("usd_per_mtok_out"))

    def candidate(self, profile: CapabilityProfile) -> Candidate:
        """The zoo's entry."""
        return Candidate(profile=profile, **self.facts)


def read_candidates(path: str | Path) -> list[Contender]:
    """The candidates of a file: a list in JSON or YAML, lines of JSON, or a CSV table; see :class:`CandidateLine`.

    Raises:
        ConfigurationError: the file cannot be read, or an entry is not one.
    """
    path = Path(path)
    found = []
    for number, row in enumerate(_rows(path), start=1):
        try:
            line = CandidateLine(**{key: value for key, value in row.items() if value not in (None, "")})
        except (ValidationError, TypeError) as error:
            raise ConfigurationError(f"{path}, candidate {number}: {_first_problem(error)}.") from None
        if not line.client and not line.name:
            raise ConfigurationError(f"{path}, candidate {number}: expected a `client`, or the `name` of one recorded.")
        facts = {name: getattr(line, name) for name in ("usd_per_mtok_in", "usd_per_mtok_out")}
        stated = {key: value for key, value in facts.items() if value is not None}
        found.append(Contender.of(line.sitter(), **stated) if line.client else Contender.recorded(line.name, **stated))
    names = [one.name for one in found]
    if not names or len(set(names)) != len(names):
        twice = next((name for name in names if names.count(name) > 1), None)
        raise ConfigurationError(
            f"{path} names {twice!r} twice: give each a `name` of its own." if twice else f"{path} names no candidate."
        )
    return found


def _known(name: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts given, and the shipped zoo's prices of a candidate of that name."""
    zoo = Zoo.load(pretrained.ZOO)
    if name not in zoo:
        return dict(facts)
    shipped = zoo[name]
    known = {key: getattr(shipped, key) for key in ("usd_per_mtok_in", "usd_per_mtok_out", "context_window")}
    return {**{key: value for key, value in known.items() if value is not None}, **facts}


def _rows(path: Path) -> list[Mapping[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".csv":
            return list(csv.DictReader(text.splitlines()))
        if path.suffix in (".yaml", ".yml"):
            found = _yaml(text)
        elif path.suffix == ".jsonl":
            found = [json.loads(line) for line in text.splitlines() if line.strip()]
        else:
            found = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigurationError(f"{path} cannot be read ({error}): expected a list of candidates.") from None
    if isinstance(found, dict):
        found = found.get("candidates")
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
        raise ConfigurationError(f"{path}: expected a list of objects, each with a `client`.")
    return found


def _yaml(text: str) -> Any:  # noqa: ANN401 - any value
    try:
        import yaml
    except ImportError:
        raise ConfigurationError("A file in YAML needs `pyyaml`: pip install pyyaml, or write JSON.") from None
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error).splitlines()[0]) from None


def _first_problem(error: ValidationError | TypeError) -> str:
    if isinstance(error, TypeError):
        return str(error)
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"]))
    if first["type"] != "extra_forbidden":
        return f"{place}: {first['msg'].rstrip('.')}"
    near = difflib.get_close_matches(place, CandidateLine.model_fields, n=1)
    return f"there is no field {place!r}" + (f"; did you mean {near[0]!r}?" if near else "")
