"""How right the time left is that a render shows, once a fifth of its rows is done.

python -m benchmarks.eta          (some ten minutes on two cores)

Renders a manifest like the demo's (one shape, one row that is bad) with a small untrained model, as a user does, and
reads the log: every progress line names a time left, and the last row's event says what it really was. Three runs:
a new manifest; the same after its first third was rendered before; batches of two in work units of four.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from benchmarks.figures import Figure
from benchmarks.runs import BenchmarkError, child_environment
from benchmarks.workload import write_manifest, write_model, write_styles
from schemas.run import ExitCode

TARGET = 0.25
_FIRST_SHARE = 0.2
_LEAST_LEFT_S = 10.0  # a clock of whole seconds and the last unit say nothing about less
_LEFT = re.compile(r" (\d+):(\d\d):(\d\d) left$")
_RUNS: dict[str, list[str]] = {
    "new": [],
    "resumed": [],
    "batches": ["--batch-size", "2", "--unit-rows", "4"],
}


@dataclass(frozen=True)
class Reading:
    """One progress line."""

    share: float  # of the run's rows that were done then
    shown_s: float
    was_s: float

    @property
    def error(self) -> float:
        """0.1: a tenth too long."""
        return self.shown_s / self.was_s - 1


def main(argv: Sequence[str] | None = None) -> int:
    given = _parse(argv)
    with ExitStack() as stack:
        folder = given.work_dir or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="eta-")))
        try:
            found = _measure(given, folder.resolve())
        except BenchmarkError as error:
            print(f"benchmark failed: {error}", file=sys.stderr)
            return 1
    figure = Figure.of_repeats(
        "eta_error", "ratio", [max(abs(reading.error) for reading in one) for one in found]
    )
    verdict = "held" if figure.spread[1] <= TARGET else "NOT held"
    print(
        f"largest error {figure.spread[1]:.0%}: the aim of {TARGET:.0%} is {verdict}\n{figure.as_json_line()}"
    )
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.eta",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--rows", type=int, default=45, metavar="N", help="rows of the manifest (default: 45)")
    add("--steps", type=int, default=20, metavar="N", help="denoising steps of a video (default: 20)")
    add("--runs", nargs="+", choices=_RUNS, default=list(_RUNS), help="which runs (default: all)")
    add("--work-dir", type=Path, metavar="DIR", help="empty or new folder to keep (default: none kept)")
    return parser.parse_args(argv)


def _measure(given: argparse.Namespace, folder: Path) -> list[list[Reading]]:
    write_model(folder / "model")
    manifest = folder / "manifest.parquet"
    write_manifest(manifest, [*write_styles(folder / "styles", given.rows - 1), folder / "none"], given.steps)
    found = []
    for name in given.runs:
        if name == "resumed":
            _render(folder, name, ["--limit", str(given.rows // 3)])
        found.append(readings(_render(folder, name, _RUNS[name])))
        if not found[-1]:
            raise BenchmarkError(f"{name}: no time left was shown after {_FIRST_SHARE:.0%}; use more --rows")
        _print(name, found[-1])
    return found


def _render(folder: Path, name: str, flags: Sequence[str]) -> list[dict[str, object]]:
    """A render as a user starts it; the events that it tells."""
    command = [
        *(sys.executable, "-m", "jobs.render", "--log-format", "json"),
        *("--manifest", str(folder / "manifest.parquet"), "--model", str(folder / "model")),
        *("--output", str(folder / name), *flags),
    ]
    environment = child_environment(threads=1)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    (folder / f"{name}.log").write_text(done.stderr)
    if done.returncode not in (ExitCode.DONE, ExitCode.DONE_WITH_FAILED_ROWS):
        raise BenchmarkError(f"{name}: ended with exit code {done.returncode}:\n{done.stderr[-2000:]}")
    return [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]


def readings(events: Iterable[dict[str, object]]) -> list[Reading]:
    """The times left that a run's events show from a fifth of its rows on, beside what they really were."""
    told = [(datetime.fromisoformat(str(one["time"])).timestamp(), str(one["message"])) for one in events]
    rows = [moment for moment, message in told if message == "row finished"]
    found = []
    for moment, message in told:
        clock = _LEFT.search(message)
        share = sum(row <= moment for row in rows) / len(rows) if rows else 0.0
        if clock and share >= _FIRST_SHARE and (was_s := rows[-1] - moment) >= _LEAST_LEFT_S:
            hours, minutes, seconds = map(int, clock.groups())
            found.append(Reading(share, hours * 3600 + minutes * 60 + seconds, was_s))
    return found


def _print(name: str, found: Sequence[Reading]) -> None:
    print(f"{name}: done, shown, really left, error")
    for one in found:
        print(f"  {one.share:4.0%} {one.shown_s:7.0f} s {one.was_s:7.1f} s {one.error:+6.0%}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
