"""What is kept of an error's text: short, and without what opens a door."""

from __future__ import annotations

import re

LONGEST_TEXT = 300  # characters of an error's text that are kept
LONGEST_READ = 4000  # characters of it that are looked at; some providers send back the whole request

_SECRETS = re.compile(
    r"(?P<head>://)[^/\s:@]*:[^/\s@]+(?=@)|"  # credentials in an address
    r"(?P<scheme>\b(?:bearer|basic)\s+)\S+|"
    r"(?P<name>[\w-]*(?:api[_-]?key|token|secret|password|authorization|signature|credential|[?&]key|[?&]sig)"
    r"[\"']?\s*[:=]\s*[\"']?)(?!bearer|basic)[^\s\"'&,;)}\]]+|"
    r"\b(?:sk|pk|rk|gsk|xai|hf|ghp|gho|pplx|nvapi|r8|AIza|AKIA|ASIA|eyJ)[-_]?[\w*.-]{6,}|"
    r"\b(?=[\w+/-]*\d)(?=[\w+/-]*[A-Za-z])[\w+/-]{32,}={0,2}",
    re.IGNORECASE,
)


def kept_text(error: BaseException) -> str:
    """An error's class and text for metadata, logs, files and messages: one short line without secrets."""
    words = " ".join(str(error)[:LONGEST_READ].split())
    if len(str(error)) > LONGEST_READ:
        words = words.rpartition(" ")[0]  # half a key looks like none
    return scrubbed(f"{type(error).__name__}{': ' if words else ''}{words}")[:LONGEST_TEXT]


def scrubbed(text: str) -> str:
    """A text without what looks like a key, a token, a password or the credentials of an address."""

    def hidden(match: re.Match[str]) -> str:
        return f"{match['head'] or match['scheme'] or match['name'] or ''}***"

    return _SECRETS.sub(hidden, text)
