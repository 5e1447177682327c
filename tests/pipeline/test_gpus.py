"""A cluster that starts its GPU nodes on demand: what is planned, asked for, waited for, and said."""

import json
import subprocess
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline import gpus
from pipeline.compute import Resources, choose_compute
from schemas.run import InfrastructureError, RenderRun, UsageError
from tests.support.ray_head import RayHead

ROOT = Path(__file__).parents[2]
DEADLINE_S = 300  # on a machine that is busy with other things
HEAD_ONLY = Resources(cpus=0, gpus=0, nodes=1, each_node=((0.0, 0.0),))


def a_run(**values):
    return RenderRun(manifest="s3://b/m", model="s3://b/model", output="s3://b/o", **values)


@pytest.fixture
def on_cluster(monkeypatch):
    monkeypatch.setattr(gpus, "is_remote", lambda: True)


def test_a_plan_counts_on_the_gpus_that_will_be_waited_for(on_cluster):
    run = a_run(wait_for_gpus=4, gpus_per_actor=0.5, cpus_per_actor=3)
    compute = choose_compute(run, gpus.to_plan_with(run, HEAD_ONLY))
    assert (compute.actors, compute.device, compute.dtype) == (8, "cuda", "bfloat16")
    assert gpus.about_gpus(run, HEAD_ONLY) == [
        "the cluster has 0 GPUs now; the run asks for 4 and waits for up to 1800 s"
    ]


def test_a_plan_goes_by_what_is_there_when_that_is_enough(on_cluster):
    there = Resources(64, 8, 2)
    assert gpus.to_plan_with(a_run(wait_for_gpus=4), there) == there
    assert gpus.about_gpus(a_run(wait_for_gpus=4), there) == []


def test_a_cluster_without_gpu_is_not_rendered_on_in_silence(on_cluster):
    assert "--wait-for-gpus" in gpus.about_gpus(a_run(), Resources(16, 0, 2))[0]


def test_local_paths_are_refused_before_nodes_are_started(on_cluster):
    run = RenderRun(manifest="m.parquet", model="s3://b/model", output="s3://b/o", wait_for_gpus=1)
    with pytest.raises(UsageError, match="a local path on a cluster"):
        choose_compute(run, gpus.to_plan_with(run, HEAD_ONLY))


def test_a_machine_of_its_own_has_nothing_to_wait_for(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(UsageError, match="wait_for_gpus = 2: this machine has no GPU"):
        gpus.to_plan_with(a_run(wait_for_gpus=2), Resources(8, 0, 1))
    assert gpus.to_plan_with(a_run(wait_for_gpus=2), Resources(8, 1, 1)).gpus == 1
    assert gpus.about_gpus(a_run(), Resources(8, 0, 1)) == []


def test_gpus_that_no_actor_takes_are_not_waited_for():
    with pytest.raises(ValueError, match="gpus_per_actor = 0"):
        a_run(wait_for_gpus=1, gpus_per_actor=0)


@pytest.fixture
def slow_cluster(monkeypatch, on_cluster):
    """A cluster of which `came` GPUs are free in time, of `there`."""

    def slow_cluster(came, there):
        given = [SimpleNamespace(ready=lambda n=n: n) for n in range(9)]
        removed = []
        monkeypatch.setattr(gpus, "ray_session", nullcontext)
        monkeypatch.setattr(gpus, "placement_group", lambda bundles: given.pop(0))
        monkeypatch.setattr(gpus, "remove_placement_group", removed.append)
        monkeypatch.setattr(gpus.ray, "cluster_resources", lambda: {"GPU": there} if there else {})
        monkeypatch.setattr(gpus.ray, "wait", lambda refs, num_returns, timeout: (refs[:came], refs[came:]))
        monkeypatch.setattr(gpus, "resources", lambda: Resources(64, there, 3))
        return removed

    return slow_cluster


def test_those_that_came_are_used(slow_cluster, caplog):
    removed = slow_cluster(came=2, there=2)
    assert gpus.choose_compute_now(a_run(wait_for_gpus=4)).actors == 2
    assert len(removed) == 4  # nothing goes on asking for them
    assert "2 of 4 GPUs came within 1800 s" in caplog.text


def test_without_any_the_run_ends(slow_cluster):
    slow_cluster(came=0, there=0)
    with pytest.raises(InfrastructureError, match="no GPU came within 1800 s"):
        gpus.choose_compute_now(a_run(wait_for_gpus=4))


@pytest.mark.slow
def test_ray_s_autoscaler_starts_nodes_and_the_actors_fit_them() -> None:
    """On a head without CPUs; the autoscaler's provider for tests starts nodes here that only claim a GPU."""
    program = (
        "import json\nfrom dataclasses import asdict\nfrom pipeline.gpus import choose_compute_now\n"
        "from schemas.run import RenderRun\n"
        "run = RenderRun(manifest='s3://b/m', model='s3://b/x', output='s3://b/o', wait_for_gpus=2, "
        f"wait_for_gpus_s={DEADLINE_S})\nprint(json.dumps(asdict(choose_compute_now(run))))"
    )
    with RayHead(cpus=0, gpu_nodes=2) as head:
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=tempfile.gettempdir(),
            env=head.environment | {"RAY_ADDRESS": head.gcs_address, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert "asking the cluster for 2 GPUs, 0 of them free" in done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["actors"], found["gpus_per_actor"], found["dtype"]) == (2, 1.0, "bfloat16")
