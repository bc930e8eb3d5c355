"""What a sitting is: a paper, the order of its questions, how hard the endpoint is leant on, and what comes of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from typing import Protocol as TypingProtocol

from msat_core.aptitude.journal import Answer
from msat_core.aptitude.marking import Mark
from msat_core.aptitude.paper import Prices
from msat_core.checks import check_count
from msat_core.errors import ConfigurationError


@dataclass(frozen=True)
class RunSettings:
    """How hard the endpoint is leant on, and what may be spent.

    Attributes:
        concurrency: most calls under way at once.
        timeout_s: seconds after which one call is given up and tried again.
        retry_for_s: seconds for which one question is tried; then it is left for the next run.
        prices: of the candidate.
        max_usd: spending cap of the whole sitting, earlier runs included; a call that could pass it is
            not made, and one that failed counts with the most it may have cost. None for no cap.
    """

    concurrency: int = 16
    timeout_s: float = 120.0
    retry_for_s: float = 300.0
    prices: Prices = field(default_factory=Prices)
    max_usd: float | None = None

    def __post_init__(self) -> None:
        check_count("The concurrency", self.concurrency)
        if not (0 < self.timeout_s < math.inf and 0 <= self.retry_for_s < math.inf):
            raise ConfigurationError(
                "The timeout must be above 0 and the time for retries at least 0 seconds, got "
                f"{self.timeout_s} and {self.retry_for_s}."
            )
        if self.max_usd is not None and not 0 <= self.max_usd < math.inf:
            raise ConfigurationError(f"The spending cap must be a number from 0, got {self.max_usd}; None for no cap.")
        if self.max_usd is not None and not self.prices.known:
            raise ConfigurationError(
                "A spending cap needs prices: give both USD per million tokens, in and out, or leave --max-usd off."
            )


class QuestionOrder(TypingProtocol):
    """Which questions come next. Asked between rounds; must depend on the scores alone, so that runs resume."""

    @property
    def name(self) -> Literal["spread", "adaptive"]:
        """What the profile says of the order."""

    @property
    def n_planned(self) -> int | None:
        """How many questions will be asked; None if that is left open."""

    def next_round(self, scores: Mapping[str, float]) -> Sequence[str]:
        """Ids to ask next, given the scores of those already asked; none when it is enough."""


class Paper(TypingProtocol):
    """What is sat: questions by id, in the words in which they are asked."""

    @property
    def item_ids(self) -> tuple[str, ...]:
        """Ids in the order of asking."""

    def prompt(self, item_id: str, rotation: int = 0) -> str:
        """The prompt that asks the question at that turn."""

    def tools(self, item_id: str) -> Sequence[Mapping[str, Any]]:
        """Tools that are offered with it."""

    def mark(self, item_id: str, answers: Mapping[tuple[str, int], Answer], limit: int | None) -> Mark:
        """What the answers so far amount to; ``limit`` is the most output tokens that would be allowed now."""


class AllAtOnce:
    """Every question of the paper, in one round."""

    name: Literal["spread", "adaptive"] = "spread"

    def __init__(self, paper: Paper) -> None:
        self._left = list(paper.item_ids)
        self.n_planned: int | None = len(self._left)

    def next_round(self, scores: Mapping[str, float]) -> Sequence[str]:
        """All, then none."""
        now, self._left = self._left, []
        return now


@dataclass(frozen=True)
class Progress:
    """How far a sitting has come.

    Attributes:
        n_done, n_right, n_failed: questions.
        n_planned: None where it is left open.
        n_resumed: of those done, how many were in the journal already.
        usd: spent so far, earlier runs included.
    """

    n_done: int
    n_right: int
    n_failed: int
    n_planned: int | None
    n_resumed: int
    usd: float


@dataclass(frozen=True)
class SittingResult:
    """What came of a run.

    Attributes:
        marks: of every question that is settled, by item id, in the order of asking.
        failures: why the others failed, by item id.
        n_planned: questions that were to be asked.
        out_of_budget: whether the spending cap ended it.
        usd: spent in the whole sitting, and set against calls that failed and may have been charged for.
        usd_lost: the second of the two.
    """

    marks: Mapping[str, Mark]
    failures: Mapping[str, str]
    n_planned: int | None
    out_of_budget: bool
    usd: float
    usd_lost: float = 0.0

    @property
    def complete(self) -> bool:
        """Was every question settled?"""
        return not self.failures and not self.out_of_budget
