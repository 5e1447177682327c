"""Objects that are files on this machine."""

import errno
import hashlib
import os
import secrets
import shutil
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

from actors.storage_errors import (
    AccessDenied,
    ObjectNotFound,
    ObjectStat,
    StorageError,
    StorageUnavailable,
    UriForbidden,
    check_size,
)
from actors.uris import local_path, redact

_CHUNK_BYTES = 1 << 20
_MAX_HASHES = 65_536
_NOT_FOUND = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}


class LocalStore:
    """Files. Writes go to a temporary file in the target's folder and are renamed once they are on disk."""

    def __init__(self) -> None:
        self._hashes: dict[tuple[str, int, int], str] = {}
        self._lock = threading.Lock()

    def stat(self, uri: str, max_bytes: int | None = None) -> ObjectStat:
        with _errors_of(uri), _opened(uri) as file:
            size = os.fstat(file.fileno()).st_size
            check_size(uri, size, max_bytes)  # before all of it is hashed
            return ObjectStat(uri, size, self._hash(_path(uri), file))

    def exists(self, uri: str) -> bool:
        with _errors_of(uri):
            return _path(uri).is_file()

    def fetch(self, uri: str, max_bytes: int | None) -> tuple[bytes, ObjectStat]:
        with _errors_of(uri), _opened(uri) as file:
            check_size(uri, os.fstat(file.fileno()).st_size, max_bytes)
            # One byte more than allowed shows that the file has grown since.
            data = file.read() if max_bytes is None else file.read(max_bytes + 1)
        check_size(uri, len(data), max_bytes)
        return data, ObjectStat(uri, len(data), hashlib.sha256(data).hexdigest())

    def open(self, uri: str) -> BufferedReader:
        with _errors_of(uri):
            return _opened(uri)

    def write_bytes(self, uri: str, data: bytes) -> None:
        self._write(uri, lambda file: file.write(data), len(data))

    def create(self, uri: str, data: bytes) -> bool:
        with _errors_of(uri):
            path = _path(uri)
            path.parent.mkdir(parents=True, exist_ok=True)
            whole = path.parent / f".{secrets.token_hex(8)}.tmp"
            try:
                whole.write_bytes(data)
                os.link(whole, path)  # unlike a rename, it does not replace
            except FileExistsError:
                return False
            finally:
                whole.unlink(missing_ok=True)
        return True

    def upload(self, source: Path, uri: str) -> None:
        with source.open("rb") as original:
            size = os.fstat(original.fileno()).st_size
            self._write(uri, lambda file: shutil.copyfileobj(original, file, _CHUNK_BYTES), size)

    def _write(self, uri: str, fill: Callable[[BinaryIO], object], size: int) -> None:
        with _errors_of(uri):
            path = _path(uri)
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.parent / f".{secrets.token_hex(8)}.tmp"
            try:
                with temporary.open("xb") as file:
                    fill(file)
                    file.flush()
                    os.fsync(file.fileno())
                    written = os.fstat(file.fileno()).st_size
                if written != size:
                    raise StorageUnavailable(f"{uri}: {written} of {size} bytes were written", uri)
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)

    def list(self, uri: str) -> Iterator[ObjectStat]:
        with _errors_of(uri):
            root = _path(uri)
            for folder, folders, names in os.walk(root, onerror=_raise_unless_missing):
                folders.sort()
                prefix = str(Path(folder, "x"))[:-1]
                for name in sorted(names):
                    if not _is_temporary(name):
                        yield from _entry(prefix + name)

    def delete(self, uri: str) -> None:
        with _errors_of(uri):
            _path(uri).unlink(missing_ok=True)

    def _hash(self, path: Path, file: BufferedReader) -> str:
        seen = os.fstat(file.fileno())
        key = (os.path.realpath(path), seen.st_size, seen.st_mtime_ns)
        with self._lock:
            if known := self._hashes.get(key):
                return known
        found = hashlib.file_digest(file, "sha256").hexdigest()
        with self._lock:
            if len(self._hashes) >= _MAX_HASHES:
                self._hashes.clear()
            self._hashes[key] = found
        return found


def _path(uri: str) -> Path:
    try:
        return local_path(uri)
    except ValueError as error:
        raise UriForbidden(str(error), uri) from None


def _opened(uri: str) -> BufferedReader:
    """A regular file; a pipe, device or socket would block or never end, so it is refused."""
    descriptor = os.open(_path(uri), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise ObjectNotFound(f"{uri} is a folder, not a file", uri)
    raise UriForbidden(f"{uri} is not a regular file", uri)


def _entry(path: str) -> Iterator[ObjectStat]:
    try:
        seen = os.stat(path)  # noqa: PTH116 - a Path for each of a million files takes longer than the disk
    except FileNotFoundError:  # deleted since its folder was read
        return
    if stat.S_ISREG(seen.st_mode):
        yield ObjectStat(path, seen.st_size, f"{seen.st_size}-{seen.st_mtime_ns}")


def _is_temporary(name: str) -> bool:
    return name.startswith(".") and name.endswith(".tmp")


def _raise_unless_missing(error: OSError) -> None:
    if error.errno not in {errno.ENOENT, errno.ENOTDIR}:
        raise error


@contextmanager
def _errors_of(uri: str) -> Iterator[None]:
    """Turns the system's errors into ours."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        reason = redact(error.strerror or str(error))
        if error.errno in _NOT_FOUND:
            raise ObjectNotFound(f"{uri} was not found ({reason})", uri) from error
        if error.errno in _DENIED:
            raise AccessDenied(
                f"{uri} may not be accessed ({reason}); check its owner and mode", uri
            ) from error
        raise StorageUnavailable(f"{uri} cannot be accessed: {reason}", uri) from error
