"""Steady state, start-up and what is read from the outputs of both sides."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from actors.video_codec import encode_mp4
from benchmarks.runs import (
    BenchmarkError,
    FinishedRow,
    Run,
    child_environment,
    equal_videos,
    pipeline_rows,
    run_all,
)


def run_of(lives: list[tuple[float, float]], *, actors: int = 1, launched_at: float = 0.0) -> Run:
    rows = tuple(FinishedRow(f"r{i}", *life, Path(f"{i}.mp4"), {}) for i, life in enumerate(lives))
    return Run(rows, actors, launched_at, rows[-1].finished_at + 2, None, None)


def test_one_video_after_the_other() -> None:
    run = run_of([(15, 20), (20, 25), (25, 30)], launched_at=3)
    assert run.videos_per_s == pytest.approx(1 / 5)
    assert run.video_s == pytest.approx(5)
    assert run.startup_s == pytest.approx(12)
    assert run.shutdown_s == pytest.approx(2)


def test_overlap_counts_what_it_saves_and_no_more() -> None:
    # Publishing takes one second beside the next video's five seconds; the last one's is not hidden.
    run = run_of([(10, 16), (10.1, 21), (16, 26)])
    assert run.videos_per_s == pytest.approx(3 / 16)


def test_rows_that_finish_in_pairs_are_not_counted_twice() -> None:
    run = run_of([(0, 10), (5, 10.1), (10, 20), (15, 20.1)])
    assert run.videos_per_s == pytest.approx(4 / 20.1)


def test_actors_side_by_side() -> None:
    run = run_of([(10, 20), (10, 20), (20, 30), (20, 30)], actors=2)
    assert run.videos_per_s == pytest.approx(2 / 10)
    assert run.video_s == pytest.approx(10)  # each actor is busy with one video that long


def commit(folder: Path, name: str, record: dict, written_at: float) -> None:
    file = folder / "commits" / name[:2] / f"{name}.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(record))
    os.utime(file, (0.0, written_at))


def test_a_row_is_done_when_its_commit_is_written(tmp_path: Path) -> None:
    timings = {"fetch_s": 1.0, "denoise_s": 10.0, "encode_s": 0.5, "upload_s": None}
    commit(
        tmp_path, "abc", {"row_id": "a", "status": "ok", "video_uri": "/v.mp4", "timings": timings}, 1234.5
    )
    [row] = pipeline_rows(tmp_path, batch_size=1)
    assert (row.row_id, row.finished_at, row.video) == ("a", 1234.5, Path("/v.mp4"))
    assert row.began_at == pytest.approx(1223.0)
    [of_three] = pipeline_rows(tmp_path, batch_size=3)
    assert of_three.began_at == pytest.approx(1203.0)  # the three were denoised together, for 30 s


def test_a_failed_row_is_no_measurement(tmp_path: Path) -> None:
    record = {"row_id": "a", "status": "failed", "error": "no such picture", "video_uri": None, "timings": {}}
    commit(tmp_path, "abc", record, 0.0)
    with pytest.raises(BenchmarkError, match="row a is failed: no such picture"):
        pipeline_rows(tmp_path, batch_size=1)


def test_a_run_that_fails_says_what_it_printed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "print('the reason'); raise SystemExit(3)"]
    with pytest.raises(BenchmarkError, match=r"(?s)exit code 3.*the reason"):
        run_all([command], 1, tmp_path / "run")


def test_one_failure_ends_the_others(tmp_path: Path) -> None:
    endless = [sys.executable, "-c", "import signal; signal.pause()"]
    failing = [sys.executable, "-c", "raise SystemExit(3)"]
    with pytest.raises(BenchmarkError, match=r"run-1.log: ended with exit code 3"):
        run_all([endless, failing], 1, tmp_path / "run")


def test_both_sides_get_the_same_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("RAY_ADDRESS", "ray://elsewhere")
    environment = child_environment(2)
    assert (environment["OMP_NUM_THREADS"], environment["OMP_WAIT_POLICY"]) == ("2", "PASSIVE")
    assert environment["RAY_ADDRESS"] == "local"


def test_equal_videos_are_told_by_their_frames(tmp_path: Path) -> None:
    def run(folder: str, *greys: int) -> Run:
        (tmp_path / folder).mkdir()
        rows = []
        for i, grey in enumerate(greys):
            path = tmp_path / folder / f"{i}.mp4"
            encode_mp4(np.full((2, 16, 16, 3), grey, np.uint8), path, fps=8, crf=20, comment=folder)
            rows.append(FinishedRow(f"r{i}", 0.0, float(i), path, {}))
        return Run(tuple(rows), 1, 0.0, 9.0, None, None)

    assert equal_videos(run("one", 10, 90), run("two", 10, 200)) == 1
