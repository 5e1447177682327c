"""Runs that render nothing: every row gets a commit and a few bytes for an MP4, as fast as the disk takes them.

For benchmarks and tests of what surrounds rendering. No job can reach it.
"""

import hashlib
import json
import os
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from actors.commits import record_json
from actors.parallel import parallel_map
from actors.records import Provenance, finished_record
from actors.storage import join
from pipeline.commit_index import asked_of
from pipeline.prepare import PreparedRun
from schemas.manifest import manifest_schema
from schemas.planned import PlannedRow

NULL_MP4 = b"not a video"
_SCHEMA = manifest_schema(["row_id", "prompt", "style_image_uri"])
_BATCH_ROWS = 10_000
_WRITTEN_TOGETHER = 50
_MODEL_FILES = {
    "generation_config.json": {
        "engine": "stylecrafter",
        "trained": False,
        "num_frames": 8,
        "height": 64,
        "width": 64,
        "num_inference_steps": 4,
    },
    "unet/config.json": {"block_out_channels": [32, 64]},
    "vae/config.json": {"block_out_channels": [32, 64]},
    "model_index.json": {},
}


def write_null_model(folder: Path) -> str:
    """The small files of a model directory that a plan reads."""
    for name, body in _MODEL_FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(body))
    (folder / "fingerprint").write_text(hashlib.sha256(b"null").hexdigest())
    return str(folder)


def write_manifest(path: Path, rows: int, styles: int) -> str:
    """A manifest of distinct prompts in `styles` style pictures, which are written beside it."""
    folder = path.parent / "styles"
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(styles):
        (folder / f"{number:04d}.png").write_bytes(b"picture %d" % number)
    numbers = iter(range(rows))
    with pq.ParquetWriter(path, _SCHEMA, compression="zstd") as file:
        while some := list(islice(numbers, _BATCH_ROWS)):
            file.write_table(pa.Table.from_pylist([_row(number, styles) for number in some], schema=_SCHEMA))
    return str(path)


def _row(number: int, styles: int) -> dict[str, object]:
    return {
        "row_id": f"row-{number:08d}",
        "prompt": f"A field of sunflowers on a sunny day, number {number}, painted as in the reference",
        "style_image_uri": [f"styles/{number % styles:04d}.png"],
    }


def rows_of(prepared: PreparedRun) -> Iterator[PlannedRow]:
    """The rows to render, unit by unit."""
    return (row for unit in prepared.units() for row in unit)


def render_null(
    rows: Iterable[PlannedRow], output: str, provenance: Provenance, mp4: bytes = NULL_MP4
) -> None:
    """Commits rows with these bytes as their MP4, without waiting for the disk."""
    for folder in ("videos", "commits"):
        for prefix in range(256):
            Path(output, folder, f"{prefix:02x}").mkdir(parents=True, exist_ok=True)
    sha256 = hashlib.sha256(mp4).hexdigest()

    outcome = {"sha256": sha256, "size_bytes": len(mp4), "clip_text": 0.25, "timings": {"denoise_s": 1.5}}

    def write(some: list[PlannedRow]) -> None:
        same = finished_record(some[0], provenance, **outcome)
        for row in some:
            record_id = row.record_id
            video_uri = f"{output}/videos/{row.row_key[:2]}/{row.row_key}.mp4"
            own = {"row_key": row.row_key, "record_id": record_id, "video_uri": video_uri}
            _write(video_uri, mp4)
            record = same | asked_of(row, provenance) | own
            _write(f"{output}/commits/{record_id[:2]}/{record_id}.json", record_json(record))

    deque(parallel_map(write, _chunks(rows)), maxlen=0)


def _chunks(rows: Iterable[PlannedRow]) -> Iterator[list[PlannedRow]]:
    waiting = iter(rows)
    while some := list(islice(waiting, _WRITTEN_TOGETHER)):
        yield some


def _write(path: str, data: bytes) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.write(file, data)
    os.close(file)


def write_run_files(prepared: PreparedRun) -> None:
    """What a run keeps of its config and plan, for `jobs.reconcile` and for the next run."""
    for name, body in (("config", prepared.run.model_dump(mode="json")), ("plan", prepared.description)):
        prepared.storage.write_bytes(
            join(prepared.run.output, "run", f"{name}.json"), json.dumps(body).encode()
        )
    prepared.remember_plan()
