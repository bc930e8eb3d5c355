"""How two texts are told to be the same question: one normal form and its SHA-256.

Splits, exam exclusion and training exclusion go by this hash and never by an item's id alone,
because public benchmarks hold the same question under several ids.
"""

from __future__ import annotations

import hashlib
import re

_FIRST_OPTION = re.compile(r"(?:^|\n)[ \t]*\(?A[.):][ \t]")
_SECOND_OPTION = re.compile(r"\n[ \t]*\(?B[.):][ \t]")
_ANY_OPTION = re.compile(r"(?:^|\n)[ \t]*\(?[A-Z][.):][ \t]")
_NON_WORD = re.compile(r"[\W_]+")


def without_options(text: str) -> str:
    """The question without its closing list of lettered options, if it has one."""
    starts = [match.start() for match in _FIRST_OPTION.finditer(text)]
    if starts and starts[-1] > 0 and _SECOND_OPTION.search(text, starts[-1]):
        return text[: starts[-1]]
    return text


def n_options(text: str) -> int:
    """How many lettered options the question closes with; 0 if it has none."""
    return len(_ANY_OPTION.findall(text[len(without_options(text)) :]))


def normalised(text: str) -> str:
    """Lower case, options off, every run of non-word characters folded to one space."""
    return _NON_WORD.sub(" ", without_options(text).lower()).strip()


def text_sha256(text: str) -> str:
    """SHA-256 (hex) of the normalised text; of the bare text where normalising leaves nothing."""
    return hashlib.sha256((normalised(text) or text).encode("utf-8", "surrogatepass")).hexdigest()


def replace_surrogates(text: str) -> str:
    """Replace lone surrogates, which no tokenizer or UTF-8 file accepts, by U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
