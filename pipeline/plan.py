"""The plan of a run: every manifest row accounted for before anything is rendered.

What grows with the manifest lies in tables on disk (`Scratch`); a plan in memory is counts.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice, repeat
from typing import Any, NamedTuple

from actors.commits import record_from_json, record_json
from actors.records import Record
from pipeline.asked import AskedRecords
from pipeline.compute import Compute
from pipeline.earlier_plan import Chunks, EarlierPlan, KnownChunk
from pipeline.estimate import video_seconds
from pipeline.ledger import Redo, is_passing
from pipeline.manifest_reader import ManifestReader
from pipeline.row_planner import RowPlanner
from pipeline.scratch import Scratch, key_bytes
from schemas.planned import Bucket, PlannedRow
from schemas.record import ErrorClass, Status
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
# Of the records of one video, always the same one.
_FINISHED = (
    "SELECT row_key, min(record_id) FROM held WHERE status = 'ok' AND row_key IN ({}) GROUP BY row_key"
)
_LEADERS = "SELECT row_key, record_id FROM leaders WHERE row_key IN ({})"
_HELD = "SELECT record_id, row_key, status, error_class, run_id FROM held WHERE record_id IN ({})"

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
    is_news: bool = False  # worth keeping for the next plan (see `EarlierPlan`)

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
    earlier: EarlierPlan | None = None,
) -> Plan:
    """Plans every row of the manifest against what is committed (the table `held`, see `CommitIndex`).

    Args:
        redo: which committed failures are done again.
        only: instead of `redo`: nothing but these committed records is done again.
        earlier: spares planning again what is finished.
    """
    for table in _TABLES:
        scratch.execute(table)
    plan = Plan(scratch, AskedRecords(scratch), reader.num_rows, list(reader.warnings))
    chunks = Chunks(scratch)
    known = chain(earlier.chunks() if earlier and not only else (), repeat(KnownChunk(None, [], [])))
    rows = reader.rows()
    while raw := list(islice(rows, _CHUNK_ROWS)):
        first, chunk = plan.asked.count, next(known)
        pictures = planner.look_at(raw) if chunk.pictures else None
        if not (pictures and pictures == chunk.pictures and _Chunk(plan, redo, only).take_over(chunk)):
            planned = iter(planner.plan(raw))
            while some := list(islice(planned, _CHUNK_ROWS)):
                _Chunk(plan, redo, only).file(some)
            pictures = planner.pictures(raw) if earlier else None
        chunks.add(first, plan.asked.count, pictures)
        plan.is_news |= chunk.pictures != pictures
    plan.is_news = plan.is_news and not only and not planner.has_repeated_ids
    plan.asked.index()
    for bucket in plan.buckets:
        settings = RenderSettings.model_validate({name: getattr(bucket, name) for name in _SHAPE})
        plan.estimated_s[bucket] = video_seconds(
            settings, unet_channels, on_gpu=compute.gpus_per_actor > 0, cores=compute.cpus_per_actor
        )
    return plan


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
        self._made: list[tuple[int, bytes, PlannedRow]] = []  # position, record_id
        self._pending: list[tuple[int, str, int, bytes | None, bytes]] = []

    def take_over(self, chunk: KnownChunk) -> bool:
        """Files rows that are all finished, as an earlier plan named them; False: there are others among them."""
        held = self._held(chunk.record_ids)
        records = [(held.get(name), key) for name, key in zip(chunk.record_ids, chunk.row_keys, strict=True)]
        if not all(self._is_done(commit, key) for commit, key in records):
            return False
        for record_id in chunk.record_ids:
            self._done(record_id, held[record_id])
        self._plan.asked.add(self._asked)
        return True

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
            elif commit and self._is_done(commit, key) and not self._only:
                self._done(record_id, commit)
            elif isinstance(row, dict):
                self._fail(record_id, key, row)
            else:
                self._made.append((self._ask(record_id, key), record_id, row))
        self._make()
        self._plan.asked.add(self._asked)
        self._plan.scratch.each("INSERT INTO pending VALUES (?, ?, ?, ?, ?)", self._pending)

    def _held(self, ids: list[bytes]) -> dict[bytes, _Commit]:
        return {record_id: _Commit(*brief) for record_id, *brief in self._among(_HELD, ids)}

    def _is_done(self, commit: _Commit | None, key: bytes | None) -> bool:
        return commit is not None and commit.row_key == key and not self._redo(*commit[1:])

    def _among(self, query: str, keys: list[bytes]) -> Iterator[tuple[Any, ...]]:
        return self._plan.scratch.rows(query.format(", ".join("?" * len(keys))), keys)

    def _is_chosen(self, row: PlannedRow | Record, commit: _Commit) -> bool:
        assert self._only is not None
        row_id = row["row_id"] if isinstance(row, dict) else row.row_id
        return self._only(row_id, commit.status, commit.error_class)

    def _leave(self, record_id: bytes, key: bytes | None, commit: _Commit | None) -> None:
        if commit:
            self._done(record_id, commit)
        else:
            self._ask(record_id, key)

    def _done(self, record_id: bytes, commit: _Commit) -> None:
        self._ask(record_id, commit.row_key)
        self._plan.already_done[commit.status] += 1

    def _fail(self, record_id: bytes, key: bytes | None, record: Record) -> None:
        self._plan.new_failures[record["status"]] += 1
        self._pending.append((self._ask(record_id, key), _FAILURE, 0, None, record_json(record)))

    def _make(self) -> None:
        """Renders each video once: further records of it are copies of the first, or of a finished one."""
        plan = self._plan
        keys = [bytes.fromhex(row.row_key) for _, _, row in self._made]
        finished = dict(self._among(_FINISHED, keys))
        leaders = dict(self._among(_LEADERS, keys))
        new: dict[bytes, bytes] = {}
        for key, (position, record_id, row) in zip(keys, self._made, strict=True):
            body = row.model_dump_json().encode()
            if leader := finished.get(key) or leaders.get(key) or new.get(key):
                plan.to_copy += 1
                self._pending.append((position, _COPY, int(key in finished), leader, body))
                continue
            new[key] = record_id
            group = Group(-row.priority, row.bucket)
            plan.to_render[group] += 1
            number = plan.group_numbers.setdefault(group, len(plan.group_numbers))
            self._pending.append((position, _RENDER, number, None, body))
        plan.scratch.each("INSERT INTO leaders VALUES (?, ?)", new.items())

    def _ask(self, record_id: bytes, key: bytes | None) -> int:
        """Adds to what is asked for; returns the position."""
        self._asked.append((record_id, key, None, None))
        return self._plan.asked.count + len(self._asked) - 1


def _outlives_picture(commit: _Commit, record: Record) -> bool:
    """A finished video is not lost because its picture cannot be looked at now."""
    return commit.status == Status.OK and record["error_class"] in _OUT_OF_REACH
