"""What a sitting leaves in its profile, and what makes two runs the same sitting."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from msat_core.aptitude.clients import ExamClient
from msat_core.aptitude.journal import Answer
from msat_core.aptitude.marking import tokens_of
from msat_core.aptitude.paper import ExamPaper, Prices
from msat_core.aptitude.replies import Missing
from msat_core.aptitude.sitting import SittingResult
from msat_core.documents import digest_of
from msat_core.files import cache_root, file_stem
from msat_core.profiles import Sitting

UNREADABLE_SHARE = 0.1  # of questions; beyond it a profile warns
_MISSING: Mapping[Missing, tuple[str, str]] = {
    "cut": (
        "answers that were cut short",
        "Raise --max-tokens and run again: only these are asked again.",
    ),
    "empty": (
        "replies without a word",
        "A candidate that thinks may have used up the limit: raise --max-tokens.",
    ),
    "refused": ("refusals", "The candidate, or its provider's filter, declines such questions."),
    "unreadable": (
        "replies that state no answer",
        "The candidate may know more than it says: look at the journal, or ask with another protocol.",
    ),
}


def journal_header(paper: ExamPaper, client: ExamClient) -> dict[str, Any]:
    """What must be the same for two runs to share a journal. A shorter and a longer paper of one exam may."""
    return {
        "exam": paper.exam.digest,
        "candidate": client.candidate,
        "protocol": f"{paper.protocol.name} {paper.protocol.version}",
        "rotations": paper.n_rotations,
        "settings": {name: value for name, value in client.settings.items() if name != "max_output_tokens"},
        "questions": paper.source,
    }


def default_journal(header: Mapping[str, Any]) -> Path:
    """Where a sitting's journal is kept if nobody says where."""
    return cache_root() / "journals" / f"{file_stem(str(header['candidate']))}-{digest_of(dict(header))[:16]}.jsonl"


def sitting_of(
    paper: ExamPaper,
    client: ExamClient,
    result: SittingResult,
    answers: Mapping[tuple[str, int], Answer],
    order: Literal["spread", "adaptive"],
    prices: Prices,
) -> Sitting:
    """The facts of a sitting for the profile's provenance: those of the answers its marks rest on."""
    marks = result.marks
    n_missing = Counter(mark.missing for mark in marks.values() if mark.missing)
    used = [answers[item_id, r] for item_id, mark in marks.items() for r in range(mark.rotation + 1)]
    tokens = [tokens_of(paper, answer) for answer in used]
    tokens_in, tokens_out = sum(tokens_in for tokens_in, _ in tokens), sum(tokens_out for _, tokens_out in tokens)
    return Sitting(
        questions=paper.source,
        questions_sha256=paper.questions_sha256,
        protocol_version=paper.protocol.version,
        settings=dict(client.settings),
        order=order,
        n_rotations=paper.n_rotations,
        n_planned=result.n_planned,
        n_unreadable=n_missing["unreadable"],
        n_cut=n_missing["cut"],
        n_refused=n_missing["refused"],
        n_empty=n_missing["empty"],
        n_inconsistent=sum(mark.inconsistent for mark in marks.values()),
        input_tokens=tokens_in,
        output_tokens=tokens_out,
        usd=round(prices.usd(tokens_in, tokens_out), 6) if prices.known else None,
        warnings=(*client.notices, *_warnings(result, client.max_output_tokens)),
    )


def _warnings(result: SittingResult, limit: int | None) -> tuple[str, ...]:
    warnings, n_done = [], len(result.marks)
    for missing, (happened, advice) in _MISSING.items():
        n = sum(mark.missing == missing for mark in result.marks.values())
        if n > (UNREADABLE_SHARE * n_done if missing == "unreadable" else 0):
            at = f" at {limit} tokens" if missing == "cut" and limit is not None else ""
            warnings.append(f"{n} of {n_done} questions got {happened}{at}: they count as wrong. {advice}")
    if not result.complete:
        of = "" if result.n_planned is None else f" of {result.n_planned}"
        why = "the spending cap was reached" if result.out_of_budget else f"{len(result.failures)} failed"
        warnings.append(f"{n_done}{of} questions were settled ({why}): run again to go on.")
    return tuple(warnings)
