"""Rows that kill or block the process that renders them, on a real Ray."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import actors.render_actor
from pipeline.prepare import prepare
from pipeline.render import render
from schemas.manifest import manifest_schema
from schemas.record import ErrorClass
from schemas.run import ExitCode, RenderRun
from tests.support.faulty_actor import FaultyActor

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("local_ray")]


def test_rows_that_end_their_process_are_quarantined_and_all_others_are_rendered(
    tmp_path, tiny_model, pictures, monkeypatch
):
    monkeypatch.setattr(actors.render_actor, "RenderActor", FaultyActor)
    prompts = ["a", "kill", "b", "c", "hang", "d"]
    rows = [{"row_id": p, "prompt": p, "style_image_uri": [f"{pictures}/0.png"]} for p in prompts]
    manifest = tmp_path / "manifest.parquet"
    pq.write_table(
        pa.Table.from_pylist(rows, schema=manifest_schema(["row_id", "prompt", "style_image_uri"])), manifest
    )
    run = RenderRun(
        manifest=str(manifest),
        model=str(tiny_model),
        output=str(tmp_path / "out"),
        actors=1,
        unit_rows=1,
        render_timeout_s=10,  # far above what a row takes here
    )
    summary = render(prepare(run))
    records = {r["row_id"]: r for r in pq.read_table(tmp_path / "out" / "records").to_pylist()}
    assert list(records) == prompts
    assert {name: records[name]["status"] for name in prompts} == {
        **dict.fromkeys("abcd", "ok"),
        "kill": "quarantined",
        "hang": "quarantined",
    }
    assert records["kill"]["error_class"] == ErrorClass.PROCESS_DIED
    assert records["hang"]["error_class"] == ErrorClass.RENDER_TIMEOUT
    assert records["kill"]["attempts"] == records["hang"]["attempts"] == 4
    assert summary.exit_code(0.0) == ExitCode.DONE_WITH_FAILED_ROWS
    evidence = [json.loads(path.read_text()) for path in (tmp_path / "out" / "attempts").rglob("*.json")]
    assert sorted(marker["row_id"] for marker in evidence) == ["hang"] * 4 + ["kill"] * 4
    assert all(marker["session"].startswith("session_") and marker["node_id"] for marker in evidence)
    assert not (tmp_path / "out" / "run" / "lease.json").exists()
