"""Every record that a manifest asks for, in its order: the table `asked` of a scratch database."""

from collections.abc import Iterable

from pipeline.scratch import Scratch

_TABLE = "CREATE TABLE asked (position INTEGER PRIMARY KEY, record_id BLOB NOT NULL, row_key BLOB, asked BLOB, row_id TEXT)"

# Whether a commit (`held`) of the same record_id is of what is asked for now. A plan knows the row_key; without a look
# at the pictures there is only the digest of the rest (see `asked_digest`).
IS_CURRENT = (
    "CASE WHEN asked.asked IS NULL THEN held.row_key IS asked.row_key ELSE held.asked = asked.asked END"
)


class AskedRecords:
    """Fills the table; positions count from 0."""

    def __init__(self, scratch: Scratch):
        self._scratch = scratch
        self.count = 0
        scratch.execute(_TABLE)

    def add(self, records: Iterable[tuple[bytes, bytes | None, bytes | None, str | None]]) -> None:
        """Appends (record_id, row_key, digest of what is asked, row_id); a plan needs no digest and no row_id."""
        rows = [(self.count + offset, *record) for offset, record in enumerate(records)]
        self._scratch.each("INSERT INTO asked VALUES (?, ?, ?, ?, ?)", rows)
        self.count += len(rows)

    def index(self) -> None:
        """Makes them quick to find by record_id, once all are there: ids come in no order, and sorting is cheaper."""
        self._scratch.execute("CREATE INDEX asked_record ON asked (record_id)")
