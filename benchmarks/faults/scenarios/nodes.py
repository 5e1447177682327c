"""SIGKILL of whole nodes of a cluster (their raylets), and of what runs on them; new nodes take their places."""

import os
import random
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, wait
from contextlib import contextmanager
from typing import Any

from benchmarks.faults.fault import DIRECTORY_VARIABLE, Fault, spread
from benchmarks.faults.lab import Lab, put_lab, write_manifest
from benchmarks.faults.life import Life
from benchmarks.faults.outputs import S3Output
from benchmarks.faults.result import Result
from examples.s3_server import S3Server

KINDS = ("kill_node",)
# So that two actors get one thread each, as everywhere else: the last bit of a pixel may depend on their number.
_CPUS_OF_NODES = (2, 1)
_CPUS_PER_ACTOR = "0.5"
_SPARE_ROWS = 6
_POLL_S = 0.2
_POINTS = ("render", "rendered", "upload", "uploaded", "committed")


def run(lab: Lab, name: str, counts: Mapping[str, int]) -> Result:
    """One manifest on a cluster whose nodes die under it one after another."""
    chance = random.Random(lab.seed)
    count = counts.get("kill_node", 0)
    rows = lab.pool(2 * count + _SPARE_ROWS)
    faults = [
        Fault(f"kill_node-{index:02d}", "kill_node", chance.choice(_POINTS), row["row_id"], "kill-node")
        for index, row in enumerate(spread(rows, count))
    ]
    write_manifest(lab.base / f"{name}.parquet", rows)
    with S3Server(lab.folder / f"s3-{name}") as server:
        put_lab(lab, server.client(), f"{name}.parquet")
        output = S3Output(server.client(), "outputs", name)
        arguments = ("--manifest", f"s3://styles/{name}.parquet", "--model", "s3://styles/model")
        flags = (
            "--output",
            output.uri,
            "--actors",
            "2",
            "--cpus-per-actor",
            _CPUS_PER_ACTOR,
            "--unit-rows",
            "1",
        )
        life = Life(lab, name, output, [*arguments, *flags], lab.expected(rows), faults, may_break=True)
        life.environment = server.environment()
        with _cluster(life) as cluster:
            life.environment = server.environment() | {"RAY_ADDRESS": cluster.address}
            _live(life, cluster)
        life.environment = server.environment()
        return life.result()


def _live(life: Life, cluster: Any) -> None:
    """The life goes on in a thread; this one, the only one in which Ray starts nodes, replaces those that die."""
    outcome: Future[None] = Future()

    def live() -> None:
        try:
            life.run_until_done()
            outcome.set_result(None)
        except BaseException as error:
            outcome.set_exception(error)
            raise

    threading.Thread(target=live, daemon=True).start()
    try:
        while not wait([outcome], _POLL_S).done:
            for node in list(cluster.worker_nodes):
                if (
                    _raylet_process(node).poll() is not None
                ):  # which also reaps it: a zombie's workers live on
                    cluster.remove_node(node, allow_graceful=False)
                    cluster.add_node(num_cpus=node.get_resource_and_label_spec().num_cpus)
        outcome.result()
    finally:
        life.abandon()


@contextmanager
def _cluster(life: Life) -> Iterator[Any]:
    """A head that computes nothing, and worker nodes."""
    environment = life.lab.environment | life.environment | {DIRECTORY_VARIABLE: str(life.directory.path)}
    with _environment(environment):
        from ray.cluster_utils import Cluster  # not at the top: a run of other scenarios needs no Ray in here

        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        try:
            life.directory.write_pid("head", int(_raylet_process(cluster.head_node).pid))
            for cpus in _CPUS_OF_NODES:
                cluster.add_node(num_cpus=cpus)
            yield cluster
        finally:
            cluster.shutdown()


def _raylet_process(node: Any) -> Any:
    return node.all_processes["raylet"][0].process


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """This process's environment for a while: Ray gives it on to the nodes that it starts."""
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
