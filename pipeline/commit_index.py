"""What an output holds: every commit in brief, read from an index and, where that is behind, from the commits.

The index (`run/index/*.parquet`, named by `run/index.json`) remembers each commit with the version of its object. A
listing of the commits then tells which of them must be read again. It can be lost or old: then more is read.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa

from actors.commits import CommitStore, DamagedCommit
from actors.records import Provenance, Record
from actors.storage import Storage, join, redact
from pipeline.asked import IS_CURRENT
from pipeline.files import read_pointer, read_rows, replace_rows
from pipeline.scratch import Scratch, key_bytes
from schemas.identity import KEY_VERSION, digest
from schemas.planned import PlannedRow
from schemas.record import RECORD_SCHEMA, records_table
from schemas.settings import DEFAULTS, SETTING_NAMES, V1_SETTING_NAMES

_SAVE_EVERY = 50_000
_READ_RECORDS = 1_000  # commits held as Python objects
_SHOWN_DAMAGES = 5

_SCHEMA = pa.schema(
    [
        pa.field("record_id", pa.binary(16), nullable=False),
        pa.field("row_key", pa.binary(16)),
        pa.field("asked", pa.binary(8), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("error_class", pa.string()),
        pa.field("run_id", pa.string(), nullable=False),
        pa.field("size_bytes", pa.int64()),  # of its video
        pa.field("sha256", pa.binary(32)),  # of its video
        pa.field("version", pa.string(), nullable=False),  # of the commit's object, as listed
        pa.field("in_records", pa.int8(), nullable=False),  # the records snapshot holds it in this version
    ]
)
_VIDEO_INDEX = "CREATE INDEX held_video ON held (row_key) WHERE status = 'ok'"
_TABLES = (
    f"CREATE TABLE held ({', '.join(_SCHEMA.names)}, PRIMARY KEY (record_id)) WITHOUT ROWID",
    _VIDEO_INDEX,
    "CREATE TABLE damaged (record_id PRIMARY KEY, reason) WITHOUT ROWID",
    "CREATE TABLE listed (record_id PRIMARY KEY, version) WITHOUT ROWID",
)
_UNKNOWN = (
    "SELECT record_id FROM listed WHERE record_id > ? "
    "AND NOT EXISTS (SELECT 1 FROM held WHERE held.record_id = listed.record_id) "
    "AND NOT EXISTS (SELECT 1 FROM damaged WHERE damaged.record_id = listed.record_id) ORDER BY record_id LIMIT ?"
)
_INSERT = f"INSERT OR REPLACE INTO held VALUES ({', '.join('?' * len(_SCHEMA.names))})"
_ASKED = (
    "row_id",
    "sample_index",
    "variant",
    "prompt",
    "style_image_uri",
    "depth_video_uri",
    "seed",
    "engine",
    "dtype",
    "model_fingerprint",
    "render_epoch",
    "key_version",
    *V1_SETTING_NAMES,
)
# Counted only where they differ: records that do not know them yet must agree with newer ones that leave them out.
_ASKED_LATER = {name: DEFAULTS[name] for name in SETTING_NAMES if name not in V1_SETTING_NAMES} | {
    "speed": None
}


def asked_digest(record: Mapping[str, Any]) -> bytes:
    """What a record was asked for: all that its row_key stands for, but the versions of its pictures.

    Args:
        record: a complete record, or as much of one as `asked_of` gives.
    """
    values = [record[name] for name in _ASKED]
    later = {
        name: value
        for name, default in _ASKED_LATER.items()
        if (value := record[name]) is not None and value != default
    }
    return bytes.fromhex(digest([*values, later] if later else values, 16))


def asked_of(row: PlannedRow, provenance: Provenance) -> dict[str, Any]:
    """What every record of a planned row says of what was asked for."""
    return {
        "row_id": row.row_id,
        "sample_index": row.sample_index,
        "variant": row.variant,
        "prompt": row.prompt,
        "style_image_uri": [redact(asset.uri) for asset in row.style_images],
        "depth_video_uri": row.depth_video and redact(row.depth_video.uri),
        "seed": row.seed,
        "engine": provenance.engine,
        "dtype": provenance.dtype,
        "model_fingerprint": provenance.model_fingerprint,
        "render_epoch": provenance.render_epoch,
        "key_version": KEY_VERSION,
        "speed": provenance.speed,
        **dict(row.settings),
    }


class CommitIndex:
    """The tables `held` (one row per commit) and `damaged` of a scratch database."""

    def __init__(self, scratch: Scratch, storage: Storage, output: str):
        self.scratch = scratch
        self.storage = storage
        self.output = output
        self.commits = CommitStore(storage, output)
        self._root = join(output, "run", "index")
        self._pointer = join(output, "run", "index.json")
        for table in _TABLES:
            scratch.execute(table)

    def load(self) -> None:
        """Fills the tables from the saved index and the commits that it does not know in their present version."""
        self.scratch.execute(
            "DROP INDEX held_video"
        )  # keys come in no order: made at the end, it is sorted once
        saved = read_rows(self.storage, read_pointer(self.storage, self._pointer), _SCHEMA)
        self.scratch.each(_INSERT, saved)
        self.refresh()
        self.scratch.execute(_VIDEO_INDEX)

    def refresh(self, each: Callable[[list[Record]], object] = lambda records: None) -> None:
        """Brings the tables up to the commits that are there now.

        Args:
            each: is given the records that had to be read, some at a time, once the tables have them.
        """
        self.list_commits()
        self.read_unknown(each)

    def read_unknown(self, each: Callable[[list[Record]], object] = lambda records: None) -> None:
        """Reads the commits that are listed but not in the tables."""
        last = b""
        while some := [record_id for (record_id,) in self.scratch.rows(_UNKNOWN, (last, _READ_RECORDS))]:
            last = some[-1]
            each(self.read([record_id.hex() for record_id in some]))

    def saving(self, records: Iterable[Record], every: int = _SAVE_EVERY) -> Iterator[Record]:
        """Passes on records that are being committed, and saves the index now and then.

        So that a long run that is killed leaves few commits to be read one by one.
        """
        for number, record in enumerate(records, 1):
            yield record
            if number % every == 0:
                self.refresh()
                self.save()

    def list_commits(self) -> None:
        """Forgets of `held` what is no longer there in that version."""
        self.scratch.execute("DELETE FROM listed")
        self.scratch.execute("DELETE FROM damaged")
        self.scratch.each(
            "INSERT OR REPLACE INTO listed VALUES (?, ?)",
            ((bytes.fromhex(record_id), stat.version) for record_id, stat in self.commits.listed()),
        )
        self.scratch.execute(
            "DELETE FROM held WHERE NOT EXISTS (SELECT 1 FROM listed "
            "WHERE listed.record_id = held.record_id AND listed.version = held.version)"
        )

    def read(self, record_ids: list[str]) -> list[Record]:
        """Reads commits into the tables and returns those that are whole and still there."""
        found = list(zip(record_ids, self.commits.try_many(record_ids), strict=True))
        records = [record for _, record in found if isinstance(record, dict)]
        self.scratch.each(_INSERT, [self._brief(record) for record in records])
        self.set_damaged(
            [(name, damage.reason) for name, damage in found if isinstance(damage, DamagedCommit)]
        )
        return records

    def _brief(self, record: Record) -> tuple[Any, ...]:
        record_id = bytes.fromhex(record["record_id"])
        listed = self.scratch.one("SELECT version FROM listed WHERE record_id = ?", (record_id,))
        return (
            record_id,
            key_bytes(record["row_key"]),
            asked_digest(record),
            record["status"],
            record["error_class"],
            record["run_id"],
            record["size_bytes"],
            key_bytes(record["sha256"]),
            listed[0] if listed else "",
            0,
        )

    def as_table(self, records: list[Record]) -> pa.Table:
        """Records that were read as a table of RECORD_SCHEMA; one with a value of a wrong type is damaged."""
        try:
            return records_table(records)
        except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
            if len(records) == 1:
                self.set_damaged([(records[0]["record_id"], " ".join(str(error).split()))])
                return RECORD_SCHEMA.empty_table()
        return pa.concat_tables(self.as_table([record]) for record in records)

    def statuses(self) -> dict[str, int]:
        """status -> commits of what is asked for."""
        query = "SELECT status, count(*) FROM asked JOIN held USING (record_id) GROUP BY status"
        return dict(self.scratch.rows(query))

    def warnings(self) -> list[str]:
        """A sentence for each damaged commit, up to a few."""
        query = "SELECT record_id, reason FROM damaged LIMIT ?"
        return [
            f"{self.commits.uri(record_id.hex())} is damaged ({reason}) and counts as not there"
            for record_id, reason in self.scratch.rows(query, (_SHOWN_DAMAGES,))
        ]

    def mark_published(self) -> None:
        """Notes that the records snapshot was just written from these tables."""
        self.scratch.execute(
            "UPDATE held SET in_records = EXISTS "
            f"(SELECT 1 FROM asked WHERE asked.record_id = held.record_id AND {IS_CURRENT})"
        )

    def set_damaged(self, found: list[tuple[str, str]]) -> None:
        """Takes (record_id, reason) of commits that turned out damaged from `held` to `damaged`."""
        ids = [(bytes.fromhex(record_id),) for record_id, _ in found]
        self.scratch.each("DELETE FROM held WHERE record_id = ?", ids)
        rows = [(record_id, reason) for (record_id,), (_, reason) in zip(ids, found, strict=True)]
        self.scratch.each("INSERT OR REPLACE INTO damaged VALUES (?, ?)", rows)

    def save(self) -> None:
        """Writes the index anew, then the pointer to it, then removes the files of the one before."""
        rows = self.scratch.rows("SELECT * FROM held ORDER BY record_id")
        replace_rows(self.storage, self._root, self._pointer, rows, _SCHEMA)
