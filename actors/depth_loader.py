"""Depth videos: a video, an array file, one picture or a folder of them; checked, fetched, verified, decoded."""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from actors.clip_reader import ClipReader
from actors.depth_arrays import is_array_file, read_depth_array
from actors.media_decoder import MediaDecoder, is_picture
from actors.storage import ObjectNotFound, ObjectStat, Storage, TooLarge, join, scheme_of
from schemas.identity import digest
from schemas.record import ErrorClass, RowError
from schemas.run import FetchLimits

# Shapes: T frames, H, W pixels.

_SIDE_PX = 1024  # larger videos are scaled down to it while they are decoded; depth is brought to latents' size anyway
_LISTED = 100_000  # of a folder; nobody keeps so much beside the frames of one clip
_FRAME = re.compile(r"(?i)\.(?:png|tiff?)$")
_NUMBER = re.compile(r"\d+")
# An array may be held as it came, as float32, and as what is compared with it.
_BYTES_PER_VALUE = 32


@dataclass(frozen=True)
class DepthVideo:
    """Frames as they are in their file, [T, H, W] or [T, H, W, 1 or 3] of finite numbers, read-only."""

    frames: np.ndarray
    sha256: str  # of the file's bytes, or of a folder's names and bytes


class DepthLoader:
    """Reads what `depth_video_uri` refers to. A location that is no object is the folder of its frames.

    Raises of both methods: RowError or StorageError, as `AssetLoader` says.
    """

    def __init__(self, storage: Storage, limits: FetchLimits, decoder: MediaDecoder):
        self._storage = storage
        self._limits = limits
        self._decoder = decoder
        self._clips = ClipReader(limits, _SIDE_PX)

    def probe(self, location: str) -> ObjectStat:
        """Size and version, without fetching where that can be avoided."""
        most = self._limits.max_video_bytes
        self._storage.check_input(location)
        missing = None
        if not location.endswith("/"):  # else an empty object there only marks the folder
            try:
                return self._storage.stat(location, max_bytes=most)
            except ObjectNotFound as error:
                missing = error
        stats = []
        for name, frame in self._frame_files(location, missing):
            self._storage.check_input(frame)
            stats.append((name, self._storage.stat(frame, max_bytes=self._limits.max_image_bytes)))
        return _of_folder(location, stats, most)

    def load(self, location: str) -> tuple[DepthVideo, ObjectStat]:
        """The frames, and what was read."""
        self._storage.check_input(location)
        if location.endswith("/"):
            return self._load_folder(location, None)
        try:
            data, stat = self._storage.fetch(location, self._limits.max_video_bytes)
        except ObjectNotFound as missing:
            return self._load_folder(location, missing)
        return DepthVideo(_checked(self._decoded(data)), hashlib.sha256(data).hexdigest()), stat

    def _decoded(self, data: bytes) -> np.ndarray:
        if is_array_file(data):
            return read_depth_array(data, self._limits.decode_memory_bytes // _BYTES_PER_VALUE)
        if is_picture(data):
            return self._decoder.decode_grey(data)[None]
        clip = self._clips.read(data)
        if not clip.is_whole:
            allowed = f"at most {self._limits.max_video_frames} are allowed"
            raise RowError(ErrorClass.ASSET_TOO_LARGE, f"the video has more frames than that: {allowed}")
        return clip.frames_THWC

    def _load_folder(self, location: str, missing: ObjectNotFound | None) -> tuple[DepthVideo, ObjectStat]:
        frames: list[np.ndarray] = []
        stats = []
        contents = hashlib.sha256()
        for name, uri in self._frame_files(location, missing):
            self._storage.check_input(uri)
            data, stat = self._storage.fetch(uri, self._limits.max_image_bytes)
            stats.append((name, stat))
            contents.update(f"{name}\0{len(data)}\0".encode(errors="surrogateescape") + data)
            frames.append(self._decoder.decode_grey(data))
            if frames[-1].shape != frames[0].shape:
                found, first = (f"{f.shape[1]} x {f.shape[0]}" for f in (frames[-1], frames[0]))
                message = f"{name} has {found} pixels and the first frame {first}; all must be equal"
                raise RowError(ErrorClass.ASSET_UNDECODABLE, message)
            if sum(frame.nbytes for frame in frames) > self._limits.decode_memory_bytes:
                allowed = f"at most {self._limits.decode_memory_bytes} bytes of frames are allowed"
                raise RowError(ErrorClass.ASSET_TOO_LARGE, f"the folder is too large to decode; {allowed}")
        folder = _of_folder(location, stats, self._limits.max_video_bytes)
        return DepthVideo(_checked(np.stack(frames)), contents.hexdigest()), folder

    def _frame_files(self, location: str, missing: ObjectNotFound | None) -> list[tuple[str, str]]:
        """Name and location of a folder's frames, in the order of the numbers in their names."""
        missing = missing or ObjectNotFound(f"{location} holds no frames (.png or .tif)", location)
        if scheme_of(location) not in {"file", "s3"}:
            raise missing
        root = location.rstrip("/")
        names = list(islice(self._names(root), self._limits.max_video_frames + 1))
        if not names:
            raise missing
        if len(names) > self._limits.max_video_frames:
            message = f"{location} has more frames than the {self._limits.max_video_frames} allowed"
            raise TooLarge(message, location)
        return [(name, join(root, name)) for name in sorted(names, key=_frame_order)]

    def _names(self, root: str) -> Iterator[str]:
        for stat in islice(self._storage.list(root + "/"), _LISTED):
            name = stat.uri.rsplit("/", 1)[-1]
            if _FRAME.search(name) and not name.startswith(".") and stat.uri.rsplit("/", 1)[0] == root:
                yield name


def _frame_order(name: str) -> tuple[list[int], str]:
    return [int(number) for number in _NUMBER.findall(name)], name


def _of_folder(location: str, stats: list[tuple[str, ObjectStat]], max_bytes: int) -> ObjectStat:
    size = sum(stat.size_bytes for _, stat in stats)
    if size > max_bytes:
        raise TooLarge(f"{location} holds {size} bytes of frames; at most {max_bytes} are allowed", location)
    return ObjectStat(location, size, digest([[name, stat.version] for name, stat in stats]))


def _checked(frames: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        if frames.dtype.kind == "f" and not np.isfinite(frames.astype(np.float32, copy=False)).all():
            message = "the depth has values that are not finite in 32 bits; allowed are finite numbers"
            raise RowError(ErrorClass.ASSET_UNDECODABLE, message)
    if frames.flags.writeable:
        frames.flags.writeable = False
    return frames
