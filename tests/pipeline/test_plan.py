"""The plan: what is rendered, copied, or left alone, and how it is cut into work units."""

import pytest

from pipeline.compute import Compute, Resources, choose_compute
from pipeline.plan import Plan, make_plan
from pipeline.scratch import Scratch
from pipeline.units import unit_sizes, work_units
from schemas.identity import digest
from schemas.planned import AssetRef, PlannedRow, unit_rows, units_table
from schemas.run import RenderRun, UsageError
from schemas.settings import RenderSettings

RUN = RenderRun(manifest="m", model="model", output="o", batch_size=3)
COMPUTE = Compute(actors=2, cpus_per_actor=0.75, gpus_per_actor=0, threads=1, dtype="float32")


def planned(row_id: str, key: str | None = None, **values) -> PlannedRow:
    return PlannedRow(
        row_id=row_id,
        sample_index=0,
        row_key=digest(key or f"key-{row_id}"),
        prompt="p",
        style_images=[AssetRef(uri="a.png", location="/x/a.png", version="v", size_bytes=3)],
        seed=1,
        **{"settings": RenderSettings(), **values},
    )


class Reader:
    warnings = ("careful",)

    def __init__(self, rows):
        self.num_rows = len(rows)
        self._rows = rows

    def rows(self):
        return iter(self._rows)


class Planner:
    def plan(self, chunk):
        return chunk


def committed(*rows, status="ok", error_class=None) -> Scratch:
    """A scratch database that holds the commits of these rows."""
    scratch = Scratch()
    scratch.execute("CREATE TABLE held (record_id PRIMARY KEY, row_key, status, error_class, run_id)")
    scratch.each(
        "INSERT INTO held VALUES (?, ?, ?, ?, 'earlier')",
        [(bytes.fromhex(row.record_id), bytes.fromhex(row.row_key), status, error_class) for row in rows],
    )
    return scratch


def make(*rows, held=None, **options) -> Plan:
    return make_plan(Reader(rows), Planner(), held or committed(), COMPUTE, 320, **options)


def to_render(plan: Plan) -> list[PlannedRow]:
    return [row for group in sorted(plan.to_render) for row in plan.rows_to_render(group)]


def units_of(plan: Plan) -> list[list[PlannedRow]]:
    return list(work_units(plan, unit_sizes(plan, RUN, COMPUTE)))


def test_every_row_is_in_exactly_one_place():
    done, new, shares, twin = (
        planned("done"),
        planned("new"),
        planned("shares", "key-done"),
        planned("twin", "key-new"),
    )
    plan = make(done, new, shares, twin, held=committed(done))
    assert plan.already_done == {"ok": 1}
    assert to_render(plan) == [new]
    assert list(plan.copies(of_finished=True)) == [(shares, done.record_id)]
    assert list(plan.copies(of_finished=False)) == [(twin, new.record_id)]
    assert plan.records == 4


def test_a_committed_failure_is_done_until_its_key_changes():
    row = planned("a")
    assert make(row, held=committed(row, status="failed")).already_done == {"failed": 1}
    assert make(planned("a", "another-key"), held=committed(row)).to_render


def test_units_hold_one_bucket_and_priority_and_urgent_rows_come_first():
    small = RenderSettings(num_frames=4)
    rows = [planned("a"), planned("b", settings=small), planned("c", priority=5), planned("d")]
    units = units_of(make(*rows))
    assert [row.row_id for row in units[0]] == ["c"]
    assert sorted(row.row_id for unit in units for row in unit) == ["a", "b", "c", "d"]
    assert all(len({(row.bucket, row.priority) for row in unit}) == 1 for unit in units)


def test_units_are_whole_batches():
    rows = [
        planned(str(i), settings=RenderSettings(num_inference_steps=1, height=64, width=64))
        for i in range(400)
    ]
    units = units_of(make(*rows))
    assert {len(unit) % RUN.batch_size for unit in units[:-1]} == {0}
    assert len(units) >= 2 * COMPUTE.actors


def test_a_unit_survives_the_way_through_parquet():
    rows = [planned("a", priority=2, meta='{"meta_x":1}'), planned("b")]
    [unit] = units_table([(0, rows)]).to_pylist()
    assert unit_rows(unit["rows"]) == rows


@pytest.mark.parametrize(
    ("run", "available", "said"),
    [
        ({"actors": 3, "cpus_per_actor": 1}, Resources(4, 0, 1), "use --actors 2 or fewer"),
        ({"cpus_per_actor": 1}, Resources(2, 0, 1), "use a smaller --cpus-per-actor"),
        ({}, Resources(1, 0, 1), "need 1.75 CPUs, but there are 1"),
        ({"actors": 3}, Resources(16, 2, 1), "GPUs"),
        (
            {"actors": 2, "cpus_per_actor": 3},
            Resources(8, 0, 1, ((2, 0),) * 4),
            "0 fit on the nodes there are",
        ),
        ({}, Resources(8, 0, 3), "local path on a cluster of 3 nodes"),
    ],
)
def test_a_run_that_does_not_fit_is_refused_with_what_to_change(run, available, said):
    with pytest.raises(UsageError, match=said):
        choose_compute(RenderRun(manifest="m", model="model", output="o", **run), available)


def test_a_machine_without_gpu_keeps_headroom_for_reading():
    compute = choose_compute(RenderRun(manifest="m", model="model", output="o", actors=2), Resources(2, 0, 1))
    assert compute.actors * compute.cpus_per_actor < 2
    assert (compute.device, compute.dtype, compute.threads) == ("cpu", "float32", 1)


@pytest.mark.parametrize(("cpus", "actors", "threads"), [(2, 2, 1), (4, 4, 1), (16, 4, 4)])
def test_a_machine_without_gpu_gets_an_actor_per_core_up_to_a_bound(cpus, actors, threads):
    compute = choose_compute(RenderRun(manifest="m", model="model", output="o"), Resources(cpus, 0, 1))
    assert (compute.actors, compute.threads) == (actors, threads)


def test_a_gpu_cluster_gets_an_actor_per_gpu():
    run = RenderRun(manifest="s3://b/m", model="s3://b/model", output="s3://b/o")
    compute = choose_compute(run, Resources(64, 8, 2))
    assert (compute.actors, compute.gpus_per_actor, compute.dtype) == (8, 1.0, "bfloat16")
