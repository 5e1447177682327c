"""Reads a Parquet manifest, of one or many files, row by row. What cannot be read is told as a row is.

A damaged file among good ones costs its own rows only: one `RawRow` with a `problem` stands for the file, or
for the rest of it from the damage on.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from actors.storage import ObjectNotFound, Storage, StorageError, UriForbidden, redact
from schemas.manifest import ManifestError, UnreadableValue, check_columns, is_manifest_column, shorten
from schemas.run import InfrastructureError

_BATCH_ROWS = 1_000
_REASON_CHARS = 500


@dataclass(frozen=True)
class RawRow:
    """One row as it stands in its file, not validated."""

    values: dict[str, Any]
    file_uri: str
    problem: str | None = None  # why the file's rows from here on cannot be read; `values` says where that is


class ManifestReader:
    """A manifest's files. `num_rows` counts the rows that their footers announce, and one for each broken file.

    Raises:
        ManifestError: there is no file, or none of them can be used.
        InfrastructureError: the store does not answer.
    """

    def __init__(self, storage: Storage, uri: str, limit: int | None = None):
        self._storage = storage
        self._limit = limit
        try:
            self.files = storage.expand(uri)
        except ObjectNotFound as error:
            raise ManifestError(f"manifest = {uri!r}: {error}") from None
        self.warnings: list[str] = []
        self._broken: dict[str, str] = {}  # file -> why
        total = sum(self._check(file) for file in self.files)
        if len(self._broken) == len(self.files):
            reasons = list(self._broken.values())
            others = f" (and {len(reasons) - 1} more files, none of which can be used)" if reasons[1:] else ""
            raise ManifestError(reasons[0] + others)
        self.warnings += [f"{reason}; its rows are left out" for reason in self._broken.values()]
        self.num_rows = total if limit is None else min(limit, total)

    def rows(self) -> Iterator[RawRow]:
        """Every row, in the order of files and rows; at most `limit`."""
        return islice(chain.from_iterable(map(self._rows_of, self.files)), self._limit)

    def _check(self, file: str) -> int:
        try:
            with self._open(file) as parquet:
                warnings = check_columns(parquet.schema_arrow.names)
                self.warnings += [warning for warning in warnings if warning not in self.warnings]
                return parquet.metadata.num_rows
        except ManifestError as error:
            self._broken[file] = str(error)
            return 1

    def _rows_of(self, file: str) -> Iterator[RawRow]:
        if file in self._broken:
            yield RawRow({"file": file, "first_row": 0}, file, self._broken[file])
            return
        read = 0
        try:
            with self._open(file) as parquet:
                for values in _rows(parquet):
                    yield RawRow(values, file)
                    read += 1
        except ManifestError as error:
            problem = f"{error} (from row {read + 1} on; the {read} rows before it are used)"
            yield RawRow({"file": file, "first_row": read}, file, problem)

    @contextmanager
    def _open(self, file: str) -> Iterator[pq.ParquetFile]:
        """The file while it is read; what is wrong with its content is a ManifestError that names it."""
        try:
            with (
                self._storage.open(file) as source,
                pq.ParquetFile(source, page_checksum_verification=True) as parquet,
            ):
                yield parquet
        except (ObjectNotFound, UriForbidden, ManifestError) as error:
            reason = str(error)
            raise ManifestError(reason if file in reason else f"{redact(file)}: {reason}") from None
        except (StorageError, InfrastructureError):
            raise
        except Exception as error:
            if (
                isinstance(error, OSError) and error.errno is not None
            ):  # the disk's error; Arrow's own have none
                raise InfrastructureError(f"{redact(file)}: cannot be read: {error}") from error
            reason = " ".join(str(error).split())[:_REASON_CHARS] or type(error).__name__
            raise ManifestError(f"{redact(file)}: not a readable Parquet file: {reason}") from None


def _rows(parquet: pq.ParquetFile) -> Iterator[dict[str, Any]]:
    """Group by group, so that damage in one costs nothing of those before it."""
    names = [name for name in parquet.schema_arrow.names if is_manifest_column(name)]
    for group in range(parquet.num_row_groups):
        expected, read = parquet.metadata.row_group(group).num_rows, 0
        for batch in parquet.iter_batches(batch_size=_BATCH_ROWS, row_groups=[group], columns=names):
            yield from _values(batch)
            read += batch.num_rows
        if read != expected:
            raise ManifestError(f"row group {group} holds {read} of the {expected} rows that it announces")


def _values(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    try:
        return batch.to_pylist()
    except Exception:  # noqa: BLE001 - one bad value would cost the batch: value by value, it costs its row
        columns = dict(zip(batch.schema.names, batch.columns, strict=True))
        return [
            {name: _value(column, row) for name, column in columns.items()} for row in range(batch.num_rows)
        ]


def _value(column: pa.Array, row: int) -> Any:
    try:
        return column[row].as_py()
    except Exception as error:  # noqa: BLE001 - ends as the row's record
        return UnreadableValue(f"{column.type} value: {shorten(str(error))}")
