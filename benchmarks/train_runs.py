"""Runs the training job and the bare loop as processes of their own, and reads their steps, losses and times."""

import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.cpu_time import others_share, read_cpu_time, stolen_share
from benchmarks.runs import BenchmarkError, run_all
from pipeline.train_log import METRICS_FILE
from schemas.train_run import TrainStyleRun

_MAX_LOSS_DIFFERENCE = 1e-4


@dataclass(frozen=True)
class TrainWorkload:
    """What both sides train, and which of its steps count: those after `first_step` up to `last_step`."""

    config: Path
    run: TrainStyleRun
    first_step: int
    last_step: int
    threads: int
    precision: str

    @property
    def counted_steps(self) -> int:
        return self.last_step - self.first_step


@dataclass(frozen=True)
class Mark:
    """What one side said after a step: mean loss and share of waiting since its mark before."""

    step: int
    time: float  # seconds since the epoch
    loss: float
    data_wait_share: float = 0.0  # the bare loop has its data


@dataclass(frozen=True)
class TrainMeasurement:
    """One run of either side; of the marks, the first opens the counted window and the last closes it."""

    marks: tuple[Mark, ...]
    batch_size: int
    launched_at: float
    stolen: float | None  # share of processor time
    others: float | None  # share of processor time that went to processes of others

    @property
    def step_s(self) -> float:
        """Seconds per step in steady state, with all that goes on between the steps."""
        first, last = self.marks[0], self.marks[-1]
        return (last.time - first.time) / (last.step - first.step)

    @property
    def samples_per_s(self) -> float:
        return self.batch_size / self.step_s

    @property
    def startup_s(self) -> float:
        """From the launch until the first step began, as far as the speed of steady state tells."""
        return self.marks[0].time - self.marks[0].step * self.step_s - self.launched_at

    @property
    def data_wait_share(self) -> float:
        """Share of the counted time that the loop waited for data."""
        return statistics.fmean(mark.data_wait_share for mark in self.marks[1:])


def run_bare(work: TrainWorkload, output: Path) -> TrainMeasurement:
    """The bare loop up to the last counted step."""
    marks = output / "marks.jsonl"
    command = [
        *(sys.executable, "-m", "benchmarks.bare_training", "--config", str(work.config)),
        *("--steps", str(work.last_step), "--threads", str(work.threads), "--precision", work.precision),
        *("--output", str(marks)),
    ]
    return _timed(command, work, output, marks)


def run_job(work: TrainWorkload, output: Path) -> TrainMeasurement:
    """`jobs.train_style` as a user starts it."""
    command = [
        *(sys.executable, "-m", "jobs.train_style", "--config", str(work.config)),
        *("--output", str(output)),
    ]
    return _timed(command, work, output, output / METRICS_FILE)


def _timed(command: list[str], work: TrainWorkload, output: Path, marks: Path) -> TrainMeasurement:
    output.mkdir(parents=True)
    before, launched_at = read_cpu_time(), time.time()
    mine_s = run_all([command], work.threads, output)
    after = read_cpu_time()
    return TrainMeasurement(
        marks=counted_marks(marks.read_text().splitlines(), work),
        batch_size=work.run.image_batch,
        launched_at=launched_at,
        stolen=stolen_share(before, after),
        others=others_share(before, after, mine_s),
    )


def counted_marks(lines: Sequence[str], work: TrainWorkload) -> tuple[Mark, ...]:
    """The marks of the counted window, from JSON lines of either side.

    Raises:
        BenchmarkError: the window's first or last step has no mark, or pictures could not be read.
    """
    read = [json.loads(line) for line in lines]
    if problems := [problem for line in read for problem in line.get("problems", [])]:
        raise BenchmarkError(f"{len(problems)} samples could not be read, the first: {problems[0]}")
    marks = tuple(
        Mark(line["step"], line["time"], line["loss"], line.get("data_wait_share", 0.0))
        for line in read
        if work.first_step <= line["step"] <= work.last_step
    )
    steps = [mark.step for mark in marks]
    if len(steps) < 2 or (steps[0], steps[-1]) != (work.first_step, work.last_step):
        raise BenchmarkError(f"marks at steps {steps}, needed from {work.first_step} to {work.last_step}")
    return marks


def check_same_losses(bare: TrainMeasurement, job: TrainMeasurement) -> float:
    """The largest difference between the losses of the same steps.

    Raises:
        BenchmarkError: it is too large, so that the two sides did not do the same work.
    """
    worst = 0.0
    for one, other in zip(bare.marks, job.marks, strict=True):
        worst = max(worst, abs(one.loss - other.loss))
        if worst > _MAX_LOSS_DIFFERENCE:
            raise BenchmarkError(
                f"the sides did not do the same work: mean loss up to step {one.step} is {one.loss:.6f} in the bare "
                f"loop, {other.loss:.6f} up to step {other.step} in the job; allowed is a difference of "
                f"{_MAX_LOSS_DIFFERENCE:g}"
            )
    return worst
