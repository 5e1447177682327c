"""The rows of training manifests, in memory once per process."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from actors.storage import ObjectNotFound, Storage, redact, resolve
from schemas.manifest import ManifestError
from schemas.run import InfrastructureError
from schemas.training import COLUMNS, KINDS, TRAINING_SCHEMA, Kind, check_training_schema, usable_rows

_SHOWN_FILES = 5


@dataclass(frozen=True)
class TrainingRow:
    """One image or video and its caption."""

    uri: str  # as the manifest has it
    location: str  # where that is, with relative URIs resolved
    caption: str
    style_id: str | None
    depth: str | None = None  # where its depth is

    def depth_row(self) -> "TrainingRow":
        """The row whose picture or video is this one's depth."""
        assert self.depth is not None, "the plan needs no depth"
        return TrainingRow(redact(self.depth), self.depth, "", None)


class TrainingRows:
    """All usable rows, an Arrow table beside two indices of 8 bytes per row.

    Args:
        table: TRAINING_SCHEMA, as `usable_rows` gives it.
        files: the manifest file of each row, as (URI, number of its rows) in the order of the table.
        skipped: why how many rows were left out.
        warnings: about the files' columns.
    """

    def __init__(
        self,
        table: pa.Table,
        files: Sequence[tuple[str, int]],
        skipped: Counter[str],
        warnings: Sequence[str] = (),
    ):
        self.skipped = skipped
        self.warnings = list(warnings)
        self._table = table.combine_chunks()
        self._files = [uri for uri, _ in files]
        self._ends = np.cumsum([rows for _, rows in files])
        kinds = pc.equal(self._column("kind"), "video").to_numpy(zero_copy_only=False).astype(np.int64)
        self._rows = {kind: np.flatnonzero(kinds == KINDS.index(kind)) for kind in KINDS}
        self._index_styles(kinds)

    @property
    def counts(self) -> dict[Kind, int]:
        return {kind: len(rows) for kind, rows in self._rows.items()}

    @property
    def styles(self) -> int:
        """How many style ids there are."""
        return len(self._style_names)

    @property
    def all_videos_styled(self) -> bool:
        """Whether every video has a style_id."""
        return bool((self._styles[self._rows["video"]] >= 0).all())

    @property
    def fingerprint(self) -> str:
        """A hash of all usable rows in order: equal fingerprints and plans give equal streams."""
        found = hashlib.sha256()
        for name in COLUMNS:
            column = pc.fill_null(self._column(name), "\0")
            _, offsets, text = column.buffers()
            ends = np.frombuffer(offsets, np.int64)[column.offset : column.offset + len(column) + 1]
            found.update((ends - ends[0]).tobytes())
            if text is not None:
                found.update(memoryview(text)[ends[0] : ends[-1]])
        return found.hexdigest()[:32]

    def row(self, kind: Kind, index: int) -> TrainingRow:
        """The index-th row of a kind."""
        return self._row(int(self._rows[kind][index]))

    def of_the_same_style(self, kind: Kind, index: int, wanted: Kind) -> Sequence[int]:
        """Indices, among rows of the kind `wanted`, of the other rows with this row's style_id."""
        row = int(self._rows[kind][index])
        style = self._styles[row]
        if style < 0:
            return ()
        key = style * len(KINDS) + KINDS.index(wanted)
        first, last = np.searchsorted(self._style_keys, [key, key + 1])
        others = self._by_style[first:last]
        return np.searchsorted(self._rows[wanted], others[others != row])

    def _row(self, row: int) -> TrainingRow:
        names = ("uri", "caption", "style_id", "depth_uri")
        uri, caption, style_id, depth_uri = (self._column(name)[row].as_py() for name in names)
        file = self._files[int(np.searchsorted(self._ends, row, side="right"))]
        depth = None if depth_uri is None else resolve(depth_uri, file)
        return TrainingRow(redact(uri), resolve(uri, file), caption, style_id, depth)

    def _index_styles(self, kinds: np.ndarray) -> None:
        encoded = self._column("style_id").dictionary_encode()
        self._style_names = encoded.dictionary
        self._styles = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False).astype(np.int64)
        keys = np.where(self._styles < 0, -1, self._styles * len(KINDS) + kinds)
        self._by_style = np.argsort(keys, kind="stable")
        self._style_keys = keys[self._by_style]

    def _column(self, name: str) -> pa.LargeStringArray:
        column = self._table.column(name)
        return column.chunk(0) if column.num_chunks else pa.array([], column.type)


def read_training_rows(
    storage: Storage, manifests: Sequence[str], *, needs_depth: bool = False
) -> TrainingRows:
    """Every usable row of all manifests, in the order of manifests, files and rows.

    A file that is damaged, or has other columns, costs its own rows only, and `warnings` tells why.

    Args:
        needs_depth: rows without `depth_uri` cannot be used.

    Raises:
        ManifestError: there is no such manifest, or no usable row in any of them; names file and column.
        InfrastructureError: the storage failed.
    """
    tables: list[pa.Table] = []
    files: list[tuple[str, int]] = []
    skipped: Counter[str] = Counter()
    warnings: list[str] = []
    broken: list[str] = []
    for uri in manifests:
        for file in _expand(storage, uri):
            try:
                table, warned = _read(storage, file)
                usable, reasons = usable_rows(table, needs_depth)
            except (ManifestError, pa.ArrowException) as error:
                broken.append(f"{redact(file)}: {error}")
                continue
            tables.append(usable)
            files.append((file, usable.num_rows))
            skipped += reasons
            warnings += [warning for warning in warned if warning not in warnings]
    if not any(rows for _, rows in files):
        why = "; ".join([*broken, *(f"{reason} ({count} rows)" for reason, count in skipped.most_common())])
        raise ManifestError(
            f"{', '.join(map(redact, manifests))}: no row can be used: {why or 'there are no rows'}"
        )
    warnings += _told(broken, len(files))
    table = pa.concat_tables([TRAINING_SCHEMA.empty_table(), *tables])
    return TrainingRows(table, files, skipped, warnings)


def _told(broken: Sequence[str], used: int) -> list[str]:
    """What a run says of the files that it leaves out."""
    if not broken:
        return []
    count = (
        f"{len(broken)} of {len(broken) + used} manifest files cannot be read, and their rows are left out"
    )
    hidden = len(broken) - _SHOWN_FILES
    return [count, *broken[:_SHOWN_FILES], *([f"and {hidden} more files"] if hidden > 0 else [])]


def _expand(storage: Storage, uri: str) -> list[str]:
    try:
        # A store may take "folder/" for an object.
        return storage.expand(uri.rstrip("/") or uri)
    except ObjectNotFound as error:
        raise ManifestError(f"training manifest {redact(uri)!r}: {error}") from None


def _read(storage: Storage, file: str) -> tuple[pa.Table, list[str]]:
    filesystem, path = storage.arrow_filesystem(file)
    try:
        with pq.ParquetFile(path, filesystem=filesystem) as parquet:
            warnings = check_training_schema(parquet.schema_arrow)
            names = [name for name in COLUMNS if name in parquet.schema_arrow.names]
            return parquet.read(columns=names, use_threads=False), warnings
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise ManifestError(f"not a readable Parquet file: {error}") from None
    except FileNotFoundError:
        raise ManifestError("not found") from None
    except OSError as error:
        raise InfrastructureError(f"{redact(file)}: cannot be read: {error}") from error
