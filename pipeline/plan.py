"""The plan of a run: every manifest row accounted for before anything is rendered."""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from actors.records import Record
from actors.storage import Storage, join
from pipeline.compute import Compute
from pipeline.estimate import video_seconds
from pipeline.ledger import CommitIndex
from pipeline.manifest_reader import ManifestReader
from pipeline.row_planner import RowPlanner
from pipeline.snapshot import parquet_bytes
from schemas.planned import Bucket, PlannedRow, units_table
from schemas.record import ErrorClass, Status
from schemas.run import RenderRun

_OUT_OF_REACH = {
    ErrorClass.ASSET_NOT_FOUND,
    ErrorClass.ASSET_FORBIDDEN,
    ErrorClass.ASSET_UNAVAILABLE,
    ErrorClass.ASSET_TIMEOUT,
}
_CHUNK_ROWS = 500
_UNIT_S = 120.0  # a work unit is a few GPU-minutes: small enough to lose, large enough to schedule
_UNITS_PER_ACTOR = 16  # so that actors finish together and progress shows


@dataclass
class Plan:
    """What a run will do. Rows are counted per record, that is per row and sample."""

    manifest_rows: int
    warnings: list[str]
    to_render: list[PlannedRow] = field(default_factory=list)
    # Rows whose video is another record's too: (row, record to copy from), finished before or made by this run.
    to_copy_now: list[tuple[PlannedRow, str]] = field(default_factory=list)
    to_copy_after: list[tuple[PlannedRow, str]] = field(default_factory=list)
    new_failures: list[Record] = field(default_factory=list)  # rows that cannot be planned, not yet committed
    record_ids: list[str] = field(default_factory=list)  # every record of the manifest, in its order
    already_done: Counter[str] = field(default_factory=Counter)  # status -> records
    estimated_s: dict[Bucket, float] = field(default_factory=dict)  # one actor, one video

    @property
    def records(self) -> int:
        return len(self.record_ids)

    @property
    def buckets(self) -> Counter[Bucket]:
        return Counter(row.bucket for row in self.to_render)

    @property
    def estimated_actor_s(self) -> float:
        return sum(count * self.estimated_s[bucket] for bucket, count in self.buckets.items())


def make_plan(
    reader: ManifestReader, planner: RowPlanner, index: CommitIndex, compute: Compute, unet_channels: int
) -> Plan:
    """Plans every row of the manifest against what is committed."""
    plan = Plan(manifest_rows=reader.num_rows, warnings=list(reader.warnings))
    leaders: dict[str, str] = {}  # row_key -> the record that will render it
    for planned in _planned(reader, planner):
        if isinstance(planned, dict):
            _file_failure(plan, index, planned)
        else:
            _file_video(plan, index, planned, leaders)
    for row in plan.to_render:
        plan.estimated_s.setdefault(
            row.bucket,
            video_seconds(
                row.settings, unet_channels, on_gpu=compute.gpus_per_actor > 0, cores=compute.cpus_per_actor
            ),
        )
    return plan


def _planned(reader: ManifestReader, planner: RowPlanner) -> Iterator[PlannedRow | Record]:
    rows = reader.rows()
    while chunk := list(islice(rows, _CHUNK_ROWS)):
        yield from planner.plan(chunk)


def _file_failure(plan: Plan, index: CommitIndex, record: Record) -> None:
    plan.record_ids.append(record["record_id"])
    status = index.status_of_record.get(record["record_id"])
    if record["error_class"] in _OUT_OF_REACH and status == Status.OK:
        # A finished video outlives its picture: what cannot be looked at now is no reason to lose a record.
        plan.already_done[status] += 1
        plan.warnings.append(f"row {record['row_id']!r} is finished, but {record['error']}")
    elif index.is_done(record["record_id"], record["row_key"]):
        plan.already_done[index.status_of_record[record["record_id"]]] += 1
    else:
        plan.new_failures.append(record)


def _file_video(plan: Plan, index: CommitIndex, row: PlannedRow, leaders: dict[str, str]) -> None:
    plan.record_ids.append(row.record_id)
    if index.is_done(row.record_id, row.row_key):
        plan.already_done[index.status_of_record[row.record_id]] += 1
    elif row.row_key in index.record_of_video:
        plan.to_copy_now.append((row, index.record_of_video[row.row_key]))
    elif row.row_key in leaders:
        plan.to_copy_after.append((row, leaders[row.row_key]))
    else:
        leaders[row.row_key] = row.record_id
        plan.to_render.append(row)


def work_units(plan: Plan, run: RenderRun, compute: Compute) -> list[list[PlannedRow]]:
    """The rows to render, cut into units of one bucket and priority each; higher priorities first."""
    groups: dict[tuple[int, Bucket], list[PlannedRow]] = {}
    for row in plan.to_render:
        groups.setdefault((-row.priority, row.bucket), []).append(row)
    units = []
    for (_, bucket), rows in sorted(groups.items(), key=lambda item: item[0]):
        size = _unit_size(run, compute, len(plan.to_render), plan.estimated_s[bucket])
        units += [rows[start : start + size] for start in range(0, len(rows), size)]
    return units


def _unit_size(run: RenderRun, compute: Compute, total: int, estimated_s: float) -> int:
    if run.unit_rows:
        return run.unit_rows
    by_time = _UNIT_S / estimated_s
    by_balance = total / (compute.actors * _UNITS_PER_ACTOR)
    batches = max(1, math.floor(min(by_time, by_balance) / run.batch_size))
    return batches * run.batch_size


def write_units(storage: Storage, directory: str, units: list[list[PlannedRow]]) -> str:
    """Writes the work units as Parquet, one row per unit, and returns its URI."""
    uri = join(directory, "units.parquet")
    storage.write_bytes(uri, parquet_bytes(units_table(enumerate(units))))
    return uri


def plan_summary(plan: Plan, run: RenderRun, compute: Compute, units: int) -> dict[str, Any]:
    """The plan as the JSON that is kept with the run and the text of `jobs.plan` is made from."""
    actor_s = plan.estimated_actor_s
    gpu_hours = actor_s * compute.gpus_per_actor / 3600
    price = run.price_per_gpu_hour
    return {
        "manifest": run.manifest,
        "manifest_rows": plan.manifest_rows,
        "records": plan.records,
        "to_render": len(plan.to_render),
        "to_copy": len(plan.to_copy_now) + len(plan.to_copy_after),
        "new_invalid": sum(record["status"] == Status.INVALID for record in plan.new_failures),
        "new_failed": sum(record["status"] == Status.FAILED for record in plan.new_failures),
        "already_done": dict(plan.already_done),
        "work_units": units,
        "actors": compute.actors,
        "cpus_per_actor": compute.cpus_per_actor,
        "gpus_per_actor": compute.gpus_per_actor,
        "dtype": compute.dtype,
        "batch_size": run.batch_size,
        "shapes": [
            {
                "mode": mode,
                "num_frames": frames,
                "height": height,
                "width": width,
                "num_inference_steps": steps,
                "videos": count,
                "estimated_s_per_video": round(plan.estimated_s[bucket], 2),
            }
            for bucket, count in plan.buckets.items()
            for mode, frames, height, width, steps in [bucket]
        ],
        "estimated_gpu_hours": round(gpu_hours, 3),
        "estimated_wall_s": round(actor_s / compute.actors, 1),
        "estimated_cost_usd": None if price is None else round(gpu_hours * price, 2),
        "warnings": plan.warnings,
    }
