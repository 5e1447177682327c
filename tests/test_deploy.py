"""The Kubernetes files and the image: what can be known of them without a cluster."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs._cli import load_config
from schemas.night import NightRun

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
RAY_VERSION = "2.60.0"


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DEPLOY / name).read_text()))


PREREQUISITES = {(one["kind"], one["metadata"]["name"]): one for one in documents("prerequisites.yaml")}
JOBS = {name: documents(name)[0] for name in ("rayjob.yaml", "raycronjob.yaml")}


def job_spec(name: str) -> dict[str, Any]:
    spec: dict[str, Any] = JOBS[name]["spec"]
    return spec.get("jobTemplate", spec)


@pytest.fixture(params=JOBS)
def spec(request: pytest.FixtureRequest) -> dict[str, Any]:
    return job_spec(request.param)


def pods(spec: dict[str, Any]) -> list[dict[str, Any]]:
    cluster = spec["rayClusterSpec"]
    return [group["template"]["spec"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]


def test_both_are_of_their_kind_and_run_the_same() -> None:
    job, cron = JOBS["rayjob.yaml"], JOBS["raycronjob.yaml"]
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert (cron["apiVersion"], cron["kind"]) == ("ray.io/v1", "RayCronJob")
    assert re.fullmatch(r"[\d*/,-]+( [\d*/,-]+){4}", cron["spec"]["schedule"])
    assert cron["spec"]["suspend"] is False
    assert job_spec("rayjob.yaml") == job_spec("raycronjob.yaml")


@pytest.mark.parametrize("name", JOBS)
def test_kueue_admits_them_by_a_queue_and_a_priority_that_are_there(name: str) -> None:
    labels = JOBS[name]["metadata"]["labels"]
    assert ("LocalQueue", labels["kueue.x-k8s.io/queue-name"]) in PREREQUISITES
    assert ("WorkloadPriorityClass", labels["kueue.x-k8s.io/priority-class"]) in PREREQUISITES
    assert job_spec(name)["shutdownAfterJobFinishes"] is True  # Kueue takes no others


def test_the_command_and_its_config_are_ours(spec: dict[str, Any], tmp_path: Path) -> None:
    python, dash_m, job, flag, path = shlex.split(spec["entrypoint"])
    assert (python, dash_m, job, flag) == ("python", "-m", "jobs.nightly", "--config")
    config = PREREQUISITES["ConfigMap", "stylecrafter-nightly"]["data"][Path(path).name]
    (tmp_path / "nightly.yaml").write_text(config)
    night = load_config(NightRun, ["--config", str(tmp_path / "nightly.yaml")], prog=job, description=None)
    assert night.max_hours is not None
    assert night.max_hours * 3600 < spec["activeDeadlineSeconds"]
    for pod in pods(spec)[:1]:
        mounts = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
        assert Path(path).parent == Path(mounts["config"])
        assert str(night.webhook).startswith(mounts["webhook"])


def test_the_cluster_is_protected_and_only_its_gpu_nodes_work(spec: dict[str, Any]) -> None:
    cluster = spec["rayClusterSpec"]
    assert cluster["rayVersion"] == RAY_VERSION
    assert cluster["authOptions"]["mode"] == "token"
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    markets = {
        group["template"]["spec"]["nodeSelector"]["node-pool"] for group in cluster["workerGroupSpecs"]
    }
    assert markets == {"gpu-spot", "gpu-on-demand"}
    for group in cluster["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        assert group["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 1


def test_pods_have_one_image_a_role_and_mounts_that_exist(spec: dict[str, Any]) -> None:
    assert len({pod["containers"][0]["image"] for pod in pods(spec)}) == 1
    for pod in pods(spec):
        assert ("ServiceAccount", pod["serviceAccountName"]) in PREREQUISITES
        assert ("PriorityClass", pod["priorityClassName"]) in PREREQUISITES
        volumes = {volume["name"] for volume in pod["volumes"]}
        assert {mount["name"] for mount in pod["containers"][0]["volumeMounts"]} <= volumes


def test_nothing_secret_stands_in_clear(spec: dict[str, Any]) -> None:
    for pod in pods(spec):
        for variable in pod["containers"][0]["env"]:
            if re.search(r"SECRET|TOKEN|PASSWORD|KEY", variable["name"]):
                assert set(variable["valueFrom"]) == {"secretKeyRef"}
                assert "value" not in variable
    text = "".join(path.read_text() for path in DEPLOY.glob("*.yaml"))
    assert not re.search(r"AKIA[A-Z0-9]{16}|AWS_SECRET_ACCESS_KEY|kind: Secret\n", text)


def test_the_image_holds_what_a_job_needs_and_the_ray_of_the_cluster() -> None:
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    assert f"FROM rayproject/ray:{RAY_VERSION}-py312-gpu" in lines
    copied = [source for line in lines if line.startswith("COPY") for source in line.split()[2:-1]]
    assert {"pyproject.toml", "stylecrafter", "schemas", "actors", "pipeline", "jobs"} <= set(copied)
    assert [source for source in copied if not (ROOT / source).exists()] == []
    assert any("--editable '.[batch]'" in line for line in lines)
