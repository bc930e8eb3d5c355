"""Training the compact scorer: episodes, then calibration on held-out candidates."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from msat_core.checks import check_count
from msat_core.encoders.folder import EncoderFiles
from msat_core.errors import RecordsError
from msat_core.families import family_of
from msat_core.records import Records
from msat_core.scoring.compact.scorer import CompactConfig, CompactScorer
from msat_core.special_functions import moderation
from msat_core.training.calibration import slope_fit
from msat_core.training.compact.episodes import Episode, EpisodeSampler
from msat_core.training.compact.kernel import EvidencePoints, TrainableKernel, posterior, posterior_weights
from msat_core.training.losses import pairwise_loss, pointwise_loss
from msat_core.training.schedule import one_cycle

N_PAIRS = 400  # candidate pairs of each episode's ranking loss
HELD_OUT_ITEMS = 0.3  # of the items, by text, in each calibration fold
CALIBRATION_EXAMS = (150, 500, 1000)  # shots of the exams that calibration is fitted on


@dataclass(frozen=True)
class CompactSettings:
    """How to train; the defaults are those of the shipped scorer.

    Attributes:
        steps: episodes.
        learning_rate, weight_decay: of AdamW.
        hidden, n_skills, dropout: see :class:`TrainableKernel`.
        pair_weight: weight of the ranking loss beside the pointwise one.
        new_candidate_scale: factor on the prior's standard deviation of skills and tasks after
            training: candidates never trained on differ less from the average than those the
            skills were fitted to. Chosen on held-out candidates (examples/reproduce/LOG.md).
        folds: of candidate families, for the calibration.
        seed: of everything random.
    """

    steps: int = 60
    learning_rate: float = 3e-3
    weight_decay: float = 0.7
    hidden: int = 96
    n_skills: int = 12
    dropout: float = 0.1
    pair_weight: float = 1.0
    new_candidate_scale: float = 0.5
    folds: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        check_count("steps", self.steps)
        check_count("folds", self.folds, least=2)


@dataclass(frozen=True)
class _Calibration:
    slope: float
    intercept: float


Progress = Callable[[str, int, int], None]


def train_compact(
    records: Records,
    vectors: NDArray[np.float32],
    encoder_digest: str,
    settings: CompactSettings | None = None,
    *,
    encoder_files: EncoderFiles | None = None,
    progress: Progress | None = None,
) -> CompactScorer:
    """Train a compact scorer on all candidates of the records, calibrated on held-out ones.

    Args:
        records: what to learn from; leave exam items out first (``Records.without_texts``).
        vectors: embeddings of its items, (N, D).
        encoder_digest: which encoder made them.
        settings: see :class:`CompactSettings`.
        encoder_files: of that encoder, if it is not the one that msat ships.
        progress: called with (what, steps done, steps in all).
    """
    settings = settings or CompactSettings()
    x = torch.from_numpy(vectors)
    folds = calibration_folds(records.candidates, settings.folds, settings.seed)
    calibration = _calibrate(records, x, folds, settings, progress)
    kernel = train_kernel(records, x, settings, progress=_named(progress, "training"))
    scorer = uncalibrated_scorer(kernel, encoder_digest, encoder_files=encoder_files)
    scorer.config = scorer.config.changed(
        slope=calibration.slope,
        intercept=calibration.intercept,
        trained_on={
            "benchmarks": ", ".join(dict.fromkeys(records.benchmarks)),
            "n_items": len(records),
            "n_candidates": len(records.candidates),
            "n_outcomes": int((~np.isnan(records.outcomes)).sum()),
            **asdict(settings),
        },
    )
    return scorer


def uncalibrated_scorer(
    kernel: TrainableKernel, encoder_digest: str, *, encoder_files: EncoderFiles | None = None
) -> CompactScorer:
    """A scorer with a kernel as it was learnt; arguments as of :func:`train_compact`."""
    served = kernel.frozen()
    config = CompactConfig(
        encoder_digest=encoder_digest,
        dim=served.dim,
        hidden=served.hidden,
        n_skills=served.n_skills,
    )
    return CompactScorer(config, served, encoder_files=encoder_files)


def train_kernel(
    records: Records,
    x: Tensor,
    settings: CompactSettings,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> TrainableKernel:
    """Fit difficulty and kernel on episodes; deterministic from ``settings.seed``."""
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        rng = np.random.default_rng(settings.seed)
        kernel = TrainableKernel(
            x.shape[1], hidden=settings.hidden, n_skills=settings.n_skills, dropout=settings.dropout
        )
        sampler = EpisodeSampler(records, seed=settings.seed)
        optimiser = torch.optim.AdamW(_decayed(kernel, settings.weight_decay), lr=settings.learning_rate)
        schedule = one_cycle(optimiser, settings.learning_rate, settings.steps)
        tasks = np.array(records.tasks)
        for step in range(settings.steps):
            episode = sampler.draw()
            points = evidence_points(x[episode.shots], tasks[episode.shots])
            logits = _logits(kernel, points, x[episode.queries], episode)
            outcomes = torch.from_numpy(episode.query_outcomes)
            first, second = torch.from_numpy(rng.integers(0, len(outcomes), (2, N_PAIRS)))
            loss = pointwise_loss(logits, outcomes)
            loss = loss + settings.pair_weight * pairwise_loss(logits, outcomes, first, second)
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(kernel.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            if progress is not None:
                progress(step + 1, settings.steps)
    with torch.no_grad():
        kernel.log_scale[1:3] += math.log(settings.new_candidate_scale)
    return kernel.eval().requires_grad_(False)


def evidence_points(vectors: Tensor, tasks: NDArray[np.str_]) -> EvidencePoints:
    """Points of evidence of single shots: (E, D) embeddings and their E tasks."""
    _, task_of = np.unique(tasks, return_inverse=True)
    membership = torch.eye(int(task_of.max()) + 1)[torch.from_numpy(task_of)]
    return EvidencePoints(vectors, membership, torch.nn.functional.normalize(membership.T @ vectors, dim=1))


def candidate_folds(candidates: tuple[str, ...], n_folds: int, seed: int) -> list[list[int]]:
    """Positions of the candidates in folds of similar size, families kept together."""
    families: dict[str, list[int]] = {}
    for i, name in enumerate(candidates):
        families.setdefault(family_of(name), []).append(i)
    names = np.random.default_rng(seed).permutation(sorted(families)).tolist()
    folds: list[list[int]] = [[] for _ in range(n_folds)]
    for family in sorted(names, key=lambda name: -len(families[name])):
        min(folds, key=len).extend(families[family])
    return [fold for fold in folds if fold]


def calibration_folds(candidates: tuple[str, ...], n_folds: int, seed: int) -> list[list[int]]:
    """Positions of the candidates to hold out one fold after the other; at least two are always left to train on.

    Families are held out whole. Where too few candidates are of other families, each candidate is by itself, and the
    calibration is of candidates whose kin were seen.

    Raises:
        RecordsError: there are fewer than three candidates.
    """
    if len(candidates) < 3:
        raise RecordsError(
            f"Training holds one candidate out and learns from at least two others, got {len(candidates)} in all "
            f"({', '.join(candidates)}): add the outcomes of other candidates."
        )
    folds = candidate_folds(candidates, n_folds, seed)
    return [fold for fold in folds if len(candidates) - len(fold) >= 2] or [[i] for i in range(len(candidates))]


def _logits(kernel: TrainableKernel, points: EvidencePoints, x: Tensor, episode: Episode) -> Tensor:
    covariance, _ = kernel.prior_covariance(points)
    outcomes = torch.from_numpy(episode.shot_outcomes)
    offset = kernel.base(points.vectors) + episode.mean_ability
    weights = posterior_weights(covariance, offset, torch.nan_to_num(outcomes), (~torch.isnan(outcomes)).to(x.dtype))
    return kernel.base(x)[None] + episode.mean_ability + weights @ kernel.cross_covariance(x, points).T  # (M, N)


def _calibrate(
    records: Records, x: Tensor, folds: list[list[int]], settings: CompactSettings, progress: Progress | None
) -> _Calibration:
    """Fit slope and intercept on candidates and items that the fold's kernel has not seen."""
    rng = np.random.default_rng(settings.seed)
    texts = np.array(records.text_sha256)
    logits, outcomes = [], []
    for number, fold in enumerate(folds):
        held = np.isin(texts, rng.permutation(np.unique(texts))[: int(HELD_OUT_ITEMS * len(np.unique(texts)))])
        others = [name for i, name in enumerate(records.candidates) if i not in fold]
        kept = records.select_items(~held).select_candidates(others)
        kernel = train_kernel(
            kept, x[torch.from_numpy(~held)], settings, progress=_named(progress, f"calibration fold {number + 1}")
        )
        for size in CALIBRATION_EXAMS:
            for logit, truth in _held_out_logits(kernel, records, x, fold, np.flatnonzero(held), size, rng):
                logits.append(logit)
                outcomes.append(truth)
    if not logits:
        raise RecordsError(
            "No candidate has enough outcomes to be held out for calibration: expected at least four of each on "
            "different questions."
        )
    return _Calibration(*slope_fit(np.concatenate(logits), np.concatenate(outcomes)))


def _held_out_logits(
    kernel: TrainableKernel,
    records: Records,
    x: Tensor,
    fold: list[int],
    held: NDArray[np.intp],
    n_shots: int,
    rng: np.random.Generator,
) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Shrunken logits and outcomes of each new candidate, after an exam on half of its held-out items at most."""
    tasks, pairs = np.array(records.tasks), []
    for candidate in fold:
        outcome = records.outcomes[candidate]
        known = rng.permutation(held[~np.isnan(outcome[held])])
        shots, queries = np.split(known, [min(n_shots, len(known) // 2)])
        if len(shots) < 2:
            continue
        points = evidence_points(x[shots], tasks[shots])
        covariance, broad = kernel.prior_covariance(points)
        truth = torch.from_numpy(outcome[shots])[None]
        solved = posterior(
            covariance,
            broad,
            kernel.base(points.vectors),
            truth,
            torch.ones_like(truth),
            kernel.log_scale[3].exp() ** 2,
        )
        mean = kernel.base(x[queries]) + kernel.cross_covariance(x[queries], points) @ solved.weights[0]
        pairs.append(((mean * moderation(solved.variance[0])).numpy(), outcome[queries]))
    return pairs


def _decayed(kernel: TrainableKernel, weight_decay: float) -> list[dict[str, object]]:
    matrices = [p for p in kernel.parameters() if p.ndim > 1]
    others = [p for p in kernel.parameters() if p.ndim <= 1]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def _named(progress: Progress | None, what: str) -> Callable[[int, int], None] | None:
    return None if progress is None else lambda done, total: progress(what, done, total)
