"""The training benchmark's own decisions: what counts, what it refuses, what it prints."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import train_runs, train_throughput
from benchmarks.runs import BenchmarkError
from benchmarks.train_runs import Mark, TrainMeasurement, TrainWorkload, check_same_losses, counted_marks
from benchmarks.train_throughput import Pair, figure, interleaved, print_report
from schemas.train_run import TrainStyleRun

WORK = TrainWorkload(
    config=Path("run.json"),
    run=TrainStyleRun(data="d", model="m", output="o", steps=50, warmup_steps=10, image_batch=8),
    first_step=10,
    last_step=30,
    threads=2,
    precision="float32",
)


def measured(step_s: float, loss: float = 0.5, wait: float = 0.0, startup_s: float = 7.0) -> TrainMeasurement:
    marks = tuple(Mark(step, 100 + startup_s + step * step_s, loss, wait) for step in (10, 20, 30))
    return TrainMeasurement(marks, batch_size=8, launched_at=100.0, stolen=0.0, others=0.0)


def line(step: int, **others: object) -> str:
    return json.dumps({"step": step, "time": 100.0 + step, "loss": 0.5} | others)


def test_samples_per_second_of_the_counted_steps() -> None:
    run = measured(0.5, wait=0.04)
    assert run.step_s == pytest.approx(0.5)
    assert run.samples_per_s == pytest.approx(16)
    assert run.startup_s == pytest.approx(7)
    assert run.data_wait_share == pytest.approx(0.04)


def test_warm_up_and_tail_do_not_count() -> None:
    lines = [line(step, data_wait_share=step / 100) for step in (10, 20, 30, 40, 50)]
    marks = counted_marks(lines, WORK)
    assert [mark.step for mark in marks] == [10, 20, 30]
    run = replace(measured(1.0), marks=marks)
    assert run.data_wait_share == pytest.approx(0.25)  # of what lies between the first mark and the last


def test_a_window_without_its_ends_is_no_measurement() -> None:
    with pytest.raises(BenchmarkError, match=r"marks at steps \[20, 30\], needed from 10 to 30"):
        counted_marks([line(20), line(30)], WORK)
    with pytest.raises(BenchmarkError, match=r"marks at steps \[10\]"):
        counted_marks([line(10)], WORK)


def test_pictures_that_cannot_be_read_are_no_measurement() -> None:
    with pytest.raises(BenchmarkError, match=r"1 samples could not be read, the first: no such file"):
        counted_marks([line(10), line(20, problems=["no such file"]), line(30)], WORK)


def test_both_sides_must_have_the_same_losses() -> None:
    assert check_same_losses(measured(1.0), measured(1.1, loss=0.50005)) == pytest.approx(5e-5)
    with pytest.raises(BenchmarkError, match="did not do the same work"):
        check_same_losses(measured(1.0), measured(1.1, loss=0.5002))


def test_the_figure_is_the_median_of_the_pairs() -> None:
    pairs = [Pair(measured(1.0), measured(step_s)) for step_s in (1.1, 1.25, 1.0)]
    found = json.loads(figure(pairs).as_json_line())
    assert found == {
        "name": "train_throughput_ratio",
        "value": round(1 / 1.1, 4),
        "unit": "ratio",
        "n": 3,
        "spread": [0.8, 1.0],
    }


def test_the_sides_take_turns_and_alternate_in_going_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = []

    def run(side: str) -> TrainMeasurement:
        ran.append(side)
        return measured(1.0)

    monkeypatch.setattr(train_throughput, "run_bare", lambda *_: run("bare"))
    monkeypatch.setattr(train_throughput, "run_job", lambda *_: run("job"))
    assert len(list(interleaved(WORK, 3, tmp_path))) == 3
    assert ran == ["bare", "job", "job", "bare", "bare", "job"]


def test_both_sides_run_the_same_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = []

    def run_all(found: list[list[str]], threads: int, output: Path) -> float:
        assert threads == WORK.threads
        commands.append(found[0])
        for name in ("marks.jsonl", "metrics.jsonl"):
            (output / name).write_text("\n".join(line(step) for step in (10, 20, 30)))
        return 0.0

    monkeypatch.setattr(train_runs, "run_all", run_all)
    train_runs.run_bare(WORK, tmp_path / "bare")
    train_runs.run_job(WORK, tmp_path / "job")
    bare, job = (" ".join(command) for command in commands)
    assert "benchmarks.bare_training --config run.json --steps 30 --threads 2 --precision float32" in bare
    assert "jobs.train_style --config run.json --output" in job


@pytest.mark.parametrize(
    ("job_s", "told"),
    [(1.05, "0.952: the target of 0.90 is reached"), (1.2, "0.833: the target of 0.90 is NOT")],
)
def test_the_report_judges(job_s: float, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_report([Pair(measured(1.0), measured(job_s, wait=0.02))], WORK)
    printed = capsys.readouterr().out
    assert told in printed
    assert "20 counted steps of 8 images" in printed
    assert "2.0%" in printed
    assert "WARNING" not in printed


@pytest.mark.parametrize(
    "flags", [["--repeats", "0"], ["--steps", "15"], ["--warm-up", "5"], ["--batch-size", "-1"]]
)
def test_what_cannot_be_measured_is_refused(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        train_throughput.main(flags)
    assert ended.value.code == 2
    assert flags[0] in capsys.readouterr().err
