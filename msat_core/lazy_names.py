"""Public names that are imported when they are first used, so that importing a package is light."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from msat_core.errors import extras


def load_name(package: str, homes: Mapping[str, str], name: str) -> Any:  # noqa: ANN401 - any of the names
    """A public name, from its home: ``module``, or ``module:inner`` where it has another name there.

    Raises:
        AttributeError: the package has no such name.
        MissingExtraError: it needs a library that is not installed.
    """
    if name not in homes:
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    module, _, inner = homes[name].partition(":")
    with extras():
        return getattr(importlib.import_module(f"{package}.{module}"), inner or name)
