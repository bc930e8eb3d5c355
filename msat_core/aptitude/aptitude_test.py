"""The aptitude test: an exam, and what can be done with it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from msat_core import pretrained
from msat_core.aptitude import reasoning_gym
from msat_core.aptitude.clients import ExamClient
from msat_core.aptitude.journal import Journal
from msat_core.aptitude.openai_client import client_named
from msat_core.aptitude.paper import ExamPaper, shorten
from msat_core.aptitude.protocols import fitting_protocol, protocol_named
from msat_core.aptitude.provenance import default_journal, journal_header, sitting_of
from msat_core.aptitude.questions import HUB_DATASET, QuestionSet
from msat_core.aptitude.runner import sit
from msat_core.aptitude.sitting import AllAtOnce, Progress, QuestionOrder, RunSettings, SittingResult
from msat_core.errors import ExamError, RecordsError
from msat_core.exam import Exam
from msat_core.profiles import UNKNOWN_PROTOCOL, CapabilityProfile, Provenance, TaskResult
from msat_core.records import Records

COARSE_BELOW_SHOTS = 300  # a profile of fewer shots is marked coarse


@dataclass(frozen=True)
class ExamRun:
    """A candidate's profile with what happened on the way.

    Attributes:
        profile: from every question that is settled.
        result: marks, failures, whether the budget ended it, and what was spent.
        journal: where the answers are.
    """

    profile: CapabilityProfile
    result: SittingResult
    journal: Path


@dataclass(frozen=True)
class AptitudeTest:
    """An exam that every candidate sits once.

    Attributes:
        exam: its questions (ids, hashes, tasks) and their embeddings.
    """

    exam: Exam

    __test__ = False  # not a pytest class

    @classmethod
    def load(cls, folder: str | Path | None = None) -> AptitudeTest:
        """The exam saved in a folder; without one, the shipped exam of 50 tasks × 20 shots."""
        return cls(Exam.load(pretrained.EXAM if folder is None else folder))

    def profile_from_records(
        self, records: Records, candidate: str, *, protocol: str = UNKNOWN_PROTOCOL, coarse: bool | None = None
    ) -> CapabilityProfile:
        """What the candidate's recorded outcomes on the exam's questions amount to.

        Questions are found by the hash of their text. A missing outcome lowers its task's n_shots.

        Raises:
            RecordsError: the records know no outcome of the candidate on any exam question.
        """
        own_records = records.select_candidates([candidate])
        outcome, by_hash = own_records.outcomes[0], defaultdict(list)
        for i, digest in enumerate(own_records.text_sha256):
            by_hash[digest].append(i)
        shots: dict[str, dict[str, float]] = {task.task: {} for task in self.exam.sheet.tasks}
        for shot in self.exam.sheet.shots:
            twins = sorted(by_hash[shot.text_sha256], key=lambda i: own_records.item_ids[i] != shot.item_id)
            scores = [float(outcome[i]) for i in twins if not np.isnan(outcome[i])]
            if scores:
                shots[shot.task][shot.item_id] = round(scores[0], 6)
        if not any(shots.values()):
            raise RecordsError(
                f"The records hold no outcome of {candidate!r} on any question of the exam {self.exam.sheet.name!r}: "
                "give records of the same benchmark, or draw an exam from these with --tasks-from-records."
            )
        chars = own_records.output_chars[0]
        provenance = Provenance(
            source=f"records: {', '.join(dict.fromkeys(own_records.benchmarks))}", protocol=protocol
        )
        mean_chars = None if np.isnan(chars).all() else round(float(np.nanmean(chars)), 1)
        return self._profile(candidate, shots, provenance, mean_chars, coarse)

    async def run(
        self,
        client: ExamClient | str,
        questions: QuestionSet | str | Path = HUB_DATASET,
        *,
        protocol: str | None = None,
        n_shots: int | None = None,
        n_tasks: int | None = None,
        quick: bool = False,
        n_rotations: int = 0,
        journal: str | Path | None = None,
        order: QuestionOrder | None = None,
        settings: RunSettings | None = None,
        progress: Callable[[Progress], None] | None = None,
    ) -> CapabilityProfile:
        """Let a candidate sit the exam, or go on with a sitting, and make its profile.

        Args:
            client: who answers; ``"openai:NAME"`` for OpenAI's own endpoint.
            questions: the questions' texts: a set, or what :meth:`QuestionSet.load` takes.
            protocol: how they are asked, by name; None for five-shot where the questions have worked examples, else
                zero-shot.
            n_shots, n_tasks: shorten the exam to S shots of each task, to K tasks; None for all.
            quick: only the shipped choice of at most 100 questions.
            n_rotations: the circle test, see :class:`Sitting`.
            journal: where answers are kept; None for a file in the user's cache that is the same for the
                same sitting, so that running again goes on.
            order, settings, progress: see :func:`msat_core.aptitude.runner.sit`.

        Raises:
            ExamError: the questions do not match the exam, the journal is of another sitting, or the
                endpoint cannot be used.
        """
        if isinstance(questions, QuestionSet):
            question_set = questions
        else:
            asked = shorten(self.exam, n_shots=n_shots, n_tasks=n_tasks, quick=quick)
            question_set = QuestionSet.load(questions, tasks={shot.task for shot in asked})
        how = fitting_protocol(question_set) if protocol is None else protocol_named(protocol)
        paper = ExamPaper.of(
            self.exam, question_set, how, n_shots=n_shots, n_tasks=n_tasks, quick=quick, n_rotations=n_rotations
        )
        is_ours = isinstance(client, str)
        candidate = client_named(client) if isinstance(client, str) else client
        try:
            sitting = await self.sit(paper, candidate, journal, order=order, settings=settings, progress=progress)
        finally:
            if is_ours:
                await candidate.aclose()
        return sitting.profile

    async def sit(
        self,
        paper: ExamPaper,
        client: ExamClient,
        journal: str | Path | None = None,
        *,
        order: QuestionOrder | None = None,
        settings: RunSettings | None = None,
        progress: Callable[[Progress], None] | None = None,
    ) -> ExamRun:
        """Like :meth:`run`, for a paper already made; says also what failed and whether the budget ended it."""
        order = order or AllAtOnce(paper)
        header = journal_header(paper, client)
        with Journal(journal or default_journal(header), header) as kept:
            result = await sit(paper, client, kept, order=order, settings=settings, progress=progress)
            answers, created = dict(kept.answers), kept.created
        if not result.marks:
            reasons = ["the spending cap allows no call"] if result.out_of_budget else []
            first = "; ".join([*reasons, *list(result.failures.values())[:1]])
            raise ExamError(f"{client.source} answered no question ({first}): there is nothing to make a profile of.")
        sitting = sitting_of(paper, client, result, answers, order.name, (settings or RunSettings()).prices)
        provenance = Provenance(source=client.source, protocol=paper.protocol.name, created=created, sitting=sitting)
        scores = {item_id: mark.score for item_id, mark in result.marks.items() if mark.score is not None}
        mean_chars = round(sum(len(answers[item_id, 0].text) for item_id in scores) / len(scores), 1)
        profile = self.profile_of_scores(
            scores,
            client.candidate,
            provenance=provenance,
            mean_output_chars=mean_chars,
            output_tokens={item_id: answers[item_id, 0].output_tokens for item_id in scores},
        )
        return ExamRun(profile, result, kept.path)

    def profile_of_scores(
        self,
        scores: Mapping[str, float],
        candidate: str,
        *,
        provenance: Provenance,
        mean_output_chars: float | None = None,
        coarse: bool | None = None,
        output_tokens: Mapping[str, int | None] | None = None,
    ) -> CapabilityProfile:
        """A profile from the scores of some of the exam's questions, by item id.

        Args:
            scores: in [0, 1].
            candidate: whose.
            provenance: where they come from.
            mean_output_chars: mean length of its answers.
            coarse: whether the profile says little; default: by the number of questions.
            output_tokens: of each answer, as the endpoint counted them; None where it did not.

        Raises:
            ProfileError: there is no score of any exam question.
        """
        shots: dict[str, dict[str, float]] = {task.task: {} for task in self.exam.sheet.tasks}
        for shot in self.exam.sheet.shots:
            if shot.item_id in scores:
                shots[shot.task][shot.item_id] = round(float(scores[shot.item_id]), 6)
        return self._profile(candidate, shots, provenance, mean_output_chars, coarse, output_tokens)

    def _profile(
        self,
        candidate: str,
        shots: Mapping[str, Mapping[str, float]],
        provenance: Provenance,
        mean_output_chars: float | None,
        coarse: bool | None,
        output_tokens: Mapping[str, int | None] | None = None,
    ) -> CapabilityProfile:
        results = tuple(
            TaskResult(
                task=task.task,
                keywords=task.keywords,
                n_shots=len(shots[task.task]),
                n_correct=round(sum(shots[task.task].values()), 6),
                shots=shots[task.task],
                mean_output_tokens=_mean_counted((output_tokens or {}).get(item) for item in shots[task.task]),
            )
            for task in self.exam.sheet.tasks
        )
        n_shots = sum(result.n_shots for result in results)
        is_coarse = n_shots < COARSE_BELOW_SHOTS if coarse is None else coarse
        return CapabilityProfile(
            candidate=candidate,
            exam_digest=self.exam.digest,
            results=results,
            provenance=provenance.model_copy(update={"coarse": is_coarse}),
            mean_output_chars=mean_output_chars,
        )


def _mean_counted(tokens: Iterable[int | None]) -> float | None:
    """Mean of what was counted; None where nothing was."""
    counted = [number for number in tokens if number is not None]
    return round(sum(counted) / len(counted), 1) if counted else None


def exam_for(questions: str) -> Path:
    """The shipped exam that a source's questions belong to: that of ``reasoning-gym``, else MMLU-Pro's."""
    return pretrained.EXAM_REASONING if questions == reasoning_gym.SOURCE else pretrained.EXAM
