"""`jobs.nightly` as a cron job starts it: real renders and evaluations on a Ray of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.manifest import manifest_schema
from schemas.night import NightReport
from schemas.run import ExitCode

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def test_a_night_renders_evaluates_and_reports(tmp_path: Path, tiny_model: Path, pictures: Path) -> None:
    for name in ("a", "b"):
        rows = [{"prompt": f"{name} {n}", "style_image_uri": [f"{pictures}/{n}.png"]} for n in range(2)]
        table = pa.Table.from_pylist(rows, schema=manifest_schema(["prompt", "style_image_uri"]))
        (tmp_path / "manifests").mkdir(exist_ok=True)
        pq.write_table(table, tmp_path / "manifests" / f"{name}.parquet")
    places = [f"--manifest={tmp_path}/manifests", f"--model={tiny_model}", f"--output={tmp_path}/nights"]
    done = subprocess.run(
        [sys.executable, "-m", "jobs.nightly", *places, "--evaluate", "--run-id", "night-1", "--actors", "1"],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == ExitCode.DONE, done.stderr
    report = NightReport.model_validate_json(done.stdout.splitlines()[-1])
    assert [(one.status, one.rendered, one.reconciled) for one in report.outputs] == [("done", 2, True)] * 2
    for name in ("a", "b"):
        run = tmp_path / "nights" / name / "run"
        evaluation = json.loads((run / "evaluation" / "evaluation.json").read_text())
        assert (evaluation["videos"], evaluation["errors"]) == (2, {})
        assert evaluation["metrics"]["clip_style"]["count"] == 2
        assert 'id="evaluation"' in (run / "report.html").read_text()
