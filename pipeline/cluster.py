"""The machines of a run: this one, or the cluster that RAY_ADDRESS names."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import ray
import torch

from actors.storage import is_local
from schemas.run import RenderRun, UsageError

# Reading the work units and cutting them into blocks (one CPU, Ray Data's default) goes on beside the actors; if
# these hold every CPU, a run never starts. The shares are for scheduling: an actor without a GPU uses all its threads.
READ_CPUS = 0.25
_HEADROOM_CPUS = 1 + READ_CPUS
_MIN_CPUS = 0.5
_OBJECT_STORE_BYTES = 256 * 2**20  # units and records only: frames never enter the object store


@dataclass(frozen=True)
class Resources:
    """What there is to run on."""

    cpus: float
    gpus: float
    nodes: int


@dataclass(frozen=True)
class Compute:
    """The actor pool that a run gets."""

    actors: int
    cpus_per_actor: float
    gpus_per_actor: float
    threads: int  # torch threads of one actor
    dtype: str

    @property
    def device(self) -> str:
        return "cuda" if self.gpus_per_actor else "cpu"


def is_remote() -> bool:
    """Whether RAY_ADDRESS names a cluster (`ray job submit` sets it for the job)."""
    return os.environ.get("RAY_ADDRESS", "local") != "local"


@contextmanager
def ray_session() -> Iterator[None]:
    """Ray for the length of a run: the cluster of RAY_ADDRESS, else a local one that ends with the run."""
    if ray.is_initialized():
        yield
        return
    if is_remote():
        ray.init(log_to_driver=False, logging_level=logging.WARNING)
    else:
        # Ray's C++ core writes advice for its own developers to our stderr; set the variable to see it.
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        ray.init(
            address="local",
            num_cpus=_local_cpus(),
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=_OBJECT_STORE_BYTES,
        )
    try:
        yield
    finally:
        ray.shutdown()


def resources() -> Resources:
    """What the run can use; asks the cluster if there is one, else this machine without starting Ray."""
    if not is_remote():
        return Resources(cpus=_local_cpus(), gpus=torch.cuda.device_count(), nodes=1)
    with ray_session():
        total = ray.cluster_resources()
        alive = sum(node["Alive"] for node in ray.nodes())
    return Resources(cpus=total.get("CPU", 0), gpus=total.get("GPU", 0), nodes=alive)


def _local_cpus() -> int:
    return max(2, len(os.sched_getaffinity(0)))


def choose_compute(run: RenderRun, available: Resources) -> Compute:
    """The actor pool of a run.

    Raises:
        UsageError: the run asks for more than there is, or its paths do not fit the cluster.
    """
    _check_paths(run, available)
    gpus_per_actor = run.gpus_per_actor if available.gpus else 0.0
    actors = run.actors or (int(available.gpus / gpus_per_actor) if gpus_per_actor else 1)
    cores = available.cpus / actors
    cpus_per_actor = run.cpus_per_actor or (
        1.0 if gpus_per_actor else max(_MIN_CPUS, available.cpus - _HEADROOM_CPUS) / actors
    )
    _check_fit("CPU", actors, cpus_per_actor, _HEADROOM_CPUS, available.cpus)
    _check_fit("GPU", actors, gpus_per_actor, 0.0, available.gpus)
    dtype = run.dtype
    if dtype == "auto":
        dtype = "bfloat16" if gpus_per_actor else "float32"
    return Compute(actors, cpus_per_actor, gpus_per_actor, max(1, int(cores)), dtype)


def _check_fit(kind: str, actors: int, each: float, headroom: float, available: float) -> None:
    needed = actors * each + headroom
    if needed > available:
        fitting = int((available - headroom) / each)
        fewer = f"use --actors {fitting} or fewer, or " if fitting >= 1 else "use "
        raise UsageError(
            f"actors = {actors}: with {each:g} {kind}s each and {headroom:g} for reading they need {needed:g} {kind}s, "
            f"but there are {available:g}; {fewer}a smaller --{kind.lower()}s-per-actor"
        )


def _check_paths(run: RenderRun, available: Resources) -> None:
    if available.nodes < 2:
        return
    for name in ("manifest", "model", "output"):
        if is_local(getattr(run, name)):
            raise UsageError(
                f"{name} = {getattr(run, name)!r}: a local path on a cluster of {available.nodes} nodes; "
                "the other nodes cannot see it, use object storage (s3://...)"
            )
