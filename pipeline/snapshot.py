"""The records snapshot: `records/*.parquet`, one row per record of the manifest, in its order.

It is made anew from the earlier snapshot and the commits that have changed since, in two passes over files, so that
its size is no matter of memory: each record is put into the spill file of the part that it belongs to, wherever it
comes from; then each part is sorted and written.
"""

import json
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from types import TracebackType

import numpy as np
import pyarrow as pa

from actors.records import Record
from actors.storage import join
from pipeline.asked import IS_CURRENT
from pipeline.commit_index import CommitIndex
from pipeline.files import read_batches, read_pointer, write_parquet
from schemas.record import RECORD_SCHEMA

_ROWS_PER_FILE = 50_000
_READ_RECORDS = 1_000  # commits held as Python objects
_SPILLED_ROWS = (
    10_000  # collected before they are written: they go to many parts, and small pieces cost time and memory
)
_SPILL_SCHEMA = pa.schema([*RECORD_SCHEMA, pa.field("position", pa.int64())])
_CURRENT = f"FROM asked JOIN held USING (record_id) WHERE {IS_CURRENT}"


def publish_snapshot(index: CommitIndex, each: Callable[[pa.Table], None] = lambda table: None) -> None:
    """Writes the snapshot of the records that are asked for and committed, then removes the files of earlier ones.

    The new files are complete before `run/records.json`, the pointer, names them; a reader that lists the folder
    in between may see two snapshots, a reader of the pointer never does. The index is saved with it.

    Args:
        index: loaded before; brought up to date here. Its scratch database has the table `asked`.
        each: is given every part of the snapshot once.
    """
    storage, output = index.storage, index.output
    pointer = join(output, "run", "records.json")
    earlier = [stat.uri for stat in storage.list(join(output, "records"))]
    name = uuid.uuid4().hex[:12]
    files: list[str] = []
    with _Spill() as spill:
        index.refresh(lambda records: _place(spill, index, records))
        _place_earlier(spill, index, read_pointer(storage, pointer))
        _place_missing(spill, index)
        for table in spill.parts():
            files.append(join(output, "records", f"part-{name}-{len(files):05d}.parquet"))
            write_parquet(storage, files[-1], table)
            each(table)
    storage.write_bytes(pointer, json.dumps({"files": files}, indent=1).encode())
    for uri in earlier:
        storage.delete(uri)
    index.mark_published()
    index.save()


def _place_earlier(spill: "_Spill", index: CommitIndex, files: list[str]) -> None:
    """Takes over what the earlier snapshot has of the present commits."""
    for uri in files:
        for batch in read_batches(index.storage, uri):
            if batch.schema.remove_metadata().equals(
                RECORD_SCHEMA
            ):  # else of another version: read the commits
                ids = batch["record_id"].to_pylist()
                spill.add(pa.Table.from_batches([batch]), _positions(index, ids, "in_records"))


def _place_missing(spill: "_Spill", index: CommitIndex) -> None:
    """Reads the commits of all records that have no place yet."""
    rows = index.scratch.rows(f"SELECT position, record_id {_CURRENT} ORDER BY position")
    missing = (record_id.hex() for position, record_id in rows if not spill.has(position))
    while some := list(islice(missing, _READ_RECORDS)):
        records = [record for record in index.commits.try_many(some) if isinstance(record, dict)]
        _place(spill, index, records)


def _place(spill: "_Spill", index: CommitIndex, records: list[Record]) -> None:
    table = index.as_table(records)
    spill.add(table, _positions(index, table["record_id"].to_pylist(), "TRUE"))


def _positions(index: CommitIndex, record_ids: list[str], condition: str) -> list[int]:
    """The place of each record, -1 for one that has none."""
    ids = [bytes.fromhex(record_id) for record_id in record_ids]
    query = f"SELECT record_id, position {_CURRENT} AND {condition} AND record_id IN ({', '.join('?' * len(ids))})"
    position_of = dict(index.scratch.rows(query, ids))
    return [position_of.get(record_id, -1) for record_id in ids]


class _Spill:
    """Records on local disk, in one file per part of the snapshot, until all have come."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="stylecrafter-")))
        self._writers: dict[int, pa.ipc.RecordBatchStreamWriter] = {}
        self._taken = np.zeros(0, dtype=bool)
        self._waiting: list[pa.Table] = []

    def __enter__(self) -> "_Spill":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def has(self, position: int) -> bool:
        return position < len(self._taken) and bool(self._taken[position])

    def add(self, table: pa.Table, positions: list[int]) -> None:
        """Keeps the rows of a table at these positions; -1 and a position that is taken: not kept."""
        place = np.array(positions, dtype=np.int64)
        self._grow(int(place.max(initial=-1)) + 1)
        keep = place >= 0
        keep[keep] = ~self._taken[place[keep]]
        _, first = np.unique(place, return_index=True)
        keep &= np.isin(np.arange(len(place)), first)
        self._taken[place[keep]] = True
        table = table.append_column(_SPILL_SCHEMA.field("position"), pa.array(place))
        self._waiting.append(table.filter(pa.array(keep)))
        if sum(map(len, self._waiting)) >= _SPILLED_ROWS:
            self._write()

    def _write(self) -> None:
        table = pa.concat_tables(self._waiting).combine_chunks().sort_by("position")
        self._waiting = []
        parts = table["position"].to_numpy() // _ROWS_PER_FILE
        starts = np.flatnonzero(np.diff(parts, prepend=-1))
        for start, end in zip(starts, [*starts[1:], len(parts)], strict=True):
            self._writer(int(parts[start])).write_table(table.slice(start, end - start))

    def parts(self) -> Iterator[pa.Table]:
        """The parts, sorted; one without rows if there is none."""
        if any(map(len, self._waiting)):  # a part may hold nothing that is asked for
            self._write()
        for writer in self._writers.values():
            writer.close()
        for part in sorted(self._writers):
            path = self._path(part)
            with pa.ipc.open_stream(path) as reader:
                table = reader.read_all()
            path.unlink()
            yield table.sort_by("position").drop_columns("position")
        if not self._writers:
            yield RECORD_SCHEMA.empty_table()

    def _grow(self, length: int) -> None:
        if length > len(self._taken):
            self._taken = np.concatenate([self._taken, np.zeros(length, dtype=bool)])

    def _writer(self, part: int) -> pa.ipc.RecordBatchStreamWriter:
        if part not in self._writers:
            options = pa.ipc.IpcWriteOptions(compression="lz4")
            file = self._stack.enter_context(pa.OSFile(str(self._path(part)), "wb"))
            self._writers[part] = pa.ipc.new_stream(file, _SPILL_SCHEMA, options=options)
        return self._writers[part]

    def _path(self, part: int) -> Path:
        return self._folder / f"{part:06d}.arrow"
