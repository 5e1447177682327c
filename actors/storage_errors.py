"""What can go wrong with an object, and what is known of one. `actors.storage` re-exports all of it."""

from typing import NamedTuple

from actors.uris import redact
from schemas.run import InfrastructureError


class ObjectStat(NamedTuple):
    """What is known of one object without reading it.

    `version` changes when the content does: S3's ETag; http's ETag, else "Last-Modified/length", else
    "sha256-<hash>"; a local file's SHA-256, so that copies and clones of a folder keep their keys. In the
    entries of `Storage.list` a local file has "<size>-<mtime in ns>" instead, which costs no reading.
    """

    uri: str
    size_bytes: int
    version: str


class StorageError(Exception):
    """An object could not be read, written or listed. `uri` and the message hold no secrets."""

    def __init__(self, message: str, uri: str):
        self.uri = redact(uri)
        self.message = redact(message)
        super().__init__(self.message, self.uri)

    def __str__(self) -> str:
        return self.message


class ObjectNotFound(StorageError):  # noqa: N818 - named like the record's error class
    """There is no such object (or its bucket or folder is missing)."""


class AccessDenied(StorageError, InfrastructureError):  # noqa: N818
    """The store knows us and refuses. For a row's own input, `actors.assets` makes it that row's error."""


class UriForbidden(StorageError):  # noqa: N818
    """The run's config, or the rules for input URIs, do not allow this address."""


class TooLarge(StorageError):  # noqa: N818
    """The object holds more bytes than the caller allows."""


class StorageUnavailable(StorageError, InfrastructureError):  # noqa: N818
    """The store cannot be used: unreachable, failing after all retries, bad credentials, disk full."""


class StorageTimeout(StorageUnavailable):
    """The store answers too slowly: one request took longer than its time limit."""


def check_size(uri: str, size_bytes: int, max_bytes: int | None) -> None:
    """Raises TooLarge where an object of this size is larger than allowed (None: any size is)."""
    if max_bytes is not None and size_bytes > max_bytes:
        raise TooLarge(f"{uri} holds {size_bytes} bytes or more; at most {max_bytes} are allowed", uri)
