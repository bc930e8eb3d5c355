"""Every candidate asked every question, each with a journal of its own, all under one budget."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from msat_core.aptitude.budget import Budget
from msat_core.aptitude.clients import ExamClient
from msat_core.aptitude.journal import Answer, Journal
from msat_core.aptitude.marking import Mark, can_be_longer
from msat_core.aptitude.paper import Prices
from msat_core.aptitude.questions import Question
from msat_core.aptitude.runner import sit
from msat_core.aptitude.sitting import Paper, Progress, RunSettings
from msat_core.candidates import CHARS_PER_TOKEN
from msat_core.errors import ExamError
from msat_core.files import file_stem
from msat_core.trial.candidates import Contender
from msat_core.trial.questions import OwnQuestion

JOURNALS = "journals"
EXPECTED_OUTPUT_TOKENS = 250  # of an answer, before anybody has answered; chosen

Told = Callable[[str, Progress], None]


@dataclass(frozen=True)
class TrialPaper:
    """Questions asked in the user's own words, once each; marked when all is said.

    Attributes:
        questions: by id, in the order of asking.
    """

    questions: Mapping[str, Question]

    @property
    def item_ids(self) -> tuple[str, ...]:
        """Ids in the order of asking."""
        return tuple(self.questions)

    def prompt(self, item_id: str, rotation: int = 0) -> str:
        """The question as it was given."""
        return self.questions[item_id].with_options()

    def tools(self, item_id: str) -> Sequence[Mapping[str, Any]]:
        """Tools that are offered with it."""
        return self.questions[item_id].tools

    def mark(self, item_id: str, answers: Mapping[tuple[str, int], Answer], limit: int | None) -> Mark:
        """Settled once there is an answer that could not be longer."""
        answer = answers.get((item_id, 0))
        return Mark(None, 0, settled=answer is not None and not can_be_longer(answer, limit))


@dataclass(frozen=True)
class Asking:
    """What one sitting needs.

    Attributes:
        name: of the candidate, or of the judge.
        client: who answers.
        paper: what is asked.
        prices: of the client.
        header: whose journal it is.
        expected_output_tokens: of an answer, hidden thinking left off.
    """

    name: str
    client: ExamClient
    paper: Paper
    prices: Prices
    header: Mapping[str, Any]
    expected_output_tokens: int = EXPECTED_OUTPUT_TOKENS

    @property
    def n_calls(self) -> int:
        """Calls of all questions, those answered already included."""
        return len(self.paper.item_ids)


@dataclass(frozen=True)
class CallEstimate:
    """What asking somebody takes.

    Attributes:
        n_calls: still to be made.
        input_tokens, output_tokens: of those, hidden thinking included.
        usd: None where a price is unknown.
    """

    n_calls: int
    input_tokens: int
    output_tokens: int
    usd: float | None


@dataclass(frozen=True)
class Answers:
    """What somebody answered.

    Attributes:
        by_item: the latest answer by item id and turn.
        failures: why questions have none, by item id.
        usd: spent on it, and set against calls that failed.
        out_of_budget: whether the cap ended it.
        notices: what a reader should know of the asking.
        problem: what ended it early; empty where nothing did.
    """

    by_item: Mapping[tuple[str, int], Answer]
    failures: Mapping[str, str] = field(default_factory=dict)
    usd: float = 0.0
    out_of_budget: bool = False
    notices: tuple[str, ...] = ()
    problem: str = ""


def asking_of(contender: Contender, questions: Sequence[OwnQuestion]) -> Asking | None:
    """The sitting of a candidate: the questions of which no earlier outcome is known; None if it has no client."""
    if contender.client is None:
        return None
    asked = {item.item_id: item.question for item in questions if contender.name not in item.outcomes}
    settings = {name: value for name, value in contender.client.settings.items() if name != "max_output_tokens"}
    header = {"candidate": contender.name, "protocol": "own words 1", "settings": settings}
    return Asking(contender.name, contender.client, TrialPaper(asked), contender.prices, header)


def journal_of(folder: Path, asking: Asking) -> Path:
    """Where the answers are kept."""
    return folder / JOURNALS / f"{file_stem(asking.name)}.jsonl"


def estimate(asking: Asking, folder: Path) -> CallEstimate:
    """Calls, tokens and cost of what the journal does not have yet; by the lengths that it has, where it has any."""
    answered: Mapping[tuple[str, int], Answer] = {}
    path = journal_of(folder, asking)
    if path.is_file():
        with Journal(path, asking.header) as journal:
            answered = dict(journal.answers)
    lengths = [answer.output_tokens for answer in answered.values() if answer.output_tokens is not None]
    typical = asking.expected_output_tokens + asking.client.thinking_tokens
    output = round(sum(lengths) / len(lengths)) if lengths else typical
    limit = asking.client.max_output_tokens
    left = [i for i in asking.paper.item_ids if not asking.paper.mark(i, answered, limit).settled]
    tokens_in = round(sum(len(asking.paper.prompt(i)) for i in left) / CHARS_PER_TOKEN)
    tokens_out = len(left) * output
    usd = asking.prices.usd(tokens_in, tokens_out) if asking.prices.known else None
    return CallEstimate(len(left), tokens_in, tokens_out, usd)


async def ask_all(
    askings: Sequence[Asking], folder: Path, settings: RunSettings, budget: Budget, told: Told | None = None
) -> dict[str, Answers]:
    """Let all sit at once. One whose endpoint is at fault ends with its problem; the others go on.

    Raises:
        ExamError: a journal is another sitting's, or in use.
    """
    with ExitStack() as open_journals:
        journals = [
            open_journals.enter_context(Journal(journal_of(folder, asking), asking.header)) for asking in askings
        ]
        done = await asyncio.gather(
            *(_ask(asking, journal, settings, budget, told) for asking, journal in zip(askings, journals, strict=True))
        )
        return {asking.name: answers for asking, answers in zip(askings, done, strict=True)}


async def _ask(asking: Asking, journal: Journal, settings: RunSettings, budget: Budget, told: Told | None) -> Answers:
    def report(now: Progress) -> None:
        if told is not None:
            told(asking.name, now)

    uncapped = replace(settings, prices=asking.prices, max_usd=None)  # the cap is the budget's
    try:
        result = await sit(asking.paper, asking.client, journal, settings=uncapped, progress=report, budget=budget)
    except ExamError as error:
        return Answers(dict(journal.answers), notices=tuple(asking.client.notices), problem=str(error))
    return Answers(
        dict(journal.answers), result.failures, result.usd, result.out_of_budget, tuple(asking.client.notices)
    )
