"""The benchmark's own decisions: how many steps, what it refuses, what it warns of."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import pipeline_efficiency, report
from benchmarks.pipeline_efficiency import Pair, calibrated_run, calibrated_steps, check_length, figures
from benchmarks.runs import BenchmarkError, FinishedRow, Run, Workload
from benchmarks.workload import steps_for
from pipeline.compute import Compute


def run_of(video_s: float, others: float = 0.0, startup_s: float = 10.0) -> Run:
    timings = {"denoise_s": 0.9 * video_s, "decode_s": 0.1 * video_s}
    rows = tuple(
        FinishedRow(f"r{i}", startup_s + (i + 1) * video_s, Path("absent.mp4"), timings, timings)
        for i in range(4)
    )
    return Run(rows, 1, 1, 0.0, rows[-1].finished_at, stolen=0.0, others=others)


@pytest.mark.parametrize(
    ("seconds", "steps"),
    [(0.1, 1), (1.2, 1), (1.3, 2), (5.2, 5), (7.2, 6), (8.2, 7)],  # asking for 6 gives 7 steps, for 7 gives 8
)
def test_as_few_steps_as_a_video_of_that_length_takes(seconds: float, steps: int) -> None:
    assert steps_for(seconds, step_s=1.0, fixed_s=0.25) == steps


def test_a_model_that_is_too_fast_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"seconds = 5: 1000 steps"):
        steps_for(5, step_s=1e-6, fixed_s=0)


@pytest.mark.parametrize(
    "flags",
    [
        ["--rows", "3"],
        ["--rows", "8", "--batch-size", "3"],
        ["--rows", "6", "--actors", "2", "--batch-size", "2"],
        ["--repeats", "0"],
        ["--video-seconds", "-1"],
    ],
)
def test_what_cannot_be_measured_is_refused(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        pipeline_efficiency.main(flags)
    assert ended.value.code == 2
    assert flags[0] in capsys.readouterr().err


def test_the_figure_is_the_median_of_the_pairs() -> None:
    pairs = [Pair(run_of(5.0), run_of(video_s, startup_s=20)) for video_s in (5.5, 5.2, 6.0)]
    found = {figure.name: figure for figure in figures(pairs)}
    assert next(iter(found)) == "pipeline_efficiency"
    assert found["pipeline_efficiency"].value == pytest.approx(5 / 5.5)
    assert found["pipeline_efficiency"].spread == pytest.approx((5 / 6, 5 / 5.2))
    assert found["pipeline_startup_s"].value == pytest.approx(20)
    assert found["bare_startup_s"].value == pytest.approx(10)


def test_short_videos_give_no_figure() -> None:
    check_length([Pair(run_of(5.1), run_of(5.1))], 5.0)
    with pytest.raises(BenchmarkError, match=r"4\.90 s, less than 5 s"):
        check_length([Pair(run_of(4.9), run_of(5.1))], 5.0)


def test_steps_are_chosen_for_a_machine_of_our_own() -> None:
    run = run_of(4.0)  # 3.6 s of denoising in 4 steps, 0.4 s for the rest
    alone = Compute(actors=1, cpus_per_actor=1, gpus_per_actor=0, threads=1, dtype="float32")
    assert calibrated_steps(run, 4, 5.0, alone) == 6
    # As much processor time, but on two threads: half of the wall's time went to others.
    assert calibrated_steps(run, 4, 5.0, replace(alone, threads=2)) == 11
    # What processors do beside a GPU says nothing.
    assert calibrated_steps(run, 4, 5.0, replace(alone, threads=2, gpus_per_actor=1)) == 6


def test_a_machine_that_became_faster_is_calibrated_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute = Compute(actors=1, cpus_per_actor=1, gpus_per_actor=0, threads=1, dtype="float32")
    work = Workload(tmp_path / "m.parquet", tmp_path / "model", rows=4, batch_size=1, compute=compute)
    made = iter([run_of(5.0), run_of(4.0), run_of(5.3)])
    monkeypatch.setattr(pipeline_efficiency, "run_bare", lambda work, output: next(made))
    assert calibrated_run(work, 5.0, tmp_path).video_s == pytest.approx(5.3)


def test_an_unsteady_or_busy_machine_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "equal_videos", lambda one, other: len(one.rows))
    pipeline = [run_of(5.2), run_of(5.2)]
    assert report.warnings([run_of(5.0), run_of(5.4)], pipeline) == []
    [unsteady] = report.warnings([run_of(5.0), run_of(5.6)], pipeline)
    assert "differ by 12%" in unsteady
    [busy] = report.warnings([run_of(5.0), run_of(5.0, others=0.3)], pipeline)
    assert "30.0%" in busy


def test_videos_that_differ_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "equal_videos", lambda one, other: len(one.rows) - 1)
    [warning] = report.warnings([run_of(5.0)], [run_of(5.2)])
    assert warning.startswith("1 MP4s differ")
