"""Objects in S3 or anything that speaks it: s3fs's client, with our time limits, retries and errors.

Endpoint, region and credentials come from the usual environment variables or profile; nothing here holds them.
"""

import asyncio
import base64
import hashlib
import math
import mimetypes
import os
import re
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import s3fs
from botocore.exceptions import ClientError

from actors.retries import RetryPolicy
from actors.storage_errors import ObjectStat, StorageUnavailable, UriForbidden, check_size
from actors.storage_s3_errors import is_forbidden, storage_error
from actors.uris import split_s3
from schemas.run import FetchLimits

T = TypeVar("T")
_CONNECT_TIMEOUT_S = 3.0  # five tries of it and their pauses stay below 20 s
_READ_TIMEOUT_S = 20.0
_SLOWEST_BYTES_PER_S = 2**20  # a transfer may take this much longer per byte than a small request
_CHUNK_BYTES = 2**20
_CLIENT_PAUSE_S = 10.0  # what the client's own retries wait on average, once they wait long
_MAX_CONNECTIONS = 32
_PAGE_KEYS = 1000  # the most that S3 lists at once
_SINGLE_PUT_BYTES = 128 * 2**20  # above, an upload goes in parts
_MD5 = re.compile(r"[0-9a-f]{32}")


class S3Store:
    """S3 objects. The client is made in the process that first uses it (a forked child makes its own)."""

    def __init__(self, limits: FetchLimits, retry: RetryPolicy):
        self._limits = limits
        self._retry = retry
        self._lock = threading.Lock()
        self._filesystems: dict[tuple[int, bool], s3fs.S3FileSystem] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"_limits": self._limits, "_retry": self._retry}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["_limits"], state["_retry"])  # type: ignore[misc]

    def filesystem(self, *, own_retries: bool = True) -> s3fs.S3FileSystem:
        """This process's fsspec filesystem; without `own_retries` its client tries once, as this class retries."""
        key = (os.getpid(), own_retries)
        with self._lock:
            if key not in self._filesystems:
                self._filesystems[key] = self._new_filesystem(own_retries)
            return self._filesystems[key]

    def _new_filesystem(self, own_retries: bool) -> s3fs.S3FileSystem:
        waits = self._limits.fetch_retries + math.ceil(self._retry.patience_s / _CLIENT_PAUSE_S)
        attempts = waits + 1 if own_retries else 1
        return s3fs.S3FileSystem(
            use_listings_cache=False,
            skip_instance_cache=True,
            config_kwargs={
                "connect_timeout": min(_CONNECT_TIMEOUT_S, self._limits.fetch_timeout_s),
                "read_timeout": min(_READ_TIMEOUT_S, self._limits.fetch_timeout_s),
                "retries": {"total_max_attempts": attempts, "mode": "standard"},
                "max_pool_connections": _MAX_CONNECTIONS,
                # Newer checksums are optional for S3 and unknown to many of its relatives; MD5 is not.
                "request_checksum_calculation": "when_required",
                "response_checksum_validation": "when_required",
            },
        )

    def stat(self, uri: str, max_bytes: int | None = None) -> ObjectStat:
        bucket, key = _object(uri)

        async def head(client: Any) -> ObjectStat:
            try:
                found = await client.head_object(Bucket=bucket, Key=key)
            except Exception as error:
                if is_forbidden(error):
                    # HEAD's 403 has no body to say why: GET tells bad credentials from a missing permission.
                    (await client.get_object(Bucket=bucket, Key=key, Range="bytes=0-0"))["Body"].close()
                raise
            check_size(uri, found["ContentLength"], max_bytes)
            return ObjectStat(uri, found["ContentLength"], _version(found))

        return self._run(uri, head)

    def fetch(self, uri: str, max_bytes: int | None) -> tuple[bytes, ObjectStat]:
        bucket, key = _object(uri)

        async def get(client: Any) -> tuple[bytes, ObjectStat]:
            data = bytearray()
            found = await _receive(client, uri, bucket, key, max_bytes, data.extend)
            return bytes(data), ObjectStat(uri, len(data), _version(found))

        return self._run(uri, get)

    def download(self, stat: ObjectStat, target: Path) -> None:
        """Writes an object to a file; one that is no longer the object of `stat` is an error."""
        bucket, key = _object(stat.uri)

        async def get(client: Any) -> None:
            with target.open("wb") as file:
                found = await _receive(client, stat.uri, bucket, key, None, file.write)
            if _version(found) != stat.version:
                raise StorageUnavailable(f"{stat.uri} changed while it was downloaded", stat.uri)

        self._run(stat.uri, get, size_bytes=stat.size_bytes)

    def read_range(self, stat: ObjectStat, start: int, size: int) -> bytes:
        """A part of an object; one that is no longer the object of `stat` is an error."""
        bucket, key = _object(stat.uri)

        async def get(client: Any) -> bytes:
            data = bytearray()
            span = f"bytes={start}-{start + size - 1}"
            found = await _receive(client, stat.uri, bucket, key, size, data.extend, Range=span)
            if _version(found) != stat.version or len(data) != size:
                raise StorageUnavailable(f"{stat.uri} changed while it was read", stat.uri)
            return bytes(data)

        return self._run(stat.uri, get, size_bytes=size)

    def write_bytes(self, uri: str, data: bytes) -> None:
        bucket, key = _object(uri)
        md5 = hashlib.md5(data, usedforsecurity=False)

        async def put(client: Any) -> None:
            answer = await client.put_object(
                Bucket=bucket,
                Key=key,
                Body=data,
                ContentMD5=base64.b64encode(md5.digest()).decode(),
                ContentType=mimetypes.guess_type(key)[0] or "application/octet-stream",
            )
            await _verify(client, uri, answer, md5.hexdigest(), len(data))

        self._run(uri, put, writing=True, size_bytes=len(data))

    def create(self, uri: str, data: bytes) -> bool:
        bucket, key = _object(uri)

        async def put(client: Any) -> bool:
            try:
                await client.put_object(Bucket=bucket, Key=key, Body=data, IfNoneMatch="*")
            except ClientError as error:
                if error.response["ResponseMetadata"]["HTTPStatusCode"] in {409, 412}:
                    return False
                raise
            return True

        return self._run(uri, put, writing=True, size_bytes=len(data))

    def upload(self, source: Path, uri: str) -> None:
        size = source.stat().st_size
        if size <= _SINGLE_PUT_BYTES:
            self.write_bytes(uri, source.read_bytes())
            return
        bucket, key = _object(uri)
        filesystem = self.filesystem(own_retries=False)

        async def put_parts(client: Any) -> None:
            await filesystem._put_file(str(source), f"{bucket}/{key}", chunksize=_SINGLE_PUT_BYTES // 2)
            await _verify_size(client, uri, size)

        self._run(uri, put_parts, writing=True, size_bytes=size)

    def delete(self, uri: str) -> None:
        bucket, key = _object(uri)
        self._run(uri, lambda client: client.delete_object(Bucket=bucket, Key=key), writing=True)

    def list(self, uri: str) -> Iterator[ObjectStat]:
        """Every object below the folder, page by page, in the order of the keys."""
        bucket, prefix = _split(uri)
        prefix = prefix.rstrip("/") + "/" if prefix.strip("/") else ""
        token: dict[str, str] = {}
        while True:
            page = self._run(uri, _page_of(bucket, prefix, token))
            for entry in page.get("Contents", []):
                if not entry["Key"].endswith("/"):  # a folder's placeholder
                    version = entry["ETag"].strip('"')
                    yield ObjectStat(f"s3://{bucket}/{entry['Key']}", entry["Size"], version)
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def _run(
        self,
        uri: str,
        operation: Callable[[Any], Awaitable[T]],
        *,
        writing: bool = False,
        size_bytes: int = 0,
    ) -> T:
        """Runs `operation(client)` on s3fs's event loop, within the time limit, retried where that may help."""
        filesystem = self.filesystem(own_retries=False)

        async def attempt(limit_s: float) -> T:
            endpoint = _endpoint()
            try:
                async with asyncio.timeout(limit_s):
                    client = await filesystem.set_session()
                    endpoint = client.meta.endpoint_url
                    return await operation(client)
            except Exception as error:
                # s3fs's own methods raise an OSError from the client's error, which says more.
                cause = error.__cause__ if isinstance(error.__cause__, ClientError) else error
                raise storage_error(cause, uri, endpoint, writing=writing) from error

        def attempt_here(limit_s: float) -> T:
            return asyncio.run_coroutine_threadsafe(attempt(limit_s), filesystem.loop).result()

        return self._retry.run(attempt_here, self._limits.fetch_timeout_s + size_bytes / _SLOWEST_BYTES_PER_S)


def _page_of(bucket: str, prefix: str, token: dict[str, str]) -> Callable[[Any], Awaitable[dict[str, Any]]]:
    return lambda client: client.list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=_PAGE_KEYS, **token)


async def _receive(
    client: Any,
    uri: str,
    bucket: str,
    key: str,
    max_bytes: int | None,
    write: Callable[[bytes], object],
    **options: str,
) -> dict[str, Any]:
    """Streams an object to `write` and returns the response's headers."""
    found = await client.get_object(Bucket=bucket, Key=key, **options)
    expected, received = found["ContentLength"], 0
    async with found["Body"] as body:
        try:
            check_size(uri, expected, max_bytes)
            while chunk := await body.read(_CHUNK_BYTES):
                received += len(chunk)
                check_size(uri, received, max_bytes)
                write(chunk)
        except BaseException:
            body.close()  # the rest is not wanted, and must not be read to reuse the connection
            raise
    if received != expected:
        raise ConnectionError(f"{received} of {expected} bytes arrived")
    return found


async def _verify(client: Any, uri: str, answer: dict[str, Any], md5: str, size: int) -> None:
    """The ETag of a plain single PUT is its MD5; where it is not (encryption), the size must do."""
    etag = _version(answer)
    if _MD5.fullmatch(etag) and answer.get("ServerSideEncryption") in {None, "AES256"}:
        if etag != md5:
            raise ConnectionError(f"the store holds other bytes than were sent (ETag {etag}, MD5 {md5})")
    else:
        await _verify_size(client, uri, size)


async def _verify_size(client: Any, uri: str, size: int) -> None:
    split = _object(uri)
    stored = (await client.head_object(Bucket=split[0], Key=split[1]))["ContentLength"]
    if stored != size:
        raise ConnectionError(f"the store holds {stored} of {size} bytes")


def _version(answer: dict[str, Any]) -> str:
    return str(answer.get("ETag", "")).strip('"')


def _split(uri: str) -> tuple[str, str]:
    try:
        return split_s3(uri)
    except ValueError as error:
        raise UriForbidden(str(error), uri) from None


def _object(uri: str) -> tuple[str, str]:
    bucket, key = _split(uri)
    if not key:
        raise UriForbidden(f"{uri} names a bucket; an object has the form s3://bucket/key", uri)
    return bucket, key


def _endpoint() -> str:
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "the AWS endpoint"
