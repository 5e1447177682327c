"""What the last run planned, so that a resume need not plan again what is finished.

Of every chunk of manifest rows (`run/planned/*.parquet`) it is known which records it asks for and, as a hash, what was
seen of its pictures. While manifest, config, model and code are the same, and the pictures of the chunk, its rows would
be planned to the same records again. It can be lost or of another run: then every row is planned.
"""

from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

import pyarrow as pa

from actors.records import Provenance
from actors.storage import Storage, join
from pipeline.files import read_pointer, read_rows, replace_rows
from pipeline.model_info import ModelInfo
from pipeline.scratch import Scratch
from schemas.identity import KEY_VERSION, digest
from schemas.run import RenderRun

_SCHEMA = pa.schema(
    [
        pa.field("number", pa.int64(), nullable=False),  # of the chunk, from 0
        pa.field("pictures", pa.string()),  # null: its rows must be planned
        pa.field("record_id", pa.binary(16), nullable=False),
        pa.field("row_key", pa.binary(16)),
    ]
)
# What often differs from one night to the next.
_NOT_PLANNED = {"run_id", "price_per_gpu_hour", "max_cost", "max_hours", "stop_at"}
_MAX_RECORDS = 5_000  # of a chunk: they are looked up at once
_TABLE = "CREATE TABLE chunks (number INTEGER PRIMARY KEY, first INTEGER, after INTEGER, pictures TEXT)"
_ROWS = (
    "SELECT number, pictures, record_id, row_key FROM chunks JOIN asked ON position >= first AND position < "
    "CASE WHEN pictures IS NULL THEN first + 1 ELSE after END ORDER BY number, position"
)


class KnownChunk(NamedTuple):
    """The records that a chunk of manifest rows asks for while its pictures are these."""

    pictures: str | None
    record_ids: list[bytes]
    row_keys: list[bytes | None]


class EarlierPlan:
    """The plan of the last run that was the same, and the one that is being made.

    Args:
        key: equal for runs that plan the same rows of the same pictures to the same records (see `plan_key`).
    """

    def __init__(self, storage: Storage, output: str, key: str):
        self._storage = storage
        self._root = join(output, "run", "planned")
        self._pointer = join(self._root, f"{key}.json")

    def chunks(self) -> Iterator[KnownChunk]:
        """What is known of each chunk, in their order; may end early."""
        rows = read_rows(self._storage, read_pointer(self._storage, self._pointer), _SCHEMA)
        for _, same in groupby(rows, itemgetter(0)):
            _, pictures, record_ids, row_keys = zip(*same, strict=True)
            yield KnownChunk(pictures[0], list(record_ids), list(row_keys))

    def save(self, scratch: Scratch) -> None:
        """Writes what the tables `chunks` and `asked` hold, in the place of what was known."""
        replace_rows(self._storage, self._root, self._pointer, scratch.rows(_ROWS), _SCHEMA)


class Chunks:
    """The table `chunks` of a scratch database: which of the records asked for come from which chunk."""

    def __init__(self, scratch: Scratch) -> None:
        self._scratch = scratch
        self._count = 0
        scratch.execute(_TABLE)

    def add(self, first: int, after: int, pictures: str | None) -> None:
        """Adds a chunk with the records at the positions from `first` to before `after`."""
        values = (self._count, first, after, pictures if after - first <= _MAX_RECORDS else None)
        self._scratch.execute("INSERT INTO chunks VALUES (?, ?, ?, ?)", values)
        self._count += 1


def plan_key(run: RenderRun, model: ModelInfo, provenance: Provenance, manifest_fingerprint: str) -> str:
    """A hash of all that a plan depends on but the pictures, and of some things that it does not."""
    same: list[Any] = [
        KEY_VERSION,
        manifest_fingerprint,
        run.model_dump(mode="json", exclude=_NOT_PLANNED),
        model.as_json(),
        {name: value for name, value in vars(provenance).items() if name != "run_id"},
    ]
    return digest(same, 32)
