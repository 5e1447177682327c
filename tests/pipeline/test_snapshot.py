"""The records snapshot: exactly the manifest's records, however often it is written."""

import json

import pyarrow.parquet as pq

from actors.commits import CommitStore
from actors.records import Provenance, broken_record
from actors.storage import Storage
from pipeline.ledger import read_commit_index
from pipeline.snapshot import publish_snapshot
from schemas.record import RECORD_SCHEMA, ErrorClass, RowError, Status

PROVENANCE = Provenance("run", "0.1", "f" * 64, True, "stylecrafter", "float32", 0)


def commit(store: CommitStore, row_id: str) -> str:
    error = RowError(ErrorClass.INVALID_ROW, "prompt: is missing", Status.INVALID)
    record = broken_record({"prompt": None, "style_image_uri": ["a.png", None]}, row_id, PROVENANCE, error)
    store.write(record)
    return record["record_id"]


def test_a_snapshot_replaces_the_one_before(tmp_path):
    storage, output = Storage(), str(tmp_path)
    store = CommitStore(storage, output)
    first, second, third = (commit(store, row_id) for row_id in "abc")
    publish_snapshot(storage, output, [first, second])
    publish_snapshot(storage, output, [third, "not committed", first])
    table = pq.read_table(tmp_path / "records")
    assert table.schema.remove_metadata().equals(RECORD_SCHEMA)
    assert table["row_id"].to_pylist() == ["c", "a"]
    [file] = json.loads((tmp_path / "run" / "records.json").read_text())["files"]
    assert [str(path) for path in (tmp_path / "records").iterdir()] == [file]


def test_a_commit_reads_back_as_it_was_written(tmp_path):
    store = CommitStore(Storage(), str(tmp_path))
    record_id = commit(store, "ein Ü/../row")
    [record] = store.all()
    assert record == store.read(record_id)
    assert record["row_id"] == "ein Ü/../row"
    assert record["style_image_uri"] == ["a.png"]
    assert record["finished_at"].tzinfo is not None
    assert all(tmp_path in path.parents for path in (tmp_path / "commits").rglob("*.json"))


def test_the_index_knows_what_is_done(tmp_path):
    store = CommitStore(Storage(), str(tmp_path))
    record_id = commit(store, "a")
    index = read_commit_index(store)
    assert index.is_done(record_id, None)
    assert not index.is_done(record_id, "a key")
    assert not index.is_done("another", None)
    assert index.status_of_record[record_id] == "invalid"
