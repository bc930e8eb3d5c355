"""Candidates that fail rest for a while, so that not every call waits for them anew."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from msat_core.checks import check_number
from msat_core.errors import ConfigurationError
from msat_core.forking import Lock
from msat_core.routing.failures import Failure

STRIKES = 3  # failures in a row before a candidate rests


@dataclass
class _Record:
    failures: int = 0  # in a row
    rests: int = 0  # in a row
    rest_s: float = 0.0  # the present or last rest
    until: float = 0.0  # on the clock
    probed: bool = False  # a call has been let through to see whether it is well again


class Cooldown:
    """Which candidates rest, shared by all calls of a router. Thread-safe.

    A candidate rests after its third failure in a row, and at once where its provider says for how long. A rest is
    as long as the provider asks, else ``first_s``, twice as long each time, at most ``longest_s``. When it is over
    one call probes: the others pass the candidate over until the probe has answered.

    A copy, or what comes out of a pickle, starts with nobody resting: clocks differ between processes.

    Args:
        first_s: seconds of a first rest.
        longest_s: seconds of the longest rest, unless a provider asks for more.
        clock: seconds that only grow.
    """

    def __init__(
        self, *, first_s: float = 10.0, longest_s: float = 300.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        check_number("first_s", first_s)
        check_number("longest_s", longest_s)
        if first_s > longest_s:
            raise ConfigurationError(f"first_s must be at most longest_s, got {first_s} and {longest_s}.")
        self.first_s, self.longest_s, self._clock = first_s, longest_s, clock
        self._records: dict[str, _Record] = {}
        self._lock = Lock()

    def __reduce__(self) -> tuple[Callable[..., Cooldown], tuple[float, float]]:
        return _fresh, (self.first_s, self.longest_s)

    def resting_s(self, name: str) -> float:
        """Seconds that a candidate still rests; 0 if it may be asked."""
        with self._lock:
            record = self._records.get(name)
            return max(0.0, record.until - self._clock()) if record else 0.0

    def claim(self, name: str) -> bool:
        """Whether a candidate may be asked now.

        Where its rest is just over, this call is the probe: nobody else is told so until it has reported, or
        another rest has passed.
        """
        with self._lock:
            record, now = self._records.get(name), self._clock()
            if record is None or not record.rests:
                return True
            if record.until > now:
                return False
            record.until, record.probed = now + record.rest_s, True
            return True

    def answered(self, name: str) -> None:
        """A candidate has answered: it is well."""
        if name in self._records:
            with self._lock:
                self._records.pop(name, None)

    def failed(self, name: str, failure: Failure) -> None:
        """A candidate has failed, and not by the request's fault."""
        with self._lock:
            record, now = self._records.setdefault(name, _Record()), self._clock()
            record.failures += 1
            if record.failures < STRIKES and not record.rests and failure.retry_after_s is None:
                return
            if record.until <= now or record.probed:  # calls that fail together count once
                record.rests, record.probed = record.rests + 1, False
            record.rest_s = failure.retry_after_s or min(self.first_s * 2.0 ** (record.rests - 1), self.longest_s)
            record.until = max(record.until, now + record.rest_s)


def _fresh(first_s: float, longest_s: float) -> Cooldown:
    return Cooldown(first_s=first_s, longest_s=longest_s)
