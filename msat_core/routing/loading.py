"""What a router is made of, from files: a scorer that knows the exams, a zoo, and a trial's policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from msat_core import pretrained
from msat_core.errors import ArtefactError, ConfigurationError
from msat_core.exam import Exam, exams_beside
from msat_core.routing.policy import RoutingPolicy
from msat_core.scoring import loading
from msat_core.scoring.base import Scorer
from msat_core.zoo import Zoo

ZOO_FILE, POLICY_FILE = "zoo.json", "policy.json"  # of a trial's folder


class RouterParts(NamedTuple):
    """A router's scorer, zoo and policy."""

    scorer: Scorer
    zoo: Zoo
    policy: RoutingPolicy | Mapping[str, Any] | str | Path | None


def load_parts(
    path: str | Path | None,
    *,
    zoo: Zoo | Sequence[str] | str | Path | None,
    policy: RoutingPolicy | Mapping[str, Any] | str | Path | None,
    exams: Sequence[Exam],
    device: str | None,
) -> RouterParts:
    """See :meth:`msat_core.Router.from_pretrained`."""
    scorer = loading.load(pretrained.SCORER if path is None else path, device=device)
    for exam in map(Exam.load, pretrained.EXAMS):
        scorer.add_exam(exam)
    if not isinstance(zoo, (Zoo, str, Path, type(None))):
        zoo = _shipped(zoo)
    if not isinstance(zoo, Zoo):
        file = pretrained.ZOO if zoo is None else Path(zoo)
        if file.is_dir():
            advised, file = file / POLICY_FILE, file / ZOO_FILE
            policy = RoutingPolicy.load(advised) if policy is None and advised.is_file() else policy
        zoo, exams = Zoo.load(file), [*exams, *exams_beside(file.parent)]
    for exam in exams:
        if not scorer.add_exam(exam):
            raise ArtefactError(
                f"The exam {exam.sheet.name!r} has no shot embeddings that this scorer can read: "
                "make it again with this scorer's encoder."
            )
    return RouterParts(scorer, zoo, policy)


def _shipped(names: object) -> Zoo:
    if isinstance(names, Sequence) and all(isinstance(name, str) for name in names):
        shipped = Zoo.load(pretrained.ZOO)
        return shipped.subset(dict.fromkeys(shipped[name].name for name in names))
    raise ConfigurationError(
        f"Expected as zoo a Zoo, a zoo file or a list of names of the shipped zoo, got {type(names).__name__}: make "
        "one of your own candidates with Zoo.of([…])."
    )
