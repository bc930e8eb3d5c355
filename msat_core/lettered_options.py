"""Lettered options, as multiple-choice questions close with them: written, and read again."""

from __future__ import annotations

import re
from collections.abc import Iterable

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

_FIRST_OPTION = re.compile(r"(?:^|\n)[ \t]*\(?A[.):][ \t]")
_SECOND_OPTION = re.compile(r"\n[ \t]*\(?B[.):][ \t]")
_ANY_OPTION = re.compile(r"(?:^|\n)[ \t]*\(?[A-Z][.):][ \t]")


def with_options(text: str, options: Iterable[object]) -> str:
    """The question and its options, one a line."""
    return "\n".join([text, *(f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False))])


def without_options(text: str) -> str:
    """The question without its closing list of lettered options, if it has one."""
    starts = [match.start() for match in _FIRST_OPTION.finditer(text)]
    if starts and starts[-1] > 0 and _SECOND_OPTION.search(text, starts[-1]):
        return text[: starts[-1]]
    return text


def n_options(text: str) -> int:
    """How many lettered options the question closes with; 0 if it has none."""
    return len(_ANY_OPTION.findall(text[len(without_options(text)) :]))


def options_of(text: str) -> tuple[str, ...]:
    """The options that the question closes with, ``A. … B. …``; none where its letters do not follow one another."""
    bare = without_options(text)
    options, rest = list[str](), text[len(bare) :] if bare != text else ""
    for letter in LETTERS:
        start = re.match(rf"\s*\(?{letter}[.):][ \t]", rest)
        if start is None:
            return ()
        rest = rest[start.end() :]
        following = chr(ord(letter) + 1)
        end = re.search(rf"\n[ \t]*\(?{re.escape(following)}[.):][ \t]", rest)
        options.append((rest[: end.start()] if end else rest).strip())
        if end is None:
            break
        rest = rest[end.start() :]
    return tuple(options)
