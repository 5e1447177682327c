"""The records snapshot: exactly the manifest's records in its order, however often and from whatever it is made."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from actors.commits import CommitStore
from actors.records import Provenance, broken_record
from actors.storage import Storage
from pipeline import snapshot
from pipeline.asked import AskedRecords
from pipeline.commit_index import CommitIndex
from pipeline.scratch import Scratch
from pipeline.snapshot import publish_snapshot
from schemas.identity import record_id
from schemas.record import RECORD_SCHEMA, ErrorClass, RowError, Status

PROVENANCE = Provenance("run", "0.1", "f" * 64, True, "stylecrafter", "float32", 0)


class Output:
    def __init__(self, folder):
        self.folder = folder
        self.commits = CommitStore(Storage(), str(folder))

    def commit(self, row_ids, prompt="a prompt") -> None:
        for row_id in row_ids:
            error = RowError(ErrorClass.INVALID_ROW, "prompt: is missing", Status.INVALID)
            raw = {"prompt": prompt, "style_image_uri": ["a.png", None]}
            self.commits.write(broken_record(raw, row_id, PROVENANCE, error))

    def publish(self, row_ids) -> list[int]:
        """Publishes the records of these rows; returns the sizes of the parts."""
        index = CommitIndex(Scratch(), Storage(), str(self.folder))
        index.load()
        AskedRecords(index.scratch).add(
            (bytes.fromhex(record_id(row_id, 0)), None, None, None) for row_id in row_ids
        )
        sizes: list[int] = []
        publish_snapshot(index, lambda table: sizes.append(table.num_rows))
        return sizes

    def rows(self) -> list[dict]:
        table = pq.read_table(self.folder / "records")
        assert table.schema.remove_metadata().equals(RECORD_SCHEMA)
        return table.to_pylist()

    def row_ids(self) -> str:
        return "".join(row["row_id"] for row in self.rows())


@pytest.fixture
def output(tmp_path, monkeypatch) -> Output:
    monkeypatch.setattr(snapshot, "_ROWS_PER_FILE", 3)
    return Output(tmp_path)


def test_a_snapshot_replaces_the_one_before(output):
    output.commit("abc")
    output.publish("ab")
    assert output.publish("cxa") == [2]
    assert output.row_ids() == "ca"
    [file] = json.loads((output.folder / "run" / "records.json").read_text())["files"]
    assert [str(path) for path in (output.folder / "records").iterdir()] == [file]


def test_no_record_is_one_readable_empty_file(output):
    assert output.publish("ab") == [0]
    assert output.rows() == []


def test_another_manifest_leaves_nothing_of_the_one_before(output):
    output.commit("ab")
    output.publish("ab")
    assert output.publish("xy") == [0]
    assert output.rows() == []


def test_parts_keep_the_manifest_s_order_whatever_the_order_before(output):
    output.commit("abcdefgh")
    assert output.publish("abcdefgh") == [3, 3, 2]
    assert output.row_ids() == "abcdefgh"
    output.commit("ij")
    assert output.publish("jhgfiedcba") == [3, 3, 3, 1]
    assert output.row_ids() == "jhgfiedcba"


def test_only_commits_that_are_new_or_changed_are_read_again(output, monkeypatch):
    output.commit("abcdef")
    output.publish("abcdef")
    output.commit("g")
    output.commit("b", prompt="another prompt")
    read = []
    plain_read = CommitStore.read
    monkeypatch.setattr(CommitStore, "read", lambda self, name: read.append(name) or plain_read(self, name))
    output.publish("abcdefg")
    assert set(read) == {record_id("b", 0), record_id("g", 0)}
    assert [row["prompt"] for row in output.rows()] == ["a prompt", "another prompt", *["a prompt"] * 5]


def test_an_index_saved_in_the_middle_of_a_run_does_not_bring_back_old_records(output):
    output.commit("ab")
    output.publish("ab")
    output.commit("a", prompt="another prompt")
    index = CommitIndex(Scratch(), Storage(), str(output.folder))
    index.load()
    assert list(index.saving([{"n": 1}, {"n": 2}], every=2)) == [{"n": 1}, {"n": 2}]
    output.publish("ab")
    assert [row["prompt"] for row in output.rows()] == ["another prompt", "a prompt"]


def test_a_damaged_part_is_made_again_from_the_commits(output):
    output.commit("abcdef")
    output.publish("abcdef")
    first, _ = sorted((output.folder / "records").iterdir())
    first.write_bytes(first.read_bytes()[:-9])
    output.publish("abcdef")
    assert output.row_ids() == "abcdef"


def test_two_copies_of_a_record_in_the_snapshot_before_become_one(output):
    output.commit("ab")
    output.publish("ab")
    pointer = output.folder / "run" / "records.json"
    [file] = json.loads(pointer.read_text())["files"]
    pointer.write_text(json.dumps({"files": [file, file]}))
    output.publish("ab")
    assert output.row_ids() == "ab"


def test_a_damaged_commit_is_left_out(output):
    output.commit("abc")
    file = Path(output.commits.uri(record_id("b", 0)))
    file.write_text(json.dumps(json.loads(file.read_text()) | {"seed": "none"}))
    output.publish("abc")
    assert output.row_ids() == "ac"
