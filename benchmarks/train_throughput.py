"""How much of the machine the trainer turns into samples: jobs.train_style against a bare PyTorch loop.

python -m benchmarks.train_throughput          (what `make bench-train` runs; under ten minutes on two cores)

Both sides run as processes of their own, in turn, on the same cores, with the same model, batches, threads and
precision. The bare loop (benchmarks/bare_training.py) has its micro-batches decoded, cropped and tokenised in memory
before it starts; it has no Ray, no readers, no logs and no checkpoints. Everything else is the same arithmetic, and
the losses of the same steps must agree. The figure is the median over repeats of the job's samples per second over
the bare loop's, between the same two steps of both. Start-up is left out, and so are the last steps of the job,
whose data was read before. Every picture is read once; one checkpoint falls between the counted steps.
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.figures import Figure
from benchmarks.report import TARGET, machine_warnings, percent
from benchmarks.runs import BenchmarkError
from benchmarks.train_runs import TrainMeasurement, TrainWorkload, check_same_losses, run_bare, run_job
from benchmarks.workload import write_model
from examples.demo_world.export import Export, export
from pipeline.train import prepare_training
from schemas.run import UsageError
from schemas.train_run import TrainStyleRun

_LOG_EVERY = TrainStyleRun.model_fields["log_every"].default
_SIDE = 128  # pixels of a picture
_TAIL_STEPS = 20  # more than the readers are ahead
_LEARNING_RATE_WARMUP = 10


@dataclass(frozen=True)
class Pair:
    """One run of each side, one after the other."""

    bare: TrainMeasurement
    job: TrainMeasurement

    @property
    def ratio(self) -> float:
        return self.job.samples_per_s / self.bare.samples_per_s


def main(argv: Sequence[str] | None = None) -> int:
    given = _parse(argv)
    with ExitStack() as stack:
        folder = given.work_dir or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        try:
            work = prepare(given, folder.resolve())
            pairs = list(interleaved(work, given.repeats, folder.resolve()))
        except UsageError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except BenchmarkError as error:
            print(f"benchmark failed: {error}", file=sys.stderr)
            return 1
        print_report(pairs, work)
        print(figure(pairs).as_json_line())
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.train_throughput",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="runs of each side (default: 3)")
    parser.add_argument("--steps", type=int, default=60, metavar="N", help="counted steps (default: 60)")
    parser.add_argument("--warm-up", type=int, default=10, metavar="N", help="steps before (default: 10)")
    parser.add_argument(
        "--batch-size", type=int, default=8, metavar="N", help="images of a step (default: 8)"
    )
    parser.add_argument(
        "--work-dir",
        type=Path,
        metavar="DIR",
        help="empty or new folder to work in and to keep (default: none kept)",
    )
    given = parser.parse_args(argv)
    for name in ("repeats", "steps", "warm_up", "batch_size"):
        if getattr(given, name) <= 0:
            parser.error(f"--{name.replace('_', '-')} {getattr(given, name)}: must be more than 0")
    for name in ("steps", "warm_up"):
        if getattr(given, name) % _LOG_EVERY:
            parser.error(
                f"--{name.replace('_', '-')} {getattr(given, name)}: must be a multiple of {_LOG_EVERY}, "
                "for the job tells the time so often"
            )
    if given.work_dir and given.work_dir.is_dir() and any(given.work_dir.iterdir()):
        parser.error(f"--work-dir {given.work_dir}: must be empty")
    return given


def prepare(given: argparse.Namespace, folder: Path) -> TrainWorkload:
    """Writes model, pictures and config, and asks the job what threads and precision it would choose.

    Raises:
        UsageError: the job refuses the config.
    """
    print("writing the model and the pictures", flush=True)
    last_step = given.warm_up + given.steps
    run = TrainStyleRun(
        data=str(folder / "pictures" / "manifest.parquet"),
        model=str(folder / "model"),
        output=str(folder / "output"),
        height=_SIDE,
        width=_SIDE,
        image_batch=given.batch_size,
        steps=last_step + _TAIL_STEPS,
        warmup_steps=_LEARNING_RATE_WARMUP,
        checkpoint_every=given.warm_up + given.steps // 2 // _LOG_EVERY * _LOG_EVERY,
        validation_rows=0,
        samples=0,
        max_failures=0,
    )
    write_model(Path(run.model))
    export(
        Export(
            output=str(folder / "pictures"),
            clips=0,
            stills=run.steps * given.batch_size,
            size=_SIDE,
        )
    )
    config = folder / "run.json"
    config.write_text(run.model_dump_json(exclude_unset=True))
    job = prepare_training(run).job
    return TrainWorkload(config, run, given.warm_up, last_step, job.threads, job.precision)


def interleaved(work: TrainWorkload, repeats: int, folder: Path) -> Iterator[Pair]:
    """Who goes first alternates, so that a drift of the machine favours neither.

    Raises:
        BenchmarkError: a run failed, or the two sides did not do the same work.
    """
    sides = {"bare": run_bare, "job": run_job}
    for number in range(1, repeats + 1):
        runs = {}
        for side in sides if number % 2 else reversed(sides):
            runs[side] = sides[side](work, folder / f"{side}-{number}")
            _print_run(side, number, runs[side])
        pair = Pair(**runs)
        check_same_losses(pair.bare, pair.job)
        yield pair


def figure(pairs: Sequence[Pair]) -> Figure:
    """What was measured, under its frozen name."""
    return Figure.of_repeats("train_throughput_ratio", "ratio", [pair.ratio for pair in pairs])


def _print_run(side: str, number: int, run: TrainMeasurement) -> None:
    print(
        f"{side + ' ' + str(number):<7} {run.samples_per_s:6.2f} samples/s in steady state"
        f" ({run.step_s:6.3f} s per step),  data wait {run.data_wait_share:5.1%},  start-up {run.startup_s:5.1f} s,"
        f"  others {percent(run.others)},  stolen {percent(run.stolen)}",
        flush=True,
    )


def print_report(pairs: Sequence[Pair], work: TrainWorkload) -> None:
    """Setting, table, warnings and the judgement."""
    bare, jobs = [pair.bare for pair in pairs], [pair.job for pair in pairs]
    run = work.run
    print(
        f"\n{work.counted_steps} counted steps of {run.image_batch} images of {run.width} x {run.height} pixels, "
        f"{work.threads} torch threads in {work.precision}; losses of the same steps agree within "
        f"{max(check_same_losses(pair.bare, pair.job) for pair in pairs):.1e}"
    )
    print("\npair   bare samples/s   job samples/s   ratio   bare step s   job step s   data wait")
    for number, (one, other, pair) in enumerate(zip(bare, jobs, pairs, strict=True), 1):
        print(
            f"{number:>4}{one.samples_per_s:>17.2f}{other.samples_per_s:>16.2f}{pair.ratio:>8.3f}"
            f"{one.step_s:>14.3f}{other.step_s:>13.3f}{other.data_wait_share:>12.1%}"
        )
    print()
    for warning in machine_warnings([one.samples_per_s for one in bare], [*bare, *jobs]):
        print(f"WARNING: {warning}")
    ratio = statistics.median(pair.ratio for pair in pairs)
    verdict = "reached" if ratio >= TARGET else "NOT reached"
    print(f"training throughput {ratio:.3f}: the target of {TARGET:.2f} is {verdict}\n")


if __name__ == "__main__":
    sys.exit(main())
