"""Writes samples as files with a training manifest, to a folder or an object store."""

import io
import multiprocessing
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from actors.storage import Storage, is_local, join
from actors.uris import absolute_path
from actors.video_codec import encode_mp4
from examples.demo_world.captions import styled_caption
from examples.demo_world.dataset import DEFAULT_STYLES, LOOKS, Look, Sample, clip, still
from examples.demo_world.draw import check_size
from examples.demo_world.world import SPLITS, Split

Kind = Literal["video", "image"]

MANIFEST_NAME = "manifest.parquet"

_CRF = 2  # hardly anything is lost but chroma's resolution, which yuv420p halves
_BATCH = 32
_COLUMNS = pa.schema(
    [
        pa.field("uri", pa.string(), nullable=False),
        pa.field("caption", pa.string(), nullable=False),
        pa.field("style_id", pa.string()),
        pa.field("kind", pa.string(), nullable=False),
        *(
            pa.field(f"meta_{name}", pa.string())
            for name in ("shape", "scene", "motion", "family", "palette")
        ),
        *(pa.field(f"meta_{name}", pa.string()) for name in ("background", "split")),
        pa.field("depth_uri", pa.string()),
        pa.field("meta_index", pa.int64()),
    ]
)


@dataclass(frozen=True)
class Export:
    """What to write where.

    Args:
        output: local folder or s3:// URI.
        styles: number of styles; samples with the same index modulo this share theirs.
        depth: also write each sample's depth, as a grey video or picture.
        name_styles: captions also name the style, as captions of collected pictures do.
        workers: processes that draw and encode.

    Raises:
        ValueError: a field out of range.
    """

    output: str
    clips: int
    stills: int
    seed: int = 0
    split: Split = "train"
    look: Look = "styled"
    styles: int = DEFAULT_STYLES
    size: int = 64
    frames: int = 8
    fps: int = 8
    depth: bool = False
    name_styles: bool = False
    workers: int = 1

    def __post_init__(self) -> None:
        for name, least in (
            ("clips", 0),
            ("stills", 0),
            ("seed", 0),
            ("styles", 1),
            ("fps", 1),
            ("workers", 1),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"{name} = {getattr(self, name)}: must be at least {least}")
        if self.clips + self.stills == 0:
            raise ValueError("clips = 0 and stills = 0: one of them must be at least 1")
        check_size(self.size, self.frames)
        for name, allowed in (("split", SPLITS), ("look", LOOKS)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} = {getattr(self, name)!r}: must be one of {', '.join(allowed)}")


def export(job: Export) -> str:
    """Writes all files and then the manifest, whose URI it returns: if it is there, everything is.

    Raises:
        StorageError: the output cannot be written.
        VideoError: ffmpeg failed.
    """
    batches = [(kind, numbers) for kind in get_args(Kind) for numbers in _batches(job, kind)]
    if job.workers == 1:
        written = [_write_batch(job, kind, numbers) for kind, numbers in batches]
    else:
        # Spawned, not forked: whoever calls this may have threads.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(job.workers, len(batches)), mp_context=context) as pool:
            written = list(pool.map(_write_batch, [job] * len(batches), *zip(*batches, strict=True)))
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(chain.from_iterable(written)), _COLUMNS), buffer)
    uri = join(_root(job), MANIFEST_NAME)
    Storage().write_bytes(uri, buffer.getvalue())
    return uri


def _batches(job: Export, kind: Kind) -> Iterator[range]:
    count = job.clips if kind == "video" else job.stills
    for start in range(0, count, _BATCH):
        yield range(start, min(start + _BATCH, count))


def _write_batch(job: Export, kind: Kind, numbers: range) -> list[dict[str, Any]]:
    storage = Storage()
    write = _write_clip if kind == "video" else _write_still
    return [write(job, number, storage) for number in numbers]


def _write_clip(job: Export, number: int, storage: Storage) -> dict[str, Any]:
    sample = clip(
        job.seed,
        number,
        split=job.split,
        look=job.look,
        size=job.size,
        frames=job.frames,
        styles=job.styles,
    )
    uri = join(_root(job), "clips", f"{number:07d}.mp4")
    _upload_mp4(sample.frames_THWC, uri, job, storage)
    depth_uri = None
    if job.depth:
        depth_uri = join(_root(job), "depth", f"{number:07d}.mp4")
        _upload_mp4(np.repeat(sample.depth_THW[..., None], 3, axis=3), depth_uri, job, storage)
    return _row(job, sample, number, "video", uri) | {"depth_uri": depth_uri}


def _write_still(job: Export, number: int, storage: Storage) -> dict[str, Any]:
    sample = still(job.seed, number, split=job.split, look=job.look, size=job.size, styles=job.styles)
    uri = join(_root(job), "stills", f"{number:07d}.png")
    _upload_png(sample.frames_THWC[0], uri, storage)
    depth_uri = None
    if job.depth:
        depth_uri = join(_root(job), "still_depth", f"{number:07d}.png")
        _upload_png(sample.depth_THW[0], depth_uri, storage)
    return _row(job, sample, number, "image", uri) | {"depth_uri": depth_uri}


def _row(job: Export, sample: Sample, number: int, kind: Kind, uri: str) -> dict[str, Any]:
    labels, moving = sample.labels, kind == "video"
    named = styled_caption(sample.content, sample.style, sample.content.layout, moving)
    return {
        "uri": uri,
        "caption": named if job.name_styles else labels.caption,
        "style_id": labels.style_id,
        "kind": kind,
        "meta_shape": labels.shape,
        "meta_scene": labels.scene,
        "meta_motion": labels.motion if moving else None,
        "meta_family": labels.family,
        "meta_palette": labels.palette,
        "meta_background": labels.background,
        "meta_split": job.split,
        "meta_index": number,
    }


def _upload_png(pixels: np.ndarray, uri: str, storage: Storage) -> None:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    storage.write_bytes(uri, buffer.getvalue())


def _upload_mp4(frames_THWC: np.ndarray, uri: str, job: Export, storage: Storage) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        encode_mp4(frames_THWC, path, job.fps, _CRF)
        storage.upload(path, uri)


def _root(job: Export) -> str:
    """Absolute, so that the manifest may be copied elsewhere."""
    return absolute_path(job.output) if is_local(job.output) else job.output
