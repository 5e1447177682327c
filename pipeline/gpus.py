"""GPUs that a cluster starts on demand: counted on when a plan is made, asked for once there is something to render."""

import logging
from contextlib import ExitStack
from dataclasses import replace

import ray
from ray.util.placement_group import placement_group, remove_placement_group

from pipeline.cluster import is_remote, ray_session
from pipeline.compute import Compute, Resources, choose_compute, resources, with_room
from schemas.run import InfrastructureError, RenderRun, UsageError

logger = logging.getLogger(__name__)

_AT_ONCE_S = 3.0  # what GPUs that are there and free take to say so


def to_plan_with(run: RenderRun, available: Resources) -> Resources:
    """What a plan may count on: what is there, and the GPUs that the run will ask for.

    Raises:
        UsageError: the run waits for GPUs, and nothing can start any.
    """
    if available.gpus >= run.wait_for_gpus:
        return available
    if is_remote():
        # The nodes are not known yet; whether the actors fit on them is checked once they are there.
        return with_room(run, replace(available, gpus=run.wait_for_gpus, nodes=max(2, available.nodes)))
    if not available.gpus:
        raise UsageError(
            f"wait_for_gpus = {run.wait_for_gpus}: this machine has no GPU, and RAY_ADDRESS names no cluster"
        )
    return available


def about_gpus(run: RenderRun, available: Resources) -> list[str]:
    """What a plan has to say about GPUs that are not there."""
    if not is_remote() or available.gpus >= max(1, run.wait_for_gpus):
        return []
    if not run.wait_for_gpus:
        return [
            "no node of the cluster has a GPU: this renders on CPUs; --wait-for-gpus N asks for GPUs first"
        ]
    return [
        f"the cluster has {available.gpus:g} GPUs now; the run asks for {run.wait_for_gpus} "
        f"and waits for up to {run.wait_for_gpus_s:g} s"
    ]


def choose_compute_now(run: RenderRun) -> Compute:
    """The actor pool on what is there, after the GPUs that the run asks for were waited for.

    Raises:
        UsageError: as `choose_compute`, of the nodes that came.
        InfrastructureError: not one GPU came in time.
    """
    if run.wait_for_gpus and is_remote():
        with ray_session():
            _wait(run.wait_for_gpus, run.wait_for_gpus_s)
    return choose_compute(run, resources())


def _wait(count: int, limit_s: float) -> None:
    """Asks for each GPU by itself, so that those that come early stay, and a demand ends with this process."""
    with ExitStack() as stack:
        asked = [placement_group([{"GPU": 1}]) for _ in range(count)]
        for one in asked:
            stack.callback(remove_placement_group, one)
        refs = [one.ready() for one in asked]
        came, missing = ray.wait(refs, num_returns=count, timeout=_AT_ONCE_S)
        if missing:
            logger.warning(
                "asking the cluster for %d GPUs, %d of them free; waiting for up to %g s",
                count,
                len(came),
                limit_s,
            )
            came, missing = ray.wait(refs, num_returns=count, timeout=limit_s)
    if missing and not ray.cluster_resources().get("GPU"):
        raise InfrastructureError(
            f"wait_for_gpus = {count}: no GPU came within {limit_s:g} s; does the cluster start nodes with GPUs?"
        )
    if missing:
        logger.warning("%d of %d GPUs came within %g s; going on with those", len(came), count, limit_s)
