"""A trial from beginning to end: ask, mark, weigh, write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from msat_core.aptitude.budget import Budget
from msat_core.aptitude.graders.judge import EXPECTED_OUTPUT_TOKENS, Judge
from msat_core.aptitude.journal import Answer
from msat_core.aptitude.paper import Prices
from msat_core.aptitude.sitting import RunSettings
from msat_core.candidates import CHARS_PER_TOKEN
from msat_core.errors import ConfigurationError, ExamError
from msat_core.exam import Exam
from msat_core.routing.policy import RoutingPolicy
from msat_core.scoring.base import Scorer
from msat_core.trial import asking
from msat_core.trial.agreement import Agreement, HumanMark, agreement
from msat_core.trial.asking import Answers, Asking, CallEstimate, Told, ask_all, asking_of, estimate
from msat_core.trial.candidates import Contender
from msat_core.trial.grades import grade_book
from msat_core.trial.marking import JudgePaper, Marks, judge_asking, mark_all, replies_to_judge
from msat_core.trial.questions import OwnQuestion, OwnQuestions
from msat_core.trial.scoring import TrialScoring
from msat_core.trial.table import TrialTable
from msat_core.trial.verdict import Verdict, verdict_of
from msat_core.zoo import Zoo

MIN_QUESTIONS = 20  # with a mark of every candidate; fewer say nothing


@dataclass(frozen=True)
class TrialResult:
    """What came of a trial. N questions that every candidate has a mark of, M candidates.

    Attributes:
        zoo: the candidates with their profiles.
        exam: what the profiles are made of.
        policy: what is advised.
        verdict: the figures behind it.
        questions: N.
        tasks: (N,), the kind of each question.
        table: outcomes, costs and scores.
        marks: of all questions asked, and what has none.
        n_asked: questions asked.
        left_out: rows of the source that could not be used, by reason.
        notes: what a reader should know.
        complete: whether everybody answered everything.
        usd: spent so far, the judge included.
        judge_agreement: of the judge with people; None where nobody asked, or it marked none of their answers.
    """

    zoo: Zoo
    exam: Exam
    policy: RoutingPolicy
    verdict: Verdict
    questions: tuple[OwnQuestion, ...]
    tasks: tuple[str, ...]
    table: TrialTable
    marks: Marks
    n_asked: int
    left_out: Mapping[str, int]
    notes: tuple[str, ...]
    complete: bool
    usd: float
    judge_agreement: Agreement | None = None

    @property
    def use_alone(self) -> str | None:
        """Name of the candidate to use for everything; None where routing pays."""
        position = self.verdict.use_alone
        return None if position is None else self.zoo.names[position]


@dataclass(frozen=True)
class Trial:
    """Own candidates and own questions.

    Attributes:
        questions: what is asked.
        contenders: who is asked.
        judge: who marks what only a judge can mark; None where nothing needs one.
        settings: how hard endpoints are leant on.
        max_usd: spending cap of the whole trial, judge and earlier runs included; None for no cap.
        target: accuracy to be guaranteed; the router then knows the exam part alone. None: it knows every mark.
        scorer: predicts who is right; None for the shipped one.
        human_marks: people's marks of some answers, by which the judge is checked.
    """

    questions: OwnQuestions
    contenders: Sequence[Contender]
    judge: Contender | None = None
    settings: RunSettings = field(default_factory=RunSettings)
    max_usd: float | None = None
    target: float | None = None
    scorer: Scorer | None = None
    human_marks: Sequence[HumanMark] = ()

    def __post_init__(self) -> None:
        names = [contender.name for contender in self.contenders]
        if len(names) < 2 or len(set(names)) != len(names):
            raise ConfigurationError(
                f"A trial needs two or more candidates of different names, got {', '.join(names) or 'none'}."
            )
        if self.target is not None and not 0 < self.target <= 1:
            raise ConfigurationError(f"The target is an accuracy above 0 and at most 1, got {self.target}.")
        if self.max_usd is not None:
            unpriced = [
                contender.name
                for contender in (*self.contenders, self.judge)
                if contender and contender.client and not contender.prices.known
            ]
            if unpriced:
                raise ConfigurationError(
                    f"A spending cap needs prices, and {', '.join(unpriced)} have none: give usd_per_mtok_in and "
                    "usd_per_mtok_out, or leave the cap off."
                )

    def plan(self, out: str | Path) -> dict[str, CallEstimate]:
        """What is still to be asked of each candidate, and of the judge, before anybody is."""
        estimates = {sitting.name: estimate(sitting, Path(out)) for sitting in self._askings()}
        judged = [item for item in self.questions.questions if isinstance(item.grader, Judge)]
        if self.judge is not None and self.judge.client is not None and judged:
            estimates[f"judge {self.judge.name}"] = self._judging_estimate(judged)
        return estimates

    async def run(self, out: str | Path, told: Told | None = None) -> TrialResult:
        """Ask what is not answered yet, mark everything, and weigh it.

        Args:
            out: where journals are kept; running again with the same folder goes on.
            told: called with (name, progress) while answers come in.

        Raises:
            ExamError: too few questions have a mark of every candidate. What was answered is kept.
        """
        out, budget = Path(out), Budget(self.max_usd)
        answers = await ask_all(self._askings(), out, self.settings, budget, told)
        by_item = {contender.name: _latest(answers.get(contender.name)) for contender in self.contenders}
        replies = replies_to_judge(self.questions.questions, list(by_item.values()))
        replies |= {mark.reply.item_id: mark.reply for mark in self.human_marks}
        paper, judged = JudgePaper(replies), Answers({})
        if replies:
            client = None if self.judge is None else self.judge.client
            sitting = judge_asking(client, Prices() if self.judge is None else self.judge.prices, paper)
            judged = (await ask_all([sitting], out, self.settings, budget, told))[sitting.name]
        names = [contender.name for contender in self.contenders]
        with grade_book(out) as book:
            marks = await mark_all(names, self.questions.questions, by_item, paper, judged.by_item, book)
        agreed = agreement(self.human_marks, paper, judged.by_item) if self.human_marks else None
        return self._conclude(by_item, marks, [*answers.values(), judged], budget.spent, agreed)

    def _askings(self) -> list[Asking]:
        askings = (asking_of(contender, self.questions.questions) for contender in self.contenders)
        return [sitting for sitting in askings if sitting is not None]

    def _judging_estimate(self, judged: Sequence[OwnQuestion]) -> CallEstimate:
        """Before there are answers: as many as there are candidates, each as long as an answer is expected to be."""
        assert self.judge is not None and self.judge.client is not None
        n_calls = tokens = 0
        for item in judged:
            n_turns = len(self.contenders) * (item.grader.n_turns if isinstance(item.grader, Judge) else 1)
            n_calls += n_turns
            tokens += n_turns * round(len(item.question.with_options() + item.question.answer) / CHARS_PER_TOKEN)
        tokens_in = tokens + n_calls * asking.EXPECTED_OUTPUT_TOKENS
        tokens_out = n_calls * (EXPECTED_OUTPUT_TOKENS + self.judge.client.thinking_tokens)
        prices = self.judge.prices
        return CallEstimate(n_calls, tokens_in, tokens_out, prices.usd(tokens_in, tokens_out) if prices.known else None)

    def _conclude(
        self,
        answers: Mapping[str, Mapping[str, Answer]],
        marks: Marks,
        sittings: Sequence[Answers],
        usd: float,
        judge_agreement: Agreement | None,
    ) -> TrialResult:
        marked = np.flatnonzero(~np.isnan(marks.outcomes).any(axis=0))
        problems = [sitting.problem for sitting in sittings if sitting.problem]
        if any(sitting.out_of_budget for sitting in sittings):
            problems.append("The spending cap was reached.")
        if len(marked) < MIN_QUESTIONS:
            raise ExamError(
                f"{len(marked)} of {len(self.questions)} questions have a mark of every candidate, and {MIN_QUESTIONS} "
                f"are needed ({' '.join(problems) or 'give more questions'}). What was answered is kept: run again to "
                "go on."
            )
        questions = [self.questions.questions[i] for i in marked]
        notes = [*problems, *(note for sitting in sittings for note in sitting.notices)]
        notes += [
            f"{len(sitting.failures)} questions failed at an endpoint." for sitting in sittings if sitting.failures
        ]
        scoring = TrialScoring(
            self.contenders,
            questions,
            marks.outcomes[:, marked],
            answers,
            self.questions.source,
            self.scorer,
            apart=self.target is not None,
        )
        table = scoring.table()
        verdict = verdict_of(table, target=self.target)
        exam, candidates = scoring.handed_over
        zoo = Zoo.of(candidates)
        return TrialResult(
            zoo,
            exam,
            policy_of(verdict, zoo, scoring.scorer_digest),
            verdict,
            tuple(questions),
            tuple(scoring.tasks),
            table,
            marks,
            len(self.questions),
            self.questions.left_out,
            tuple(notes),
            not problems and not any(sitting.failures for sitting in sittings),
            usd,
            judge_agreement,
        )


def policy_of(verdict: Verdict, zoo: Zoo, scorer: str) -> RoutingPolicy:
    """What a verdict advises, as a policy over the zoo."""
    if verdict.guarantee is not None:
        return verdict.guarantee.policy(zoo.candidates, scorer)
    if verdict.use_alone is not None:
        return RoutingPolicy(allow=frozenset({zoo.names[verdict.use_alone]}))
    advised = verdict.advised
    if advised is not None and advised.objective == "value" and advised.knob is not None:
        return RoutingPolicy(objective="value", usd_weight=advised.knob)
    return RoutingPolicy(margin=0)


def _latest(answers: Answers | None) -> dict[str, Answer]:
    return {} if answers is None else {item_id: answer for (item_id, _), answer in answers.by_item.items()}
