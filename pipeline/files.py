"""Derived files of an output: Parquet that is written whole, and JSON pointers that say which files count."""

import json
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from actors.storage import ObjectNotFound, Storage

BATCH_ROWS = 10_000
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
