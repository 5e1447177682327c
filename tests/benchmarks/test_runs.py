"""Steady state, start-up and what is read from the outputs of both sides."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.runs import (
    BenchmarkError,
    FinishedRow,
    Run,
    Workload,
    child_environment,
    equal_videos,
    pipeline_rows,
    run_all,
)
from pipeline.compute import Compute

COMPUTE = Compute(actors=1, cpus_per_actor=1, gpus_per_actor=0, threads=1, dtype="float32")


def run_of(finishes: list[float], *, warm_up: int, actors: int = 1, launched_at: float = 0.0) -> Run:
    rows = tuple(FinishedRow(f"r{i}", at, Path(f"{i}.mp4"), {}) for i, at in enumerate(finishes))
    return Run(rows, warm_up, actors, launched_at, finishes[-1] + 2, None, None)


@pytest.fixture
def work(tmp_path: Path) -> Workload:
    return Workload(tmp_path / "m.parquet", tmp_path / "model", rows=2, batch_size=1, compute=COMPUTE)


def test_one_video_after_the_other() -> None:
    run = run_of([20, 25, 30, 35], warm_up=2, launched_at=3)
    assert run.videos_per_s == pytest.approx(1 / 5)
    assert run.video_s == pytest.approx(5)
    assert run.startup_s == pytest.approx(12)  # the first video was in work from second 15 on
    assert run.shutdown_s == pytest.approx(2)


def test_a_slow_first_video_is_start_up() -> None:
    run = run_of([23, 28, 33, 38], warm_up=2)
    assert run.videos_per_s == pytest.approx(1 / 5)
    assert run.startup_s == pytest.approx(18)


def test_rows_that_finish_in_pairs_count_once() -> None:
    run = run_of([9.9, 10, 19.9, 20, 29.9, 30], warm_up=2)
    assert run.videos_per_s == pytest.approx(2 / 10)


def test_actors_side_by_side() -> None:
    run = run_of([10, 10, 20, 20, 30, 30, 40, 40], warm_up=4, actors=2)
    assert run.videos_per_s == pytest.approx(2 / 10)
    assert run.video_s == pytest.approx(10)  # each actor is busy with one video that long


def test_two_batches_of_every_actor_warm_up(work: Workload) -> None:
    assert work.warm_up == 2
    two = replace(work, batch_size=3, compute=replace(COMPUTE, actors=2))
    assert (two.at_once, two.warm_up) == (6, 12)


def test_a_row_is_done_when_its_commit_is_written(tmp_path: Path) -> None:
    commit = tmp_path / "commits" / "ab" / "abc.json"
    commit.parent.mkdir(parents=True)
    record = {"row_id": "a", "status": "ok", "video_uri": "/v.mp4", "timings": {"encode_s": 0.5}}
    commit.write_text(json.dumps(record))
    os.utime(commit, (1000.0, 1234.5))
    [row] = pipeline_rows(tmp_path)
    assert (row.row_id, row.finished_at, row.video) == ("a", 1234.5, Path("/v.mp4"))


def test_a_failed_row_is_no_measurement(tmp_path: Path) -> None:
    (tmp_path / "commits").mkdir()
    record = {"row_id": "a", "status": "failed", "error": "no such picture", "video_uri": None, "timings": {}}
    (tmp_path / "commits" / "a.json").write_text(json.dumps(record))
    with pytest.raises(BenchmarkError, match="row a is failed: no such picture"):
        pipeline_rows(tmp_path)


def test_a_run_that_fails_says_what_it_printed(tmp_path: Path, work: Workload) -> None:
    command = [sys.executable, "-c", "print('the reason'); raise SystemExit(3)"]
    with pytest.raises(BenchmarkError, match=r"(?s)exit code 3.*the reason"):
        run_all([command], work, tmp_path / "run")


def test_one_failure_ends_the_others(tmp_path: Path, work: Workload) -> None:
    endless = [sys.executable, "-c", "import signal; signal.pause()"]
    failing = [sys.executable, "-c", "raise SystemExit(3)"]
    with pytest.raises(BenchmarkError, match=r"run-1.log: ended with exit code 3"):
        run_all([endless, failing], work, tmp_path / "run")


def test_both_sides_get_the_same_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("RAY_ADDRESS", "ray://elsewhere")
    environment = child_environment(2)
    assert (environment["OMP_NUM_THREADS"], environment["OMP_WAIT_POLICY"]) == ("2", "PASSIVE")
    assert environment["RAY_ADDRESS"] == "local"


def test_equal_videos_are_told_by_their_bytes(tmp_path: Path) -> None:
    def run(folder: str, *contents: bytes) -> Run:
        (tmp_path / folder).mkdir()
        rows = []
        for i, content in enumerate(contents):
            (path := tmp_path / folder / f"{i}.mp4").write_bytes(content)
            rows.append(FinishedRow(f"r{i}", float(i), path, {}))
        return Run(tuple(rows), 1, 1, 0.0, 9.0, None, None)

    assert equal_videos(run("one", b"a", b"b"), run("two", b"a", b"c")) == 1
