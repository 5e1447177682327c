"""The commits in brief: from the index where that is right, from the commits where it is not."""

import pytest

from actors.commits import CommitStore
from actors.records import Provenance, broken_record
from actors.storage import Storage
from pipeline.asked import AskedRecords
from pipeline.commit_index import CommitIndex
from pipeline.scratch import Scratch
from schemas.record import ErrorClass, RowError, Status

PROVENANCE = Provenance("run", "0.1", "f" * 64, True, "stylecrafter", "float32", 0)


@pytest.fixture
def store(tmp_path) -> CommitStore:
    return CommitStore(Storage(), str(tmp_path))


def commit(store: CommitStore, row_id: str, run_id: str = "run") -> str:
    error = RowError(ErrorClass.INVALID_ROW, "prompt: is missing", Status.INVALID)
    provenance = Provenance(run_id, *list(vars(PROVENANCE).values())[1:])
    record = broken_record({"style_image_uri": ["a.png"]}, row_id, provenance, error)
    store.write(record)
    return record["record_id"]


def loaded(tmp_path) -> CommitIndex:
    index = CommitIndex(Scratch(), Storage(), str(tmp_path))
    AskedRecords(index.scratch)
    index.load()
    return index


def held(index: CommitIndex) -> dict[str, tuple]:
    rows = index.scratch.rows("SELECT record_id, status, error_class, run_id FROM held")
    return {record_id.hex(): tuple(rest) for record_id, *rest in rows}


def test_an_output_that_is_not_there_holds_nothing(tmp_path):
    assert held(loaded(tmp_path / "none")) == {}


def test_every_commit_is_held_with_what_a_plan_asks_of_it(tmp_path, store):
    record_id = commit(store, "ein Ü/../row")
    (tmp_path / "commits" / "notes.txt").write_text("not ours")
    assert held(loaded(tmp_path)) == {record_id: ("invalid", "invalid_row", "run")}


def test_a_saved_index_spares_reading_what_has_not_changed(tmp_path, store, monkeypatch):
    kept, changed, gone = (commit(store, row_id) for row_id in "abc")
    loaded(tmp_path).save()
    commit(store, "b", run_id="later")
    new = commit(store, "d")
    (tmp_path / "commits" / gone[:2] / f"{gone}.json").unlink()
    read = []
    plain_read = CommitStore.read
    monkeypatch.setattr(CommitStore, "read", lambda self, name: read.append(name) or plain_read(self, name))
    index = loaded(tmp_path)
    assert set(read) == {changed, new}
    assert {name: run_id for name, (*_, run_id) in held(index).items()} == {
        kept: "run",
        changed: "later",
        new: "run",
    }


def test_a_damaged_commit_counts_as_not_there_and_is_told(tmp_path, store):
    whole, damaged = commit(store, "a"), commit(store, "b")
    file = tmp_path / "commits" / damaged[:2] / f"{damaged}.json"
    file.write_bytes(file.read_bytes()[:-1])
    index = loaded(tmp_path)
    assert set(held(index)) == {whole}
    [warning] = index.warnings()
    assert str(file) in warning
    file.unlink()
    index.refresh()
    assert index.warnings() == []


def test_earlier_index_files_are_removed(tmp_path, store):
    commit(store, "a")
    for _ in range(3):
        loaded(tmp_path).save()
    assert len(list((tmp_path / "run" / "index").iterdir())) == 1
