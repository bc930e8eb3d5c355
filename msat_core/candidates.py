"""A candidate: an LLM that may be routed to, with its profile and the facts about it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, ValidationError, model_serializer

from msat_core.documents import StringSet
from msat_core.errors import ZooError
from msat_core.facts import BASE_PRICE, PRICES, SOURCES, Fact, FactSource, said_by, today
from msat_core.price_library import Tariff
from msat_core.profiles import CapabilityProfile

Modality = Literal["text", "image", "audio", "video", "file"]

Usd = Annotated[float, Field(ge=0, allow_inf_nan=False)]

CHARS_PER_TOKEN = 4.0  # rule of thumb for English text, also used by `msat evaluate`
DEFAULT_OUTPUT_TOKENS = 250.0  # where a profile does not know how long the candidate's answers are
_ALWAYS_WRITTEN = frozenset(
    {"profile", "aliases", "usd_per_mtok_in", "usd_per_mtok_out", "context_window", "modalities", "tools"}
)


class Candidate(BaseModel):
    """An LLM that may be routed to. A fact that nobody has stated is None: unknown, not small, cheap or absent.

    Attributes:
        profile: its exam result; the candidate's name is the profile's.
        aliases: other names it is known by (deployment names, dated versions).
        usd_per_mtok_in, usd_per_mtok_out: price per million tokens in USD.
        usd_per_mtok_cached_in, usd_per_mtok_cache_write: of input tokens read from and written to the provider's cache.
        usd_per_mtok_reasoning: of hidden thinking, where it differs from other output.
        context_window: tokens it can take in all, or of input where that limit is the smaller one.
        max_output_tokens: the most that one answer can have.
        modalities: what it accepts, ``"text"`` included.
        tools: whether it can call tools.
        reasoning: whether it thinks before it answers, in tokens that are paid for and not shown.
        released: ISO date.
        facts: where each of these values comes from; a value without an entry is the user's own.
        tariff: how far the prices hold, where they are the price library's.

    Raises:
        ZooError: a value that cannot be.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    profile: CapabilityProfile
    aliases: tuple[str, ...] = ()
    usd_per_mtok_in: Usd | None = None
    usd_per_mtok_out: Usd | None = None
    usd_per_mtok_cached_in: Usd | None = None
    usd_per_mtok_cache_write: Usd | None = None
    usd_per_mtok_reasoning: Usd | None = None
    context_window: int | None = Field(default=None, gt=0)
    max_output_tokens: int | None = Field(default=None, gt=0)
    modalities: StringSet[Modality] | None = None
    tools: bool | None = None
    reasoning: bool | None = None
    released: date | None = None
    facts: Mapping[str, Fact] = Field(default_factory=dict)
    tariff: Tariff | None = None

    def __init__(self, **data: Any) -> None:  # noqa: ANN401 - whatever the fields hold
        try:
            super().__init__(**data)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            name = getattr(data.get("profile"), "candidate", "candidate")
            raise ZooError(
                f"Not a valid candidate {name!r}: {place}: {first['msg']}, got {first['input']!r:.60}."
            ) from None

    @model_serializer(mode="wrap")
    def _without_what_is_absent(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Of the further facts, those that are known."""
        data: dict[str, Any] = plain(self)
        return {key: value for key, value in data.items() if key in _ALWAYS_WRITTEN or value not in (None, {})}

    @property
    def name(self) -> str:
        """The candidate's name."""
        return self.profile.candidate

    def __repr__(self) -> str:
        return f"Candidate({self.name!r}, {self.profile.n_shots} shots, accuracy {self.profile.accuracy:.3f})"

    __str__ = __repr__

    @property
    def is_priced(self) -> bool:
        """Whether the price of a call can be known."""
        return self.usd_per_mtok_in is not None and self.usd_per_mtok_out is not None

    @property
    def has_results(self) -> bool:
        """False where nobody has tested it yet, and its profile is its predecessor's."""
        return not self.profile.provenance.borrowed_from

    def cost_usd(self, instruction_chars: int) -> float | None:
        """Price of one call by its visible characters, as ``msat evaluate`` reckons it; None if the price is unknown.

        Instruction characters / 4 × input price + mean output characters / 4 × output price. Routing itself reckons
        with more: :mod:`msat_core.routing.cost`.
        """
        if self.usd_per_mtok_in is None or self.usd_per_mtok_out is None:
            return None
        output_chars = self.profile.mean_output_chars
        output_tokens = DEFAULT_OUTPUT_TOKENS if output_chars is None else output_chars / CHARS_PER_TOKEN
        input_tokens = instruction_chars / CHARS_PER_TOKEN
        return (input_tokens * self.usd_per_mtok_in + output_tokens * self.usd_per_mtok_out) / 1e6

    def changed(self, **fields: Any) -> Candidate:  # noqa: ANN401 - whatever the fields hold
        """A copy with some fields replaced, validated."""
        return Candidate(**{**{name: getattr(self, name) for name in Candidate.model_fields}, **fields})

    def stated(
        self,
        values: Mapping[str, Any],
        *,
        source: FactSource,
        on: str,
        note: str = "",
        notes: Mapping[str, str] | None = None,
        tariff: Tariff | None = None,
    ) -> Candidate:
        """A copy with the facts that a source states, where no better source has spoken.

        Of two sources that differ on the window, neither of them the user, the smaller figure counts: one of them
        means all tokens, the other those of the input. A user's None forgets a fact; anybody else's says nothing.

        Args:
            values: by field.
            source: who says so; see :data:`msat_core.facts.SOURCES`.
            on: ISO date on which it was read or stated.
            note: where exactly.
            notes: in place of ``note``, for single fields.
            tariff: how far the prices hold.

        Raises:
            ConfigurationError: a field that is no fact.
            ZooError: a value that cannot be.
        """
        sources = said_by(source, values, on=on, note=note)
        taken = {field: value for field, value in values.items() if self._takes(field, value, source)}
        facts = {field: fact for field, fact in self.facts.items() if field not in taken}
        facts |= {field: sources[field] for field, value in taken.items() if value is not None}
        for field in facts.keys() & taken.keys() & (notes or {}).keys():
            facts[field] = facts[field].model_copy(update={"note": f"{note}: {(notes or {})[field]}"})
        changes: dict[str, Any] = {**taken, "facts": facts}
        if source == "user":  # a discount is no part of another list's price
            stale = {
                k for k, base in BASE_PRICE.items() if base in taken and k not in taken and self._source(k) != "user"
            }
            changes |= {field: None for field in stale}
            changes["facts"] = {field: fact for field, fact in facts.items() if field not in stale}
        if not taken.keys().isdisjoint(PRICES):
            changes["tariff"] = tariff
        return self.changed(**changes)

    def _takes(self, field: str, value: Any, source: FactSource) -> bool:  # noqa: ANN401 - a fact's value
        stated_by = self._source(field)
        if source == "user":
            return True
        if value is None or "user" in (stated_by, self._source(BASE_PRICE.get(field, field))):
            return False
        if stated_by is None or stated_by == source:
            return True
        if field == "context_window":
            return bool(value < self.context_window)
        return SOURCES.index(source) < SOURCES.index(stated_by)

    def _source(self, field: str) -> FactSource | None:
        """Who stated a field; None where it is unknown."""
        if getattr(self, field) is None:
            return None
        return self.facts[field].source if field in self.facts else "user"


class ModelFacts:
    """What wrapped models say of themselves, laid over a zoo's candidates. The zoo stays as it is.

    Args:
        said: facts by the caller's name of a candidate, a name or alias of the zoo; what a model does not state is
            left out.
        note: where exactly it says so.
    """

    def __init__(self, said: Mapping[str, Mapping[str, Any]], *, note: str = "") -> None:
        self._facts = {name: dict(values) for name, values in said.items()}
        self._note, self._on = note, today()
        for values in self._facts.values():
            said_by("model", values, on=self._on)
        self._restated: dict[str, tuple[Candidate, Candidate]] = {}  # by name: as in the zoo, and as it says

    def over(self, candidate: Candidate) -> Candidate:
        """The candidate with what its model says of itself."""
        pair = self._restated.get(candidate.name)
        if pair is None or pair[0] is not candidate:
            values = next((self._facts[n] for n in (candidate.name, *candidate.aliases) if n in self._facts), {})
            pair = (candidate, candidate.stated(values, source="model", on=self._on, note=self._note))
            self._restated[candidate.name] = pair
        return pair[1]
