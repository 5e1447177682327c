"""The plan of a run: every manifest row accounted for before anything is rendered.

What grows with the manifest lies in tables on disk (`Scratch`); a plan in memory is counts.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

from actors.commits import record_from_json, record_json
from actors.records import Record
from pipeline.asked import AskedRecords
from pipeline.budget import hourly_cost_usd
from pipeline.compute import Compute
from pipeline.estimate import video_seconds
from pipeline.ledger import Redo, is_passing
from pipeline.manifest_reader import ManifestReader
from pipeline.row_planner import RowPlanner
from pipeline.scratch import Scratch, key_bytes
from schemas.planned import Bucket, PlannedRow
from schemas.record import ErrorClass, Status
from schemas.run import RenderRun
from schemas.settings import RenderSettings

_OUT_OF_REACH = {
    ErrorClass.ASSET_NOT_FOUND,
    ErrorClass.ASSET_FORBIDDEN,
    ErrorClass.ASSET_UNAVAILABLE,
    ErrorClass.ASSET_TIMEOUT,
}
_CHUNK_ROWS = 500
_MAX_WARNINGS = 20
_SHAPE = ("mode", "num_frames", "height", "width", "num_inference_steps")
_RENDER, _COPY, _FAILURE = "render", "copy", "failure"

_TABLES = (
    # What is to be done: rows to render and to copy as JSON of PlannedRow, failures as JSON of their record.
    "CREATE TABLE pending (position INTEGER PRIMARY KEY, kind, bucket INTEGER, source BLOB, body BLOB)",
    "CREATE INDEX pending_order ON pending (kind, bucket, position)",
    "CREATE TABLE leaders (row_key PRIMARY KEY, record_id) WITHOUT ROWID",  # the record that renders a video
)

# (row_id, status, error class) of a committed record -> whether its row is done again; other rows are left as they are.
Only = Callable[[str, str, str | None], bool]


class Group(NamedTuple):
    """Rows that may share a work unit; sorts in the order in which they are rendered."""

    urgency: int  # the negative of the rows' priority
    bucket: Bucket


@dataclass
class Plan:
    """What a run will do. Rows are counted per record, that is per row and sample."""

    scratch: Scratch
    asked: AskedRecords
    manifest_rows: int
    warnings: list[str]
    already_done: Counter[str] = field(default_factory=Counter)  # status -> records
    new_failures: Counter[str] = field(
        default_factory=Counter
    )  # of rows that cannot be planned, not yet committed
    to_copy: int = 0  # rows whose video is another record's too, finished before or made by this run
    to_render: Counter[Group] = field(default_factory=Counter)
    estimated_s: dict[Bucket, float] = field(default_factory=dict)  # one actor, one video
    hidden_warnings: int = 0
    group_numbers: dict[Group, int] = field(default_factory=dict)  # as `pending` has them

    @property
    def records(self) -> int:
        return self.asked.count

    @property
    def buckets(self) -> Counter[Bucket]:
        videos: Counter[Bucket] = Counter()
        for group, count in self.to_render.items():
            videos[group.bucket] += count
        return videos

    @property
    def estimated_actor_s(self) -> float:
        return sum(count * self.estimated_s[bucket] for bucket, count in self.buckets.items())

    def failures(self) -> Iterator[Record]:
        """The records of rows that cannot be planned and are not committed yet."""
        return (record_from_json(body) for body, _ in self._pending(_FAILURE))

    def copies(self, *, of_finished: bool) -> Iterator[tuple[PlannedRow, str]]:
        """Rows whose video another record has, with that record's id.

        Args:
            of_finished: those whose video was finished before this run, else those whose video this run makes.
        """
        for body, source in self._pending(_COPY, bucket=int(of_finished)):
            yield PlannedRow.model_validate_json(body), source.hex()

    def rows_to_render(self, group: Group) -> Iterator[PlannedRow]:
        """The rows of one bucket, in the manifest's order."""
        rows = self._pending(_RENDER, bucket=self.group_numbers[group])
        return (PlannedRow.model_validate_json(body) for body, _ in rows)

    def warn(self, sentence: str) -> None:
        """Adds a warning; of many, the first few are kept and the others counted."""
        if len(self.warnings) < _MAX_WARNINGS:
            self.warnings.append(sentence)
        else:
            self.hidden_warnings += 1

    def _pending(self, kind: str, bucket: int = 0) -> Iterator[tuple[bytes, bytes]]:
        return self.scratch.rows(
            "SELECT body, source FROM pending WHERE kind = ? AND bucket = ? ORDER BY position", (kind, bucket)
        )


def make_plan(
    reader: ManifestReader,
    planner: RowPlanner,
    scratch: Scratch,
    compute: Compute,
    unet_channels: int,
    redo: Redo = is_passing,
    only: Only | None = None,
) -> Plan:
    """Plans every row of the manifest against what is committed (the table `held`, see `CommitIndex`).

    Args:
        redo: which committed failures are done again.
        only: instead of `redo`: nothing but these committed records is done again.
    """
    for table in _TABLES:
        scratch.execute(table)
    plan = Plan(scratch, AskedRecords(scratch), reader.num_rows, list(reader.warnings))
    planned = _planned(reader, planner)
    while chunk := list(islice(planned, _CHUNK_ROWS)):
        _Chunk(plan, redo, only).file(chunk)
    for bucket in plan.buckets:
        settings = RenderSettings.model_validate({name: getattr(bucket, name) for name in _SHAPE})
        plan.estimated_s[bucket] = video_seconds(
            settings, unet_channels, on_gpu=compute.gpus_per_actor > 0, cores=compute.cpus_per_actor
        )
    return plan


def _planned(reader: ManifestReader, planner: RowPlanner) -> Iterator[PlannedRow | Record]:
    rows = reader.rows()
    while chunk := list(islice(rows, _CHUNK_ROWS)):
        yield from planner.plan(chunk)


class _Commit(NamedTuple):
    row_key: bytes | None
    status: str
    error_class: str | None
    run_id: str


class _Chunk:
    """Some rows on their way into the tables, which are asked and written once for all of them."""

    def __init__(self, plan: Plan, redo: Redo, only: Only | None):
        self._plan = plan
        self._redo = redo
        self._only = only
        self._asked: list[tuple[bytes, bytes | None, None, None]] = []
        self._pending: list[tuple[int, str, int, bytes | None, bytes]] = []

    def file(self, planned: list[PlannedRow | Record]) -> None:
        ids = [bytes.fromhex(row["record_id"] if isinstance(row, dict) else row.record_id) for row in planned]
        held = self._held(ids)
        for record_id, row in zip(ids, planned, strict=True):
            key = key_bytes(row["row_key"] if isinstance(row, dict) else row.row_key)
            commit = held.get(record_id)
            if self._only and not (commit and self._is_chosen(row, commit)):
                self._leave(record_id, key, commit)
            elif commit and isinstance(row, dict) and _outlives_picture(commit, row):
                self._plan.warn(f"row {row['row_id']!r} is finished, but {row['error']}")
                self._done(record_id, commit)
            elif commit and commit.row_key == key and not self._only and not self._redo(*commit[1:]):
                self._done(record_id, commit)
            elif isinstance(row, dict):
                self._fail(record_id, key, row)
            else:
                self._make(record_id, bytes.fromhex(row.row_key), row)
        self._plan.asked.add(self._asked)
        self._plan.scratch.each("INSERT INTO pending VALUES (?, ?, ?, ?, ?)", self._pending)

    def _held(self, ids: list[bytes]) -> dict[bytes, _Commit]:
        held = self._plan.scratch.rows(
            "SELECT record_id, row_key, status, error_class, run_id FROM held "
            f"WHERE record_id IN ({', '.join('?' * len(ids))})",
            ids,
        )
        return {record_id: _Commit(*brief) for record_id, *brief in held}

    def _is_chosen(self, row: PlannedRow | Record, commit: _Commit) -> bool:
        assert self._only is not None
        row_id = row["row_id"] if isinstance(row, dict) else row.row_id
        return self._only(row_id, commit.status, commit.error_class)

    def _leave(self, record_id: bytes, key: bytes | None, commit: _Commit | None) -> None:
        if commit:
            self._done(record_id, commit)
        else:
            self._asked.append((record_id, key, None, None))

    def _done(self, record_id: bytes, commit: _Commit) -> None:
        self._asked.append((record_id, commit.row_key, None, None))
        self._plan.already_done[commit.status] += 1

    def _fail(self, record_id: bytes, key: bytes | None, record: Record) -> None:
        self._plan.new_failures[record["status"]] += 1
        self._later(record_id, key, _FAILURE, 0, None, record_json(record))

    def _make(self, record_id: bytes, key: bytes, row: PlannedRow) -> None:
        plan, scratch = self._plan, self._plan.scratch
        finished = scratch.one("SELECT record_id FROM held WHERE row_key = ? AND status = 'ok'", (key,))
        leader = finished or scratch.one("SELECT record_id FROM leaders WHERE row_key = ?", (key,))
        body = row.model_dump_json().encode()
        if leader:
            plan.to_copy += 1
            self._later(record_id, key, _COPY, int(finished is not None), leader[0], body)
            return
        scratch.execute("INSERT INTO leaders VALUES (?, ?)", (key, record_id))
        group = Group(-row.priority, row.bucket)
        plan.to_render[group] += 1
        number = plan.group_numbers.setdefault(group, len(plan.group_numbers))
        self._later(record_id, key, _RENDER, number, None, body)

    def _later(
        self, record_id: bytes, key: bytes | None, kind: str, bucket: int, source: bytes | None, body: bytes
    ) -> None:
        position = self._plan.asked.count + len(self._asked)
        self._asked.append((record_id, key, None, None))
        self._pending.append((position, kind, bucket, source, body))


def _outlives_picture(commit: _Commit, record: Record) -> bool:
    """A finished video is not lost because its picture cannot be looked at now."""
    return commit.status == Status.OK and record["error_class"] in _OUT_OF_REACH


def plan_summary(plan: Plan, run: RenderRun, compute: Compute, units: int) -> dict[str, Any]:
    """The plan as the JSON that is kept with the run and the text of `jobs.plan` is made from."""
    actor_s = plan.estimated_actor_s
    gpu_hours = actor_s * compute.gpus_per_actor / 3600
    hourly_usd = hourly_cost_usd(run, compute)
    more = [f"and {plan.hidden_warnings} more such rows"] if plan.hidden_warnings else []
    return {
        "manifest": run.manifest,
        "manifest_rows": plan.manifest_rows,
        "records": plan.records,
        "sweep": {name: list(values) for name, values in run.sweep.axes.items()},
        "to_render": plan.to_render.total(),
        "to_copy": plan.to_copy,
        "new_invalid": plan.new_failures[Status.INVALID],
        "new_failed": plan.new_failures[Status.FAILED],
        "already_done": dict(plan.already_done),
        "work_units": units,
        "actors": compute.actors,
        "cpus_per_actor": compute.cpus_per_actor,
        "gpus_per_actor": compute.gpus_per_actor,
        "dtype": compute.dtype,
        "batch_size": run.batch_size,
        "shapes": [
            bucket._asdict() | {"videos": count, "estimated_s_per_video": round(plan.estimated_s[bucket], 2)}
            for bucket, count in plan.buckets.items()
        ],
        "estimated_gpu_hours": round(gpu_hours, 3),
        "estimated_wall_s": round(actor_s / compute.actors, 1),
        "estimated_cost_usd": None
        if hourly_usd is None
        else round(actor_s / compute.actors / 3600 * hourly_usd, 2),
        "warnings": plan.warnings + more,
    }
