"""The actor pool of a run, fitted to the machines there are."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import ray
from pydantic import BaseModel

from actors.storage import is_local
from pipeline.cluster import is_remote, local_cpus, ray_session
from schemas.run import RenderRun, UsageError

# Reading the work units and cutting them into blocks (one CPU, Ray Data's default) goes on beside the actors; if
# these hold every CPU, a run never starts. The shares are for scheduling: an actor without a GPU uses all its threads.
READ_CPUS = 0.25
_HEADROOM_CPUS = 1 + READ_CPUS
_MIN_CPUS = 0.5
# Without a GPU, actors of one thread each: two of them rendered twice as fast as one with two threads, which mostly
# wait for each other (docs/performance.md). Each holds a model, hence the bound.
_MAX_CPU_ACTORS = 4


@dataclass(frozen=True)
class Resources:
    """What there is to run on."""

    cpus: float
    gpus: float
    nodes: int
    each_node: tuple[tuple[float, float], ...] = ()  # (CPUs, GPUs) of each; an actor must fit on one


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


def resources() -> Resources:
    """What the run can use; asks the cluster if there is one, else this machine without starting Ray."""
    if not is_remote():
        import torch  # seconds to import, and needed for nothing else here

        return Resources(cpus=local_cpus(), gpus=torch.cuda.device_count(), nodes=1)
    with ray_session():
        total = ray.cluster_resources()
        alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    each_node = tuple((node.get("CPU", 0.0), node.get("GPU", 0.0)) for node in alive)
    return Resources(total.get("CPU", 0), total.get("GPU", 0), len(alive), each_node)


def with_room(run: RenderRun, available: Resources) -> Resources:
    """The same with CPUs for an actor on every GPU, on nodes that are not known."""
    actors = run.actors or int(available.gpus / run.gpus_per_actor)
    needed = actors * (run.cpus_per_actor or 1.0) + _HEADROOM_CPUS
    return replace(available, cpus=max(available.cpus, needed), each_node=())


def choose_compute(run: RenderRun, available: Resources) -> Compute:
    """The actor pool of a run.

    Raises:
        UsageError: the run asks for more than there is, or its paths do not fit the cluster.
    """
    check_paths(run, ("manifest", "model", "output"), available)
    gpus_per_actor = run.gpus_per_actor if available.gpus else 0.0
    actors = run.actors or (
        int(available.gpus / gpus_per_actor) if gpus_per_actor else _cpu_actors(run, available.cpus)
    )
    cores = available.cpus / actors
    cpus_per_actor = run.cpus_per_actor or (
        1.0 if gpus_per_actor else max(_MIN_CPUS, available.cpus - _HEADROOM_CPUS) / actors
    )
    _check_fit("CPU", actors, cpus_per_actor, _HEADROOM_CPUS, available.cpus)
    _check_fit("GPU", actors, gpus_per_actor, 0.0, available.gpus)
    _check_nodes(actors, cpus_per_actor, gpus_per_actor, available.each_node)
    if run.speed.cpu_offload and not gpus_per_actor:
        raise UsageError(
            "speed.cpu_offload = true: moves models between a GPU and main memory; there is no GPU"
        )
    dtype = run.dtype
    if dtype == "auto":
        dtype = "bfloat16" if gpus_per_actor else "float32"
    return Compute(actors, cpus_per_actor, gpus_per_actor, max(1, int(cores)), dtype)


def _cpu_actors(run: RenderRun, cpus: float) -> int:
    most = int((cpus - _HEADROOM_CPUS) / run.cpus_per_actor) if run.cpus_per_actor else int(cpus)
    return max(1, min(_MAX_CPU_ACTORS, most))


def _check_fit(kind: str, actors: int, each: float, headroom: float, available: float) -> None:
    needed = actors * each + headroom
    if needed > available:
        fitting = int((available - headroom) / each)
        fewer = f"use --actors {fitting} or fewer, or " if fitting >= 1 else "use "
        raise UsageError(
            f"actors = {actors}: with {each:g} {kind}s each and {headroom:g} for reading they need {needed:g} {kind}s, "
            f"but there are {available:g}; {fewer}a smaller --{kind.lower()}s-per-actor"
        )


def _check_nodes(actors: int, cpus: float, gpus: float, each_node: tuple[tuple[float, float], ...]) -> None:
    """Refuses actors that would wait for ever for a node that is large enough."""
    if not each_node:
        return
    fitting = sum(
        int(min(node_cpus / cpus, node_gpus / gpus if gpus else actors)) for node_cpus, node_gpus in each_node
    )
    if fitting < actors:
        shapes = ", ".join(
            f"{node_cpus:g} CPUs and {node_gpus:g} GPUs" for node_cpus, node_gpus in sorted(set(each_node))
        )
        raise UsageError(
            f"actors = {actors}: with {cpus:g} CPUs and {gpus:g} GPUs each, {fitting} fit on the nodes there are "
            f"({shapes}); use fewer --actors or a smaller --cpus-per-actor"
        )


def check_paths(run: BaseModel, names: Iterable[str], available: Resources) -> None:
    """Refuses local paths on a cluster of several nodes.

    Raises:
        UsageError: names the field and its value.
    """
    if available.nodes < 2:
        return
    for name in names:
        uri = getattr(run, name, None)
        if uri and is_local(uri):
            raise UsageError(
                f"{name} = {uri!r}: a local path on a cluster of {available.nodes} nodes; "
                "the other nodes cannot see it, use object storage (s3://...)"
            )
