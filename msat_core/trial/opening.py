"""A trial from files and names, as the command line states it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from msat_core.aptitude.graders.judge import DEFAULT_RUBRIC, Judge
from msat_core.aptitude.graders.naming import Graders
from msat_core.aptitude.openai_client import client_named
from msat_core.aptitude.sitting import RunSettings
from msat_core.encoders.base import Encoder
from msat_core.encoders.loading import load_encoder
from msat_core.errors import ConfigurationError
from msat_core.importers.traces import TraceFormat
from msat_core.scoring.base import Scorer
from msat_core.trial.agreement import read_human_marks
from msat_core.trial.candidates import Contender, read_candidates
from msat_core.trial.questions import DEFAULT_N, read_questions
from msat_core.trial.trial import Trial


def open_trial(
    questions: str | Path,
    candidates: str | Path | Sequence[Contender],
    *,
    n: int | None = DEFAULT_N,
    grader: str | None = None,
    format: TraceFormat | None = None,
    feedback: str | None = None,
    columns: Mapping[str, str] | None = None,
    run_code: bool = False,
    rubric: str | None = None,
    judge: str | Path | Contender | None = None,
    judge_check: str | Path | None = None,
    settings: RunSettings | None = None,
    max_usd: float | None = None,
    target: float | None = None,
    scorer: Scorer | None = None,
    keys: bool = True,
) -> Trial:
    """A trial of the questions in a file and the candidates in another.

    Args:
        questions: see :func:`msat_core.trial.questions.read_questions`.
        candidates: a file (see :func:`msat_core.trial.candidates.read_candidates`), or contenders.
        n: most questions, spread over the tasks; None for all.
        grader, format, feedback, columns: see :func:`read_questions`.
        run_code: whether the grader ``code`` may run what candidates wrote.
        rubric: of judges, where a question has none.
        judge: ``openai:NAME``, a file of candidates that names one, or a contender.
        judge_check: a file of people's marks, by which the judge is checked.
        settings: how hard endpoints are leant on.
        max_usd, target, scorer: see :class:`Trial`.
        keys: whether the keys that a file of candidates names must be set; a plan asks nobody.

    Raises:
        MsatError: a file cannot be read, or what it says cannot work.
    """
    graders = Graders(run_code, _embed, rubric or DEFAULT_RUBRIC)
    own_questions = read_questions(questions, graders, grader=grader, format=format, feedback=feedback, columns=columns)
    contenders = read_candidates(candidates, keys=keys) if isinstance(candidates, (str, Path)) else candidates
    marks = [] if judge_check is None else read_human_marks(judge_check, Judge(rubric=graders.rubric))
    return Trial(
        own_questions if n is None else own_questions.sample(n),
        contenders,
        _judge(judge),
        settings or RunSettings(),
        max_usd,
        target,
        scorer,
        marks,
    )


def _judge(judge: str | Path | Contender | None) -> Contender | None:
    if judge is None or isinstance(judge, Contender):
        return judge
    if isinstance(judge, Path) or Path(judge).is_file():
        contenders = read_candidates(judge)
        if len(contenders) != 1:
            raise ConfigurationError(f"{judge} names {len(contenders)} candidates: one of them can be the judge.")
        return contenders[0]
    return Contender.of(client_named(judge))


def _embed(texts: Sequence[str]) -> NDArray[np.float32]:
    return _encoder().encode(list(texts)).vectors


@cache
def _encoder() -> Encoder:
    return load_encoder()
