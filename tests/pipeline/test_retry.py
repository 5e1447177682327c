"""Failed and quarantined rows are tried again; nothing else is touched."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actors.renderer import Renderer
from pipeline.prepare import prepare
from pipeline.render import render
from pipeline.retry import prepare_retry
from schemas.manifest import manifest_schema
from schemas.repair_run import RetryRun
from schemas.run import ExitCode, RenderRun, UsageError

pytestmark = pytest.mark.usefixtures("in_process")


@pytest.fixture
def output(tmp_path, tiny_model, pictures, monkeypatch):
    """An output in which row b failed to render and row c had no picture; row d was never tried."""
    names = "abcd"
    rows = [{"row_id": n, "prompt": f"prompt {n}", "style_image_uri": [f"{pictures}/0.png"]} for n in names]
    rows[2]["style_image_uri"] = [f"{tmp_path}/later.png"]
    manifest = tmp_path / "manifest.parquet"
    schema = manifest_schema(["row_id", "prompt", "style_image_uri"])
    render_batch = Renderer.render

    def fails_at_b(renderer, batch, references):
        if any(row.row_id == "b" for row in batch):
            raise RuntimeError("a kernel did not like b")
        return render_batch(renderer, batch, references)

    pq.write_table(pa.Table.from_pylist(rows[:3], schema=schema), manifest)
    run = RenderRun(
        manifest=str(manifest), model=str(tiny_model), output=str(tmp_path / "out"), run_id="first"
    )
    with monkeypatch.context() as patch:
        patch.setattr(Renderer, "render", fails_at_b)
        summary = render(prepare(run))
    assert summary.statuses == {"ok": 1, "failed": 2}
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), manifest)
    return tmp_path / "out"


def commits(output):
    found = [json.loads(path.read_text()) for path in output.glob("commits/*/*.json")]
    assert len({commit["record_id"] for commit in found}) == len(found)
    return {commit["row_id"]: commit for commit in found}


def retry(output, **choice):
    return prepare_retry(RetryRun(output=str(output), **choice))


def test_a_failed_row_is_made_again_under_its_own_name_and_others_are_left(output):
    before = commits(output)
    summary = render(retry(output, error_class=("render_failed",)))
    after = commits(output)
    assert {name for name in after if after[name] != before.get(name)} == {"b"}
    assert after["b"]["status"] == "ok"
    for name in ("record_id", "row_key", "seed"):
        assert after["b"][name] == before["b"][name]
    assert after["b"]["run_id"] != "first"
    assert summary.missing == 1  # row d belongs to the manifest, and is for jobs.render
    assert summary.exit_code(1.0, of_some_rows=True) == ExitCode.DONE_WITH_FAILED_ROWS
    assert summary.exit_code(1.0) == ExitCode.INFRASTRUCTURE
    assert [r["row_id"] for r in pq.read_table(output / "records").to_pylist()] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("choice", "chosen"),
    [
        ({}, 2),
        ({"status": ("failed",)}, 2),
        ({"status": ("quarantined",)}, 0),
        ({"error_class": ("asset_not_found",)}, 1),
        ({"row_id": ("b", "a")}, 1),
    ],
)
def test_rows_are_chosen_by_status_class_and_name(output, choice, chosen):
    plan = retry(output, **choice).plan
    assert plan.to_render.total() + plan.new_failures.total() == chosen
    assert plan.records == 4


def test_a_picture_that_is_there_now_is_used(output, pictures, tmp_path):
    (tmp_path / "later.png").write_bytes((pictures / "1.png").read_bytes())
    render(retry(output, row_id=("c",)))
    assert commits(output)["c"]["status"] == "ok"


def test_an_output_that_is_none_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"no run/config\.json there"):
        retry(tmp_path)
