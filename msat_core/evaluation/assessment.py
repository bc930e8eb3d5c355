"""What `msat evaluate` and `msat calibrate` do: profiled candidates and a scorer, measured on records."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from msat_core import pretrained
from msat_core.encoders.cache import embeddings_folder
from msat_core.encoders.loading import load_encoder
from msat_core.errors import ArtefactError, ConfigurationError
from msat_core.evaluation.comparison import Evaluation, MethodChoices
from msat_core.evaluation.exam_outcomes import exam_outcomes, others_outcomes
from msat_core.evaluation.guarantee import DEFAULT_CONFIDENCE, Guarantee, calibrate_target
from msat_core.evaluation.items import choose_all, embed_items, evaluation_items, expected_item_costs, score_items
from msat_core.exam import Exam, exams_of
from msat_core.profiles import CapabilityProfile, load_profiles
from msat_core.records import Records
from msat_core.routing.policy import RoutingPolicy
from msat_core.scoring import loading
from msat_core.scoring.base import EmbeddingScorer, Scorer, Scores
from msat_core.zoo import Zoo, priced_zoo

if TYPE_CHECKING:
    from msat_core.evaluation.baselines import Baseline

ROUTED = "routed"  # ours, among the methods
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Calibrated:
    """A threshold with its guarantee, beside the best single candidate on the same items.

    Attributes:
        guarantee: the threshold, and what is guaranteed under it.
        policy: chooses the cheapest candidate whose score reaches the threshold; bound to what it was calibrated for.
        best_single: name of the candidate that is right most often.
        best_single_accuracy: its accuracy.
        best_single_usd: its mean cost of a call; None if its price is unknown.
    """

    guarantee: Guarantee
    policy: RoutingPolicy
    best_single: str
    best_single_accuracy: float
    best_single_usd: float | None

    def to_json(self) -> dict[str, Any]:
        """As plain data; the layout is a contract (see the CLI's documentation)."""
        return {
            **asdict(self.guarantee),
            "best_single": {
                "candidate": self.best_single,
                "accuracy": self.best_single_accuracy,
                "cost_usd": self.best_single_usd,
            },
            "policy": self.policy.model_dump(mode="json"),
        }


@dataclass(frozen=True)
class Assessment:
    """Who is to be measured on records, and by which scorer, which knows their exams.

    Attributes:
        scorer: predicts who is right; it has read the exams.
        profiles: of the M candidates.
        zoo: the same candidates, with prices.
        exams: that the profiles name.
    """

    scorer: Scorer
    profiles: list[CapabilityProfile]
    zoo: Zoo
    exams: list[Exam]

    @classmethod
    def load(
        cls,
        profiles: str | Path,
        names: Sequence[str] = (),
        *,
        prices: str | Path | None = None,
        scorer: str | Path | None = None,
        device: str | None = None,
    ) -> Assessment:
        """Candidates from a folder of profiles.

        Args:
            profiles: the folder, with ``exam/`` or ``exams/`` where an exam is one's own.
            names: which candidates, in this order; none for all.
            prices: see :func:`msat_core.zoo.priced_zoo`.
            scorer: a scorer folder; None for the shipped one.
            device: where it computes, as torch names it; None for the CPU.

        Raises:
            ArtefactError: a profile is missing, or the scorer cannot read an exam.
            ConfigurationError: an exam or the prices cannot be found.
        """
        candidates = load_profiles(profiles, names)
        zoo, exams = priced_zoo(candidates, prices), exams_of(candidates, profiles)
        model = loading.load(scorer or pretrained.SCORER, device=device)
        for exam in exams:
            if not model.add_exam(exam):
                raise ArtefactError(
                    f"The exam {exam.sheet.name!r} has no shot embeddings that this scorer can read: make it again, "
                    "with the same --scorer."
                )
        return cls(model, candidates, zoo, exams)

    @property
    def exam_texts(self) -> frozenset[str]:
        """Hashes of the exams' texts: items that must be left out."""
        return frozenset().union(*(exam.text_hashes for exam in self.exams))

    def evaluate(
        self,
        records: Records,
        policy: RoutingPolicy | None = None,
        *,
        baselines: Sequence[Baseline] = (),
        seed: int = 0,
        progress: Progress | None = None,
    ) -> Evaluation:
        """Route the records' items and hold the result against every yardstick and the baselines.

        Items whose text is in an exam are left out, and items that a candidate lacks. Baselines know the
        candidates by the same exams only, and others by their outcomes on the exams' questions in the records.

        Args:
            records: everything recorded, exam items included.
            policy: how scores become a choice; None for the highest score.
            baselines: other methods (:func:`msat_core.evaluation.baselines.baselines_named`).
            seed: of the reference exams, the baselines and the bootstrap.
            progress: called with (what, done, total).
        """
        rule = policy or RoutingPolicy()
        rule.check_names(self.zoo)
        items = evaluation_items(records, self.zoo, self.exam_texts)
        scores = {ROUTED: self._scores(items, progress)}
        if baselines:
            scores |= self._baseline_scores(baselines, records, items, seed, progress)
        routed = {
            name: MethodChoices(said.probabilities, choose_all(said, items, self.zoo, rule))
            for name, said in scores.items()
        }
        ours = routed.pop(ROUTED)
        return Evaluation(items, self.zoo, ours, self._exam_size, routed, seed)

    def calibrate(
        self,
        records: Records,
        target: float,
        *,
        confidence: float = DEFAULT_CONFIDENCE,
        progress: Progress | None = None,
    ) -> Calibrated:
        """The cheapest threshold under which routed answers are right at a rate of ``target``, guaranteed.

        Args:
            records: of nobody's exam or training; textual twins count once.
            target: accuracy of the routed answers, in (0, 1).
            confidence: of the guarantee.
            progress: called with (what, done, total).

        Raises:
            ConfigurationError: no price is known, or no threshold reaches the target.
        """
        if not any(candidate.is_priced for candidate in self.zoo):
            raise ConfigurationError("The cheapest candidate cannot be found without prices: give --prices.")
        items = evaluation_items(records, self.zoo, self.exam_texts)
        items = items.select_items(_first_of_each_text(items))
        scores = self._scores(items, progress).probabilities
        costs = expected_item_costs(items, self.zoo)
        outcomes = items.outcomes.T.astype(float)
        guarantee = calibrate_target(scores, outcomes, costs, target=target, confidence=confidence)
        policy = guarantee.policy(self.zoo.candidates, self.scorer.digest)
        best = int(outcomes.mean(axis=0).argmax())
        cost = None if np.isnan(costs[:, best]).any() else float(costs[:, best].mean())
        return Calibrated(guarantee, policy, self.zoo.names[best], float(outcomes[:, best].mean()), cost)

    def save_zoo(self, file: Path) -> None:
        """Write the zoo, and beside it the exams that are not shipped: `msat route --zoo` finds them there."""
        shipped = {Exam.load(folder).digest for folder in pretrained.EXAMS if folder.is_dir()}
        for exam in self.exams:
            if exam.digest not in shipped:
                exam.save(file.parent / "exams" / exam.digest[:16])
        self.zoo.save(file)

    @property
    def _exam_size(self) -> int:
        """Questions in the largest exam that a candidate sat; 0 where all have published scores alone."""
        sat = {profile.exam_digest for profile in self.profiles if not profile.provenance.is_expected}
        return max((len(exam.sheet.shots) for exam in self.exams if exam.digest in sat), default=0)

    def _scores(self, items: Records, progress: Progress | None) -> Scores:
        return score_items(self.scorer, items, self.profiles, embeddings_folder(), progress=progress)

    def _baseline_scores(
        self, wanted: Sequence[Baseline], records: Records, items: Records, seed: int, progress: Progress | None
    ) -> dict[str, Scores]:
        """Fit the baselines on the exams and score the items with each, by name."""
        encoder = self.scorer.encoder if isinstance(self.scorer, EmbeddingScorer) else load_encoder()
        table = exam_outcomes(self.exams, self.profiles, encoder.digest)
        others = others_outcomes(records, self.exams, self.zoo.names, table)
        vectors = embed_items(encoder, items, embeddings_folder()).vectors
        scores, uncut = {}, np.zeros(len(items), np.int64)
        for done, baseline in enumerate(wanted):
            scores[baseline.name] = Scores(np.asarray(baseline.fit(table, others, seed)(vectors), np.float32), uncut)
            if progress is not None:
                progress("baselines", done + 1, len(wanted))
        return scores


def _first_of_each_text(records: Records) -> list[int]:
    """Textual twins are not independent draws: one of each is kept."""
    return sorted({digest: row for row, digest in reversed(list(enumerate(records.text_sha256)))}.values())
