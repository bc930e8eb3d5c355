"""What a chat model's settings and counts mean for a router."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages.utils import count_tokens_approximately
from pydantic import BaseModel

from msat_core import ConfigurationError

SHARED = ("cache", "rate_limiter", "disable_streaming", "output_version")  # handed on to the candidates


def check_fields(of: type[BaseModel], fields: Mapping[str, Any]) -> None:
    """Refuse settings that a router does not have.

    Raises:
        ConfigurationError: with what may have been meant.
    """
    names = {name for key, info in of.model_fields.items() for name in (key, info.alias) if name}
    for name in fields:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=2)
            hint = f"did you mean {' or '.join(near)}?" if near else "give settings of a model to the candidates."
            raise ConfigurationError(f"{of.__name__} has no setting {name!r}; {hint}")


def token_count(leaves: Sequence[Any], method: str, *arguments: Any) -> int:
    """The most tokens that a chat model counts, among those that can; an estimate if none can."""
    counts = []
    for leaf in leaves:
        try:
            counts.append(int(getattr(leaf, method)(*arguments)))
        except (NotImplementedError, ImportError, AttributeError):  # it knows no tokenizer, or lacks its package
            continue
    if counts:
        return max(counts)
    first = arguments[0]
    return count_tokens_approximately([("user", first)] if isinstance(first, str) else first)
