"""Style images and depth videos: checked, fetched, verified against the plan, decoded and cached."""

import hashlib
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from actors.depth_loader import DepthLoader, DepthVideo
from actors.lru import LruCache
from actors.media_decoder import MediaDecoder
from actors.storage import (
    AccessDenied,
    ObjectNotFound,
    ObjectStat,
    Storage,
    StorageError,
    StorageTimeout,
    StorageUnavailable,
    TooLarge,
    UriForbidden,
    redact,
    scheme_of,
)
from schemas.planned import AssetRef
from schemas.record import ErrorClass, RowError, Status
from schemas.run import FetchLimits

T = TypeVar("T")

_ERROR_CLASSES: tuple[tuple[type[StorageError], ErrorClass], ...] = (
    (ObjectNotFound, ErrorClass.ASSET_NOT_FOUND),
    (AccessDenied, ErrorClass.ASSET_FORBIDDEN),
    (UriForbidden, ErrorClass.URI_FORBIDDEN),
    (TooLarge, ErrorClass.ASSET_TOO_LARGE),
    (StorageTimeout, ErrorClass.ASSET_TIMEOUT),
    (StorageUnavailable, ErrorClass.ASSET_UNAVAILABLE),
)


@dataclass(frozen=True)
class StyleImage:
    """A decoded style reference."""

    pixels: np.ndarray  # uint8 HWC RGB, read-only
    sha256: str  # of the file's bytes


@dataclass(frozen=True)
class RowAssets:
    """What a row is rendered from, besides its text."""

    images: list[StyleImage] = field(default_factory=list)
    depth: DepthVideo | None = None


class AssetLoader:
    """Reads what manifest rows refer to. Safe under threads; an asset wanted by several is fetched once.

    A strange web server that is down is its rows' failure. An object store or disk that is down is not: it
    would fail every row alike, so StorageUnavailable is passed on and ends the run, to be continued later.

    Args:
        cache_bytes: decoded pictures kept, by least recent use; and as many bytes of depth.
    """

    def __init__(self, storage: Storage, limits: FetchLimits, cache_bytes: int = 256 * 2**20):
        self._storage = storage
        self._limits = limits
        self._decoder = MediaDecoder(limits)
        self._cache: LruCache[StyleImage] = LruCache(
            cache_bytes, lambda image: image.pixels.nbytes, name="style_image"
        )
        self._depth = DepthLoader(storage, limits, self._decoder)
        self._depth_cache: LruCache[DepthVideo] = LruCache(
            cache_bytes, lambda depth: depth.frames.nbytes, name="depth_video"
        )
        self._loading: dict[tuple[str, ...], Future[object]] = {}
        self._lock = threading.Lock()

    def probe(self, location: str) -> ObjectStat:
        """What the plan needs to know of an asset, without fetching it where that can be avoided.

        Raises:
            RowError: it may not, or cannot, be read, or it is too large.
            StorageUnavailable: the object store itself does not answer.
        """
        try:
            self._storage.check_input(location)
            return self._storage.stat(location, max_bytes=self._limits.max_image_bytes)
        except StorageError as error:
            raise row_error(error, location) from error

    def probe_depth(self, location: str) -> ObjectStat:
        """The same of a depth video, which may be a folder.

        Raises:
            RowError, StorageUnavailable: as `probe`.
        """
        try:
            return self._depth.probe(location)
        except StorageError as error:
            raise row_error(error, location) from error

    def style_image(self, ref: AssetRef) -> StyleImage:
        """The asset as it was planned.

        Raises:
            RowError: it may not, or cannot, be read or decoded, or it changed since the plan.
            StorageUnavailable: the object store itself does not answer.
        """
        return self._once("image", ref, self._cache, self._load_image)

    def depth_video(self, ref: AssetRef) -> DepthVideo:
        """The same of a depth video."""
        return self._once("depth", ref, self._depth_cache, self._load_depth)

    def _once(self, kind: str, ref: AssetRef, cache: LruCache[T], load: Callable[[AssetRef], T]) -> T:
        key = (kind, ref.location, ref.version)
        with self._lock:
            loading = self._loading.get(key)
            if loading is None:
                mine: Future[object] = Future()
                self._loading[key] = mine
        if loading is not None:
            return loading.result()  # type: ignore[return-value]
        try:
            found = cache.get(key, lambda: load(ref))
            mine.set_result(found)
            return found
        except BaseException as error:
            mine.set_exception(error)
            raise
        finally:
            with self._lock:
                del self._loading[key]

    def close(self) -> None:
        """Ends the decoder's process."""
        self._decoder.close()

    def _load_image(self, ref: AssetRef) -> StyleImage:
        try:
            self._storage.check_input(ref.location)
            data, stat = self._storage.fetch(ref.location, self._limits.max_image_bytes)
        except StorageError as error:
            raise row_error(error, ref.location) from error
        _check_version(ref, stat)
        try:
            pixels = self._decoder.decode_image(data)
        except RowError as error:
            raise _named(error, ref) from None
        pixels.flags.writeable = False
        return StyleImage(pixels, hashlib.sha256(data).hexdigest())

    def _load_depth(self, ref: AssetRef) -> DepthVideo:
        try:
            found, stat = self._depth.load(ref.location)
        except StorageError as error:
            raise row_error(error, ref.location) from error
        except RowError as error:
            raise _named(error, ref) from None
        _check_version(ref, stat)
        return found


def _check_version(ref: AssetRef, stat: ObjectStat) -> None:
    if stat.version != ref.version:
        raise RowError(
            ErrorClass.ASSET_CHANGED,
            f"{redact(ref.uri)} changed after the run was planned: version {ref.version} then, {stat.version} "
            "now; start the run again to plan with the new one",
        )


def _named(error: RowError, ref: AssetRef) -> RowError:
    return RowError(error.error_class, f"{redact(ref.uri)}: {error.message}", error.status)


def row_error(error: StorageError, location: str) -> RowError:
    """The row's error for one of the storage's, unless the storage as a whole is what failed."""
    if isinstance(error, StorageUnavailable) and scheme_of(location) not in {"http", "https"}:
        raise error
    error_class = next(found for kind, found in _ERROR_CLASSES if isinstance(error, kind))
    # What the config forbids stays forbidden: trying such a row again cannot help.
    status = Status.INVALID if error_class is ErrorClass.URI_FORBIDDEN else Status.FAILED
    return RowError(error_class, str(error), status)
