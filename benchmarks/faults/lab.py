"""What all scenarios share: a tiny model, rows with pictures of their own, and their videos from a run without faults."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from benchmarks.faults.audit import Expected, Identity, decode
from benchmarks.faults.outputs import LocalOutput
from examples.untrained_model import build_untrained_pipeline
from schemas.manifest import manifest_schema

ROOT = Path(__file__).resolve().parent.parent.parent
_PICTURE_SIDE = 40
_TWO_SAMPLES_EVERY = 8
_SUBJECTS = ("fox", "lighthouse", "tram", "windmill", "heron", "bridge", "kite")

Row = dict[str, Any]


@dataclass
class Lab:
    """A working folder: `base/` holds manifests and pictures (rows name them relative to it), `model/` the model.

    `environment` is what every run of the product sees, `reference` the sha256 of each good video's frames; there
    are `pool_rows` good rows.
    """

    folder: Path
    seed: int
    mutation: str | None
    environment: dict[str, str]
    reference: dict[Identity, str]
    pool_rows: int

    @property
    def base(self) -> Path:
        return self.folder / "base"

    @property
    def model(self) -> Path:
        return self.folder / "model"

    def pool(self, count: int) -> list[Row]:
        """The first good rows."""
        assert count <= self.pool_rows, f"{count} rows are more than the pool's {self.pool_rows}"
        return [_pool_row(index) for index in range(count)]

    def expected(self, rows: Sequence[Row]) -> dict[Identity, Expected]:
        """What must come of good rows: ok, with the frames of the run without faults."""
        return {
            identity: Expected(frames_sha256=self.reference.get(identity))
            for row in rows
            for identity in _identities(row)
        }


def write_lab(folder: Path, pool_rows: int) -> None:
    """Model and pictures of a new lab."""
    (folder / "base" / "styles").mkdir(parents=True)
    pipeline = build_untrained_pipeline(seed=1, channels=(32, 32), layers_per_block=1)
    pipeline.generation_config |= {"height": 32, "width": 32, "num_frames": 2, "num_inference_steps": 1}
    pipeline.save_pretrained(folder / "model")
    for index in range(pool_rows):
        write_picture(folder / "base" / _pool_row(index)["style_image_uri"][0], index)


def write_picture(path: Path, seed: int) -> None:
    """A small picture of noise, always the same for a seed."""
    noise = np.random.default_rng(seed).integers(0, 256, (_PICTURE_SIDE, _PICTURE_SIDE, 3), dtype=np.uint8)
    Image.fromarray(noise // (1 + seed % 4)).save(path)


def write_manifest(path: Path, rows: Sequence[Row]) -> None:
    """The rows as one Parquet file."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    pq.write_table(pa.Table.from_pylist(list(rows), schema=manifest_schema(columns)), path)


def put_lab(lab: Lab, client: Any, manifest: str) -> None:
    """Puts the model, the pool's pictures and a manifest into the bucket `styles`, at the same relative places."""
    pictures = [lab.base / row["style_image_uri"][0] for row in lab.pool(lab.pool_rows)]
    files = [lab.base / manifest, *pictures]
    keys = {str(path.relative_to(lab.base)): path for path in files}
    keys |= {str(path.relative_to(lab.folder)): path for path in lab.model.rglob("*") if path.is_file()}
    for key, path in keys.items():
        client.put_object(Bucket="styles", Key=key, Body=path.read_bytes())


def video_hashes(output: LocalOutput) -> dict[Identity, str]:
    """The sha256 of every record's frames.

    Raises:
        ValueError: a record is not ok, or its video does not decode.
    """
    found = {}
    for name in output.names("records"):
        for record in pq.read_table(Path(output.uri, name)).to_pylist():
            if record["status"] != "ok":
                raise ValueError(f"row {record['row_id']} failed without any fault: {record['error']}")
            frames = decode(Path(record["video_uri"]).read_bytes())
            if frames is None:
                raise ValueError(f"row {record['row_id']}: {record['video_uri']} does not decode")
            found[record["row_id"], record["sample_index"]] = frames.sha256
    return found


def run_environment(folder: Path, ray_folder: Path) -> dict[str, str]:
    """The environment of every run of the product: nothing of the caller's cluster or store."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "RAY_"))}
    return inherited | {
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": str(ROOT),
        "RAY_ADDRESS": "local",
        "RAY_worker_niceness": "0",  # else the workers of a cluster (15) starve beside anything else
        "RAY_USAGE_STATS_ENABLED": "0",  # one process less in each run
        "RAY_TMPDIR": str(ray_folder),
        "STYLECRAFTER_CACHE": str(folder / "cache"),
        "NO_PROXY": "127.0.0.1,localhost",
    }


def _pool_row(index: int) -> Row:
    return {
        "row_id": f"r{index:03d}",
        "prompt": f"A {_SUBJECTS[index % len(_SUBJECTS)]} in the rain, number {index}",
        "style_image_uri": [f"styles/r{index:03d}.png"],
        "num_samples": 2 if index % _TWO_SAMPLES_EVERY == _TWO_SAMPLES_EVERY - 1 else 1,
    }


def _identities(row: Row) -> list[Identity]:
    return [(row["row_id"], sample) for sample in range(row.get("num_samples") or 1)]
