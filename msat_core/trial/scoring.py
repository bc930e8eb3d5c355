"""What a scorer says of own questions, knowing some of their marks, all of them, or all but a fifth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from msat_core import pretrained
from msat_core.aptitude.aptitude_test import AptitudeTest
from msat_core.aptitude.journal import Answer
from msat_core.aptitude.marking import tokens_of
from msat_core.candidates import Candidate
from msat_core.encoders.cache import EmbeddingCache, embeddings_folder
from msat_core.encoders.loading import load_encoder
from msat_core.errors import ConfigurationError
from msat_core.exam import Exam
from msat_core.profiles import CapabilityProfile, Provenance
from msat_core.routing.conversation import size_of
from msat_core.routing.cost import expected_costs
from msat_core.routing.deciding import weights_of_tasks
from msat_core.scoring import loading
from msat_core.scoring.base import EmbeddingScorer, Scorer, Scores
from msat_core.trial.asking import asking_of
from msat_core.trial.candidates import Contender
from msat_core.trial.parts import Parts, exam_of, split, tasks_of
from msat_core.trial.questions import OwnQuestion, round_robin
from msat_core.trial.table import TrialTable

N_FOLDS = 5  # of the questions, scored by the profiles of the others; usual
PROTOCOL = "own words"

Array = NDArray[np.float64]


class TrialScoring:
    """Exams of parts of the questions, and what a scorer that knows them says of all. N questions, M candidates.

    Args:
        contenders: M.
        questions: N, of which every candidate has a mark.
        outcomes: (M, N), the marks.
        answers: of each candidate, by item id; none where outcomes are earlier ones.
        source: where the questions come from.
        apart: whether the router that is handed over knows the exam part alone.
        scorer: None for the shipped one.
    """

    def __init__(
        self,
        contenders: Sequence[Contender],
        questions: Sequence[OwnQuestion],
        outcomes: Array,
        answers: Mapping[str, Mapping[str, Answer]],
        source: str,
        scorer: Scorer | None = None,
        *,
        apart: bool = False,
    ) -> None:
        self._contenders, self._questions, self._outcomes, self._answers = contenders, questions, outcomes, answers
        self._source = source
        self._scorer = scorer or loading.load(pretrained.SCORER)
        self._texts = [item.question.with_options() for item in questions]
        encoder = self._scorer.encoder if isinstance(self._scorer, EmbeddingScorer) else load_encoder()
        embedded = EmbeddingCache(encoder, embeddings_folder()).encode(self._texts)
        self._vectors, self._unread = embedded.vectors, np.array(embedded.unread or [""] * len(self._texts))
        self._embeddings = {encoder.digest: self._vectors}
        self.tasks = tasks_of(questions, self._vectors)
        self.parts: Parts = split(questions)
        self._shipped = self.parts.exam if apart else np.arange(len(questions))

    @property
    def scorer_digest(self) -> str:
        """Of the scorer."""
        return self._scorer.digest

    @cached_property
    def handed_over(self) -> tuple[Exam, tuple[Candidate, ...]]:
        """The exam and the candidates of the router that is handed over."""
        exam, profiles = self._exam_and_profiles(self._shipped)
        pairs = zip(self._contenders, profiles, strict=True)
        return exam, tuple(contender.candidate(profile) for contender, profile in pairs)

    def _exam_and_profiles(self, rows: NDArray[np.intp]) -> tuple[Exam, list[CapabilityProfile]]:
        """An exam of the questions at these positions, and the candidates' profiles by it."""
        exam = exam_of(self._questions, self.tasks, rows, self._embeddings, f"own questions of {self._source}")
        return exam, [self._profile(exam, m) for m in range(len(self._contenders))]

    def _profile(self, exam: Exam, m: int) -> CapabilityProfile:
        contender, answers = self._contenders[m], self._answers[self._contenders[m].name]
        marks = {item.item_id: float(outcome) for item, outcome in zip(self._questions, self._outcomes[m], strict=True)}
        texts = [answers[item.item_id].text for item in self._questions if item.item_id in answers]
        return AptitudeTest(exam).profile_of_scores(
            marks,
            contender.name,
            provenance=Provenance(
                source="earlier outcomes" if contender.client is None else contender.client.source, protocol=PROTOCOL
            ),
            mean_output_chars=round(sum(map(len, texts)) / len(texts), 1) if texts else None,
            output_tokens={item_id: answer.output_tokens for item_id, answer in answers.items()},
        )

    def table(self) -> TrialTable:
        """Everything that the verdict rests on."""
        everything = np.arange(len(self._questions))
        informed = self._scored(everything)
        expected_usd = self._expected_usd([{}] * len(self._questions))
        crossed = np.empty_like(informed.probabilities, dtype=np.float64)
        for fold in self._folds():
            crossed[fold] = self._scored(np.setdiff1d(everything, fold), fold).probabilities
        return TrialTable(
            names=[contender.name for contender in self._contenders],
            outcomes=self._outcomes.T,
            usd=self._usd(expected_usd),
            expected_usd=expected_usd,
            near_usd=self._expected_usd(weights_of_tasks(informed)),
            scores=crossed,
            informed=informed.probabilities.astype(np.float64),
            apart=self._scored(self.parts.exam).probabilities.astype(np.float64),
            calibration=self.parts.calibration,
        )

    def _scored(self, rows: NDArray[np.intp], at: NDArray[np.intp] | None = None) -> Scores:
        """Of the questions ``at`` (None: all), by a scorer that knows the marks at ``rows``."""
        exam, profiles = self._exam_and_profiles(rows)
        if not self._scorer.add_exam(exam):
            raise ConfigurationError("This scorer cannot read an exam of own questions: use the shipped one.")
        wanted = np.arange(len(self._questions)) if at is None else at
        if isinstance(self._scorer, EmbeddingScorer):
            unread = tuple(self._unread[wanted].tolist())
            return self._scorer.score_vectors(self._vectors[wanted], profiles, unread=unread)
        return self._scorer.score([self._texts[i] for i in wanted], profiles)

    def _folds(self) -> list[NDArray[np.intp]]:
        """Every fifth question, spread over the tasks; texts of the same words stay together."""
        fold_of: dict[str, int] = {}
        for i, item in enumerate(round_robin(self._questions)):
            fold_of.setdefault(item.question.text_sha256, i % N_FOLDS)
        folds = np.array([fold_of[item.question.text_sha256] for item in self._questions])
        return [np.flatnonzero(folds == k) for k in range(N_FOLDS) if (folds == k).any()]

    def _expected_usd(self, task_weights: Sequence[Mapping[str, float]]) -> Array:
        """(N, M), as the router that is handed over reckons; NaN where a price is unknown.

        Args:
            task_weights: how near each question is to each task; empty to reckon with the mean answer.
        """
        _, candidates = self.handed_over
        return np.array(
            [
                expected_costs(candidates, chars=size_of(text), task_weights=near).ranked_usd
                for text, near in zip(self._texts, task_weights, strict=True)
            ]
        )

    def _usd(self, expected_usd: Array) -> Array:
        """What each answer cost; what it is expected to, where the answer is not at hand."""
        usd = expected_usd.copy()
        for m, contender in enumerate(self._contenders):
            asking = asking_of(contender, self._questions)
            for n, question in enumerate(self._questions):
                answer = self._answers[contender.name].get(question.item_id)
                if asking is not None and answer is not None and contender.prices.known:
                    usd[n, m] = contender.prices.usd(*tokens_of(asking.paper, answer))
        return usd
