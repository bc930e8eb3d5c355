"""One scale for published scores: from a leaderboard's accuracies to what a candidate would get in msat's exams.

Benchmarks differ in how hard they are and in how sharply they tell candidates apart, so raw accuracies of different
tables cannot be compared. On the scale, every task has a difficulty and a slope of its own, and a candidate has a
level, common to all tasks, with small deviations by area (mathematics, code, …) and by source (how it was asked):

    logit of the accuracy beyond chance = slope × (level + deviations) − difficulty + noise

which is a Gaussian linear model once the tasks are known: the level of a candidate and its uncertainty follow from
any subset of the tasks in closed form. The exams of msat are tasks like others, linked by the candidates that have
both; so the same posterior says what to expect in them, and how surely. The scale is fitted by
``msat_core.training.score_scale``.

Shapes: T published tasks, K exam areas, L latent values (the level, then the deviations).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from msat_core.documents import Document
from msat_core.errors import ArtefactError, MsatError
from msat_core.special_functions import moderation

Array = NDArray[np.float64]

UNSTATED_QUESTIONS = 50  # what a score counts for where nobody says how many questions are behind it
UNKNOWN_TASK_VARIANCE = 0.5  # logits: an unknown task may be unlike all known ones of its area
MOST_QUESTIONS = 500  # more questions tell the candidate no better: how it was asked decides
AREAS: tuple[tuple[str, tuple[str, ...]], ...] = (  # the first area with one of its words in a task's keywords
    ("judged", ("judge scored",)),
    ("ten choices", ("ten choices",)),
    ("vision", ("vision", "images", "image", "video understanding", "images and text")),
    ("tools", ("tool use", "function calling", "agent memory", "conversation with tools", "web search tool")),
    ("agents", ("agent", "computer use agent", "professional work agent", "office work agent", "games")),
    ("code", ("python", "code", "code editing", "programming", "competitive programming", "unit tests", "function")),
    ("maths", ("mathematics", "maths", "algebra", "calculus", "arithmetic", "geometry", "number theory", "integer")),
    ("puzzles", ("logic puzzle", "deduction", "constraint satisfaction", "abstract patterns", "puzzle", "chess")),
    ("puzzles", ("association puzzle", "spatial reasoning", "shapes", "who knows what", "logic", "trick questions")),
    ("writing", ("instruction following", "format constraints", "paraphrase", "translation", "language", "chat")),
    ("reading", ("story comprehension", "reading comprehension", "reading passage", "narrative order")),
    ("data", ("tables", "data analysis", "data wrangling", "classification")),
    ("academic", ("exam questions", "academic knowledge", "academic subjects", "graduate science", "medicine", "law")),
    ("everyday", ("common sense", "everyday", "physical common sense")),
)
KNOWLEDGE = "knowledge"  # where no other area is named


class ScaleTask(BaseModel):
    """A task of the scale.

    Attributes:
        source, task: whose table, with its release, and the task's name there; or the exam and its area.
        area: which deviation it shares with others.
        slope, difficulty: see the module.
        noise: variance of the logit beyond the counting of answers.
        doubt: covariance of (difficulty, slope): how surely the task itself is known.
        chance: accuracy of a guess.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    task: str
    area: str
    slope: float = Field(gt=0)
    difficulty: float
    noise: float = Field(gt=0)
    doubt: tuple[float, float, float] = (0.0, 0.0, 0.0)
    chance: float = Field(default=0.0, ge=0, lt=1)

    @property
    def key(self) -> tuple[str, str]:
        """Names the task."""
        return self.source, self.task


@dataclass(frozen=True)
class Expectation:
    """What is expected of a candidate in K exam areas.

    Attributes:
        logits: (K,), of the accuracy beyond chance.
        covariance: (K, K).
        n_scores: published scores behind it.
    """

    logits: Array
    covariance: Array
    n_scores: int

    @property
    def level_sd(self) -> float:
        """Standard deviation of the mean logit."""
        return float(np.sqrt(self.covariance.mean()))


class ScoreScale(Document):
    """The fitted scale.

    Attributes:
        tasks: published tasks.
        exam: areas of the shipped exams, in the order of the exam that coarse profiles name.
        area_variance, source_variance: prior variance of the deviations, the level's being 1.
        fitted_on: what it was fitted on, for people.
    """

    kind: ClassVar[str] = "score-scale"
    error: ClassVar[type[MsatError]] = ArtefactError

    tasks: tuple[ScaleTask, ...]
    exam: tuple[ScaleTask, ...]
    area_variance: dict[str, float]
    source_variance: dict[str, float]
    fitted_on: dict[str, str | int | float] = Field(default_factory=dict)

    def latents(self) -> tuple[str, ...]:
        """Names of the L latent values: the level, the areas, the sources."""
        return (
            "level",
            *(f"area {name}" for name in self.area_variance),
            *(f"source {n}" for n in self.source_variance),
        )

    def rows(self, tasks: Sequence[ScaleTask]) -> Array:
        """(len(tasks), L): what each latent value counts in each task, times its slope."""
        position = {name: i for i, name in enumerate(self.latents())}
        rows = np.zeros((len(tasks), len(position)))
        for row, task in zip(rows, tasks, strict=True):
            row[0] = task.slope
            for name in (f"area {task.area}", f"source {source_family(task.source)}"):
                if name in position:
                    row[position[name]] = task.slope
        return rows

    def prior(self) -> Array:
        """(L,), prior variance of the latent values."""
        return np.array([1.0, *self.area_variance.values(), *self.source_variance.values()])

    def posterior(self, scores: Iterable[tuple[ScaleTask, float, int | None]]) -> tuple[Array, Array, int]:
        """Mean (L,) and covariance (L, L) of the latent values, from (task, accuracy, questions) triples."""
        triples = list(scores)
        tasks = [task for task, _, _ in triples]
        observed = [observed_logit(accuracy, n, task.chance) for task, accuracy, n in triples]
        rows, precision = self.rows(tasks), np.diag(1 / self.prior())
        pull = np.zeros(len(precision))
        for row, task, (logit, variance) in zip(rows, tasks, observed, strict=True):
            doubt = task.doubt[0] + task.doubt[2]  # at a level of about one standard deviation from the mean
            weight = 1 / (variance + task.noise + doubt)
            precision += weight * np.outer(row, row)
            pull += weight * row * (logit + task.difficulty)
        covariance: Array = np.linalg.inv(precision).astype(np.float64)
        return covariance @ pull, covariance, len(triples)

    def expectation(self, mean: Array, covariance: Array, n_scores: int) -> Expectation:
        """What a posterior of the latent values says of the exam areas, the link's own uncertainty included."""
        rows = self.rows(self.exam)
        difficulty = np.array([task.difficulty for task in self.exam])
        spread = rows @ covariance @ rows.T
        level = mean[0]
        for k, task in enumerate(self.exam):
            d, c, s = task.doubt
            spread[k, k] += task.noise + d - 2 * c * level + s * (level**2 + covariance[0, 0])
        return Expectation(rows @ mean - difficulty, spread, n_scores)

    def known(self, task: str, source: str) -> ScaleTask | None:
        """The published task of this source and name; None if unsure: boards use the same words for different tasks."""
        by = fold(source)
        named = [entry for entry in self.tasks if fold(entry.task) == fold(task)]
        matches = [entry for entry in named if by and (by in fold(entry.source) or fold(entry.source) in by)]
        return matches[0] if len(matches) == 1 else None

    def category(self, task: str) -> ScaleTask | None:
        """The area of MMLU-Pro of this name."""
        return next((entry for entry in self.exam if fold(entry.task) == fold(f"mmlu_pro/{task}")), None)

    def typical(self, task: str, keywords: Sequence[str]) -> ScaleTask:
        """A task of which only the words are known: as hard as the tasks of its area are, within their spread."""
        area = area_of(keywords or (task,))
        alike = [entry for entry in self.tasks if entry.area == area] or list(self.tasks)
        slope = float(np.mean([entry.slope for entry in alike]))
        difficulty = [entry.difficulty for entry in alike]
        noise = float(np.mean([entry.noise for entry in alike]) + np.var(difficulty) + UNKNOWN_TASK_VARIANCE)
        return ScaleTask(
            source="unknown", task=task, area=area, slope=slope, difficulty=float(np.mean(difficulty)), noise=noise
        )


def area_of(keywords: Sequence[str]) -> str:
    """The area of a task by its keywords."""
    words = {word.strip().lower() for word in keywords}
    return next((area for area, names in AREAS if words & set(names)), KNOWLEDGE)


def source_family(source: str) -> str:
    """The source without its release: ``livebench-2026-01-08`` is LiveBench."""
    return re.split(r"-(?:v?\d|hub)", source)[0]


def fold(name: str) -> str:
    """A name by its letters and digits."""
    return re.sub(r"[\W_]+", " ", name.lower()).strip()


def observed_logit(accuracy: float, n_questions: int | None, chance: float) -> tuple[float, float]:
    """Logit of the accuracy beyond chance, and its variance from counting answers."""
    n = min(n_questions or UNSTATED_QUESTIONS, MOST_QUESTIONS)
    share = (accuracy * n + 0.5) / (n + 1)
    beyond = min(max((share - chance) / (1 - chance), 0.5 / n), 1 - 0.5 / n)
    slope = 1 / ((1 - chance) * beyond * (1 - beyond))
    return float(np.log(beyond / (1 - beyond))), float(slope**2 * share * (1 - share) / (n + 1))


def expected_scores(expectation: Expectation, exam: Sequence[ScaleTask]) -> Mapping[str, float]:
    """Expected accuracy in each exam area: the mean over the logit's spread."""
    chance = np.array([task.chance for task in exam])
    shrunk = expectation.logits * moderation(np.diag(expectation.covariance))
    return dict(zip((task.task for task in exam), chance + (1 - chance) / (1 + np.exp(-shrunk)), strict=True))
