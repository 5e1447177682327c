"""Reads the depth of videos, one array file each; those that are there already are left as they are."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
import torch

from actors.clip_reader import ClipReader
from actors.depth_estimator import DepthEstimator
from actors.storage import Storage, join
from schemas.depth_run import ExtractDepthRun
from schemas.record import RowError
from schemas.run import UsageError
from schemas.training import VIDEO_SUFFIXES


@dataclass(frozen=True)
class Extracted:
    """What became of one video: the array file, and why there is none."""

    video: str
    output: str
    error: str | None = None
    is_new: bool = True


def extract_depth(run: ExtractDepthRun) -> Iterator[Extracted]:
    """The depth of every video, as it is done. What fails is told, and the others go on.

    Raises:
        UsageError: there is no video, or the model is none.
        InfrastructureError: the storage cannot be reached.
    """
    storage = Storage(run.limits)
    pairs = list(_pairs(storage, run))
    if not pairs:
        raise UsageError(f"videos = {run.videos!r}: no video is there ({', '.join(VIDEO_SUFFIXES)})")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    estimator = DepthEstimator(
        storage.local_copy(run.depth_model), device, invert=run.invert, batch_size=run.batch_size
    )
    reader = ClipReader(run.limits, run.short_side)
    for video, output in pairs:
        if storage.exists(output):
            yield Extracted(video, output, is_new=False)
            continue
        try:
            data, _ = storage.fetch(video, run.limits.max_video_bytes)
            clip = reader.read(data)
        except RowError as error:
            yield Extracted(video, output, error.message)
            continue
        if not clip.is_whole:
            yield Extracted(
                video,
                output,
                f"it has more frames than limits.max_video_frames = {run.limits.max_video_frames}",
            )
            continue
        file = io.BytesIO()
        np.save(file, estimator.depth(clip.frames_THWC), allow_pickle=False)
        storage.write_bytes(output, file.getvalue())
        yield Extracted(video, output)


def _pairs(storage: Storage, run: ExtractDepthRun) -> Iterator[tuple[str, str]]:
    """Each video and where its depth goes: the same path below the output.

    Raises:
        UsageError: two videos would share one.
    """
    if _is_video(run.videos):
        found = {PurePosixPath(run.videos).name: run.videos}
    else:
        uris = sorted(stat.uri for stat in storage.list(run.videos + "/"))
        root = run.videos.removeprefix("file://") + "/"
        found = {uri[uri.find(root) + len(root) :]: uri for uri in uris if _is_video(uri)}
    taken: dict[str, str] = {}
    for path, uri in found.items():
        output = join(run.output, str(PurePosixPath(path).with_suffix(".npy")))
        if output in taken:
            raise UsageError(f"videos: {taken[output]} and {uri} would have the same depth file {output}")
        taken[output] = uri
        yield uri, output


def _is_video(uri: str) -> bool:
    return PurePosixPath(uri).suffix.lower().removeprefix(".") in VIDEO_SUFFIXES
