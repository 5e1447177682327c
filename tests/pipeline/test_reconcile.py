"""Reconcile: what agrees is marked, every kind of difference is found and named, and a repair loses nothing."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actors.records import finished_record
from actors.storage import Storage
from actors.video_codec import encode_mp4
from benchmarks.null_run import render_null, rows_of, write_manifest, write_null_model, write_run_files
from pipeline.closing import close_output
from pipeline.commit_index import asked_digest, asked_of
from pipeline.prepare import prepare
from pipeline.reconcile import Reconciliation, reconcile
from schemas.identity import record_id
from schemas.repair_run import ReconcileRun
from schemas.run import RenderRun, UsageError

ROWS = 7


class Output:
    """A finished output, and the commands that are run on it."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.path = folder / "out"
        self.manifest = write_manifest(folder / "manifest.parquet", ROWS, styles=2)
        write_null_model(folder / "model")

    def render(self, mp4: bytes = b"not a video") -> dict[str, int]:
        """What jobs.render does, without a model."""
        prepared = prepare(
            RenderRun(
                manifest=self.manifest, model=str(self.folder / "model"), output=str(self.path), run_id="r"
            )
        )
        render_null(rows_of(prepared), str(self.path), prepared.provenance, mp4)
        write_run_files(prepared)
        return close_output(prepared.index, prepared.mark, lambda table: None)

    def reconcile(self, **options) -> Reconciliation:
        return reconcile(ReconcileRun(output=str(self.path), **options))

    def commits(self) -> list[Path]:
        return sorted((self.path / "commits").rglob("*.json"))

    def videos(self) -> list[Path]:
        return sorted((self.path / "videos").rglob("*.mp4"))

    def records(self) -> list[dict]:
        return pq.read_table(self.path / "records").to_pylist()

    @property
    def is_marked(self) -> bool:
        return (self.path / "_SUCCESS").exists()


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    assert Output(folder).render() == {}
    return folder


@pytest.fixture
def output(tmp_path, finished) -> Output:
    shutil.copytree(finished / "out", tmp_path / "out")
    return Output(tmp_path)


def found(result: Reconciliation) -> dict[str, int]:
    return {str(kind): count for kind, count in result.counts.items()}


def drop_commit(output: Output) -> None:
    output.commits()[0].unlink()


def damage_commit(output: Output) -> None:
    output.commits()[0].write_bytes(b'{"row_id": "x"')


def commit_of_another_record(output: Output) -> None:
    first, second, *_ = output.commits()
    first.write_bytes(second.read_bytes())


def commit_of_wrong_types(output: Output) -> None:
    commit = output.commits()[0]
    commit.write_text(json.dumps(json.loads(commit.read_text()) | {"height": "tall"}))


def drop_video(output: Output) -> None:
    output.videos()[0].unlink()


def truncate_video(output: Output) -> None:
    output.videos()[0].write_bytes(b"not")


def flip_video(output: Output) -> None:
    output.videos()[0].write_bytes(b"not a_video")


def drop_records(output: Output) -> None:
    for file in (output.path / "records").iterdir():
        file.unlink()


def damage_records(output: Output) -> None:
    [file] = (output.path / "records").iterdir()
    body = bytearray(file.read_bytes())
    body[len(body) // 3] ^= 0xFF
    file.write_bytes(body)


def double_records(output: Output) -> None:
    [file] = (output.path / "records").iterdir()
    shutil.copy(file, file.with_name("part-again.parquet"))


def change_record(output: Output) -> None:
    [file] = (output.path / "records").iterdir()
    table = pq.read_table(file)
    schema = table.schema.remove_metadata()
    rows = [
        {**row, "prompt": "another"} if number == 3 else row for number, row in enumerate(table.to_pylist())
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), file)


def strange_record(output: Output) -> None:
    [file] = (output.path / "records").iterdir()
    table = pq.read_table(file)
    rows = [{**table.to_pylist()[0], "record_id": "f" * 32}]
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), file.with_name("part-x.parquet"))


DAMAGES = [
    # damage, what is found, what is left after a repair
    (drop_commit, {"missing_commit": 1, "unasked_record": 1, "orphaned_video": 1}, {"missing_commit"}),
    (damage_commit, {"damaged_commit": 1, "unasked_record": 1, "orphaned_video": 1}, {"missing_commit"}),
    (
        commit_of_another_record,
        {"damaged_commit": 1, "unasked_record": 1, "orphaned_video": 1},
        {"missing_commit"},
    ),
    (
        commit_of_wrong_types,
        {"damaged_commit": 1, "unasked_record": 1, "orphaned_video": 1},
        {"missing_commit"},
    ),
    (drop_video, {"missing_video": 1}, {"missing_commit"}),
    (truncate_video, {"corrupt_video": 1}, {"missing_commit"}),
    (flip_video, {"corrupt_video": 1}, {"missing_commit"}),
    (drop_records, {"missing_record": ROWS}, set()),
    (damage_records, {"missing_record": ROWS}, set()),
    (double_records, {"duplicate_record": ROWS}, set()),
    (change_record, {"different_record": 1}, set()),
    (strange_record, {"unasked_record": 1}, set()),
]


@pytest.mark.parametrize("check", ["listing", "content"])
def test_a_finished_output_agrees_and_is_marked(output, check):
    (output.path / "_SUCCESS").unlink()
    result = output.reconcile(check=check)
    assert (result.agrees, found(result), result.statuses) == (True, {}, {"ok": ROWS})
    success = json.loads((output.path / "_SUCCESS").read_text())
    assert (success["records"], success["statuses"], success["checked"]) == (ROWS, {"ok": ROWS}, check)
    assert len(success["manifest_fingerprint"]) == 32


@pytest.mark.parametrize(
    ("damage", "expected", "left"), DAMAGES, ids=lambda value: getattr(value, "__name__", "")
)
def test_every_damage_is_found_named_and_repaired_without_loss(output, damage, expected, left):
    before = {path: path.read_bytes() for path in (*output.commits(), *output.videos())}
    damage(output)
    damaged = {path: path.read_bytes() for path in (*output.commits(), *output.videos())}
    result = output.reconcile()
    assert found(result) == expected
    assert not result.agrees
    assert not output.is_marked
    assert {path: path.read_bytes() for path in damaged} == damaged  # looking changes nothing
    report = json.loads((output.path / "run" / "reconcile.json").read_text())
    assert {kind: value["count"] for kind, value in report["findings"].items()} == expected
    assert all(value["first"][0] for value in report["findings"].values())

    repaired = output.reconcile(repair=True)
    assert found(repaired).keys() - {"orphaned_video"} == left
    assert repaired.agrees == output.is_marked == (not left)
    aside = [path.read_bytes() for path in (output.path / "run" / "damaged").glob("*")]
    for path, body in damaged.items():
        assert path.read_bytes() == body if path.exists() else body in aside
    again = output.reconcile(repair=True)
    assert (again.counts, again.agrees) == (repaired.counts, repaired.agrees)

    assert output.render() == {}  # the same command makes what was set aside
    assert found(output.reconcile()) == {}
    assert len({row["record_id"] for row in output.records()}) == len(output.records()) == ROWS
    assert set(before) == {*output.commits(), *output.videos()}


def test_names_and_sizes_alone_find_what_they_can_tell(output):
    drop_video(output)
    flip_video(output)  # the same size
    change_record(output)
    assert found(output.reconcile(check="listing")) == {"missing_video": 1}


def test_a_commit_newer_than_the_records_is_found_by_names_alone(output):
    commit = output.commits()[0]
    commit.write_text(json.dumps(json.loads(commit.read_text()) | {"clip_text": 0.5}))
    assert found(output.reconcile(check="listing")) == {"different_record": 1}
    assert output.reconcile(check="listing", repair=True).agrees
    assert sorted(row["clip_text"] for row in output.records())[-1] == 0.5


def test_what_no_row_asks_for_is_reported_and_kept_out_of_the_records_but_is_no_error(output):
    fewer = write_manifest(output.folder / "fewer.parquet", ROWS - 2, styles=2)
    (output.path / "videos" / "aa").mkdir(exist_ok=True)
    (output.path / "videos" / "aa" / f"{'a' * 32}.mp4").write_bytes(b"left by a run that was killed")
    (output.path / "videos" / "notes.txt").touch()
    result = output.reconcile(manifest=fewer)
    assert found(result) == {"unasked_record": 2, "orphaned_commit": 2, "orphaned_video": 1}
    result = output.reconcile(manifest=fewer, repair=True)
    assert found(result) == {"orphaned_commit": 2, "orphaned_video": 1}
    assert result.agrees
    assert [row["row_id"] for row in output.records()] == [f"row-{number:08d}" for number in range(ROWS - 2)]
    assert len(output.commits()) == ROWS


def test_an_mp4_that_nobody_asks_for_may_go(output):
    fewer = write_manifest(output.folder / "fewer.parquet", 1, styles=2)
    kept = json.loads(
        (output.path / "commits" / (name := record_id("row-00000000", 0))[:2] / f"{name}.json").read_text()
    )
    for video in output.videos():
        if video.stem != kept["row_key"]:
            video.unlink()
    assert output.reconcile(manifest=fewer, repair=True).agrees


def test_rows_that_the_run_has_not_made_are_missing_by_name(output):
    more = write_manifest(output.folder / "more.parquet", ROWS + 1, styles=2)
    result = output.reconcile(manifest=more)
    assert [found["row_id"] for found in result.examples["missing_commit"]] == [f"row-{ROWS:08d}"]


def test_a_row_with_other_content_is_outdated(output):
    table = pq.read_table(output.manifest)
    prompts = ["another prompt", *table["prompt"].to_pylist()[1:]]
    pq.write_table(table.set_column(1, "prompt", pa.array(prompts)), output.manifest)
    result = output.reconcile(manifest=output.manifest)
    assert found(result) == {"outdated_commit": 1, "unasked_record": 1}
    assert result.examples["outdated_commit"][0]["row_id"] == "row-00000000"
    assert output.render() == {}
    assert found(output.reconcile()) == {"orphaned_video": 1}  # of the earlier prompt


def test_a_picture_that_has_gone_is_no_difference(output):
    shutil.rmtree(output.folder / "styles")
    assert output.reconcile().agrees


def test_decoding_finds_a_video_that_is_none(output, tmp_path):
    result = output.reconcile(check="decode")
    assert found(result) == {"corrupt_video": ROWS}
    frames = np.zeros((8, 64, 64, 3), np.uint8)
    encode_mp4(frames, tmp_path / "video.mp4", fps=10, crf=30)
    shutil.rmtree(output.path)
    output.render((tmp_path / "video.mp4").read_bytes())
    assert output.reconcile(check="decode").agrees


def test_an_output_that_no_run_made_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"no run/config.json there; was it made by jobs.render"):
        reconcile(ReconcileRun(output=str(tmp_path)))


def test_a_repair_that_was_interrupted_goes_on(output, monkeypatch):
    damage_commit(output)
    [damaged] = [path for path in output.commits() if path.read_bytes().startswith(b'{"row_id": "x"')]
    delete = Storage.delete
    with monkeypatch.context() as patch:
        patch.setattr(Storage, "delete", lambda self, uri: 1 / 0 if "/commits/" in uri else delete(self, uri))
        with pytest.raises(ZeroDivisionError):
            output.reconcile(repair=True)
    assert damaged.exists()
    output.reconcile(repair=True)
    assert len(list((output.path / "run" / "damaged").glob("*"))) == 1
    assert not damaged.exists()


def test_an_index_that_is_lost_or_damaged_costs_reading_only(output):
    for file in (output.path / "run" / "index").iterdir():
        file.write_bytes(b"PAR1 not really PAR1")
    assert output.reconcile(check="listing", repair=True).agrees
    (output.path / "run" / "index.json").write_text("[")
    (output.path / "run" / "records.json").unlink()
    assert output.render() == {}
    assert output.reconcile(check="listing").agrees


@pytest.mark.parametrize(("damage", "flags", "code"), [(None, [], 0), (drop_commit, [], 1), (double_records, ["--repair"], 0)])  # fmt: skip
def test_the_exit_code_tells(output, monkeypatch, capsys, damage, flags, code):
    if damage:
        damage(output)
    monkeypatch.setattr("sys.argv", ["reconcile", "--output", str(output.path), *flags])
    from jobs import reconcile as job

    assert job.main() == code
    said = capsys.readouterr().out
    assert "records" in said
    assert ("all agree" in said) == (code == 0)


def test_what_a_row_asks_for_is_what_its_record_says(output):
    prepared = prepare(
        RenderRun(
            manifest=output.manifest, model=str(output.folder / "model"), output=str(output.folder / "none")
        )
    )
    for row in rows_of(prepared):
        record = finished_record(row, prepared.provenance)
        assert asked_of(row, prepared.provenance).items() <= record.items()
        assert asked_digest(asked_of(row, prepared.provenance)) == asked_digest(record)


def test_an_output_in_object_storage_is_repaired_like_a_local_one(output, s3_env):
    storage, root = Storage(), "s3://outputs/reconciled"
    drop_video(output)
    damage_commit(output)
    double_records(output)
    for file in output.path.rglob("*"):
        if file.is_file():
            storage.upload(file, f"{root}/{file.relative_to(output.path)}")
    run = ReconcileRun(output=root)
    first = reconcile(run)
    assert first.counts.keys() >= {"missing_video", "damaged_commit", "duplicate_record"}
    repaired = reconcile(run.model_copy(update={"repair": True}))
    assert set(repaired.differences) == {"missing_commit"}
    assert storage.exists(f"{root}/run/reconcile.json")
    assert not storage.exists(f"{root}/_SUCCESS")
    assert len(list(storage.list(f"{root}/records"))) == 1
