"""The baselines by name: other ways to learn who is right where, on the same embeddings, splits and exam."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from msat_core.errors import ConfigurationError
from msat_core.evaluation.baselines.base import Baseline, OutcomeTable, Predict
from msat_core.evaluation.baselines.factors import CONTRAST, FACTORS, IRT, PAIRWISE, fit_family
from msat_core.evaluation.baselines.neighbours import fit_kmeans, fit_knn, fit_tasks
from msat_core.evaluation.baselines.regressors import fit_forest, fit_mlp

__all__ = ["BASELINES", "Baseline", "OutcomeTable", "Predict", "baselines_named"]

_MAP = "not served as published; here its numbers are fitted to the exam, the instruction's side to others' history"

BASELINES = {
    baseline.name: baseline
    for baseline in (
        Baseline("knn", "k nearest neighbours", "served as published, neighbours among the exam's questions", fit_knn),
        Baseline("kmeans", "per-cluster best (Avengers)", "served as published, accuracies from the exam", fit_kmeans),
        Baseline("tasks", "task-similarity average", "served as published", fit_tasks),
        Baseline(
            "mlp",
            "multilayer perceptron",
            "not served as published; here it learns from others how an instruction and exam results go together",
            fit_mlp,
        ),
        Baseline("forest", "random forest", "served as published, outputs fitted to the exam", fit_forest),
        Baseline("factors", "matrix factorisation (EmbedLLM)", _MAP, partial(fit_family, FACTORS)),
        Baseline("irt", "multidimensional item response theory", _MAP, partial(fit_family, IRT)),
        Baseline("pairwise", "pairwise preference (RouteLLM)", _MAP, partial(fit_family, PAIRWISE)),
        Baseline("contrast", "dual contrastive learning (RouterDC)", _MAP, partial(fit_family, CONTRAST)),
    )
}


def baselines_named(names: Iterable[str]) -> list[Baseline]:
    """The baselines of these names, in order; ``all`` stands for every one.

    Raises:
        ConfigurationError: there is no baseline of such a name.
    """
    wanted = list(dict.fromkeys(names))
    if "all" in wanted:
        return list(BASELINES.values())
    for name in wanted:
        if name not in BASELINES:
            raise ConfigurationError(f"There is no baseline {name!r}: expected all, or some of {', '.join(BASELINES)}.")
    return [BASELINES[name] for name in wanted]
