"""Whether an output keeps the product's promise, found out without the product's code.

Reads Parquet, JSON and MP4s itself and compares them with what the manifest's author knows must come out.
"""

import hashlib
import io
import json
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow.parquet as pq
from imageio_ffmpeg import get_ffmpeg_exe

from benchmarks.faults.fault import Event
from benchmarks.faults.outputs import Output

Promise = Literal["lost", "duplicate", "falsely_ok", "wrong"]
Identity = tuple[str, int]  # row_id, sample_index
_FRAME = b"FRAME\n"
_DECODERS = 2
_COMPARED = ("status", "error_class", "row_key", "sha256", "video_uri", "run_id", "attempts")


@dataclass(frozen=True)
class Expected:
    """What must come of one record.

    Args:
        error_classes: which of them a row that is not ok may have.
        frames_sha256: of the video in a run without faults; None: they are not compared.
    """

    statuses: tuple[str, ...] = ("ok",)
    error_classes: tuple[str, ...] = ()
    frames_sha256: str | None = None


@dataclass(frozen=True)
class Problem:
    """A broken promise. `row_id` is None where it is no row's."""

    promise: Promise
    row_id: str | None
    what: str

    def __str__(self) -> str:
        return f"{self.promise.replace('_', ' ')}: {self.row_id or 'the output'}: {self.what}"


def audit(output: Output, expected: Mapping[Identity, Expected], events: Iterable[Event]) -> list[Problem]:
    """Every broken promise of an output whose run ended normally."""
    snapshot = _snapshot(output)
    if snapshot is None:
        return [Problem("lost", None, "there is no complete snapshot of records")]
    problems = _ledger_problems(snapshot, expected, "the snapshot")
    commits, damaged = _commits(output)
    problems += damaged
    problems += _ledger_problems(commits, expected, "the commits")
    problems += _disagreements(snapshot, commits)
    for record in snapshot:
        if (wanted := expected.get(_identity(record))) is not None:
            problems += _outcome_problems(record, wanted)
    problems += _video_problems(output, [record for record in snapshot if record["status"] == "ok"], expected)
    return problems + renders_twice(events)


def renders_twice(events: Iterable[Event]) -> list[Problem]:
    """Videos that were begun again after they had been finished; `damaged` says that a fault undid one."""
    finished: set[str] = set()
    problems = []
    for event in events:
        if event.row_key is None:
            continue
        if event.name == "damaged":
            finished.discard(event.row_key)
        elif event.name in {"published", "committed"}:
            finished.add(event.row_key)
        elif event.name == "rendering" and event.row_key in finished:
            problems.append(Problem("duplicate", event.row_id, "its finished video was rendered again"))
    return problems


def _snapshot(output: Output) -> list[dict[str, Any]] | None:
    """The records of `records/`; None if the pointer names other files than there are."""
    try:
        named = json.loads(output.read("run/records.json"))["files"]
        files = output.names("records")
        tables = [pq.read_table(io.BytesIO(output.read(name))) for name in files if name.endswith(".parquet")]
    except Exception:  # noqa: BLE001 - whatever is wrong with it, it cannot be read
        return None
    if sorted(uri.rpartition("/")[2] for uri in named) != sorted(name.rpartition("/")[2] for name in files):
        return None
    return [record for table in tables for record in table.to_pylist()]


def _commits(output: Output) -> tuple[list[dict[str, Any]], list[Problem]]:
    records, problems = [], []
    for name in output.names("commits"):
        if not name.endswith(".json"):
            continue
        try:
            record = json.loads(output.read(name))
            records.append({name: record[name] for name in ("row_id", "sample_index", *_COMPARED)})
        except (ValueError, KeyError, TypeError):
            problems.append(Problem("lost", None, f"{name} is damaged"))
    return records, problems


def _identity(record: Mapping[str, Any]) -> Identity:
    return record["row_id"], record["sample_index"]


def _ledger_problems(
    records: Sequence[Mapping[str, Any]], expected: Mapping[Identity, Expected], where: str
) -> list[Problem]:
    counts = Counter(_identity(record) for record in records)
    problems = [
        Problem("lost", row_id, f"sample {sample}: no record in {where}")
        for row_id, sample in expected
        if not counts[row_id, sample]
    ]
    for (row_id, sample), count in counts.items():
        if count > 1:
            problems.append(Problem("duplicate", row_id, f"sample {sample}: {count} records in {where}"))
        if (row_id, sample) not in expected:
            problems.append(Problem("duplicate", row_id, f"sample {sample}: nobody asked for it, in {where}"))
    return problems


def _disagreements(
    snapshot: Sequence[Mapping[str, Any]], commits: Sequence[Mapping[str, Any]]
) -> list[Problem]:
    committed = {_identity(record): record for record in commits}
    problems = []
    for record in snapshot:
        other = committed.get(_identity(record))
        differing = [name for name in _COMPARED if other is not None and other[name] != record[name]]
        if differing:
            problems.append(
                Problem("wrong", record["row_id"], f"commit and snapshot differ in {', '.join(differing)}")
            )
    return problems


def _outcome_problems(record: Mapping[str, Any], wanted: Expected) -> list[Problem]:
    row_id, status, error_class = record["row_id"], record["status"], record["error_class"]
    if status not in wanted.statuses:
        promise: Promise = "falsely_ok" if status == "ok" else "wrong"
        allowed = " or ".join(wanted.statuses)
        return [Problem(promise, row_id, f"is {status} ({record['error']}), must be {allowed}")]
    if status != "ok":
        if error_class not in wanted.error_classes:
            allowed = " or ".join(wanted.error_classes)
            return [Problem("wrong", row_id, f"{error_class} ({record['error']}), must be {allowed}")]
        if not record["error"]:
            return [Problem("wrong", row_id, "there is no sentence that says why")]
        if record["video_uri"] is not None:
            return [Problem("wrong", row_id, "failed, but names a video")]
    return []


def _video_problems(
    output: Output, records: Sequence[Mapping[str, Any]], expected: Mapping[Identity, Expected]
) -> list[Problem]:
    def problem(record: Mapping[str, Any]) -> Problem | None:
        return _video_problem(output, record, expected.get(_identity(record), Expected()).frames_sha256)

    with ThreadPoolExecutor(_DECODERS) as decoders:
        return [found for found in decoders.map(problem, records) if found is not None]


def _video_problem(output: Output, record: Mapping[str, Any], frames_sha256: str | None) -> Problem | None:
    def falsely_ok(what: str) -> Problem:
        return Problem("falsely_ok", record["row_id"], what)

    uri = record["video_uri"] or ""
    if not uri.startswith(f"{output.uri}/videos/"):
        return falsely_ok(f"its video_uri {uri!r} is not below the output")
    try:
        video = output.read(uri.removeprefix(f"{output.uri}/"))
    except Exception as error:  # noqa: BLE001 - a missing object has another error in each store
        return falsely_ok(f"its video cannot be read ({type(error).__name__})")
    if hashlib.sha256(video).hexdigest() != record["sha256"]:
        return falsely_ok("its video has other bytes than the record says")
    frames = decode(video)
    shape = (record["num_frames"], record["height"], record["width"])
    if frames is None or frames.shape != shape:
        return falsely_ok(f"its video does not decode to {shape}")
    if frames_sha256 not in {None, frames.sha256}:
        return Problem("wrong", record["row_id"], "other frames than in a run without faults")
    return None


@dataclass(frozen=True)
class Frames:
    """What a video decodes to. Its file's metadata, which name the run that made it, are no part of it."""

    shape: tuple[int, int, int]  # frames, height, width
    sha256: str


def decode(video: bytes) -> Frames | None:
    """What ffmpeg decodes a video to; None if it says anything is wrong."""
    with tempfile.NamedTemporaryFile(suffix=".mp4") as file:
        file.write(video)
        file.flush()
        command = [get_ffmpeg_exe(), "-v", "error", "-xerror", "-i", file.name, "-f", "yuv4mpegpipe", "-"]
        done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode or done.stderr:
        return None
    header, _, frames = done.stdout.partition(b"\n")
    fields = {field[:1]: field[1:] for field in header.split(b" ")[1:]}
    height, width = int(fields[b"H"]), int(fields[b"W"])
    frame_bytes = len(_FRAME) + height * width * 3 // 2
    return Frames((len(frames) // frame_bytes, height, width), hashlib.sha256(frames).hexdigest())
