"""Derived files of an output: Parquet that is written whole, and JSON pointers that say which files count."""

import json
import uuid
from collections.abc import Iterator
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from actors.storage import ObjectNotFound, Storage, join

BATCH_ROWS = 10_000
_ROWS_PER_FILE = 100_000
_MAX_POINTER_BYTES = 2**20


def read_pointer(storage: Storage, uri: str) -> list[str]:
    """The files that a pointer names; none where there is no readable pointer."""
    try:
        files = json.loads(storage.read_bytes(uri, max_bytes=_MAX_POINTER_BYTES))["files"]
    except (ObjectNotFound, ValueError, KeyError, TypeError):
        return []
    return [file for file in files if isinstance(file, str)] if isinstance(files, list) else []


def read_batches(storage: Storage, uri: str) -> Iterator[pa.RecordBatch]:
    """A derived Parquet file in batches; ends early where it is not there or damaged (its pages have checksums)."""
    filesystem, path = storage.arrow_filesystem(uri)
    try:
        with pq.ParquetFile(
            path, filesystem=filesystem, buffer_size=2**20, page_checksum_verification=True
        ) as file:
            yield from file.iter_batches(batch_size=BATCH_ROWS)
    except (pa.ArrowException, OSError):
        return


def write_parquet(storage: Storage, uri: str, table: pa.Table) -> None:
    """Writes a table as one Parquet file, whole or not at all."""
    storage.write_bytes(uri, parquet_bytes(table))


def parquet_bytes(table: pa.Table) -> bytes:
    """A table as the bytes of one Parquet file, in row groups small enough to be read one by one."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True, row_group_size=BATCH_ROWS)
    return sink.getvalue().to_pybytes()


def read_rows(storage: Storage, files: list[str], schema: pa.Schema) -> Iterator[tuple[Any, ...]]:
    """The rows of derived files; what cannot be read of them, or has other columns, is left out."""
    for uri in files:
        for batch in read_batches(storage, uri):
            if batch.schema.names == schema.names:
                yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def replace_rows(
    storage: Storage, folder: str, pointer: str, rows: Iterator[tuple[Any, ...]], schema: pa.Schema
) -> None:
    """Writes rows as files of a folder, then the pointer to them, then removes what was in the folder before."""
    earlier = [stat.uri for stat in storage.list(folder)]
    name = uuid.uuid4().hex[:12]
    files: list[str] = []
    while table := _table(rows, schema):
        files.append(join(folder, f"part-{name}-{len(files):05d}.parquet"))
        write_parquet(storage, files[-1], table)
    storage.write_bytes(pointer, json.dumps({"files": files}).encode())
    for uri in earlier:
        if uri != pointer:
            storage.delete(uri)


def _table(rows: Iterator[tuple[Any, ...]], schema: pa.Schema) -> pa.Table | None:
    batches = []
    for _ in range(_ROWS_PER_FILE // BATCH_ROWS):
        if not (some := list(islice(rows, BATCH_ROWS))):
            break
        columns = [
            pa.array(values, field.type)
            for values, field in zip(zip(*some, strict=True), schema, strict=True)
        ]
        batches.append(pa.record_batch(columns, schema=schema))
    return pa.Table.from_batches(batches) if batches else None
