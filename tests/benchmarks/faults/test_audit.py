"""The audit finds each broken promise in outputs that are written by hand."""

import hashlib
import io
import json
import subprocess

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from imageio_ffmpeg import get_ffmpeg_exe

from benchmarks.faults.audit import Expected, audit, decode, renders_twice
from benchmarks.faults.fault import Event
from benchmarks.faults.outputs import LocalOutput

FRAMES, HEIGHT, WIDTH = 3, 32, 48
EXPECTED = {("a", 0): Expected(), ("b", 0): Expected(("failed",), ("asset_not_found",))}


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / "v.mp4"
    source = f"testsrc=size={WIDTH}x{HEIGHT}:rate=8"
    command = [get_ffmpeg_exe(), "-v", "error", "-f", "lavfi", "-i", source, "-frames:v", str(FRAMES)]
    subprocess.run([*command, "-pix_fmt", "yuv420p", str(path)], check=True)
    return path.read_bytes()


class Written:
    """An output with two records as they should be, to be spoiled by a test."""

    def __init__(self, folder, video):
        self.output = LocalOutput(folder)
        self.video_name = "videos/aa/a.mp4"
        self.output.write(self.video_name, video)
        shared = {"sample_index": 0, "run_id": "r", "attempts": 1, "row_key": "k"}
        shape = {"num_frames": FRAMES, "height": HEIGHT, "width": WIDTH}
        ok = {"status": "ok", "error_class": None, "error": None, "sha256": hashlib.sha256(video).hexdigest()}
        uri = f"{folder}/{self.video_name}"
        failed = {"status": "failed", "error_class": "asset_not_found", "error": "x was not found"}
        self.snapshot = [
            {"row_id": "a", **shared, **shape, **ok, "video_uri": uri},
            {"row_id": "b", **shared, **shape, **failed, "sha256": None, "video_uri": None},
        ]
        self.commits = [dict(record) for record in self.snapshot]

    def problems(self, expected=EXPECTED, events=()):
        sink = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(self.snapshot), sink)
        self.output.write("records/part.parquet", sink.getvalue())
        self.output.write("run/records.json", json.dumps({"files": ["records/part.parquet"]}).encode())
        for index, record in enumerate(self.commits):
            self.output.write(f"commits/00/{index}.json", json.dumps(record).encode())
        return audit(self.output, expected, events)


@pytest.fixture
def written(tmp_path, video):
    return Written(tmp_path, video)


def promises(problems):
    return sorted({problem.promise for problem in problems})


def test_a_good_output_has_no_problem(written):
    assert written.problems() == []


def test_a_record_that_is_missing_is_lost(written):
    del written.snapshot[1]
    [problem] = written.problems()
    assert (problem.promise, problem.row_id) == ("lost", "b")
    del written.commits[1]
    written.output.delete("commits/00/1.json")
    assert [problem.promise for problem in written.problems()] == ["lost", "lost"]


def test_a_damaged_commit_is_lost(written):
    written.problems()
    written.commits = written.commits[:1]
    written.output.write("commits/00/1.json", b"{")
    assert promises(written.problems()) == ["lost"]


def test_no_snapshot_is_lost_and_a_second_one_too(written):
    written.problems()
    written.output.write("records/part-of-an-older-one.parquet", b"")
    assert promises(written.problems()) == ["lost"]
    written.output.delete("run/records.json")
    assert promises(audit(written.output, EXPECTED, [])) == ["lost"]


@pytest.mark.parametrize("where", ["snapshot", "commits"])
def test_two_records_of_one_row_are_a_duplicate(written, where):
    getattr(written, where).append(dict(written.snapshot[0]))
    assert promises(written.problems()) == ["duplicate"]


def test_a_record_that_nobody_asked_for_is_a_duplicate(written):
    assert promises(written.problems({("a", 0): Expected()})) == ["duplicate"]


@pytest.mark.parametrize("spoil", ["missing", "cut", "other", "frames", "elsewhere"])
def test_an_ok_record_without_its_video_is_falsely_ok(written, video, spoil):
    record = written.snapshot[0]
    if spoil == "missing":
        written.output.delete(written.video_name)
    elif spoil == "frames":
        record["num_frames"] += 1
    elif spoil == "elsewhere":
        record["video_uri"] = written.commits[0]["video_uri"] = "/somewhere/else.mp4"
    else:
        body = video[:-500] if spoil == "cut" else video + b"x"
        written.output.write(written.video_name, body)
    [problem] = [problem for problem in written.problems() if problem.promise == "falsely_ok"]
    assert problem.row_id == "a"


def test_a_video_that_does_not_decode_is_falsely_ok_even_if_its_hash_agrees(written, video):
    body = video[: len(video) // 2]
    written.output.write(written.video_name, body)
    for record in (written.snapshot[0], written.commits[0]):
        record["sha256"] = hashlib.sha256(body).hexdigest()
    assert promises(written.problems()) == ["falsely_ok"]


def test_a_row_that_must_fail_but_is_ok_is_falsely_ok(written):
    expected = EXPECTED | {("a", 0): Expected(("failed",), ("non_finite",))}
    assert promises(written.problems(expected)) == ["falsely_ok"]


@pytest.mark.parametrize(
    "wanted",
    [
        {("b", 0): Expected()},
        {("b", 0): Expected(("failed",), ("non_finite",))},
        {("b", 0): Expected(("invalid",), ("asset_not_found",))},
        {("a", 0): Expected(frames_sha256="0" * 64)},
    ],
)
def test_another_outcome_than_the_expected_one_is_wrong(written, wanted):
    assert promises(written.problems(EXPECTED | wanted)) == ["wrong"]


def test_commit_and_snapshot_must_agree(written):
    written.commits[1]["error_class"] = "asset_timeout"
    assert promises(written.problems()) == ["wrong"]


def test_what_is_finished_must_not_be_rendered_again():
    def event(name, key="k"):
        return Event(name, 1, key, "a")

    assert (
        renders_twice([event("rendering"), event("rendering"), event("published"), event("committed")]) == []
    )
    assert renders_twice([event("rendering"), event("published"), event("rendering", "other")]) == []
    for finished in ("published", "committed"):
        [problem] = renders_twice([event("rendering"), event(finished), event("rendering")])
        assert (problem.promise, problem.row_id) == ("duplicate", "a")
    damaged = [event("rendering"), event("committed"), event("damaged"), event("rendering")]
    assert renders_twice(damaged) == []


def test_a_video_is_what_ffmpeg_decodes_it_to_whatever_its_metadata_say(video, tmp_path):
    assert decode(video).shape == (FRAMES, HEIGHT, WIDTH)
    source, named = tmp_path / "v.mp4", tmp_path / "named.mp4"
    source.write_bytes(video)
    command = [
        get_ffmpeg_exe(),
        "-v",
        "error",
        "-i",
        source,
        "-c",
        "copy",
        "-metadata",
        "comment=run 7",
        named,
    ]
    subprocess.run(command, check=True)
    assert named.read_bytes() != video
    assert decode(named.read_bytes()) == decode(video)
    assert decode(video[: len(video) // 2]) is None
    assert decode(b"") is None
