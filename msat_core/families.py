"""Which candidates are relatives: same developer and generation, judged by name.

Relatives answer alike, so splits keep families together, and a zoo for evaluation holds few of one.
"""

from __future__ import annotations

import re

_FAMILIES = (
    (r"mistral|mixtral|mathstral|codestral|ministral", "mistral"),
    (r"llama-?2", "llama-2"),
    (r"llama-?3|athene", "llama-3"),
    (r"gpt|^o\d", "gpt"),
    (r"qwen1", "qwen-1"),
    (r"qwen-?2|qwq", "qwen-2"),
    (r"command|c4ai", "command"),
    (r"\byi\b", "yi"),
)


def family_of(candidate: str) -> str:
    """The family's name: a known one, else the name's leading letters."""
    name = candidate.lower().replace("_", "-")
    for pattern, family in _FAMILIES:
        if re.search(pattern, name):
            return family
    match = re.match(r"[a-z]+", name)
    return match.group() if match else name
