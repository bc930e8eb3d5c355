"""What can be said of a text without a model: which question it is, its words, script and tokens.

Two texts are the same question by one normal form and its SHA-256. Splits, exam exclusion and training exclusion go by
this hash and never by an item's id alone, because public benchmarks hold the same question under several ids.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter

from msat_core.lettered_options import without_options

_NON_WORD = re.compile(r"[\W_]+")

# Patterns that take long to compile are compiled when they are first used.
_UNSPACED = (  # scripts that set no spaces between words, or few, and how many characters of theirs make a word
    ("\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff", 4),  # Thai, Lao, Burmese, Khmer
    ("\u3040-\u30ff\u31f0-\u31ff", 3),  # kana
    (
        "\u2e80-\u2fdf\u3100-\u312f\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff",
        2,
    ),  # Han, Hangul
)
_ANY_UNSPACED = "[" + "".join(span for span, _ in _UNSPACED) + "]+"

_SCRIPTS = (  # characters per token, for the tokenizers of today's models
    ("[\u2e80-\u312f\u31a0-\u31ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]", 1.0),
    ("[\u0900-\u109f\u1200-\u139f\u1780-\u17ff]", 1.0),  # of India, Indochina and Ethiopia, Georgian
    ("[\u0370-\u08ff\u10a0-\u11ff]", 2.0),  # Greek, Cyrillic, Armenian, Hebrew, Arabic
    (
        "[^\x00-\u036f\u2000-\u206f\u0370-\u139f\u1780-\u17ff\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]",
        0.5,
    ),  # emoji and the rest
)
_LATIN = 4.0  # likewise, in Latin letters: the usual rule of thumb
_SCRIPT_NAMES = {  # by the first word of a letter's Unicode name; letters of other names (ℝ, ª, 𝐀) are of none
    **{"CJK": "Han", "HIRAGANA": "Kana", "KATAKANA": "Kana", "ORIYA": "Odia", "MYANMAR": "Burmese"},
    **{
        name.upper(): name
        for name in "Latin Greek Cyrillic Armenian Hebrew Arabic Devanagari Bengali Gurmukhi Gujarati Tamil Telugu "
        "Kannada Malayalam Sinhala Thai Lao Tibetan Georgian Hangul Ethiopic Khmer Mongolian".split()
    },
}
_GREEK_SYMBOL = re.compile("(?<![\u0370-\u03ff])[\u0370-\u03ff]{1,2}(?![\u0370-\u03ff])")  # a quantity, not a word
SCRIPT_LETTERS = 400  # at a text's beginning, by which its script is told
SAMPLED = 8  # places in a long text that an estimate looks at…
SAMPLE_CHARS = 2048  # …and how much it reads at each


def normalised(text: str) -> str:
    """Lower case, options off, every run of non-word characters folded to one space."""
    return _NON_WORD.sub(" ", without_options(text).lower()).strip()


def text_sha256(text: str) -> str:
    """SHA-256 (hex) of the normalised text; of the bare text where normalising leaves nothing."""
    return hashlib.sha256((normalised(text) or text).encode("utf-8", "surrogatepass")).hexdigest()


def replace_surrogates(text: str) -> str:
    """Replace lone surrogates, which no tokenizer or UTF-8 file accepts, by U+FFFD."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def n_words(text: str, *, most: int = 1000) -> int:
    """How many words, at most ``most``; characters count where a script sets no spaces (two of Chinese are a word)."""
    text = text[: 20 * most]
    unspaced = "" if text.isascii() else "".join(re.findall(_ANY_UNSPACED, text))
    spaced = re.sub(_ANY_UNSPACED, " ", text) if unspaced else text
    n_spaced = sum(any(map(str.isalnum, word)) for word in spaced.split())
    return min(n_spaced + sum(-(-len(re.findall(f"[{span}]", unspaced)) // size) for span, size in _UNSPACED), most)


def script_of(text: str) -> str:
    """The script of most letters at a text's beginning, such as "Latin", "Cyrillic" or "Han"; empty where it has none.

    One or two Greek letters alone are a formula's.
    """
    if text.isascii():
        return "Latin" if any(map(str.isalpha, text[:SAMPLE_CHARS])) else ""
    beginning = _GREEK_SYMBOL.sub(" ", text[: SAMPLED * SAMPLE_CHARS])
    letters = [letter for letter in beginning if letter.isalpha()][:SCRIPT_LETTERS]
    scripts: Counter[str] = Counter()
    for letter, n in Counter(letters).items():
        if script := _SCRIPT_NAMES.get(unicodedata.name(letter, "").split(" ", 1)[0]):
            scripts[script] += n
    return scripts.most_common(1)[0][0] if scripts else ""


def tokens_in(text: str) -> float:
    """About how many tokens a model makes of a text, by its scripts; a long one is sampled at even distances."""
    if len(text) <= SAMPLED * SAMPLE_CHARS:
        return _tokens(text)
    step = (len(text) - SAMPLE_CHARS) / (SAMPLED - 1)
    sample = "".join(text[round(i * step) : round(i * step) + SAMPLE_CHARS] for i in range(SAMPLED))
    return _tokens(sample) * len(text) / len(sample)


def _tokens(text: str) -> float:
    if text.isascii():
        return len(text) / _LATIN
    counts = [(len(re.findall(script, text)), size) for script, size in _SCRIPTS]
    latin = len(text) - sum(count for count, _ in counts)
    return latin / _LATIN + sum(count / size for count, size in counts)
