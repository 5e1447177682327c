"""Frames to a verified MP4, or an image to a PNG or JPEG, in the object store, under the name of the row_key."""

import hashlib
import logging
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from actors.image_codec import decode_image, encode_image, verify_image
from actors.storage import ObjectNotFound, Storage, join
from actors.video_codec import VideoError, decode_mp4, encode_mp4, verify_mp4
from schemas.identity import media_path, media_suffix
from schemas.record import ErrorClass, RowError
from schemas.settings import RenderSettings

logger = logging.getLogger(__name__)

_ENCODER_THREADS = 1  # part of what makes equal frames equal bytes; never the machine's


@dataclass(frozen=True)
class PublishedVideo:
    """A video or image in the object store, verified to decode to these many frames of this size."""

    uri: str
    sha256: str
    size_bytes: int
    duration_s: float | None  # None for an image
    num_frames: int
    height: int
    width: int
    encode_s: float = 0.0  # 0 for a video that was found
    upload_s: float = 0.0


class Publisher:
    """Encodes, verifies and uploads videos and images below `{output}/videos`. Safe under threads.

    Raises of every method besides those stated: StorageUnavailable, AccessDenied (both InfrastructureError).
    """

    def __init__(self, storage: Storage, output: str):
        self._storage = storage
        self._output = output

    def video_uri(self, row_key: str, suffix: str = "mp4") -> str:
        return join(self._output, media_path(row_key, suffix))

    def publish(
        self,
        row_key: str,
        frames_THWC: np.ndarray,
        *,
        fps: int,
        crf: int,
        suffix: str = "mp4",
        jpeg_quality: int = 95,
        comment: str = "",
    ) -> PublishedVideo:
        """Uploads frames (uint8 THWC RGB) as the row's file, once that is encoded and verified.

        Args:
            suffix: see `media_suffix`.
            comment: kept in the file's metadata.

        Raises:
            RowError: ENCODE_FAILED, with what ffmpeg said.
        """
        started = time.perf_counter()
        uri = self.video_uri(row_key, suffix)
        shape = num_frames, height, width = frames_THWC.shape[:3]
        with _private_file(uri) as path:
            try:
                if suffix == "mp4":
                    encode_mp4(frames_THWC, path, fps, crf, _ENCODER_THREADS, comment)
                else:
                    encode_image(frames_THWC, path, comment, jpeg_quality)
                duration_s = _verify(path, *shape)
            except (VideoError, ValueError, OSError) as error:
                raise RowError(
                    ErrorClass.ENCODE_FAILED, f"the {suffix} could not be encoded: {error}"
                ) from error
            sha256 = _sha256(path)
            size_bytes = path.stat().st_size
            encoded = time.perf_counter()
            self._storage.upload(path, uri)
        return PublishedVideo(
            uri,
            sha256,
            size_bytes,
            duration_s,
            num_frames,
            height,
            width,
            encode_s=encoded - started,
            upload_s=time.perf_counter() - encoded,
        )

    def find(self, row_key: str, settings: RenderSettings) -> PublishedVideo | None:
        """The row's file if it is there and whole: a run that ended between upload and commit left it."""
        uri = self.video_uri(row_key, media_suffix(settings.mode, settings.image_format))
        try:
            data = self._storage.read_bytes(uri)
        except ObjectNotFound:
            return None
        expected = (settings.num_frames, settings.height, settings.width)
        with _private_file(uri) as path:
            path.write_bytes(data)
            try:
                duration_s = _verify(path, *expected)
            except VideoError as error:
                logger.warning("%s is not adopted and will be rendered again: %s", uri, error)
                return None
        return PublishedVideo(uri, hashlib.sha256(data).hexdigest(), len(data), duration_s, *expected)

    def read_frames(self, video: PublishedVideo) -> np.ndarray:
        """The frames of what was found, as uint8 THWC RGB: of a video, what H.264 kept of them.

        Raises:
            ObjectNotFound: it has gone since.
            RowError: ENCODE_FAILED, if it is no longer the video that was found.
        """
        data = self._storage.read_bytes(video.uri)
        with _private_file(video.uri) as path:
            path.write_bytes(data)
            try:
                decode = decode_mp4 if path.suffix == ".mp4" else decode_image
                return decode(path, video.num_frames, video.height, video.width)
            except VideoError as error:
                raise RowError(ErrorClass.ENCODE_FAILED, f"{video.uri} cannot be read: {error}") from error


@contextmanager
def _private_file(uri: str) -> Iterator[Path]:
    """A path of the URI's name in a folder that nobody else may enter and that is always removed."""
    with tempfile.TemporaryDirectory(prefix="stylecrafter-") as folder:
        yield Path(folder, uri.rsplit("/", 1)[-1])


def _verify(path: Path, num_frames: int, height: int, width: int) -> float | None:
    """The duration of a file that holds these frames; None for an image.

    Raises:
        VideoError: it does not.
    """
    if path.suffix == ".mp4":
        return verify_mp4(path, num_frames, height, width).duration_s
    verify_image(path, num_frames, height, width)
    return None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
