"""Runs the pipeline and the bare loop as processes of their own, and reads from their outputs when rows finished."""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from actors.video_codec import ffmpeg_binary
from benchmarks.bare_loop import ROWS_FILE
from benchmarks.cpu_time import others_share, read_cpu_time, stolen_share, tree_cpu_s
from pipeline.compute import Compute

_ROOT = Path(__file__).resolve().parent.parent
_RUN_TIMEOUT_S = 3600.0
_LOG_TAIL_LINES = 30
_SAMPLE_S = 1.0
_BATCH_STAGES = (
    "condition_s",
    "denoise_s",
    "decode_s",
    "score_s",
)  # a row's timing is its share of the batch


class BenchmarkError(RuntimeError):
    """A run failed, or did not do what is measured: there is no figure."""


@dataclass(frozen=True)
class Workload:
    """What both sides render, and with what."""

    manifest: Path
    model: Path
    rows: int
    batch_size: int
    compute: Compute

    @property
    def at_once(self) -> int:
        """Rows that are denoised at the same time."""
        return self.compute.actors * self.batch_size


@dataclass(frozen=True)
class FinishedRow:
    """One row of one run."""

    row_id: str
    began_at: float  # when its batch was begun; seconds since the epoch
    finished_at: float
    video: Path
    timings: Mapping[str, float | None]


RowReader = Callable[[Path, int], list[FinishedRow]]


@dataclass(frozen=True)
class Run:
    """One run of either side."""

    rows: tuple[FinishedRow, ...]  # in the order they finished
    actors: int
    launched_at: float
    ended_at: float
    stolen: float | None  # share of processor time
    others: float | None  # share of processor time that went to processes of others

    @property
    def began_at(self) -> float:
        """When the first row was begun: everything is loaded."""
        return min(row.began_at for row in self.rows)

    @property
    def videos_per_s(self) -> float:
        """Videos per second from the moment that the first row is begun until the last one is finished.

        That span holds the whole of every row, and of nothing else: what a pipeline has begun early or finishes
        late is inside it. From one finished row to another, which looks simpler, rows that were in work at the
        first moment would count in full: with two of them, 8 rows seemed to be rendered a sixth too fast.
        """
        return len(self.rows) / (self.rows[-1].finished_at - self.began_at)

    @property
    def video_s(self) -> float:
        """Seconds that one video keeps one actor (or bare loop) busy in steady state."""
        return self.actors / self.videos_per_s

    @property
    def shortest_video_s(self) -> float:
        """The least seconds that one video took, all its stages together."""
        return min(sum(value or 0.0 for value in row.timings.values()) for row in self.rows)

    @property
    def startup_s(self) -> float:
        """From the launch until the first row was begun."""
        return self.began_at - self.launched_at

    @property
    def shutdown_s(self) -> float:
        """From the last row until the process had ended."""
        return self.ended_at - self.rows[-1].finished_at

    def timing(self, name: str) -> float | None:
        """The median over rows of one stage's seconds per video."""
        values = [value for row in self.rows if (value := row.timings.get(name)) is not None]
        return statistics.median(values) if values else None


def run_bare(work: Workload, output: Path) -> Run:
    """The bare loop; with several actors as many loops side by side, each with its part of rows and threads."""
    compute, shards = work.compute, work.compute.actors
    commands = [
        [
            *(sys.executable, "-m", "benchmarks.bare_loop"),
            *("--manifest", str(work.manifest), "--model", str(work.model), "--output", str(output)),
            *("--threads", str(compute.threads), "--batch-size", str(work.batch_size)),
            *("--device", compute.device if compute.device == "cpu" else f"{compute.device}:{shard}"),
            *("--dtype", compute.dtype, "--shard", str(shard), "--shards", str(shards)),
        ]
        for shard in range(shards)
    ]
    return _timed(commands, work, output, _bare_rows)


def run_pipeline(work: Workload, output: Path) -> Run:
    """`jobs.render` as a user starts it."""
    command = [
        *(sys.executable, "-m", "jobs.render"),
        *("--manifest", str(work.manifest), "--model", str(work.model), "--output", str(output)),
        *("--batch-size", str(work.batch_size), "--actors", str(work.compute.actors)),
    ]
    return _timed([command], work, output, pipeline_rows)


def _timed(commands: list[list[str]], work: Workload, output: Path, read_rows: RowReader) -> Run:
    output.mkdir(parents=True)
    before, launched_at = read_cpu_time(), time.time()
    mine_s = run_all(commands, work.compute.threads, output)
    ended_at, after = time.time(), read_cpu_time()
    rows = sorted(read_rows(output, work.batch_size), key=lambda row: row.finished_at)
    if len(rows) != work.rows:
        raise BenchmarkError(f"{output}: {len(rows)} rows finished, not {work.rows}")
    return Run(
        rows=tuple(rows),
        actors=work.compute.actors,
        launched_at=launched_at,
        ended_at=ended_at,
        stolen=stolen_share(before, after),
        others=others_share(before, after, mine_s),
    )


def run_all(commands: Sequence[Sequence[str]], threads: int, output: Path) -> float:
    """Runs commands side by side until all have ended, and says how many processor seconds they used.

    Raises:
        BenchmarkError: one of them fails or takes too long; the others are ended.
    """
    environment = child_environment(threads)
    logs = [output.with_name(f"{output.name}-{index}.log") for index in range(len(commands))]
    children: list[subprocess.Popen[bytes]] = []
    try:
        for command, log in zip(commands, logs, strict=True):
            with log.open("wb") as file:
                children.append(
                    subprocess.Popen(
                        command, cwd=_ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT
                    )
                )
        used_s = _wait(children, output.name)
        for child, log in zip(children, logs, strict=True):
            if child.returncode:
                tail = "\n".join(log.read_text(errors="replace").splitlines()[-_LOG_TAIL_LINES:])
                raise BenchmarkError(f"{log.name}: ended with exit code {child.returncode}:\n{tail}")
    finally:
        for child in children:
            if child.poll() is None:
                child.terminate()
                child.wait()
    return used_s


def _wait(children: Sequence[subprocess.Popen[bytes]], name: str) -> float:
    """Waits until all have ended or one has failed; the most processor seconds that were seen on the way."""
    deadline, used_s = time.monotonic() + _RUN_TIMEOUT_S, 0.0
    waiting = list(children)
    while waiting and not any(child.returncode for child in children):
        if time.monotonic() > deadline:
            raise BenchmarkError(f"{name}: not finished after {_RUN_TIMEOUT_S:g} s")
        used_s = max(used_s, tree_cpu_s(child.pid for child in waiting))
        with suppress(subprocess.TimeoutExpired):
            waiting[0].wait(_SAMPLE_S)
        waiting = [child for child in waiting if child.poll() is None]
    return used_s


def child_environment(threads: int) -> dict[str, str]:
    """The environment of both sides. Waiting threads sleep, for spinning ones would take the other's cores."""
    return os.environ | {
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "PASSIVE",
        "HF_HUB_OFFLINE": "1",
        "RAY_ADDRESS": "local",  # a cluster would not be the same cores
    }


def _bare_rows(output: Path, batch_size: int) -> list[FinishedRow]:
    lines = [
        line for file in output.glob(ROWS_FILE.format(shard="*")) for line in file.read_text().splitlines()
    ]
    return [
        FinishedRow(
            row_id=found["row_id"],
            began_at=found["began_at"],
            finished_at=found["finished_at"],
            video=Path(found["video"]),
            timings=found["timings"],
        )
        for found in map(json.loads, lines)
    ]


def pipeline_rows(output: Path, batch_size: int) -> list[FinishedRow]:
    """The committed rows. The commit is written last, so that its time is when the row was done.

    A record has no time of beginning: it is that of the commit less all the row's stages, where a batch's stages
    count for each of its videos. For a row that waited between two stages this is too late; the first one has
    nothing to wait for.

    Raises:
        BenchmarkError: a row failed.
    """
    rows = []
    for file in (output / "commits").rglob("*.json"):
        record = json.loads(file.read_text())
        if record["status"] != "ok":
            raise BenchmarkError(f"row {record['row_id']} is {record['status']}: {record['error']}")
        timings, finished_at = record["timings"], file.stat().st_mtime
        took_s = sum(
            (timings[name] or 0.0) * (batch_size if name in _BATCH_STAGES else 1) for name in timings
        )
        rows.append(
            FinishedRow(
                row_id=record["row_id"],
                began_at=finished_at - took_s,
                finished_at=finished_at,
                video=Path(record["video_uri"]),
                timings=timings,
            )
        )
    return rows


def equal_videos(one: Run, other: Run) -> int:
    """How many rows have the same compressed frames in both runs."""
    others = {row.row_id: row.video for row in other.rows}
    return sum(coded_frames(row.video) == coded_frames(others[row.row_id]) for row in one.rows)


def coded_frames(video: Path) -> str:
    """A hash of a video's compressed frames, whatever its metadata says."""
    copied = [ffmpeg_binary(), "-v", "error", "-i", str(video), "-map", "0:v", "-c", "copy", "-f", "md5", "-"]
    return subprocess.run(copied, capture_output=True, text=True, check=True).stdout
