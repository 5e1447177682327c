"""How much of the machine the pipeline turns into videos: jobs.render against a bare loop over the same rows.

python -m benchmarks.pipeline_efficiency          (what `make bench` runs; under ten minutes on two cores)

Both sides run as processes of their own, in turn, on the same rows with the same model, batch size, threads and
cores, and make the same MP4s. The bare loop (benchmarks/bare_loop.py) loads, conditions, denoises, decodes, scores,
encodes and writes one batch after the other; it has no Ray, no plan and no records. The figure is the median over
repeats of videos per second of the pipeline over videos per second of the bare loop, from the moment that the first
row is begun (all is loaded) until the last one is finished: its MP4 is written (bare loop), its commit is written
(pipeline). Start-up is reported apart.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.figures import Figure
from benchmarks.report import print_report, print_run
from benchmarks.runs import BenchmarkError, Run, Workload, run_bare, run_pipeline
from benchmarks.workload import steps_for, write_manifest, write_model, write_styles
from pipeline.compute import choose_compute, resources
from schemas.record import TIMING_NAMES
from schemas.run import RenderRun, UsageError
from stylecrafter.sampling import published_timesteps

_CALIBRATION_STEPS = 4
_CALIBRATION_BATCHES = 3  # of each actor
_CALIBRATION_MARGIN = 1.04  # the machine may be a little faster later
_MAX_ATTEMPTS = 3
_MIN_BATCHES = 3  # of each actor


@dataclass(frozen=True)
class Pair:
    """One run of each side, one after the other."""

    bare: Run
    pipeline: Run

    @property
    def ratio(self) -> float:
        return self.pipeline.videos_per_s / self.bare.videos_per_s


def main(argv: Sequence[str] | None = None) -> int:
    given = _parse(argv)
    with ExitStack() as stack:
        folder = given.work_dir or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        try:
            work = prepare(given, folder.resolve())
            pairs = measure(work, given, folder.resolve())
        except UsageError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except BenchmarkError as error:
            print(f"benchmark failed: {error}", file=sys.stderr)
            return 1
        print_report([pair.bare for pair in pairs], [pair.pipeline for pair in pairs], work)
        for figure in figures(pairs):
            print(figure.as_json_line())
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.pipeline_efficiency",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rows", type=int, default=8, metavar="N", help="videos per run (default: 8)")
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="runs of each side (default: 3)")
    parser.add_argument(
        "--batch-size", type=int, default=1, metavar="N", help="videos denoised together (default: 1)"
    )
    parser.add_argument(
        "--actors",
        type=int,
        default=0,
        metavar="N",
        help="render actors, and as many bare loops side by side (default: what jobs.render chooses)",
    )
    parser.add_argument(
        "--video-seconds",
        type=float,
        default=5.0,
        metavar="S",
        help="least time that one video takes one actor; the number of steps is chosen for it (default: 5)",
    )
    parser.add_argument(
        "--work-dir",
        type=Path,
        metavar="DIR",
        help="empty or new folder to work in and to keep (default: none kept)",
    )
    given = parser.parse_args(argv)
    if given.actors < 0:
        parser.error(f"--actors {given.actors}: must not be negative")
    for name in ("rows", "repeats", "batch_size", "video_seconds"):
        if getattr(given, name) <= 0:
            parser.error(f"--{name.replace('_', '-')} {getattr(given, name)}: must be more than 0")
    if given.work_dir and given.work_dir.is_dir() and any(given.work_dir.iterdir()):
        parser.error(f"--work-dir {given.work_dir}: must be empty")
    return given


def prepare(given: argparse.Namespace, folder: Path) -> Workload:
    """Writes model and pictures, and asks the pipeline what pool it would choose.

    Raises:
        UsageError: the rows do not fill batches of all actors evenly.
    """
    run = RenderRun(
        manifest=str(folder / "manifest.parquet"),
        model=str(folder / "model"),
        output=str(folder / "output"),
        batch_size=given.batch_size,
        actors=given.actors,
    )
    compute = choose_compute(run, resources())
    work = Workload(Path(run.manifest), Path(run.model), given.rows, given.batch_size, compute)
    least = _MIN_BATCHES * work.at_once
    if work.rows % work.at_once or work.rows < least:
        raise UsageError(
            f"--rows {work.rows}: must be a multiple of actors x batch size = {work.at_once}, at least {least}"
        )
    print("writing the model and the style pictures", flush=True)
    write_model(work.model)
    write_styles(folder / "styles", given.rows)
    return work


def measure(work: Workload, given: argparse.Namespace, folder: Path) -> list[Pair]:
    """Calibrates and makes the interleaved runs; from the beginning with longer videos if they prove too short.

    Raises:
        BenchmarkError: a run failed, or the machine's speed changes too much.
    """
    styles, steps = write_styles(folder / "styles", work.rows), _CALIBRATION_STEPS
    short = replace(work, rows=_CALIBRATION_BATCHES * work.at_once)
    write_manifest(work.manifest, styles[: short.rows], steps)
    last = run_bare(short, folder / "calibration")
    for attempt in range(1, _MAX_ATTEMPTS + 1):
        steps = calibrated_steps(last, steps, given.video_seconds)
        print(f"{steps} steps for videos of at least {given.video_seconds:g} s", flush=True)
        write_manifest(work.manifest, styles, steps)
        pairs: list[Pair] = []
        for pair in _interleaved(work, given.repeats, folder / f"attempt-{attempt}"):
            pairs.append(pair)
            if pair.bare.video_s < given.video_seconds:
                break
        else:
            return pairs
        last = pairs[-1].bare
        print(f"a bare video took {last.video_s:.2f} s only: starting again with longer ones", flush=True)
    raise BenchmarkError(f"the machine's speed changes too much: videos were too short {_MAX_ATTEMPTS} times")


def _interleaved(work: Workload, repeats: int, folder: Path) -> Iterator[Pair]:
    """Who goes first alternates, so that a drift of the machine favours neither."""
    sides = {"bare": run_bare, "pipeline": run_pipeline}
    for number in range(1, repeats + 1):
        runs = {}
        for side in sides if number % 2 else reversed(sides):
            runs[side] = sides[side](work, folder / f"{side}-{number}")
            print_run(side, number, runs[side])
        yield Pair(**runs)


def calibrated_steps(run: Run, steps: int, video_seconds: float) -> int:
    """The steps with which a video takes at least `video_seconds`, judged by the median of a run with `steps`."""
    denoise_s = run.timing("denoise_s") or 0.0
    fixed_s = sum(run.timing(name) or 0.0 for name in TIMING_NAMES if name != "denoise_s")
    step_s = denoise_s / len(published_timesteps(steps))
    return steps_for(_CALIBRATION_MARGIN * video_seconds, step_s=step_s, fixed_s=fixed_s)


def figures(pairs: Sequence[Pair]) -> list[Figure]:
    """What was measured, the frozen name first."""
    return [
        Figure.of_repeats("pipeline_efficiency", "ratio", [pair.ratio for pair in pairs]),
        Figure.of_repeats("pipeline_startup_s", "s", [pair.pipeline.startup_s for pair in pairs]),
        Figure.of_repeats("bare_startup_s", "s", [pair.bare.startup_s for pair in pairs]),
    ]


if __name__ == "__main__":
    sys.exit(main())
