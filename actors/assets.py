"""Style images: checked, fetched, verified against the plan, decoded and cached."""

import hashlib
import threading
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np

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


class AssetLoader:
    """Reads what manifest rows refer to. Safe under threads; an asset wanted by several is fetched once.

    A strange web server that is down is its rows' failure. An object store or disk that is down is not: it
    would fail every row alike, so StorageUnavailable is passed on and ends the run, to be continued later.

    Args:
        cache_bytes: decoded pictures kept, by least recent use.
    """

    def __init__(self, storage: Storage, limits: FetchLimits, cache_bytes: int = 256 * 2**20):
        self._storage = storage
        self._limits = limits
        self._decoder = MediaDecoder(limits)
        self._cache: LruCache[StyleImage] = LruCache(cache_bytes, lambda image: image.pixels.nbytes)
        self._loading: dict[tuple[str, str], Future[StyleImage]] = {}
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

    def style_image(self, ref: AssetRef) -> StyleImage:
        """The asset as it was planned.

        Raises:
            RowError: it may not, or cannot, be read or decoded, or it changed since the plan.
            StorageUnavailable: the object store itself does not answer.
        """
        key = (ref.location, ref.version)
        with self._lock:
            loading = self._loading.get(key)
            if loading is None:
                mine = self._loading[key] = Future()
        if loading is not None:
            return loading.result()
        try:
            mine.set_result(self._cache.get(key, lambda: self._load(ref)))
        except BaseException as error:
            mine.set_exception(error)
            raise
        finally:
            with self._lock:
                del self._loading[key]
        return mine.result()

    def close(self) -> None:
        """Ends the decoder's process."""
        self._decoder.close()

    def _load(self, ref: AssetRef) -> StyleImage:
        try:
            self._storage.check_input(ref.location)
            data, stat = self._storage.fetch(ref.location, self._limits.max_image_bytes)
        except StorageError as error:
            raise row_error(error, ref.location) from error
        shown = redact(ref.uri)
        if stat.version != ref.version:
            raise RowError(
                ErrorClass.ASSET_CHANGED,
                f"{shown} changed after the run was planned: version {ref.version} then, {stat.version} now; "
                "start the run again to plan with the new one",
            )
        try:
            pixels = self._decoder.decode_image(data)
        except RowError as error:
            raise RowError(error.error_class, f"{shown}: {error.message}", error.status) from None
        pixels.flags.writeable = False
        return StyleImage(pixels, hashlib.sha256(data).hexdigest())


def row_error(error: StorageError, location: str) -> RowError:
    """The row's error for one of the storage's, unless the storage as a whole is what failed."""
    if isinstance(error, StorageUnavailable) and scheme_of(location) not in {"http", "https"}:
        raise error
    error_class = next(found for kind, found in _ERROR_CLASSES if isinstance(error, kind))
    # What the config forbids stays forbidden: trying such a row again cannot help.
    status = Status.INVALID if error_class is ErrorClass.URI_FORBIDDEN else Status.FAILED
    return RowError(error_class, str(error), status)
