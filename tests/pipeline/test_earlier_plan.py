"""A resume that spares planning what is finished: it is the plan that was made without, whatever has changed."""

import json
import os
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.null_run import render_null, rows_of, write_manifest, write_null_model, write_run_files
from pipeline.closing import close_output
from pipeline.prepare import PreparedRun, prepare
from pipeline.row_planner import RowPlanner
from schemas.run import RenderRun

_ROWS = 1_300  # in chunks of 500


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An output of a run that ended after its first 1,100 rows."""
    write_manifest(tmp_path / "manifest.parquet", _ROWS, styles=3)
    write_null_model(tmp_path / "model")
    prepared = planned(tmp_path)
    write_run_files(prepared)
    render_null(islice(rows_of(prepared), 1_100), prepared.run.output, prepared.provenance)
    close_output(prepared.index, prepared.mark, lambda table: None)
    return tmp_path


@pytest.fixture
def rows_planned(folder, monkeypatch) -> list[int]:
    """How many rows each call plans from here on."""
    counts: list[int] = []
    plan = RowPlanner.plan
    monkeypatch.setattr(
        RowPlanner, "plan", lambda self, chunk: counts.append(len(chunk)) or plan(self, chunk)
    )
    return counts


def planned(folder: Path, **values) -> PreparedRun:
    paths = {"manifest": "manifest.parquet", "model": "model", "output": "out"}
    return prepare(
        RenderRun(**{name: str(folder / path) for name, path in paths.items()}, actors=1, **values)
    )


def asked(prepared: PreparedRun) -> list[tuple]:
    return list(
        prepared.plan.scratch.rows("SELECT position, record_id, row_key FROM asked ORDER BY position")
    )


def forget(folder: Path) -> None:
    for file in (folder / "out" / "run" / "planned").iterdir():
        file.unlink()


def same_without(folder: Path, **values) -> PreparedRun:
    """The plan, which is the same where nothing is known."""
    known = planned(folder, **values)
    forget(folder)
    fresh = planned(folder, **values)
    assert asked(known) == asked(fresh)
    assert known.plan.already_done == fresh.plan.already_done
    assert list(rows_of(known)) == list(rows_of(fresh))
    assert known.plan.to_copy == fresh.plan.to_copy
    assert failures(known) == failures(fresh)
    return known


def failures(prepared: PreparedRun) -> list[tuple[str, str]]:
    return [(record["record_id"], record["error"]) for record in prepared.plan.failures()]


def test_only_chunks_with_unfinished_rows_are_planned_again(folder, rows_planned):
    prepared = planned(folder)
    assert rows_planned == [300]
    assert prepared.plan.already_done == {"ok": 1_100}
    assert not prepared.plan.is_news
    same_without(folder)


def test_what_often_differs_between_nights_is_no_other_plan(folder, rows_planned):
    planned(folder, run_id="another", max_hours=1.0, price_per_gpu_hour=2.0)
    assert rows_planned == [300]


@pytest.mark.parametrize(
    "values", [{"seed": 1}, {"num_inference_steps": 5}, {"limit": 700}, {"render_epoch": 1}]
)
def test_another_run_plans_every_row(folder, rows_planned, values):
    same_without(folder, **values)
    assert sum(rows_planned) == 2 * values.get("limit", _ROWS)


def test_a_picture_that_changed_makes_its_rows_new(folder, rows_planned):
    (folder / "styles" / "0001.png").write_bytes(b"another picture")
    prepared = same_without(folder)
    assert prepared.plan.to_render.total() == 200 + 367
    assert prepared.plan.is_news


def test_a_picture_that_is_gone_is_told_as_ever(folder):
    (folder / "styles" / "0001.png").unlink()
    prepared = same_without(folder)
    assert prepared.plan.already_done == {"ok": 1_100}
    assert "is finished, but" in prepared.plan.warnings[0]


def test_a_commit_that_is_gone_is_planned_again(folder, rows_planned):
    next((folder / "out" / "commits").rglob("*.json")).unlink()
    assert planned(folder).plan.already_done == {"ok": 1_099}
    assert sum(rows_planned) in {300, 800}


def test_another_manifest_of_the_same_name_is_planned(folder, rows_planned):
    table = pq.read_table(folder / "manifest.parquet")
    pq.write_table(pa.concat_tables([table.slice(1), table.slice(0, 1)]), folder / "manifest.parquet")
    same_without(folder)
    assert sum(rows_planned) == 2 * _ROWS


def test_rows_that_are_named_by_those_before_them_are_always_planned(folder, rows_planned):
    table = pq.read_table(folder / "manifest.parquet")
    pq.write_table(pa.concat_tables([table, table.slice(0, 1)]), folder / "manifest.parquet")
    prepared = planned(folder)
    assert not prepared.plan.is_news
    write_run_files(prepared)
    rows_planned.clear()
    planned(folder)
    assert sum(rows_planned) == _ROWS + 1


def test_damage_costs_time_only(folder, rows_planned):
    [pointer] = (folder / "out" / "run" / "planned").glob("*.json")
    [part] = json.loads(pointer.read_text())["files"]
    os.truncate(part, 1_000)
    same_without(folder)
    assert sum(rows_planned) == 2 * _ROWS
