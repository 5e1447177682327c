"""The one door to object storage: local paths, s3://, and http(s):// for reading.

Reads and writes have limits of time and bytes, transient errors are retried a bounded number of times, and
whatever goes wrong is one of the errors below, in a sentence without secrets. What is behind the door:
`storage_local`, `storage_s3`, `storage_http` (one store each), `storage_guard` (which addresses manifest rows
may name), `storage_copy` (a model directory on this node), `uris`, `retries`.
"""

import fnmatch
import io
import os
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pyarrow.fs
from fsspec.utils import glob_translate

from actors.retries import RetryPolicy
from actors.storage_copy import copy_tree, default_cache_dir
from actors.storage_errors import (
    AccessDenied,
    ObjectNotFound,
    ObjectStat,
    StorageError,
    StorageTimeout,
    StorageUnavailable,
    TooLarge,
    UriForbidden,
)
from actors.storage_file import ObjectFile
from actors.storage_guard import check_location
from actors.storage_http import HttpSource
from actors.storage_local import LocalStore
from actors.storage_s3 import S3Store
from actors.uris import absolute_path, is_local, join, local_path, redact, resolve, scheme_of
from schemas.run import FetchLimits

__all__ = [
    "AccessDenied",
    "ObjectNotFound",
    "ObjectStat",
    "Storage",
    "StorageError",
    "StorageTimeout",
    "StorageUnavailable",
    "TooLarge",
    "UriForbidden",
    "is_local",
    "join",
    "redact",
    "resolve",
    "scheme_of",
]
_GLOB_CHARACTERS = re.compile(r"[*?\[]")
Uris = list[str]  # `Storage.list` hides the name inside the class


class Storage:
    """Objects by URI. One instance per process, safe under its threads; picklable (it holds no connection).

    Args:
        limits: time, retries and sizes of reads; which inputs are allowed.
        patience_s: how long a transient error of the object store is retried beyond `limits.fetch_retries`:
            the outage that a run survives.

    Every method raises a `StorageError`: ObjectNotFound, AccessDenied, UriForbidden (also for a scheme that the
    method cannot use), TooLarge, StorageTimeout or StorageUnavailable.
    """

    def __init__(self, limits: FetchLimits | None = None, patience_s: float = 0.0):
        limits = limits or FetchLimits()
        self._limits = limits
        self._local = LocalStore()
        self._s3 = S3Store(limits, RetryPolicy(limits.fetch_retries, patience_s))
        self._http = HttpSource(limits)

    def __getstate__(self) -> dict[str, Any]:
        return {"_limits": self._limits, "_s3": self._s3}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _local=LocalStore(), _http=HttpSource(state["_limits"]))

    def without_patience(self) -> "Storage":
        """The same one for what need not wait for the end of an outage."""
        return Storage(self._limits)

    def check_input(self, location: str) -> None:
        """Refuses what a manifest row may not read (see `FetchLimits.input_schemes` and `input_roots`).

        An http host is looked up here and again, for each hop of a redirect, when it is read: this is for the
        plan, which tells the user early; the later check is the one that protects.

        Raises:
            UriForbidden: with the reason.
        """
        check_location(location, self._limits)
        if scheme_of(location) in {"http", "https"}:
            self._http.check(location)

    def stat(self, uri: str, max_bytes: int | None = None) -> ObjectStat:
        """Size and version of an object.

        Raises:
            TooLarge: it holds more than `max_bytes`; then nothing of it is read.
        """
        return self._reader(uri).stat(uri, max_bytes)

    def exists(self, uri: str) -> bool:
        """Whether there is such an object (a folder is none)."""
        if is_local(uri):
            return self._local.exists(uri)
        try:
            self.stat(uri)
        except ObjectNotFound:
            return False
        return True

    def fetch(self, uri: str, max_bytes: int | None) -> tuple[bytes, ObjectStat]:
        """The whole object and what it was when it was read, from one request.

        Raises:
            TooLarge: it holds more than `max_bytes`; no more than that is read.
        """
        return self._reader(uri).fetch(uri, max_bytes)

    def read_bytes(self, uri: str, max_bytes: int | None = None) -> bytes:
        return self.fetch(uri, max_bytes)[0]

    def open(self, uri: str) -> IO[bytes]:
        """The object as a file to read here and there. Its reads raise as `fetch` does, or OSErrors of a disk."""
        if is_local(uri):
            return self._local.open(uri)
        self._store(uri)
        return io.BufferedReader(ObjectFile(self._s3.stat(uri), self._s3.read_range))

    def write_bytes(self, uri: str, data: bytes) -> None:
        """Writes an object whole or not at all; what was there before stays until then."""
        self._store(uri).write_bytes(uri, data)

    def create(self, uri: str, data: bytes) -> bool:
        """Writes an object where there is none, and returns whether that was so.

        A store that cannot do this in one step writes whatever was there: read back where two may try at once.
        """
        return self._store(uri).create(uri, data)

    def upload(self, local_path: str | os.PathLike[str], uri: str) -> None:
        """Writes a file's content as an object, whole or not at all, and verifies what the store holds."""
        self._store(uri).upload(Path(local_path), uri)

    def list(self, prefix_uri: str) -> Iterator[ObjectStat]:
        """Every object below a folder, as it is found; none where there is no such folder.

        A bucket that does not exist is an ObjectNotFound.

        Not a snapshot: objects that come or go meanwhile may be in it or not. See `ObjectStat.version`.
        """
        return self._store(prefix_uri).list(prefix_uri)

    def delete(self, uri: str) -> None:
        """Removes an object; one that is not there is no error."""
        self._store(uri).delete(uri)

    def expand(self, uri: str) -> Uris:
        """The Parquet files that a file, a folder (all *.parquet below it) or a glob (`**` too) stands for.

        Raises:
            ObjectNotFound: there is none.
        """
        if _is_object_name(uri) and self.exists(uri):
            return [uri]
        pattern = _GLOB_CHARACTERS.search(uri)
        root = uri[: uri.rfind("/", 0, pattern.start()) + 1] if pattern else uri
        matches = re.compile(glob_translate(_plain(uri))).match if pattern else _is_visible_parquet(uri)
        found = sorted(stat.uri for stat in self.list(root or ".") if matches(_plain(stat.uri)))
        if not found:
            kind = (
                "nothing matches it"
                if pattern
                else "there is neither such a file nor a *.parquet file below it"
            )
            raise ObjectNotFound(f"{uri}: {kind}", uri)
        return found

    def arrow_filesystem(self, uri: str) -> tuple[pyarrow.fs.FileSystem, str]:
        """A filesystem for pyarrow and Ray Data, and the URI's path in it. Its errors are OSErrors."""
        if is_local(uri):
            return pyarrow.fs.LocalFileSystem(), absolute_path(uri)
        self._store(uri)
        handler = pyarrow.fs.FSSpecHandler(self._s3.filesystem())
        return pyarrow.fs.PyFileSystem(handler), uri.split("://", 1)[1]

    def local_copy(self, uri: str, cache_dir: str | os.PathLike[str] | None = None) -> Path:
        """A folder's tree as local files: a local folder itself, else a copy, made once per node and version.

        Args:
            cache_dir: where copies are kept; by default $STYLECRAFTER_CACHE, else ~/.cache/stylecrafter.

        Raises:
            ObjectNotFound: there is nothing below the URI.
        """
        if is_local(uri):
            if not local_path(uri).is_dir():
                raise ObjectNotFound(f"{uri} is not a folder", uri)
            return local_path(uri)
        self._store(uri)
        return copy_tree(self._s3, uri, Path(cache_dir) if cache_dir else default_cache_dir())

    def _store(self, uri: str) -> LocalStore | S3Store:
        scheme = scheme_of(uri)
        if scheme == "file":
            return self._local
        if scheme == "s3":
            return self._s3
        raise UriForbidden(f"{uri}: scheme {scheme!r} is not one of file, s3", uri)

    def _reader(self, uri: str) -> LocalStore | S3Store | HttpSource:
        return self._http if scheme_of(uri) in {"http", "https"} else self._store(uri)


def _is_object_name(uri: str) -> bool:
    return is_local(uri) or bool(uri.split("://", 1)[1].partition("/")[2].strip("/"))


def _plain(uri: str) -> str:
    return absolute_path(uri) if is_local(uri) else uri


def _is_visible_parquet(root: str) -> Any:
    """Below `root`, names that begin with "_" or "." belong to tools, as in Spark and Arrow."""
    base = _plain(root).rstrip("/") + "/"

    def matches(path: str) -> bool:
        below = path.removeprefix(base).split("/")
        return fnmatch.fnmatchcase(posixpath.basename(path), "*.parquet") and not any(
            part.startswith(("_", ".")) for part in below
        )

    return matches
