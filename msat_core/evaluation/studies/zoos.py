"""Zoos to evaluate on: the paper's five, and many seeded ones, because one zoo's figure is one draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from msat_core.errors import ConfigurationError
from msat_core.families import family_of

Kind = Literal["near-equal", "mixed", "dominant"]

NEAR_EQUAL_RANGE = 0.06  # best − worst accuracy of a near-equal zoo, at most
MIXED_RANGE = 0.25  # of a mixed zoo, at most; more than NEAR_EQUAL_RANGE
DOMINANT_LEAD = 0.10  # best − second best of a zoo with a dominant candidate, at least
MAX_OF_FAMILY = 2  # in a zoo; chosen: kin answer alike, and leave little to route
TRIES_PER_ZOO = 2000  # draws, before there are taken to be no more zoos of a kind; chosen
SMALL_B, MIDDLE_B, LARGE_B = 9.0, (10.0, 50.0), 70.0  # parameters of the paper's small, middle and large candidates


def sample_zoos(
    candidates: Sequence[str],
    accuracy: NDArray[np.floating],
    kind: Kind,
    *,
    n_zoos: int = 60,
    sizes: tuple[int, int] = (3, 5),
    with_one_of: frozenset[str] = frozenset(),
    seed: int = 0,
) -> list[tuple[int, ...]]:
    """Distinct random zoos of one kind, as positions into ``candidates``.

    Args:
        candidates: M names.
        accuracy: (M,), on the items that the zoos will be measured on.
        kind: near-equal (range at most 6 points), mixed (6 to 25) or dominant (the best leads by 10 or more).
        n_zoos: how many to find; fewer are returned where fewer are found.
        sizes: smallest and largest zoo.
        with_one_of: each zoo holds at least one of these; empty for no such demand.
        seed: of the draws.
    """
    if not 2 <= sizes[0] <= sizes[1]:
        raise ConfigurationError(f"Expected zoo sizes with 2 <= smallest <= largest, got {sizes}.")
    rng = np.random.default_rng(seed)
    families = [family_of(name) for name in candidates]
    wanted = {i for i, name in enumerate(candidates) if name in with_one_of}
    zoos: dict[tuple[int, ...], None] = {}
    for _ in range(TRIES_PER_ZOO * n_zoos):
        if len(zoos) >= n_zoos or len(candidates) < sizes[0]:
            break
        size = min(int(rng.integers(sizes[0], sizes[1] + 1)), len(candidates))
        zoo = tuple(sorted(rng.choice(len(candidates), size, replace=False).tolist()))
        crowd = max(sum(families[i] == family for i in zoo) for family in {families[i] for i in zoo})
        if crowd <= MAX_OF_FAMILY and (not wanted or wanted & set(zoo)) and _is(kind, np.sort(accuracy[list(zoo)])):
            zoos[zoo] = None
    return list(zoos)


def _is(kind: Kind, ascending: NDArray[np.floating]) -> bool:
    gap = ascending[-1] - ascending[0]
    if kind == "near-equal":
        return bool(gap <= NEAR_EQUAL_RANGE)
    if kind == "mixed":
        return bool(NEAR_EQUAL_RANGE < gap <= MIXED_RANGE)
    return bool(ascending[-1] - ascending[-2] >= DOMINANT_LEAD)


@dataclass(frozen=True)
class CandidateFacts:
    """What the paper's zoos are made by.

    Attributes:
        name: the candidate's.
        params_b: parameters in thousands of millions; None if undisclosed.
        chat_tuned: or a base model.
        released: ISO date.
    """

    name: str
    params_b: float | None
    chat_tuned: bool
    released: str


def paper_zoos(facts: Sequence[CandidateFacts]) -> dict[str, tuple[str, ...]]:
    """The five text zoos of Model-SAT (AAAI 2025) by their pattern, over whatever candidates there are.

    smaller: chat-tuned, up to 9B. smaller-mixed: with the latest small base model of each family that
    smaller lacks. middle-mixed: with those of 10 to 50B, one a family. larger-mixed: with the chat-tuned of
    70B or more. high-performance: the latter alone. Candidates of undisclosed size are in none.
    """
    sized = [(fact, fact.params_b) for fact in sorted(facts, key=lambda f: f.released) if fact.params_b is not None]
    smaller = [fact for fact, size in sized if fact.chat_tuned and size <= SMALL_B]
    families = {family_of(fact.name) for fact in smaller}
    bases = {family_of(f.name): f for f, size in sized if not f.chat_tuned and size <= SMALL_B}
    weaker = [fact for family, fact in bases.items() if family not in families]
    middle = list({family_of(f.name): f for f, size in sized if MIDDLE_B[0] <= size <= MIDDLE_B[1]}.values())
    large = [fact for fact, size in sized if fact.chat_tuned and size >= LARGE_B]
    zoos = {
        "smaller": smaller,
        "smaller-mixed": [*smaller, *weaker],
        "middle-mixed": [*smaller, *weaker, *middle],
        "larger-mixed": [*smaller, *weaker, *middle, *large],
        "high-performance": large,
    }
    return {name: tuple(fact.name for fact in members) for name, members in zoos.items() if len(members) > 1}
