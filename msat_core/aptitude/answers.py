"""Reading what a candidate answered: the letter it chose, or the short answer it gave.

Nothing is guessed: a reply that states no answer is unreadable (None), which counts as wrong and is
reported. Where several answers are stated the last one counts, as a chain of thought ends with it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from msat_core.aptitude.replies import own_words
from msat_core.lettered_options import LETTERS
from msat_core.reading import parse_json
from msat_core.texts import normalised

# Every pattern below is linear in the reply: no two neighbouring repetitions can match the same characters,
# and what follows a statement is read only as far as an answer can reach.
STATEMENT_CHARS = 200  # of an answer beside the longest option
_NEXT_QUESTION = re.compile(r"\n[ \t]*Question[ \t]*:", re.IGNORECASE)  # base models go on and ask themselves
_KEYS = ("final_answer", "answer", "correct_answer", "choice", "option", "letter")
_NOUN = r"(?:answer|option|choice|solution)"
_LEAD_IN = re.compile(
    rf"\b{_NOUN}(?:\s+letter)?[*_\"']*\s*(?:is|should\s+be|must\s+be|:|=|→|->)"
    rf"|\b(?:choose|select|pick|go(?:ing)?\s+with)\s+(?={_NOUN}\b|[*(]*[A-Z]\b)"
    r"|<answer>|\\boxed(?=\s*\{)",
    re.IGNORECASE,
)
_DECORATION = re.compile(
    rf"(?:[\s*_`\"'$:\[{{(]|\\\(|\\\[|\\boxed|\\text\w*|\\mathrm|\\mathbf"
    rf"|(?:therefore|thus|clearly|the\s+letter|letter|{_NOUN})\b)*",
    re.IGNORECASE,
)
_LETTER = re.compile(r"([A-Za-z])(?![A-Za-z0-9\-]|['’][A-Za-z])")
_MORE_LETTERS = re.compile(r"[)\]]?\s*(?:and|or|,|/|&)\s*[(\[]?[A-Z]\b(?!\s+[a-z])")
_SAID_BEFORE = re.compile(r"(?:\boption\s+|[(*])?\b([A-Z])[)*]*\s+is\s+(?:the\s+)?(?:correct|right|best)\b")
_PROSE = re.compile(r"\s+(?!because\b|since\b|as\b)[a-z]")  # "A matter of …", "I think …"
_BARE_LINE = re.compile(
    rf"^(?:(?:the\s+)?(?:final\s+|correct\s+)?{_NOUN})?[\s*_`\"'$\[{{(]*([A-Za-z])[\s*_`\"'$\]}})]*"
    r"(?:[.):\]][\s*_`]*(?P<more>\S.*)?)?$",
    re.IGNORECASE,
)
_FINAL_TEXT = re.compile(
    r"\banswer\s*(?:is|:|=)\s*|^[ \t]*####\s*|<answer>|\\boxed(?=\s*\{)", re.IGNORECASE | re.MULTILINE
)
_ANY_NUMBER = re.compile(r"(?:(?<![\w.])[-+−])?(?:\d+(?:,\d{3})*(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d{1,3}\b)?")
_NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?|[-+]?\.\d+")


def read_choice(reply: str, options: Sequence[str]) -> str | None:
    """The letter of the chosen option, or None if the reply states none.

    Reads a JSON object, "The answer is (C)" in its many forms, a boxed letter, a bare letter on the
    last line, an option repeated word for word, and chains of thought that end in one of these.

    Args:
        reply: what the candidate said.
        options: the options' texts, the first being A.
    """
    text = _own_words(reply)
    letter = _from_json(text, options)
    if letter is None:
        letter = _from_statements(text, options)
    if letter is None:
        letter = _from_bare_line(text)
    return letter if letter is not None and LETTERS.index(letter) < len(options) else None


def read_text(reply: str) -> str | None:
    """The short answer of a question without options: the last one stated, else a reply of one line."""
    text = _own_words(reply)
    value = _json_value(text)
    if value is not None:
        return value
    statements = list(_FINAL_TEXT.finditer(text))
    lines = [line for line in text.splitlines() if line.strip()]
    if statements:
        rest = text[statements[-1].end() :].lstrip()
        answer = _braced(rest) if rest.startswith("{") else re.split(r"\n|</answer>", rest)[0]
    elif len(lines) == 1:
        answer = lines[0]
    else:
        return None
    return _braced_in(answer).lstrip(" \t*_`\"'$:").rstrip(" \t*_`\"'$:.") or None


def same_text(given: str, expected: str) -> bool:
    """Do two short answers say the same? Numbers by value, anything else by its normalised text."""
    left, right = _number(given), _number(expected)
    if right is not None:
        return left is not None and abs(left - right) <= 1e-6 * max(1.0, abs(right))
    squeezed = ["".join(text.split()) for text in (given, expected)]
    return squeezed[0] == squeezed[1] or (normalised(given) == normalised(expected) != "")


def _own_words(reply: str) -> str:
    return _NEXT_QUESTION.split(own_words(reply) or "", maxsplit=1)[0].strip()


def _json_value(text: str) -> str | None:
    start, end = text.rfind("{"), text.rfind("}")
    if start < 0 or end < start:
        return None
    try:
        data = parse_json(text[start : end + 1])
    except ValueError:
        return None
    values = {str(key).lower(): value for key, value in data.items()}
    return next(
        (str(values[key]) for key in _KEYS if key in values and isinstance(values[key], (str, int, float))), None
    )


def _from_json(text: str, options: Sequence[str]) -> str | None:
    value = _json_value(text)
    if value is None:
        return None
    return _letter_at(value) or _option_at(value, _normal_forms(options)) or _from_bare_line(value)


def _from_statements(text: str, options: Sequence[str]) -> str | None:
    """The last statement of an answer: before it ("the answer is C") or after it ("C is correct")."""
    letter_before = {match.end(): match.group(1) for match in _SAID_BEFORE.finditer(text)}
    lead_ins = {match.end() for match in _LEAD_IN.finditer(text)}
    forms = _normal_forms(options)
    reach = STATEMENT_CHARS + 2 * max(map(len, options), default=0)
    for end in sorted({*letter_before, *lead_ins}, reverse=True):
        tail = text[end : end + reach]
        letter = (_letter_at(tail) or _option_at(tail, forms)) if end in lead_ins else None
        if letter := letter or letter_before.get(end):
            return letter
    return None


def _letter_at(tail: str) -> str | None:
    """The letter with which a statement goes on; None for prose ("a matter of") and for two letters."""
    decoration = _DECORATION.match(tail)
    start = decoration.end() if decoration else 0
    match = _LETTER.match(tail, start)
    if match is None:
        return None
    letter, after = match.group(1), tail[match.end() :]
    bracketed = tail[:start].rstrip()[-1:] in ("(", "[", "{") and after.lstrip()[:1] in (")", "]", "}")
    if _MORE_LETTERS.match(after):
        return None
    if bracketed:
        return letter.upper()
    if letter.islower():
        return letter.upper() if not after.split("\n")[0].strip(" *_`\"'$.)]}") else None
    return None if letter in "AI" and _PROSE.match(after) else letter


def _normal_forms(options: Sequence[str]) -> list[str]:
    return [normalised(option) for option in options]


def _option_at(tail: str, forms: Sequence[str]) -> str | None:
    """The letter of the option whose normal form stands on the first line, if it is one option's alone."""
    stated = normalised(tail.strip().split("\n")[0])
    return LETTERS[forms.index(stated)] if stated and forms.count(stated) == 1 else None


def _from_bare_line(text: str) -> str | None:
    """A letter alone on the last or the first line, or the only line that begins with one as options do."""
    matches = [_BARE_LINE.match(line.strip().lstrip(" \t#>*_`-")) for line in text.splitlines() if line.strip()]
    n_lettered = sum(match is not None for match in matches)
    for match in (matches[-1], matches[0]) if matches else ():
        if match is not None and (not match["more"] or n_lettered == 1):
            return match.group(1).upper()
    return None


def _braced(text: str) -> str:
    """The content of the brace group with which the text begins."""
    depth = 0
    for position, char in enumerate(text):
        depth += (char == "{") - (char == "}")
        if depth == 0:
            return text[1:position]
    return text[1:]


def _braced_in(text: str) -> str:
    inner = re.search(r"\\boxed\s*(?=\{)|\\text\w*\s*(?=\{)", text)
    return _braced(text[inner.end() :]) if inner else text


def _number(text: str) -> float | None:
    """The value of a text that is one number, with or without a unit."""
    numbers = _NUMBER.findall(text)
    around = _NUMBER.sub(" ", text)
    if len(numbers) != 1 or len(around.split()) > 2 or re.search(r"[/^\\(){}\[\]]", around):
        return None
    return float(numbers[0].replace(",", ""))


def number_in(text: str) -> float | None:
    """The last number in a text; None if there is none."""
    numbers = _ANY_NUMBER.findall(text)
    return float(numbers[-1].replace(",", "").replace("−", "-")) if numbers else None


def is_number(text: str) -> bool:
    """Is it one number and nothing else? With zeros before it, it is a code."""
    text = text.strip()
    return _ANY_NUMBER.fullmatch(text) is not None and not re.match(r"0\d", text)
