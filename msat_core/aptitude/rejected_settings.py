"""What an endpoint will not be told: settings adapted once when it rejects them.

Newer models refuse a temperature, know only ``max_completion_tokens`` or only ``max_tokens``, or have no reasoning
effort. The candidate is the same with and without them, so a sitting keeps its journal through an adaptation.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from msat_core.http_errors import status_of

RENAMED = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}
ADAPTABLE = ("temperature", "max_tokens", "max_completion_tokens", "reasoning_effort")
_REJECTION = re.compile(
    r"unsupported|not support|unrecogni[sz]ed|unknown|unexpected|extra|not permitted|not allowed|only the default|"
    r"instead|deprecated|invalid|cannot be|must be|not available|incompatible"
)


@dataclass(frozen=True)
class Adaptation:
    """A change of what is sent.

    Attributes:
        parameter: that was rejected.
        arguments: to be sent from now on.
        notice: what was changed, for people.
    """

    parameter: str
    arguments: Mapping[str, Any]
    notice: str


def adaptation(error: BaseException, sent: Mapping[str, Any]) -> Adaptation | None:
    """What to change after an error; None if it does not reject a setting that can be changed.

    Args:
        error: of a call.
        sent: the settings that were sent with it.
    """
    if status_of(error) not in (400, 422):
        return None
    text = str(error).lower()
    named = str(getattr(error, "param", None) or "")
    for parameter in ADAPTABLE:
        if parameter not in sent:
            continue
        if parameter != named and not (re.search(rf"\b{parameter}\b", text) and _REJECTION.search(text)):
            continue
        rest = {name: value for name, value in sent.items() if name != parameter}
        if parameter in RENAMED:
            renamed = RENAMED[parameter]
            return Adaptation(parameter, {**rest, renamed: sent[parameter]}, f"it takes {renamed}, not {parameter}")
        return Adaptation(parameter, rest, f"it takes no {parameter}: asked without {sent[parameter]!r}")
    return None
