"""What a scorer says of own questions, knowing some of their marks, all of them, or all but a fifth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from msat_core import pretrained
from msat_core.aptitude.journal import Answer
from msat_core.aptitude.marking import tokens_of
from msat_core.encoders.cache import EmbeddingCache, embeddings_folder
from msat_core.encoders.minilm import MiniLMEncoder
from msat_core.errors import ConfigurationError
from msat_core.exam import Exam
from msat_core.profiles import CapabilityProfile, Provenance
from msat_core.scoring import loading
from msat_core.scoring.base import EmbeddingScorer, Scorer
from msat_core.trial.asking import asking_of
from msat_core.trial.candidates import Contender
from msat_core.trial.parts import Parts, exam_of, profiles_of, split, tasks_of
from msat_core.trial.questions import OwnQuestion, spread
from msat_core.trial.verdict import Evidence
from msat_core.zoo import CHARS_PER_TOKEN

N_FOLDS = 5
PROTOCOL = "own words"

Array = NDArray[np.float64]


class Study:
    """Exams of parts of the questions, and what a scorer that knows them says of all. N questions, M candidates.

    Args:
        contenders: M.
        questions: N, of which every candidate has a mark.
        scores: (M, N), the marks.
        answers: of each candidate, by item id; none where outcomes are earlier ones.
        source: where the questions come from.
        scorer: None for the shipped one.
    """

    def __init__(
        self,
        contenders: Sequence[Contender],
        questions: Sequence[OwnQuestion],
        scores: Array,
        answers: Mapping[str, Mapping[str, Answer]],
        source: str,
        scorer: Scorer | None = None,
    ) -> None:
        self._contenders, self._questions, self._scores, self._answers = contenders, questions, scores, answers
        self._source = source
        self._scorer = scorer or loading.load(pretrained.SCORER)
        self._texts = [one.question.with_options() for one in questions]
        encoder = self._scorer.encoder if isinstance(self._scorer, EmbeddingScorer) else MiniLMEncoder.embedded()
        self._vectors = EmbeddingCache(encoder, embeddings_folder()).encode(self._texts).vectors
        self._embeddings = {encoder.digest: self._vectors}
        self.tasks = tasks_of(questions, self._vectors)
        self.parts: Parts = split(questions)

    def exam_and_profiles(self, rows: NDArray[np.intp] | None) -> tuple[Exam, list[CapabilityProfile]]:
        """An exam of the questions at these positions (None: of all), and the candidates' profiles by it."""
        kept = np.arange(len(self._questions)) if rows is None else rows
        exam = exam_of(self._questions, self.tasks, kept, self._embeddings, f"own questions of {self._source}")
        provenance = [
            Provenance(source="earlier outcomes" if one.client is None else one.client.source, protocol=PROTOCOL)
            for one in self._contenders
        ]
        item_ids = [one.item_id for one in self._questions]
        names = [one.name for one in self._contenders]
        return exam, profiles_of(exam, names, item_ids, self._scores, provenance, [self._chars(name) for name in names])

    def evidence(self) -> Evidence:
        """Everything that the judgement rests on."""
        informed = self._routed(None)
        apart = self._routed(self.parts.exam)
        crossed = np.empty_like(informed)
        for fold in self._folds():
            rest = np.setdiff1d(np.arange(len(self._questions)), fold)
            crossed[fold] = self._routed(rest, fold)
        names = [one.name for one in self._contenders]
        return Evidence(
            names, self._scores.T, self._usd(), self._expected_usd(), crossed, informed, apart, self.parts.calibration
        )

    def _routed(self, rows: NDArray[np.intp] | None, at: NDArray[np.intp] | None = None) -> Array:
        """(K, M) scores of the questions ``at`` (None: all) by a scorer that knows the marks at ``rows``."""
        exam, profiles = self.exam_and_profiles(rows)
        if not self._scorer.add_exam(exam):
            raise ConfigurationError("This scorer cannot read an exam of own questions: use the shipped one.")
        wanted = np.arange(len(self._questions)) if at is None else at
        if isinstance(self._scorer, EmbeddingScorer):
            found = self._scorer.score_vectors(self._vectors[wanted], profiles)
        else:
            found = self._scorer.score([self._texts[i] for i in wanted], profiles)
        return found.probabilities.astype(np.float64)

    def _folds(self) -> list[NDArray[np.intp]]:
        """Every fifth question, spread over the tasks; texts of the same words stay together."""
        fold_of: dict[str, int] = {}
        for i, one in enumerate(spread(self._questions)):
            fold_of.setdefault(one.question.text_sha256, i % N_FOLDS)
        folds = np.array([fold_of[one.question.text_sha256] for one in self._questions])
        return [np.flatnonzero(folds == k) for k in range(N_FOLDS) if (folds == k).any()]

    def _chars(self, name: str) -> float | None:
        """Mean output of a candidate, hidden thinking included, in characters; None if nobody counted."""
        own = [answer for one in self._questions if (answer := self._answers[name].get(one.item_id)) is not None]
        made = [len(one.text) if one.output_tokens is None else one.output_tokens * CHARS_PER_TOKEN for one in own]
        return round(sum(made) / len(made), 1) if made else None

    def _expected_usd(self) -> Array:
        _, profiles = self.exam_and_profiles(None)
        found = np.full((len(self._questions), len(profiles)), np.nan)
        for m, (one, profile) in enumerate(zip(self._contenders, profiles, strict=True)):
            costs = [one.candidate(profile).cost_usd(len(text)) for text in self._texts]
            found[:, m] = [np.nan if cost is None else cost for cost in costs]
        return found

    def _usd(self) -> Array:
        """What each answer cost; what it is expected to, where the answer is not at hand."""
        found = self._expected_usd()
        for m, one in enumerate(self._contenders):
            asking = asking_of(one, self._questions)
            for n, question in enumerate(self._questions):
                answer = self._answers[one.name].get(question.item_id)
                if asking is not None and answer is not None and one.prices.known:
                    found[n, m] = one.prices.usd(*tokens_of(asking.paper, answer))
        return found
