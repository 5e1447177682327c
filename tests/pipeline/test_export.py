"""Exports: what is in them, that nothing is lost, that nothing old is overwritten."""

import json
import tarfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from actors.storage import Storage
from pipeline.export import export
from schemas.review_run import ExportRun
from schemas.run import UsageError
from tests.support.outputs import write_output


def test_webdataset_shards_hold_video_prompt_and_record(tmp_path):
    records = write_output(tmp_path / "out", 8, videos=2)
    ok = {record["record_id"]: record for record in records if record["status"] == "ok"}
    target = tmp_path / "shards"
    exported = export(
        ExportRun(output=str(tmp_path / "out"), webdataset=str(target), shard_bytes=2**20), Storage()
    )
    assert exported.samples == len(ok) == 7
    found = {}
    for name in json.loads((target / "shards.json").read_text())["shards"]:
        with tarfile.open(target / name) as tar:
            for member in tar:
                found[member.name] = tar.extractfile(member).read()
    assert sorted({name.split(".")[0] for name in found}) == sorted(ok)
    for record_id, record in ok.items():
        assert found[f"{record_id}.mp4"] == Path(record["video_uri"]).read_bytes()
        assert found[f"{record_id}.txt"].decode() == record["prompt"]
        assert json.loads(found[f"{record_id}.json"])["clip_style"] == record["clip_style"]


def test_a_full_shard_is_followed_by_another(tmp_path, monkeypatch):
    write_output(tmp_path / "out", 6, videos=1)
    run = ExportRun.model_construct(output=str(tmp_path / "out"), webdataset=str(tmp_path / "shards"),
                                    huggingface=None, shard_bytes=1)  # fmt: skip
    assert len(export(run, Storage()).files) == 6


def test_the_hugging_face_folder_holds_records_with_their_videos(tmp_path):
    records = [record for record in write_output(tmp_path / "out", 8) if record["status"] == "ok"]
    export(ExportRun(output=str(tmp_path / "out"), huggingface=str(tmp_path / "hf")), Storage())
    table = pq.read_table(tmp_path / "hf" / "data" / "train-00000.parquet")
    assert table["row_id"].to_pylist() == [record["row_id"] for record in records]
    assert table["video"][0].as_py()["bytes"] == Path(records[0]["video_uri"]).read_bytes()
    assert "data/train-*.parquet" in (tmp_path / "hf" / "README.md").read_text()


def test_a_missing_video_is_told_and_the_others_are_exported(tmp_path):
    records = write_output(tmp_path / "out", 4)
    Path(records[2]["video_uri"]).unlink()
    exported = export(ExportRun(output=str(tmp_path / "out"), huggingface=str(tmp_path / "hf")), Storage())
    assert (exported.samples, exported.missing) == (3, ["row-00002"])


def test_a_place_that_holds_something_is_refused(tmp_path):
    write_output(tmp_path / "out", 2)
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "old").touch()
    with pytest.raises(UsageError, match="is not empty"):
        export(ExportRun(output=str(tmp_path / "out"), huggingface=str(tmp_path / "hf")), Storage())
