"""Whether an output agrees with itself: what is asked, committed, published and recorded, joined and compared.

A published file is an MP4, or the PNG or JPEG of a row in image mode; what is said of videos here holds for both.

The tables `asked` (see `AskedRecords`), `held` and `damaged` (see `CommitIndex`) and `recorded` (see `compare_records`)
are filled before; this fills `videos` and `findings`. Names and sizes only: cheap enough for the end of every run.
"""

from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from actors.parallel import list_by_prefix
from actors.storage import join
from pipeline.asked import IS_CURRENT
from pipeline.commit_index import CommitIndex
from schemas.identity import SUFFIXES, media_path


class Finding(StrEnum):
    """One kind of difference. Stable names: scripts read them from run/reconcile.json."""

    MISSING_COMMIT = "missing_commit"  # the manifest asks for a record that is not committed
    OUTDATED_COMMIT = (
        "outdated_commit"  # the record is committed, but of another prompt, picture, setting or model
    )
    DAMAGED_COMMIT = "damaged_commit"  # a commit that is not the record it is named after
    MISSING_VIDEO = "missing_video"  # an ok record that is asked for, without its MP4
    CORRUPT_VIDEO = "corrupt_video"  # the same with an MP4 of another size or content than it says
    MISSING_RECORD = "missing_record"  # committed and asked for, but not in records/
    DUPLICATE_RECORD = "duplicate_record"  # twice in records/
    UNASKED_RECORD = "unasked_record"  # in records/, but not asked for or not committed
    DIFFERENT_RECORD = "different_record"  # in records/ with other values than its commit
    # Not differences, only reported: what earlier manifests and interrupted runs leave.
    ORPHANED_COMMIT = "orphaned_commit"  # no manifest row asks for it
    ORPHANED_VIDEO = "orphaned_video"  # an MP4 that no ok commit names


ORPHANS = frozenset({Finding.ORPHANED_COMMIT, Finding.ORPHANED_VIDEO})
OF_RECORDS = frozenset(
    {
        Finding.MISSING_RECORD,
        Finding.DUPLICATE_RECORD,
        Finding.UNASKED_RECORD,
        Finding.DIFFERENT_RECORD,
    }
)

_TABLES = (
    "CREATE TABLE IF NOT EXISTS videos (row_key PRIMARY KEY, size_bytes, suffix) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS findings (kind, record_id, row_key, reason)",
    "CREATE TABLE IF NOT EXISTS recorded (record_id PRIMARY KEY, copies, differs) WITHOUT ROWID",
    "DELETE FROM videos",
    "DELETE FROM findings",
)
_CURRENT = f"FROM asked JOIN held USING (record_id) WHERE {IS_CURRENT}"
_ADD = "INSERT INTO findings VALUES (?, ?, ?, ?)"
# Each query finds (record_id, row_key, reason).
_QUERIES = {
    Finding.MISSING_COMMIT: "SELECT record_id, row_key, NULL FROM asked WHERE NOT EXISTS (SELECT 1 FROM held WHERE "
    "held.record_id = asked.record_id) AND NOT EXISTS (SELECT 1 FROM damaged WHERE damaged.record_id = asked.record_id)",
    Finding.OUTDATED_COMMIT: "SELECT record_id, held.row_key, NULL FROM asked JOIN held USING (record_id) "
    f"WHERE NOT {IS_CURRENT}",
    Finding.DAMAGED_COMMIT: "SELECT record_id, NULL, reason FROM damaged",
    Finding.MISSING_VIDEO: f"SELECT record_id, held.row_key, NULL {_CURRENT} AND status = 'ok' "
    "AND NOT EXISTS (SELECT 1 FROM videos WHERE videos.row_key = held.row_key)",
    Finding.CORRUPT_VIDEO: "SELECT record_id, row_key, video_bytes || ' bytes, its record says ' || size_bytes FROM "
    "(SELECT record_id, held.row_key, held.size_bytes, (SELECT size_bytes FROM videos WHERE videos.row_key = "
    f"held.row_key) AS video_bytes {_CURRENT} AND status = 'ok') WHERE video_bytes != size_bytes",
    Finding.MISSING_RECORD: f"SELECT record_id, held.row_key, NULL {_CURRENT} AND NOT EXISTS (SELECT 1 FROM recorded WHERE recorded.record_id = asked.record_id)",
    Finding.DUPLICATE_RECORD: "SELECT record_id, NULL, copies || ' times' FROM recorded WHERE copies > 1",
    Finding.UNASKED_RECORD: "SELECT record_id, NULL, NULL FROM recorded WHERE NOT EXISTS (SELECT 1 FROM asked "
    f"JOIN held USING (record_id) WHERE asked.record_id = recorded.record_id AND {IS_CURRENT})",
    Finding.DIFFERENT_RECORD: "SELECT record_id, NULL, NULL FROM recorded WHERE differs",
    Finding.ORPHANED_COMMIT: "SELECT record_id, row_key, NULL FROM held "
    "WHERE NOT EXISTS (SELECT 1 FROM asked WHERE asked.record_id = held.record_id)",
    Finding.ORPHANED_VIDEO: "SELECT NULL, row_key, NULL FROM videos "
    "WHERE NOT EXISTS (SELECT 1 FROM held WHERE held.row_key = videos.row_key AND status = 'ok')",
}


class Found(NamedTuple):
    """One finding."""

    kind: Finding
    record_id: str | None
    row_key: str | None
    reason: str | None
    row_id: str | None = None  # where the manifest has it


class Agreement:
    """Compares and keeps what differs."""

    def __init__(self, index: CommitIndex):
        self._scratch = index.scratch
        self._storage = index.storage
        self._output = index.output

    def compare(self, *, records: bool = True) -> None:
        """Looks at the names and sizes of all MP4s, and finds everything that these and the tables can tell.

        Args:
            records: whether `recorded` is filled; else nothing is said of records.
        """
        for statement in _TABLES:
            self._scratch.execute(statement)
        self._scratch.each("INSERT OR REPLACE INTO videos VALUES (?, ?, ?)", self._listed())
        for kind, query in _QUERIES.items():
            if kind in OF_RECORDS and not records:
                continue
            self._scratch.execute(f"INSERT INTO findings SELECT '{kind}', * FROM ({query})")

    def video_uri(self, row_key: str) -> str:
        """Where the file of a row_key lies that was found when names were compared."""
        found = self._scratch.one("SELECT suffix FROM videos WHERE row_key = ?", (bytes.fromhex(row_key),))
        return join(self._output, media_path(row_key, *(found or ())))

    def add(self, found: Iterable[Found]) -> None:
        """Adds findings that took more than names."""
        self._scratch.each(
            _ADD,
            (
                (kind, record_id and bytes.fromhex(record_id), row_key and bytes.fromhex(row_key), reason)
                for kind, record_id, row_key, reason, _ in found
            ),
        )

    def counts(self) -> dict[Finding, int]:
        """How many there are of each kind that was found."""
        rows = self._scratch.rows("SELECT kind, count(*) FROM findings GROUP BY kind")
        counted = {Finding(kind): count for kind, count in rows}
        return {kind: counted[kind] for kind in Finding if kind in counted}

    def differences(self) -> dict[Finding, int]:
        """The same without what is only reported."""
        return {kind: count for kind, count in self.counts().items() if kind not in ORPHANS}

    def of_kind(self, kind: Finding, limit: int = -1) -> Iterator[Found]:
        """The findings of one kind, at most `limit` of them."""
        query = (
            "SELECT record_id, findings.row_key, reason, row_id FROM findings LEFT JOIN asked USING (record_id) "
            "WHERE kind = ? ORDER BY findings.rowid LIMIT ?"
        )
        for record_id, row_key, reason, row_id in self._scratch.rows(query, (kind, limit)):
            yield Found(kind, record_id and record_id.hex(), row_key and row_key.hex(), reason, row_id)

    def _listed(self) -> Iterator[tuple[bytes, int, str]]:
        for stat in list_by_prefix(self._storage, join(self._output, "videos")):
            name = Path(stat.uri).name
            stem, _, suffix = name.partition(".")
            if suffix in SUFFIXES and len(stem) == 32 and not stem.strip("0123456789abcdef"):
                yield bytes.fromhex(stem), stat.size_bytes, suffix
