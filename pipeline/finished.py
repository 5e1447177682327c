"""A finished output as the jobs after the render read it: its records snapshot and the files of its runs."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from actors.storage import ObjectNotFound, Storage, join
from actors.uris import absolute_path, is_local, resolve
from pipeline.files import BATCH_ROWS, read_pointer
from schemas.identity import media_path, media_suffix
from schemas.record import RECORD_SCHEMA
from schemas.run import InfrastructureError, UsageError

_MAX_JSON_BYTES = 64 * 2**20


@dataclass(frozen=True)
class FinishedOutput:
    """An output of `jobs.render`, read only. It may have been moved since it was rendered."""

    storage: Storage
    uri: str
    files: tuple[str, ...]  # of the records snapshot, in the manifest's order

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """The records in the manifest's order, with these columns (default: all).

        A record of an earlier version has nulls in columns that it did not know.

        Raises:
            InfrastructureError: a file of the snapshot is not there or damaged.
        """
        schema = pa.schema([RECORD_SCHEMA.field(name) for name in columns or RECORD_SCHEMA.names])
        for uri in self.files:
            filesystem, path = self.storage.arrow_filesystem(uri)
            try:
                with pq.ParquetFile(path, filesystem=filesystem, page_checksum_verification=True) as file:
                    known = [name for name in schema.names if name in file.schema_arrow.names]
                    for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=known):
                        yield _as(batch, schema)
            except (pa.ArrowException, OSError) as error:
                raise InfrastructureError(
                    f"{uri} cannot be read ({error}); jobs.reconcile makes the records anew"
                ) from error

    def table(self, columns: Sequence[str]) -> pa.Table:
        """These columns of all records."""
        schema = pa.schema([RECORD_SCHEMA.field(name) for name in columns])
        return pa.Table.from_batches(self.batches(columns), schema)

    def take(self, positions: np.ndarray) -> list[dict[str, Any]]:
        """The records at these ascending positions of the snapshot."""
        found: list[dict[str, Any]] = []
        start = 0
        for batch in self.batches():
            inside = positions[(positions >= start) & (positions < start + batch.num_rows)] - start
            found.extend(batch.take(pa.array(inside)).to_pylist())
            start += batch.num_rows
        return found

    def run_json(self, *names: str) -> dict[str, Any]:
        """A JSON file below run/, empty where there is none."""
        try:
            value = json.loads(self.storage.read_bytes(join(self.uri, "run", *names), _MAX_JSON_BYTES))
        except (ObjectNotFound, ValueError):
            return {}
        return value if isinstance(value, dict) else {}

    def video_uri(self, record: Mapping[str, Any]) -> str:
        """Where the video or image of an ok record (its row_key, mode and image_format) is now."""
        suffix = media_suffix(record["mode"], record.get("image_format"))
        return join(self.uri, media_path(record["row_key"], suffix))

    def asset_uri(self, uri: str, config: dict[str, Any]) -> str:
        """Where a style picture of a record is read: a relative path is relative to the manifest's folder."""
        manifest = str(config.get("manifest") or "")
        folder = (
            manifest if manifest.endswith(".parquet") and "*" not in manifest else manifest.rstrip("/") + "/"
        )
        return resolve(uri, folder) if manifest else uri


def open_output(storage: Storage, uri: str) -> FinishedOutput:
    """The output at a URI.

    Raises:
        UsageError: there is no records snapshot.
    """
    uri = absolute_path(uri) if is_local(uri) else uri.rstrip("/")
    named = read_pointer(storage, join(uri, "run", "records.json"))
    if not named:
        raise UsageError(
            f"output = {uri!r}: no run/records.json there; it is no output that jobs.render finished"
        )
    files = tuple(join(uri, "records", file.rsplit("/", 1)[-1]) for file in named)
    return FinishedOutput(storage, uri, files)


def _as(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    columns = [
        batch.column(field.name) if field.name in batch.schema.names else pa.nulls(batch.num_rows, field.type)
        for field in schema
    ]
    return pa.RecordBatch.from_arrays(
        [column.cast(field.type) for column, field in zip(columns, schema, strict=True)], schema=schema
    )
