"""Work units: the rows to render, cut into pieces of a few GPU-minutes that one actor takes at a time."""

import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice

from actors.storage import Storage, join
from pipeline.compute import Compute
from pipeline.files import write_parquet
from pipeline.plan import Group, Plan
from schemas.planned import PlannedRow, units_table
from schemas.run import RenderRun

_UNIT_S = 120.0  # a work unit is a few GPU-minutes: small enough to lose, large enough to schedule
_UNITS_PER_ACTOR = 16  # so that actors finish together and progress shows
_ROWS_PER_FILE = 10_000


def unit_sizes(plan: Plan, run: RenderRun, compute: Compute) -> dict[Group, int]:
    """The rows per unit of each group, the most urgent first."""
    total = plan.to_render.total()
    return {
        group: _unit_size(run, compute, total, plan.estimated_s[group.bucket])
        for group in sorted(plan.to_render)
    }


def _unit_size(run: RenderRun, compute: Compute, total: int, estimated_s: float) -> int:
    if run.unit_rows:
        return run.unit_rows
    by_time = _UNIT_S / estimated_s
    by_balance = total / (compute.actors * _UNITS_PER_ACTOR)
    batches = max(1, math.floor(min(by_time, by_balance) / run.batch_size))
    return batches * run.batch_size


def work_units(plan: Plan, sizes: Mapping[Group, int]) -> Iterator[list[PlannedRow]]:
    """The rows to render, cut into units of one bucket and priority each; higher priorities first."""
    for group, size in sizes.items():
        rows = plan.rows_to_render(group)
        while unit := list(islice(rows, size)):
            yield unit


def write_units(
    storage: Storage, directory: str, units: Iterable[list[PlannedRow]], name: str = "units"
) -> str:
    """Writes work units as Parquet files, one row per unit, as they come, and returns the URI of their folder."""
    folder = join(directory, name)
    part: list[tuple[int, list[PlannedRow]]] = []
    rows, files = 0, 0
    for unit in enumerate(units):
        part.append(unit)
        rows += len(unit[1])
        if rows >= _ROWS_PER_FILE:
            write_parquet(storage, join(folder, f"part-{files:05d}.parquet"), units_table(part))
            part, rows, files = [], 0, files + 1
    if part or not files:
        write_parquet(storage, join(folder, f"part-{files:05d}.parquet"), units_table(part))
    return folder
