"""Checks of the numbers that a setting may be: what is none of them is one sentence."""

from __future__ import annotations

from numbers import Integral, Real
from typing import cast

from msat_core.errors import ConfigurationError

MOST = 1_000_000_000  # seconds, USD, rows; more is nothing that anybody means


def check_count(name: str, value: object, *, least: int = 1, hint: str = "") -> None:
    """Raise ConfigurationError unless the value is a whole number from ``least`` to ``MOST``."""
    if not isinstance(value, Integral) or isinstance(value, bool) or not least <= int(value) <= MOST:
        raise ConfigurationError(f"{name} must be a whole number from {least} to {MOST}, got {value!r:.40}{_end(hint)}")


def check_number(name: str, value: object, *, above: float = 0.0, below: float = MOST, hint: str = "") -> None:
    """Raise ConfigurationError unless the value is a number above ``above`` and below ``below``."""
    if not isinstance(value, Real) or isinstance(value, bool) or not above < cast("float", value) < below:
        raise ConfigurationError(
            f"{name} must be a number above {above:g} and below {below:g}, got {value!r:.40}{_end(hint)}"
        )


def _end(hint: str) -> str:
    return f"; {hint}." if hint else "."
