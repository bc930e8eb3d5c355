"""The same job on Ray Data: parts are the rows of a dataset, and each worker holds a router of its own.

A part is written under its own name and renamed when it is whole, so it may be routed twice and is there once: when a
worker dies, Ray gives its part to another.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from msat_core.errors import ConfigurationError, MsatError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from msat_core.bulk.instruction_files import Part
    from msat_core.bulk.job import Job

    Batch = dict[str, NDArray[np.int64]]


class PartRouter:
    """A worker: routes and writes the parts whose numbers it is given."""

    def __init__(self, job: Job, parts: dict[int, Part]) -> None:
        self._job, self._parts = job, parts

    def __call__(self, batch: Batch) -> Batch:
        """Numbers of parts in, how many rows each has out."""
        for number in batch["part"]:
            self._job.run(self._parts[number])
        return batch


def run_on_ray(job: Job, parts: Sequence[Part], workers: int | None, advance: Callable[[int], None]) -> None:
    """Route the parts; ``advance`` is told the rows of each that is done.

    Args:
        job: what to do.
        parts: which.
        workers: how many; None for one a CPU of the cluster.
        advance: called here.

    Raises:
        ConfigurationError: Ray is not installed.
    """
    try:
        import ray
        import ray.data
    except ImportError:
        raise ConfigurationError('Routing on workers needs `ray`: pip install "model-sat-router[ray]".') from None
    on_gpu = str(getattr(job.router.scorer, "device", None) or "").startswith("cuda")
    with _cluster(workers):
        resource = "GPU" if on_gpu else "CPU"
        resources: Any = ray.cluster_resources  # untyped there
        count = workers or max(1, int(resources().get(resource, 1)))
        by_number = {part.number: part for part in parts}
        numbers = ray.data.from_items([{"part": number} for number in by_number], override_num_blocks=len(parts))
        routed = numbers.map_batches(
            PartRouter,
            fn_constructor_args=(job, by_number),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=min(count, len(parts))),
            num_cpus=1,
            num_gpus=1 if on_gpu else None,
            runtime_env={"env_vars": _sums_as_here()},
        )
        try:
            for row in routed.iter_rows():
                advance(by_number[row["part"]].n_rows)
        except ray.exceptions.RayError as error:
            if cause := _own_error(error):
                raise cause from None
            raise


def _sums_as_here() -> dict[str, str]:
    """Settings by which a worker's BLAS adds numbers in the order of this process's, and so to the same last bit.

    Ray gives a worker one thread; of how many there are depends how a product is cut up.
    """
    wanted = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")
    threads = next((os.environ[name] for name in wanted if os.environ.get(name)), str(os.cpu_count() or 1))
    return {name: threads for name in wanted[:2]}


@contextmanager
def _cluster(workers: int | None) -> Iterator[None]:
    """The cluster that the program or ``RAY_ADDRESS`` names, else one on this machine for as long as this lasts."""
    import ray
    from ray.data import DataContext

    ours = not ray.is_initialized()
    if ours:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent to anybody
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        local: dict[str, Any] = {} if "RAY_ADDRESS" in os.environ else {"num_cpus": workers, "include_dashboard": False}
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **local)
        logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = DataContext.get_current()
    bars, context.enable_progress_bars = context.enable_progress_bars, False
    try:
        yield
    finally:
        context.enable_progress_bars = bars
        if ours:
            ray.shutdown()


def _own_error(error: BaseException | None) -> MsatError | None:
    """The error of ours that one of Ray's was made of."""
    while error is not None and not isinstance(error, MsatError):
        error = getattr(error, "cause", None) or error.__cause__
    return error
