"""A run that stops at its budget or deadline keeps what is done, overshoots by no more than a batch, and goes on."""

import time
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actors.renderer import Renderer
from pipeline.budget import hourly_cost_usd, open_budget
from pipeline.compute import Compute
from pipeline.prepare import prepare
from pipeline.render import render
from schemas.manifest import manifest_schema
from schemas.run import ExitCode, RenderRun

PRICE = 10.0
GPUS = Compute(actors=4, cpus_per_actor=1, gpus_per_actor=0.5, threads=1, dtype="float32")


def config(**more):
    return RenderRun(manifest="m.parquet", model="m", output="o", **more)


@pytest.fixture
def clock(monkeypatch):
    """The time of day, which a test may move on; every batch that is rendered takes an hour."""
    moved_s = [0.0]
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + moved_s[0])
    really_render = Renderer.render

    def render_for_an_hour(self, rows, assets):
        moved_s[0] += 3600
        return really_render(self, rows, assets)

    monkeypatch.setattr(Renderer, "render", render_for_an_hour)
    return moved_s


@pytest.fixture
def run(tmp_path, tiny_model, pictures):
    def run(priorities=(0, 0, 0, 0), **more):
        rows = [
            {"prompt": f"{n}", "style_image_uri": [f"{pictures}/0.png"], "priority": priority}
            for n, priority in enumerate(priorities)
        ]
        schema = manifest_schema(["prompt", "style_image_uri", "priority"])
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), tmp_path / "m.parquet")
        places = {
            "manifest": str(tmp_path / "m.parquet"),
            "model": str(tiny_model),
            "output": str(tmp_path / "o"),
        }
        return render(prepare(RenderRun(**places, actors=1, scores=False, num_inference_steps=1, **more)))

    return run


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize(
    ("bound", "value", "unit_rows"),
    [("max_hours", 1.5, 1), ("max_cost", 1.5 * PRICE, 4)],
)
def test_no_batch_is_begun_after_the_bound_and_the_same_command_goes_on(
    clock, run, tmp_path, bound, value, unit_rows
):
    summary = run(unit_rows=unit_rows, price_per_gpu_hour=PRICE, **{bound: value})
    assert (summary.statuses, summary.missing, summary.stopped) == ({"ok": 2}, 2, bound)
    assert summary.exit_code(0.0) == ExitCode.STOPPED
    assert summary.spent_usd == pytest.approx(2 * PRICE, rel=0.1)  # beyond it by less than a batch's cost
    assert not (tmp_path / "o" / "_SUCCESS").exists()
    assert not list((tmp_path / "o").glob("attempts/*/*/*"))  # what was not begun was not attempted

    again = run(unit_rows=unit_rows)
    assert (again.statuses, again.rendered, again.reused, again.stopped) == ({"ok": 4}, 2, 2, None)
    assert again.exit_code(0.0) == ExitCode.DONE
    assert again.spent_usd is None


@pytest.mark.usefixtures("in_process")
def test_what_is_urgent_is_done_first(clock, run, tmp_path):
    run(priorities=(0, 5, -1, 9), max_hours=1.5)
    records = pq.read_table(tmp_path / "o" / "records").to_pylist()
    assert sorted(record["priority"] for record in records) == [5, 9]


@pytest.mark.usefixtures("in_process")
def test_after_the_deadline_nothing_is_begun(clock, run):
    summary = run(stop_at=datetime.now(UTC) - timedelta(hours=1))
    assert (summary.missing, summary.stopped, clock) == (4, "stop_at", [0.0])
    assert summary.exit_code(0.0) == ExitCode.STOPPED


def test_the_nearest_bound_counts():
    late = datetime.now(UTC) + timedelta(hours=9)
    priced = config(price_per_gpu_hour=2.0, max_cost=8.0, max_hours=3.0, stop_at=late)
    budget = open_budget(priced, GPUS)
    assert budget.hourly_usd == 4.0  # of two GPUs that four actors share
    assert (budget.bound, budget.stop_at - budget.began_at) == ("max_cost", pytest.approx(2 * 3600))
    assert open_budget(config(max_hours=3.0, stop_at=late), GPUS).bound == "max_hours"
    assert open_budget(config(), GPUS).bound == ""
    assert not open_budget(config(), GPUS).is_over
    assert hourly_cost_usd(config(), GPUS) is None


@pytest.mark.parametrize("wrong", [{"max_cost": 5.0}, {"max_cost": 5.0, "price_per_gpu_hour": 0.0}])
def test_a_cost_needs_a_price(wrong):
    with pytest.raises(ValueError, match="price-per-gpu-hour"):
        config(**wrong)


def test_a_deadline_needs_its_offset():
    with pytest.raises(ValueError, match="timezone"):
        config(stop_at="2026-03-01T06:00")
