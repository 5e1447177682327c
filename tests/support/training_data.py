"""Small training manifests whose pixels tell where they come from."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from actors.video_codec import encode_mp4


def write_picture(path: Path, seed: int, size: tuple[int, int] = (48, 40)) -> str:
    """Noise of one seed, width x height."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return str(path)


def write_clip(
    path: Path, level: int, frames: int = 6, size: tuple[int, int] = (32, 32), step: int = 8
) -> str:
    """Frame t is grey of the brightness `level + step * t`, width x height."""
    levels = (level + step * np.arange(frames)).astype(np.uint8)
    encode_mp4(np.broadcast_to(levels[:, None, None, None], (frames, size[1], size[0], 3)), path, 8, 1)
    return str(path)


def write_manifest(path: Path, rows: list[dict[str, Any]]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    schema = pa.schema([pa.field(name, pa.string()) for name in names])
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)
    return str(path)


def write_world(folder: Path, images: int = 5, videos: int = 3) -> str:
    """A manifest of pictures (two styles, in turn) and real videos."""
    rows: list[dict[str, Any]] = []
    for index in range(images):
        uri = Path(write_picture(folder / f"{index}.png", index)).name
        rows.append({"uri": uri, "caption": f"picture {index}", "style_id": "ab"[index % 2]})
    for index in range(videos):
        uri = Path(write_clip(folder / f"{index}.mp4", 40 * index)).name
        rows.append({"uri": uri, "caption": f"video {index}", "style_id": None})
    return write_manifest(folder / "world.parquet", rows)
