"""Tables of what would not fit the driver's memory: one row per record, on disk, joined by SQL."""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from schemas.run import InfrastructureError

_CACHE_KIB = 12 * 1024  # what of the tables is kept in memory, however long they are
_FETCH_ROWS = 1_000


class Scratch:
    """An empty SQLite database in a temporary file, which is gone with the process. One thread at a time.

    Ids and keys of 32 hex digits are stored as their 16 bytes.
    """

    def __init__(self) -> None:
        # The empty name asks SQLite for a file of its own in $SQLITE_TMPDIR, $TMPDIR or /var/tmp.
        self._db = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode = OFF")  # nothing here outlives a crash
        self._db.execute("PRAGMA synchronous = OFF")
        self._db.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        self._db.execute("BEGIN")  # and never a commit: there is no other reader to show anything to

    def execute(self, sql: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        """Runs one statement.

        Raises:
            InfrastructureError: the disk of the temporary file is full or fails; so do the other methods.
        """
        try:
            return self._db.execute(sql, values)
        except sqlite3.OperationalError as error:
            raise _failed(error) from error

    def each(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """Runs a statement for each of the rows."""
        try:
            self._db.executemany(sql, rows)
        except sqlite3.OperationalError as error:
            raise _failed(error) from error

    def rows(self, sql: str, values: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
        """The rows of a query, as they are found; its tables must not change until the last one is taken."""
        cursor = self.execute(sql, values)
        while some := cursor.fetchmany(_FETCH_ROWS):
            yield from some

    def one(self, sql: str, values: Sequence[Any] = ()) -> tuple[Any, ...] | None:
        """The first row of a query, or None."""
        found: tuple[Any, ...] | None = self.execute(sql, values).fetchone()
        return found

    def close(self) -> None:
        self._db.close()


def _failed(error: sqlite3.OperationalError) -> InfrastructureError:
    return InfrastructureError(
        f"the driver's temporary file: {error}; it needs up to a kilobyte per row (set SQLITE_TMPDIR to a folder "
        "with more space)"
    )


def key_bytes(key: str | None) -> bytes | None:
    """The bytes of an id, key or hash in hex digits."""
    return None if key is None else bytes.fromhex(key)
