"""Reads a Parquet manifest, of one or many files, row by row."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from actors.storage import ObjectNotFound, Storage
from schemas.manifest import COLUMNS, META_PREFIX, ManifestError, check_columns
from schemas.run import InfrastructureError

_BATCH_ROWS = 1_000


@dataclass(frozen=True)
class RawRow:
    """One row as it stands in its file, not validated."""

    values: dict[str, Any]
    file_uri: str


class ManifestReader:
    """A manifest's files, checked for the required columns.

    Raises:
        ManifestError: no file, not Parquet, or a required column is missing.
    """

    def __init__(self, storage: Storage, uri: str, limit: int | None = None):
        self._storage = storage
        self._limit = limit
        try:
            self.files = storage.expand(uri)
        except ObjectNotFound as error:
            raise ManifestError(f"manifest = {uri!r}: {error}") from None
        self.warnings: list[str] = []
        total = sum(self._check(file) for file in self.files)
        self.num_rows = total if limit is None else min(limit, total)

    def rows(self) -> Iterator[RawRow]:
        """Every row, in the order of files and rows; at most `limit`."""
        left = self.num_rows
        for file in self.files:
            with self._open(file) as parquet:
                names = [n for n in parquet.schema_arrow.names if n in COLUMNS or n.startswith(META_PREFIX)]
                for rows in _batches(parquet, names, file):
                    for values in rows[:left]:
                        yield RawRow(values, file)
                    left -= min(left, len(rows))
                    if not left:
                        return

    def _check(self, file: str) -> int:
        with self._open(file) as parquet:
            try:
                warnings = check_columns(parquet.schema_arrow.names)
            except ManifestError as error:
                raise ManifestError(f"{file}: {error}") from None
            self.warnings += [warning for warning in warnings if warning not in self.warnings]
            return parquet.metadata.num_rows

    def _open(self, file: str) -> pq.ParquetFile:
        filesystem, path = self._storage.arrow_filesystem(file)
        try:
            return pq.ParquetFile(path, filesystem=filesystem)
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise ManifestError(f"{file}: not a readable Parquet file: {error}") from None
        except FileNotFoundError:
            raise ManifestError(f"{file}: not found") from None
        except OSError as error:
            raise InfrastructureError(f"{file}: cannot be read: {error}") from error


def _batches(parquet: pq.ParquetFile, names: list[str], file: str) -> Iterator[list[dict[str, Any]]]:
    batches = parquet.iter_batches(batch_size=_BATCH_ROWS, columns=names)
    while True:
        try:
            batch = next(batches, None)
            rows = None if batch is None else batch.to_pylist()
        except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
            raise ManifestError(f"{file}: its rows cannot be read: {error}") from None
        if rows is None:
            return
        yield rows
