"""What a person reads of the efficiency benchmark."""

import statistics
from collections.abc import Sequence
from typing import Protocol

from benchmarks.runs import Run, Workload, equal_videos
from schemas.record import TIMING_NAMES

TARGET = 0.90
_UNSTEADY = 0.10  # bare runs that differ by more do not measure the pipeline
_NOTABLE_SHARE = 0.02  # of processor time


class Measured(Protocol):
    """A run of either side of a benchmark, as far as the machine is concerned."""

    @property
    def stolen(self) -> float | None: ...

    @property
    def others(self) -> float | None: ...


def print_run(side: str, number: int, run: Run) -> None:
    """One line as soon as a run is over."""
    print(
        f"{side + ' ' + str(number):<11} {run.videos_per_s:.4f} videos/s in steady state"
        f" ({run.video_s:5.2f} s per video),  start-up {run.startup_s:5.1f} s,"
        f"  shutdown {run.shutdown_s:4.1f} s,  others {percent(run.others)},"
        f"  stolen {percent(run.stolen)}",
        flush=True,
    )


def print_report(bare: Sequence[Run], pipeline: Sequence[Run], work: Workload) -> None:
    """Tables, warnings and the judgement."""
    _print_setting(bare, work)
    _print_stages(bare, pipeline)
    _print_pairs(bare, pipeline)
    for warning in warnings(bare, pipeline):
        print(f"WARNING: {warning}")
    ratio = statistics.median(b / a for a, b in zip(_rates(bare), _rates(pipeline), strict=True))
    verdict = "reached" if ratio >= TARGET else "NOT reached"
    print(f"pipeline efficiency {ratio:.3f}: the target of {TARGET:.2f} is {verdict}\n")


def _print_setting(bare: Sequence[Run], work: Workload) -> None:
    compute = work.compute
    shortest_s = min(run.shortest_video_s for run in bare)
    print(
        f"\n{work.rows} videos per run, batches of {work.batch_size}, {compute.actors} x {compute.threads} threads on "
        f"{compute.device} in {compute.dtype}; a bare video takes {statistics.median(run.video_s for run in bare):.2f} s "
        f"(median; the shortest {shortest_s:.2f} s)"
    )


def _print_stages(bare: Sequence[Run], pipeline: Sequence[Run]) -> None:
    print(
        "\nseconds per video        bare   pipeline   (median; the pipeline fetches and encodes beside denoising)"
    )
    for name in TIMING_NAMES:
        cells = [_median([run.timing(name) for run in runs]) for runs in (bare, pipeline)]
        print(f"  {name.removesuffix('_s'):<18}" + "".join(f"{_seconds(cell):>11}" for cell in cells))


def _print_pairs(bare: Sequence[Run], pipeline: Sequence[Run]) -> None:
    print("\npair   bare videos/s   pipeline videos/s   ratio   equal MP4s")
    for number, (one, other) in enumerate(zip(bare, pipeline, strict=True), 1):
        equal = f"{equal_videos(one, other)} of {len(one.rows)}"
        rates = f"{one.videos_per_s:>15.4f}{other.videos_per_s:>20.4f}"
        print(f"{number:>4}{rates}{other.videos_per_s / one.videos_per_s:>8.3f}   {equal}")
    print()


def warnings(bare: Sequence[Run], pipeline: Sequence[Run]) -> list[str]:
    """What makes the figure less sure."""
    found = machine_warnings(_rates(bare), [*bare, *pipeline])
    unequal = [len(one.rows) - equal_videos(one, other) for one, other in zip(bare, pipeline, strict=True)]
    if any(unequal):
        found.append(
            f"{sum(unequal)} MP4s differ between the two sides: they may not have done the same work"
        )
    return found


def machine_warnings(bare_rates: Sequence[float], runs: Sequence[Measured]) -> list[str]:
    """Why the machine does not give a sure figure.

    Args:
        bare_rates: what the bare loop made per second, in each of its runs.
        runs: of both sides.
    """
    found = []
    if (apart := max(bare_rates) / min(bare_rates) - 1) > _UNSTEADY:
        found.append(f"the bare runs differ by {apart:.0%}: the machine was not steady, measure again")
    stolen = max((run.stolen or 0.0 for run in runs), default=0.0)
    if stolen > _NOTABLE_SHARE:
        found.append(f"up to {stolen:.1%} of the processor time was stolen by the machine's host")
    others = max((run.others or 0.0 for run in runs), default=0.0)
    if others > _NOTABLE_SHARE:
        found.append(
            f"other processes, Ray's own daemons among them, took up to {others:.1%} of the processor time"
        )
    return found


def _rates(runs: Sequence[Run]) -> list[float]:
    return [run.videos_per_s for run in runs]


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def percent(share: float | None) -> str:
    """A share for a person."""
    return "unknown" if share is None else f"{share:.1%}"
