"""Which code and which model made a record."""

import shutil
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from actors.records import Provenance
from pipeline.model_info import ModelInfo
from schemas.run import RenderRun

_ROOT = Path(__file__).resolve().parent.parent
VERSION_FILE = _ROOT / "CODE_VERSION"  # written where a run is submitted: workers have no .git


def code_version() -> str:
    """The package's version with the commit, and `.dirty` where files differ from it."""
    if VERSION_FILE.is_file():
        return VERSION_FILE.read_text().strip()
    package = _package_version()
    if shutil.which("git") is None:
        return package
    git = subprocess.run(
        ["git", "describe", "--always", "--dirty=.dirty", "--abbrev=12"],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return f"{package}+{git.stdout.strip()}" if git.returncode == 0 else package


def _package_version() -> str:
    try:
        return version("stylecrafter")
    except PackageNotFoundError:  # a checkout that was shipped, not installed
        return "unversioned"


def run_provenance(run: RenderRun, model: ModelInfo, dtype: str) -> Provenance:
    """What all records of the run share. A run without a name gets a dated one."""
    return Provenance(
        run_id=run.run_id or datetime.now(UTC).strftime("render-%Y%m%dT%H%M%SZ"),
        code_version=code_version(),
        model_fingerprint=model.fingerprint,
        model_trained=model.trained,
        engine=model.engine,
        dtype=dtype,
        render_epoch=run.render_epoch,
        speed=run.speed.of_records(),
    )
