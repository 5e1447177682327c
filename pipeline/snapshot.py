"""The records snapshot: `records/*.parquet`, one row per record of the manifest, made anew from the commits."""

import json
import uuid
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from actors.commits import CommitStore
from actors.storage import Storage, join
from schemas.record import records_table

_ROWS_PER_FILE = 50_000


def publish_snapshot(storage: Storage, output: str, record_ids: list[str]) -> list[dict[str, Any]]:
    """Writes the snapshot of these records, then removes the files of earlier ones.

    The new files are complete before `run/records.json`, the pointer, names them; a reader that lists the folder
    in between may see two snapshots, a reader of the pointer never does.

    Returns:
        The records, in the order given; one that is not committed is absent.
    """
    name = uuid.uuid4().hex[:12]
    records = [record for record in CommitStore(storage, output).read_many(record_ids) if record is not None]
    earlier = [stat.uri for stat in storage.list(join(output, "records"))]
    files: list[str] = []
    remaining = iter(records)
    while (part := list(islice(remaining, _ROWS_PER_FILE))) or not files:
        uri = join(output, "records", f"part-{name}-{len(files):05d}.parquet")
        storage.write_bytes(uri, parquet_bytes(records_table(part)))
        files.append(uri)
    storage.write_bytes(join(output, "run", "records.json"), json.dumps({"files": files}, indent=1).encode())
    for uri in earlier:
        storage.delete(uri)
    return records


def parquet_bytes(table: pa.Table) -> bytes:
    """A table as the bytes of one Parquet file."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue().to_pybytes()
