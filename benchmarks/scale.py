"""What planning, resuming and reconciling cost at 100 thousand and at a million rows, in seconds and in memory.

python -m benchmarks.scale --rows 100000 1000000

Everything but the rendering is real: manifest, plan, commits, MP4s of a few bytes, records, reconcile, on a local disk.
Each step runs in a process of its own, as a driver does. About 12 minutes and 9 GB of disk for a million rows.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from benchmarks.figures import Figure

if TYPE_CHECKING:  # the parent process needs none of it
    from pipeline.agreement import Finding
    from pipeline.prepare import PreparedRun

T = TypeVar("T")

_STYLES = 1_000
_DONE_SHARE = 0.9  # when the run is resumed
_PATHS = {"manifest": "manifest.parquet", "model": "model", "output": "out"}
_STEPS = ("new", "resume", "reconcile")


@dataclass(frozen=True)
class Measured:
    """One step at one size."""

    step: str
    rows: int
    seconds: dict[str, float]  # part of the step -> how long it took
    rss_mib: float  # the most memory that the process ever held
    # The same of processor time: other work on the machine lengthens it less. Empty: not measured.
    cpu_s: dict[str, float] = field(default_factory=dict)


class StepError(RuntimeError):
    """A step did not do what it is measured for."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000], help="sizes, ascending")
    parser.add_argument(
        "--folder", help="where the outputs are made, and deleted (default: a temporary folder)"
    )
    parser.add_argument("--step", choices=_STEPS, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.step:
        print(json.dumps(asdict(_measure(arguments.step, arguments.rows[0], Path(arguments.folder)))))
        return 0
    measured = []
    for rows in arguments.rows:
        with tempfile.TemporaryDirectory(prefix="scale-", dir=arguments.folder) as folder:
            for step in _STEPS:
                measured.append(_in_process(step, rows, folder))
                print(_line(measured[-1]), flush=True)
    _print_ratios(measured)
    for figure in figures(measured):
        print(figure.as_json_line())
    return 0


def _in_process(step: str, rows: int, folder: str) -> Measured:
    command = [
        sys.executable,
        "-m",
        "benchmarks.scale",
        "--step",
        step,
        "--rows",
        str(rows),
        "--folder",
        folder,
    ]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def _measure(step: str, rows: int, folder: Path) -> Measured:
    import torch  # noqa: F401 - seconds that have nothing to do with the number of rows

    from benchmarks.null_run import write_manifest, write_null_model

    if step == "new":
        write_manifest(folder / "manifest.parquet", rows, _STYLES)
        write_null_model(folder / "model")
    watch = {"new": _new, "resume": _resume, "reconcile": _reconcile}[step](folder, rows)
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return Measured(step, rows, dict(watch), peak_kib / 1024, watch.cpu_s)


class _Watch(dict[str, float]):
    """Times parts of a step: part -> seconds, and `cpu_s` likewise."""

    def __init__(self) -> None:
        super().__init__()
        self.cpu_s: dict[str, float] = {}

    def __call__(self, part: str, work: Callable[[], T]) -> T:
        started, cpu_started = time.perf_counter(), time.process_time()
        result = work()
        self[part] = round(time.perf_counter() - started, 4)
        self.cpu_s[part] = round(time.process_time() - cpu_started, 4)
        return result


def _new(folder: Path, rows: int) -> _Watch:
    """A new manifest, planned, and nine tenths of it made: commits, MP4s, records and index."""
    watch = _Watch()
    prepared = watch("plan", lambda: _prepare(folder))
    to_render = prepared.plan.to_render.total()
    _require(to_render == rows, f"{to_render} of {rows} rows to render")
    watch("write units", lambda: _write_units(prepared))
    watch("null render", lambda: _render(prepared, int(rows * _DONE_SHARE)))
    watch("close", lambda: _close(prepared))
    return watch


def _resume(folder: Path, rows: int) -> _Watch:
    """The same command again: until rendering could start, and after the last row is rendered."""
    watch = _Watch()
    prepared = watch("plan", lambda: _prepare(folder))
    done = prepared.plan.already_done.total()
    _require(done == int(rows * _DONE_SHARE), f"{done} rows done, {int(rows * _DONE_SHARE)} were committed")
    watch("write units", lambda: _write_units(prepared))
    watch("null render", lambda: _render(prepared, rows))
    differences = watch("close", lambda: _close(prepared))
    _require(not differences, f"the finished output differs: {differences}")
    return watch


def _reconcile(folder: Path, rows: int) -> _Watch:
    """Of a finished output, by names and sizes."""
    from pipeline.reconcile import reconcile
    from schemas.repair_run import ReconcileRun

    watch = _Watch()
    run = ReconcileRun(output=str(folder / "out"), check="listing")
    result = watch("reconcile", lambda: reconcile(run))
    _require(result.agrees and result.asked == rows, f"{result.counts} of {result.asked} records")
    return watch


def _prepare(folder: Path) -> "PreparedRun":
    from pipeline.prepare import prepare
    from schemas.run import RenderRun

    paths = {name: str(folder / path) for name, path in _PATHS.items()}
    return prepare(RenderRun(**paths, run_id="scale", actors=1, unit_rows=100))


def _write_units(prepared: "PreparedRun") -> None:
    from pipeline.units import write_units

    write_units(prepared.storage, f"{prepared.run.output}/run/scale", prepared.units())


def _render(prepared: "PreparedRun", rows: int) -> None:
    from benchmarks.null_run import render_null, rows_of, write_run_files

    write_run_files(prepared)
    render_null(islice(rows_of(prepared), rows), prepared.run.output, prepared.provenance)


def _close(prepared: "PreparedRun") -> dict["Finding", int]:
    from pipeline.closing import close_output

    return close_output(prepared.index, prepared.mark, lambda table: None)


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise StepError(otherwise)


def figures(measured: Sequence[Measured]) -> list[Figure]:
    """Of each size, seconds to plan and to resume; of the largest against the smallest, the growth of memory."""
    found = []
    for rows in sorted({one.rows for one in measured}):
        by_step = {one.step: one.seconds for one in measured if one.rows == rows}
        for name, step, parts in (("plan", "new", ("plan",)), ("resume", "resume", ("plan", "write units"))):
            seconds = sum(by_step[step][part] for part in parts)
            found.append(Figure.of_repeats(f"{name}_{_size(rows)}_s", "s", [seconds]))
    smallest, largest = (limit(one.rows for one in measured) for limit in (min, max))
    if smallest < largest:
        rss = {(one.step, one.rows): one.rss_mib for one in measured}
        growth = max(rss[step, largest] - rss[step, smallest] for step in _STEPS)
        found.append(Figure.of_repeats("driver_rss_growth_mib", "MiB", [growth]))
    return found


def _size(rows: int) -> str:
    for unit, letter in ((10**6, "m"), (10**3, "k")):
        if rows % unit == 0:
            return f"{rows // unit}{letter}"
    return str(rows)


def _line(one: Measured) -> str:
    parts = ", ".join(
        f"{part} {seconds:.1f} s ({one.cpu_s.get(part, 0):.1f} s of a processor, "
        f"{one.cpu_s.get(part, 0) / one.rows * 1e6:.0f} us a row)"
        for part, seconds in one.seconds.items()
    )
    return f"{_size(one.rows):>5} rows  {one.step:<10} {one.rss_mib:6.0f} MiB at most   {parts}"


def _print_ratios(measured: Sequence[Measured]) -> None:
    """The largest size against the smallest: at the ratio of the rows, time is linear."""
    smallest, largest = (limit(one.rows for one in measured) for limit in (min, max))
    if smallest == largest:
        return
    print(f"\n{_size(largest)} against {_size(smallest)} rows: {largest / smallest:g} times the rows take")
    of = {(one.step, one.rows): one for one in measured}
    for step in _STEPS:
        few, many = of[step, smallest], of[step, largest]
        ratios = ", ".join(
            f"{part} {many.seconds[part] / max(few.seconds[part], 0.01):.1f}" for part in few.seconds
        )
        cpu = sum(many.cpu_s.values()) / max(sum(few.cpu_s.values()), 0.01)
        print(
            f"  {step:<10} {ratios} times; processor {cpu:.1f} times; {many.rss_mib - few.rss_mib:+.0f} MiB"
        )
    print()


if __name__ == "__main__":
    sys.exit(main())
