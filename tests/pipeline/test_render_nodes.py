"""A render on a cluster of three nodes, of which one is killed and another added while it goes."""

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from examples.s3_server import S3Server
from schemas.manifest import manifest_schema
from schemas.run import ExitCode

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
ROWS = 12
DEADLINE_S = 600  # on a machine that is busy with other things


@pytest.fixture
def store(s3_env: S3Server, tiny_model: Path, pictures: Path) -> Any:
    """A client; manifest, model and picture are in the bucket `styles`."""
    client = s3_env.client()
    rows = [{"prompt": f"prompt {n}", "style_image_uri": ["s3://styles/nodes/0.png"]} for n in range(ROWS)]
    manifest = io.BytesIO()
    pq.write_table(
        pa.Table.from_pylist(rows, schema=manifest_schema(["prompt", "style_image_uri"])), manifest
    )
    files = {"m.parquet": manifest.getvalue(), "0.png": (pictures / "0.png").read_bytes()}
    files |= {
        f"model/{path.relative_to(tiny_model)}": path.read_bytes()
        for path in tiny_model.rglob("*")
        if path.is_file()
    }
    for key, body in files.items():
        client.put_object(Bucket="styles", Key=f"nodes/{key}", Body=body)
    return client


@pytest.fixture
def cluster(store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head that computes nothing and two nodes that do."""
    for name, value in {
        "STYLECRAFTER_CACHE": str(tmp_path / "cache"),
        "RAY_AUTH_MODE": "disabled",  # no token of this machine's user
        "PYTHONPATH": str(ROOT),
    }.items():
        monkeypatch.setenv(name, value)
    from ray.cluster_utils import Cluster  # after the environment, which its nodes inherit

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for cpus in (2, 1):
            cluster.add_node(num_cpus=cpus)
        yield cluster
    finally:
        cluster.shutdown()


def committed(store: Any) -> set[str]:
    listing = store.list_objects_v2(Bucket="outputs", Prefix="nodes/commits/")
    return {item["Key"] for item in listing.get("Contents", [])}


def test_a_node_goes_another_comes_and_every_row_is_rendered_once(cluster: Any, store: Any) -> None:
    places = [
        f"--{name}=s3://styles/nodes/{file}" for name, file in (("manifest", "m.parquet"), ("model", "model"))
    ]
    settings = ["--actors=2", "--cpus-per-actor=0.5", "--unit-rows=1", "--num-inference-steps=10"]
    job = subprocess.Popen(
        [sys.executable, "-m", "jobs.render", *places, "--output=s3://outputs/nodes", *settings],
        cwd=ROOT,
        env=os.environ | {"RAY_ADDRESS": cluster.address},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        deadline = time.monotonic() + DEADLINE_S
        while len(committed(store)) < 2:
            assert job.poll() is None, job.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.1)
        before = committed(store)
        cluster.remove_node(cluster.list_all_nodes()[-1], allow_graceful=False)
        cluster.add_node(num_cpus=2)
        assert len(before) < ROWS
        said = job.communicate(timeout=DEADLINE_S)[0]
        assert job.returncode == ExitCode.DONE, said
    finally:
        if job.poll() is None:
            job.kill()
            job.communicate()
    summary = json.loads(store.get_object(Bucket="outputs", Key="nodes/run/summary.json")["Body"].read())
    assert (summary["statuses"], summary["problems"]) == ({"ok": ROWS}, {})
    assert before < committed(store)
    assert len(committed(store)) == ROWS
