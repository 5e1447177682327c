"""Frames to a verified MP4 in the object store, under the name of the row_key."""

import hashlib
import logging
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from actors.storage import ObjectNotFound, Storage, join
from actors.video_codec import VideoError, decode_mp4, encode_mp4, verify_mp4
from schemas.record import ErrorClass, RowError
from schemas.settings import RenderSettings

logger = logging.getLogger(__name__)

_ENCODER_THREADS = 1  # part of what makes equal frames equal bytes; never the machine's


@dataclass(frozen=True)
class PublishedVideo:
    """A video in the object store, verified to decode to these many frames of this size."""

    uri: str
    sha256: str
    size_bytes: int
    duration_s: float
    num_frames: int
    height: int
    width: int
    encode_s: float = 0.0  # 0 for a video that was found
    upload_s: float = 0.0


class Publisher:
    """Encodes, verifies and uploads videos below `{output}/videos`. Safe under threads.

    Raises of every method besides those stated: StorageUnavailable, AccessDenied (both InfrastructureError).
    """

    def __init__(self, storage: Storage, output: str):
        self._storage = storage
        self._root = join(output, "videos")

    def video_uri(self, row_key: str) -> str:
        return join(self._root, row_key[:2], f"{row_key}.mp4")

    def publish(self, row_key: str, frames_THWC: np.ndarray, fps: int, crf: int) -> PublishedVideo:
        """Uploads frames (uint8 THWC RGB) as the row's MP4, once that is encoded and verified.

        Raises:
            RowError: ENCODE_FAILED, with what ffmpeg said.
        """
        started = time.perf_counter()
        uri = self.video_uri(row_key)
        num_frames, height, width = frames_THWC.shape[:3]
        with _private_file(row_key) as path:
            try:
                encode_mp4(frames_THWC, path, fps, crf, _ENCODER_THREADS)
                info = verify_mp4(path, num_frames, height, width)
            except (VideoError, ValueError, OSError) as error:
                raise RowError(
                    ErrorClass.ENCODE_FAILED, f"the video could not be encoded: {error}"
                ) from error
            sha256 = _sha256(path)
            encoded = time.perf_counter()
            self._storage.upload(path, uri)
        return PublishedVideo(
            uri,
            sha256,
            info.size_bytes,
            info.duration_s,
            num_frames,
            height,
            width,
            encode_s=encoded - started,
            upload_s=time.perf_counter() - encoded,
        )

    def find(self, row_key: str, settings: RenderSettings) -> PublishedVideo | None:
        """The row's MP4 if it is there and whole: a run that ended between upload and commit left it."""
        uri = self.video_uri(row_key)
        try:
            data = self._storage.read_bytes(uri)
        except ObjectNotFound:
            return None
        expected = (settings.num_frames, settings.height, settings.width)
        with _private_file(row_key) as path:
            path.write_bytes(data)
            try:
                info = verify_mp4(path, *expected)
            except VideoError as error:
                logger.warning("%s is not adopted and will be rendered again: %s", uri, error)
                return None
        return PublishedVideo(uri, hashlib.sha256(data).hexdigest(), len(data), info.duration_s, *expected)

    def read_frames(self, video: PublishedVideo) -> np.ndarray:
        """The frames of a video that was found, as uint8 THWC RGB: what H.264 kept of them.

        Raises:
            ObjectNotFound: it has gone since.
            RowError: ENCODE_FAILED, if it is no longer the video that was found.
        """
        data = self._storage.read_bytes(video.uri)
        with _private_file("video") as path:
            path.write_bytes(data)
            try:
                return decode_mp4(path, video.num_frames, video.height, video.width)
            except VideoError as error:
                raise RowError(ErrorClass.ENCODE_FAILED, f"{video.uri} cannot be read: {error}") from error


@contextmanager
def _private_file(row_key: str) -> Iterator[Path]:
    """A path in a folder that nobody else may enter and that is always removed."""
    with tempfile.TemporaryDirectory(prefix="stylecrafter-") as folder:
        yield Path(folder, f"{row_key}.mp4")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
