"""Commits: what is written is read back, and what is not a record is told apart."""

import json

import pytest

from actors.commits import CommitStore, DamagedCommit, record_from_json, record_json
from actors.records import Provenance, broken_record
from actors.storage import Storage
from schemas.record import RECORD_SCHEMA, ErrorClass, RowError, Status

PROVENANCE = Provenance("run", "0.1", "f" * 64, True, "stylecrafter", "float32", 0)
RECORD = broken_record(
    {"prompt": "ein Ü", "style_image_uri": ["a.png", None]},
    "ein Ü/../row",
    PROVENANCE,
    RowError(ErrorClass.INVALID_ROW, "prompt: is missing", Status.INVALID),
)


def test_a_commit_reads_back_as_it_was_written(tmp_path):
    store = CommitStore(Storage(), str(tmp_path))
    store.write(RECORD)
    assert list(store.all()) == [store.read(RECORD["record_id"])] == [RECORD]
    assert all(tmp_path in path.parents for path in (tmp_path / "commits").rglob("*.json"))
    assert list(store.read_many(["0" * 32, RECORD["record_id"]])) == [None, RECORD]


@pytest.mark.parametrize("change", [{"extra": 1}, {"prompt": ...}])
def test_an_incomplete_record_is_not_written(tmp_path, change):
    record = {name: value for name, value in (RECORD | change).items() if value is not ...}
    with pytest.raises(ValueError, match=r"fields missing or unknown: \['(extra|prompt)'\]"):
        CommitStore(Storage(), str(tmp_path)).write(record)


def test_a_field_that_an_earlier_version_did_not_know_is_null():
    body = json.loads(record_json(RECORD))
    del body["clip_temp"]
    assert record_from_json(json.dumps(body).encode()) == RECORD
    assert set(record_from_json(json.dumps(body).encode())) == set(RECORD_SCHEMA.names)


@pytest.mark.parametrize(
    "damage",
    [b"", b"\xff", b"[]", b"null", b"[" * 100_000, {"unknown": 1}, {"status": "fine"}, {"row_id": None},
     {"row_key": "../x"}, {"record_id": "x"}, {"record_id": "0" * 32}, {"finished_at": "today"}, {"sha256": "0"}],
)  # fmt: skip
def test_what_is_not_the_record_is_damaged_and_says_why(tmp_path, damage):
    store = CommitStore(Storage(), str(tmp_path))
    store.write(RECORD)
    body = (
        damage if isinstance(damage, bytes) else json.dumps(json.loads(record_json(RECORD)) | damage).encode()
    )
    (tmp_path / "commits" / RECORD["record_id"][:2] / f"{RECORD['record_id']}.json").write_bytes(body)
    with pytest.raises(DamagedCommit, match=r"is damaged \(.+\)"):
        store.read(RECORD["record_id"])
    [found] = store.try_many([RECORD["record_id"]])
    assert isinstance(found, DamagedCommit)
