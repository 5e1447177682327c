"""Pictures and clips of training rows: checked, fetched, decoded, and kept as long as there is room."""

import numpy as np

from actors.assets import row_error
from actors.clip_reader import Clip, ClipReader
from actors.lru import LruCache
from actors.media_decoder import MediaDecoder
from actors.storage import Storage, StorageError
from actors.training_rows import TrainingRow
from schemas.record import ErrorClass, RowError
from schemas.run import FetchLimits

# Shapes: T frames, H, W pixels, C = 3 channels; uint8, RGB.

_MIN_VIDEO_FRAMES = 2  # less is a picture, and would teach a video model to stand still


class TrainingMedia:
    """Reads what training rows refer to. One per process.

    A file may be replaced while a run goes on; what is in the cache stays as it was.

    Args:
        short_side: larger videos are scaled down to this while they are decoded, pixels.
        cache_bytes: decoded media kept, by least recent use.
    """

    def __init__(self, storage: Storage, limits: FetchLimits, short_side: int, cache_bytes: int):
        self._storage = storage
        self._limits = limits
        self._pictures = MediaDecoder(limits)
        self._clips = ClipReader(limits, short_side)
        self._cache: LruCache[np.ndarray | Clip] = LruCache(cache_bytes, _size_bytes, name="training_media")

    def picture(self, row: TrainingRow) -> np.ndarray:
        """HWC, read-only.

        Raises:
            RowError: it may not, or cannot, be read or decoded.
            InfrastructureError: the object store itself does not answer.
        """
        found = self._cache.get(("picture", row.location), lambda: self._decode_picture(row))
        assert isinstance(found, np.ndarray)
        return found

    def clip(self, row: TrainingRow, num_frames: int, stride: int, random: np.random.Generator) -> np.ndarray:
        """A window of the video of exactly `num_frames`, THWC, `stride` frames of the file apart.

        Where the window begins is drawn from `random`, one number whatever the file is. A shorter video is
        resampled: its whole length, by the nearest frame.

        Raises:
            RowError, InfrastructureError: as for `picture`.
        """
        start = random.random()
        span = (num_frames - 1) * stride + 1
        found = self._whole_clip(row)
        if not found.is_whole:
            return self._window_of_long(row, found, num_frames, stride, start)
        available = len(found.frames_THWC)
        if available < span:
            chosen = np.rint(np.linspace(0, available - 1, num_frames)).astype(np.int64)
        else:
            chosen = int(start * (available - span + 1)) + stride * np.arange(num_frames)
        return found.frames_THWC[chosen]

    def frame(self, row: TrainingRow, where: float) -> np.ndarray:
        """One frame of a video, HWC, at this share (0 to 1) of what is decoded of it.

        Raises:
            RowError, InfrastructureError: as for `picture`.
        """
        frames_THWC = self._whole_clip(row).frames_THWC
        return frames_THWC[int(where * len(frames_THWC))]

    def close(self) -> None:
        """Ends the picture decoder's process."""
        self._pictures.close()

    def _window_of_long(
        self, row: TrainingRow, beginning: Clip, num_frames: int, stride: int, start: float
    ) -> np.ndarray:
        """As `clip`, of a video that is not decoded as a whole: ffmpeg seeks to the window."""
        span = (num_frames - 1) * stride + 1
        latest = beginning.long_frames - span
        first = int(start * (latest + 1))
        frames_THWC = beginning.frames_THWC
        if first + span <= len(frames_THWC) or beginning.fps <= 0:
            first = min(first, len(frames_THWC) - span)
            return frames_THWC[first : first + span : stride]
        # Half a frame early: frames before the given time are dropped, and this one is not.
        found = self._decode_clip(row, (first - 0.5) / beginning.fps, span)
        frames_THWC = found.frames_THWC
        if len(frames_THWC) < span:  # the header promised more than there is
            chosen = np.rint(np.linspace(0, len(frames_THWC) - 1, num_frames)).astype(np.int64)
            return frames_THWC[chosen]
        return frames_THWC[::stride]

    def _whole_clip(self, row: TrainingRow) -> Clip:
        found = self._cache.get(("clip", row.location), lambda: self._decode_clip(row))
        assert isinstance(found, Clip)
        return found

    def _decode_picture(self, row: TrainingRow) -> np.ndarray:
        data = self._fetch(row, self._limits.max_image_bytes)
        try:
            pixels_HWC = self._pictures.decode_image(data)
        except RowError as error:
            raise RowError(error.error_class, f"{row.uri}: {error.message}", error.status) from None
        pixels_HWC.flags.writeable = False
        return pixels_HWC

    def _decode_clip(self, row: TrainingRow, start_s: float = 0.0, max_frames: int | None = None) -> Clip:
        data = self._fetch(row, self._limits.max_video_bytes)
        try:
            clip = self._clips.read(data, start_s=start_s, max_frames=max_frames)
        except RowError as error:
            raise RowError(error.error_class, f"{row.uri}: {error.message}", error.status) from None
        if len(clip.frames_THWC) < _MIN_VIDEO_FRAMES:
            message = f"{row.uri}: the video has 1 frame; at least {_MIN_VIDEO_FRAMES} are needed"
            raise RowError(ErrorClass.ASSET_UNDECODABLE, message)
        return clip

    def _fetch(self, row: TrainingRow, max_bytes: int) -> bytes:
        try:
            self._storage.check_input(row.location)
            return self._storage.read_bytes(row.location, max_bytes)
        except StorageError as error:
            raise row_error(error, row.location) from error


def _size_bytes(value: np.ndarray | Clip) -> int:
    return value.nbytes if isinstance(value, np.ndarray) else value.frames_THWC.nbytes
