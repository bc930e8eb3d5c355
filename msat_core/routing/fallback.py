"""How far to go when a candidate fails."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from msat_core.checks import check_count, check_number
from msat_core.errors import ConfigurationError

Doubtful = Literal["keep", "next"]


@dataclass(frozen=True)
class Fallback:
    """How far to go when the chosen candidate fails.

    Attributes:
        max_attempts: candidates tried at most, the chosen one included; 1 turns fallback off.
        timeout_s: seconds each candidate has: to its first token where it streams, else to its answer; None for no
            limit. A synchronous call that is late goes on in a thread of its own until the client's own timeout,
            so set that too.
        deadline_s: seconds for everything together, to the last token; None for no limit.
        max_usd: expected cost of all attempts together, in USD; None for no limit. A candidate that does not fit
            in, or whose price is unknown, is passed over.
        empty: whether an answer without text and tool calls is kept or sends the request to the ``next``.
        cut: likewise for an answer without a finish reason, where no token has gone out yet.
    """

    max_attempts: int = 3
    timeout_s: float | None = None
    deadline_s: float | None = None
    max_usd: float | None = None
    empty: Doubtful = "keep"
    cut: Doubtful = "keep"

    def __post_init__(self) -> None:
        check_count("max_attempts", self.max_attempts, hint="1 turns fallback off")
        for name in ("timeout_s", "deadline_s", "max_usd"):
            if (value := getattr(self, name)) is not None:
                check_number(name, value, hint="use None for no limit")
        for name in ("empty", "cut"):
            if getattr(self, name) not in ("keep", "next"):
                raise ConfigurationError(f"{name} must be 'keep' or 'next', got {getattr(self, name)!r}.")
