"""The tables on disk: small in memory, gone with the process, and clear when the disk is full."""

import resource

import pytest

from pipeline.scratch import Scratch, key_bytes
from schemas.run import InfrastructureError


def test_rows_come_back_and_tables_may_be_joined():
    scratch = Scratch()
    scratch.execute("CREATE TABLE a (id PRIMARY KEY, value) WITHOUT ROWID")
    scratch.each("INSERT INTO a VALUES (?, ?)", ((key_bytes(f"{n:032x}"), n) for n in range(3_000)))
    assert [value for (value,) in scratch.rows("SELECT value FROM a ORDER BY id")] == list(range(3_000))
    assert scratch.one("SELECT value FROM a WHERE id = ?", (key_bytes(f"{7:032x}"),)) == (7,)
    assert scratch.one("SELECT value FROM a WHERE id IS NULL") is None


def test_memory_stays_small_whatever_is_in_the_tables():
    scratch = Scratch()
    scratch.execute("CREATE TABLE a (value)")
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(100):
        scratch.each("INSERT INTO a VALUES (?)", [(bytes(1_000_000),)])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 50_000


def test_a_full_disk_is_told():
    scratch = Scratch()
    scratch.execute("PRAGMA max_page_count = 10")
    scratch.execute("CREATE TABLE a (value)")
    with pytest.raises(InfrastructureError, match=r"temporary file: database or disk is full.*SQLITE_TMPDIR"):
        scratch.each("INSERT INTO a VALUES (?)", [(bytes(100_000),)])
