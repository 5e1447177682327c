"""What surrounds the code: packaging, the cluster file, the spellings that scripts depend on."""

import importlib
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from hatchling.builders.wheel import WheelBuilder
from ray.autoscaler._private.util import prepare_config, validate_config

from jobs._cli import load_config
from jobs.convert import ConvertRun
from schemas.manifest_run import ManifestRun
from schemas.night import NightRun
from schemas.repair_run import ReconcileRun, RetryRun
from schemas.review_run import EvaluateRun, ExportRun, ReportRun, StudyRun
from schemas.run import RenderRun
from schemas.submit_run import SubmitRun
from schemas.train_manifest import TrainManifestRun
from schemas.train_run import TrainBaseRun, TrainDepthRun, TrainJointRun, TrainStyleRun, TrainTemporalRun

ROOT = Path(__file__).parents[1]
MAX_FILE_BYTES = 12 * 2**20


def repository_files() -> list[Path]:
    """Files that git tracks or would add; without git, everything that is not a build product."""
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-co", "--exclude-standard", "-z"],
        capture_output=True,
        check=False,
    )
    if listed.returncode == 0:
        return [
            file for name in listed.stdout.decode().split("\0") if name and (file := ROOT / name).is_file()
        ]
    return [file for file in ROOT.rglob("*") if file.is_file() and ".venv" not in file.parts]


def test_no_file_is_too_large_for_a_repository() -> None:
    files = repository_files()
    assert ROOT / "pyproject.toml" in files
    large = {str(file.relative_to(ROOT)) for file in files if file.stat().st_size > MAX_FILE_BYTES}
    assert large == set()


def test_the_wheel_ships_the_model_library_alone() -> None:
    builder = WheelBuilder(str(ROOT))
    shipped = {file.distribution_path for file in builder.recurse_included_files()}
    assert {Path(name).parts[0] for name in shipped} == {"stylecrafter"}
    assert "stylecrafter/py.typed" in shipped
    assert not any("__pycache__" in name for name in shipped)


def test_the_model_library_declares_what_it_imports_and_no_batch_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    base = " ".join(project["dependencies"])
    assert "torch>=2.8,<2.14" in base
    assert not any(name in base for name in ("ray", "pyarrow", "pydantic", "s3fs", "moviepy"))
    assert any(entry.startswith("ray[") for entry in project["optional-dependencies"]["batch"])


@pytest.fixture(scope="module")
def cluster() -> dict[str, Any]:
    config = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    prepared: dict[str, Any] = prepare_config(config)
    return prepared


def test_the_cluster_file_passes_rays_own_validation(cluster: dict[str, Any]) -> None:
    validate_config(cluster)


def test_a_broken_cluster_file_would_not_pass(cluster: dict[str, Any]) -> None:
    with pytest.raises(Exception, match="no_such_option"):
        validate_config(cluster | {"no_such_option": 1})


def test_the_head_takes_no_work_and_spot_comes_before_on_demand(cluster: dict[str, Any]) -> None:
    types = cluster["available_node_types"]
    assert types[cluster["head_node_type"]]["resources"]["CPU"] == 0
    spot, on_demand = types["gpu_spot"], types["gpu_on_demand"]
    assert spot["priority"] > on_demand["priority"]
    assert spot["resources"] == on_demand["resources"]  # else size, not priority, would decide
    assert spot["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert "InstanceMarketOptions" not in on_demand["node_config"]


def test_the_cluster_installs_this_project_with_the_ray_it_pins(cluster: dict[str, Any]) -> None:
    folder = next(remote for remote, local in cluster["file_mounts"].items() if local == ".")
    assert any(f"{folder}[batch]" in command for command in cluster["setup_commands"])
    pinned = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["batch"]
    assert any("ray[" in entry and ">=2.60,<2.61" in entry for entry in pinned)
    for image in (cluster["docker"]["image"], cluster["docker"]["head_image"]):
        assert image.startswith("rayproject/ray:2.60.")


# The spellings that scripts depend on. A job joins this list with its first release and never leaves it.
FROZEN: list[tuple[str, type[Any], str]] = [
    ("jobs.manifest", ManifestRun, "--prompts FILE.txt --styles DIR_OR_URI --output M.parquet"),
    ("jobs.manifest", ManifestRun, "--from FILE.csv --output M.parquet"),
    ("jobs.manifest", ManifestRun, "--from FILE.json --style-prefix s3://b/e --limit 24 --output M.parquet"),
    (
        "jobs.convert",
        ConvertRun,
        "--checkpoint model.ckpt --adapter adapter_v1.pth --temporal temporal_v1_1.pth "
        "--open-clip open_clip_pytorch_model.bin --output MODEL_DIR",
    ),
    ("jobs.convert", ConvertRun, "--checkpoint model.ckpt --open-clip open_clip.bin --output MODEL_DIR"),
    (
        "jobs.convert",
        ConvertRun,
        "--checkpoint model.ckpt --open-clip open_clip.bin --depth-adapter depth.pth --output MODEL_DIR",
    ),
    ("jobs.plan", RenderRun, "--manifest URI --model URI --output URI"),
    ("jobs.render", RenderRun, "--manifest URI --model URI --output URI --actors 2 --batch-size 3 --seed 4"),
    (
        "jobs.render",
        RenderRun,
        "--manifest URI --model URI --output URI --price-per-gpu-hour 2.5 --max-cost 40 --max-hours 8",
    ),
    (
        "jobs.render",
        RenderRun,
        "--manifest URI --model URI --output URI --sweep.style-scale 0.5 1 --sweep.scheduler ddim unipc",
    ),
    ("jobs.nightly", NightRun, "--manifest URI --model URI --output URI --evaluate --webhook FILE"),
    ("jobs.submit", SubmitRun, "--address http://127.0.0.1:8265 --submission-id nightly-{date} --no-wait"),
    ("jobs.submit", SubmitRun, "--submission-id NAME --status"),
    ("jobs.submit", SubmitRun, "--submission-id NAME --stop"),
    ("jobs.retry", RetryRun, "--output URI --status failed"),
    (
        "jobs.retry",
        RetryRun,
        "--output URI --status failed quarantined --error-class non_finite --row-id a b --dry-run",
    ),
    ("jobs.reconcile", ReconcileRun, "--output URI --manifest URI --repair"),
    ("jobs.reconcile", ReconcileRun, "--output URI --check decode"),
    ("jobs.report", ReportRun, "--output URI"),
    (
        "jobs.evaluate",
        EvaluateRun,
        "--manifest URI --model URI --output URI --clip DIR --dino DIR --flow DIR",
    ),
    ("jobs.evaluate", EvaluateRun, "--output URI --finished"),
    ("jobs.evaluate", EvaluateRun, "--compare OUTPUT_A OUTPUT_B"),
    ("jobs.study", StudyRun, "--outputs OUTPUT_A OUTPUT_B --study DIR --pairs 20"),
    ("jobs.study", StudyRun, "--study DIR --collect votes/ more.json"),
    ("jobs.export", ExportRun, "--output URI --webdataset URI"),
    ("jobs.export", ExportRun, "--output URI --huggingface URI"),
    ("jobs.train_manifest", TrainManifestRun, "--folder DIR_OR_URI --output M.parquet --caption-from-name"),
    ("jobs.train_base", TrainBaseRun, "--data URI --model URI --output URI"),
    ("jobs.train_style", TrainStyleRun, "--data URI --model URI --output URI"),
    ("jobs.train_temporal", TrainTemporalRun, "--data URI --style-data URI --model URI --output URI"),
    ("jobs.train_depth", TrainDepthRun, "--data URI --model URI --output URI"),
    ("jobs.train_joint", TrainJointRun, "--data URI --style-data URI --model URI --output URI"),
]


@pytest.mark.parametrize(("job", "config", "line"), FROZEN)
def test_frozen_command_lines_parse(job: str, config: type[Any], line: str) -> None:
    assert load_config(config, line.split(), prog=job, description=None)


@pytest.mark.parametrize("job", sorted({job for job, _, _ in FROZEN}))
def test_a_job_is_a_module_with_a_main_and_its_command_in_the_docstring(job: str) -> None:
    module = importlib.import_module(job)
    assert callable(module.main)
    assert f"python -m {job} " in (module.__doc__ or "")


def test_a_job_run_as_a_script_exits_with_its_code(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "jobs.manifest",
            "--from",
            "missing.csv",
            "--output",
            str(tmp_path / "m.parquet"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: missing.csv: not found\n"


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
class TestMakefile:
    def make(self, *arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
        return subprocess.run(
            ["make", "-f", str(ROOT / "Makefile"), *arguments],
            cwd=cwd,
            env=inherited,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def test_make_alone_lists_the_targets(self) -> None:
        listed = self.make().stdout
        for target in ("demo", "test", "test-all", "check", "bench", "clean"):
            assert f"make {target} " in listed

    def test_no_python_is_one_clear_message(self, tmp_path: Path) -> None:
        (tmp_path / "pyproject.toml").touch()
        done = self.make("setup", "PYTHON=", cwd=tmp_path)
        assert done.returncode != 0
        assert "No Python 3.11, 3.12 or 3.13 found" in done.stderr
        assert not (tmp_path / ".venv").exists()

    def test_clean_deletes_products_and_nothing_else(self, tmp_path: Path) -> None:
        for name in ("outputs/v.mp4", ".venv/bin/x", "a/__pycache__/b.pyc", "a/b.py", "models/m.safetensors"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        assert self.make("clean", cwd=tmp_path).returncode == 0
        left = {str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file()}
        assert left == {"a/b.py", "models/m.safetensors"}
