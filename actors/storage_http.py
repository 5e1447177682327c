"""Objects behind http(s): inputs only. Every hop of a redirect is checked, and connects to the checked address."""

import hashlib
import ssl
import time
import typing
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from urllib.parse import urljoin

import httpcore
import httpx

from actors.retries import RetryPolicy, TransientError
from actors.silent_hosts import SilentHosts
from actors.storage_errors import (
    AccessDenied,
    ObjectNotFound,
    ObjectStat,
    StorageError,
    StorageTimeout,
    StorageUnavailable,
    UriForbidden,
    check_size,
)
from actors.storage_guard import check_location, checked_addresses, port_of, split_http
from actors.uris import scheme_of
from schemas.run import FetchLimits

_MAX_REDIRECTS = 3
_MAX_LOCATION_CHARS = 4096
_REDIRECTS = {301, 302, 303, 307, 308}
_TRANSIENT_STATUSES = {408, 425, 429, 500, 502, 503, 504}
_CONNECT_TIMEOUT_S = 5.0
_READ_TIMEOUT_S = 20.0
_CHUNK_BYTES = 2**16
# Without a listed encoding a server may not compress: what is counted is what arrives.
_HEADERS = {"Accept-Encoding": "identity", "User-Agent": "stylecrafter-batch"}


class HttpSource:
    """Reads http(s) objects with GET alone (HEAD is refused or answered differently by too many servers)."""

    def __init__(self, limits: FetchLimits):
        self._limits = limits
        # A strange web server that is down is its rows' failure, and not worth more patience than this.
        self._retry = RetryPolicy(limits.fetch_retries)
        self._silent = SilentHosts()

    def check(self, uri: str) -> None:
        """Whether the URI's host may be connected to, as far as can be told before.

        Raises:
            UriForbidden, StorageUnavailable: see `checked_addresses`.
        """
        with self._silent.asking(uri):
            checked_addresses(uri, self._limits, min(_CONNECT_TIMEOUT_S, self._limits.fetch_timeout_s))

    def stat(self, uri: str, max_bytes: int | None = None) -> ObjectStat:
        """Headers only, where they tell a version and the size; else the object is read once."""
        with self._silent.asking(uri):
            told = self._retry.run(lambda limit_s: self._headers(uri, limit_s), self._limits.fetch_timeout_s)
        if told is None:
            return self.fetch(uri, max_bytes)[1]
        check_size(uri, told.size_bytes, max_bytes)
        return told

    def fetch(self, uri: str, max_bytes: int | None) -> tuple[bytes, ObjectStat]:
        with self._silent.asking(uri):
            return self._retry.run(
                lambda limit_s: self._fetch(uri, max_bytes, limit_s), self._limits.fetch_timeout_s
            )

    def _headers(self, uri: str, limit_s: float) -> ObjectStat | None:
        with self._get(uri, limit_s) as response:
            version, size = _version(response), _length(response)
            return None if version is None or size is None else ObjectStat(uri, size, version)

    def _fetch(self, uri: str, max_bytes: int | None, limit_s: float) -> tuple[bytes, ObjectStat]:
        data = bytearray()
        with self._get(uri, limit_s) as response:
            version, size = _version(response), _length(response)
            check_size(uri, size or 0, max_bytes)
            for chunk in response.iter_raw(_CHUNK_BYTES):
                data += chunk
                check_size(uri, len(data), max_bytes)
        if version is None or size is None:
            version = f"sha256-{hashlib.sha256(data).hexdigest()}"
        return bytes(data), ObjectStat(uri, len(data), version)

    @contextmanager
    def _get(self, uri: str, limit_s: float) -> Iterator[httpx.Response]:
        """The final response, its body not yet read; all its reading together ends within `limit_s`."""
        deadline = time.monotonic() + limit_s
        location = uri
        with _errors_of(uri, limit_s):
            for _ in range(_MAX_REDIRECTS + 1):
                check_location(location, self._limits)
                look_up_s = _left_s(_CONNECT_TIMEOUT_S, deadline)
                addresses = checked_addresses(location, self._limits, look_up_s)
                backend = _PinnedBackend(addresses, port_of(split_http(location)), deadline)
                with (
                    _client(backend) as client,
                    client.stream("GET", location, headers=_HEADERS) as response,
                ):
                    if response.status_code not in _REDIRECTS or "location" not in response.headers:
                        _raise_for_status(response.status_code, uri)
                        yield response
                        return
                    location = _redirected(uri, location, response.headers["location"])
            raise StorageUnavailable(f"{uri} is redirected more than {_MAX_REDIRECTS} times", uri)


def _redirected(uri: str, location: str, target: str) -> str:
    if len(target) > _MAX_LOCATION_CHARS:
        raise UriForbidden(f"{uri} is redirected to an address of {len(target)} characters", uri)
    following = urljoin(location, target)
    if scheme_of(following) not in {"http", "https"}:
        raise UriForbidden(f"{uri} is redirected to {following}, which is no http address", uri)
    return following


def _raise_for_status(status: int, uri: str) -> None:
    if status == 200:
        return
    if status in {404, 410}:
        raise ObjectNotFound(f"{uri} was not found (the server answered {status})", uri)
    if status in {401, 402, 403, 407, 451}:
        raise AccessDenied(f"{uri} may not be read (the server answered {status})", uri)
    error = StorageUnavailable(f"{uri}: the server answered {status}", uri)
    raise TransientError(error) if status in _TRANSIENT_STATUSES else error


def _version(response: httpx.Response) -> str | None:
    if etag := response.headers.get("etag"):
        return etag.replace('"', "")
    modified, length = response.headers.get("last-modified"), response.headers.get("content-length")
    return f"{modified}/{length}" if modified and length else None


def _length(response: httpx.Response) -> int | None:
    text = response.headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() else None


@contextmanager
def _errors_of(uri: str, limit_s: float) -> Iterator[None]:
    try:
        yield
    except (StorageError, TransientError):
        raise
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        raise TransientError(StorageUnavailable(f"{uri}: the server cannot be reached", uri)) from error
    except (httpx.TimeoutException, httpcore.TimeoutException) as error:
        message = f"{uri}: the server did not send all of it within the {limit_s:.0f} s allowed"
        raise TransientError(StorageTimeout(message, uri)) from error
    except httpx.TransportError as error:
        message = f"{uri}: the connection broke off ({type(error).__name__}: {error})"
        raise TransientError(StorageUnavailable(message, uri)) from error
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise StorageUnavailable(f"{uri}: {error}", uri) from error


@lru_cache(1)
def _tls() -> ssl.SSLContext:
    return httpx.create_ssl_context()


def _client(backend: "_PinnedBackend") -> httpx.Client:
    """A client that connects where the backend does, whatever the URL says, and to no proxy."""
    transport = httpx.HTTPTransport(verify=_tls(), trust_env=False)
    # httpx offers no public way to choose the address; the host's name stays in TLS and in the Host header.
    transport._pool = httpcore.ConnectionPool(ssl_context=_tls(), network_backend=backend)
    timeout = httpx.Timeout(_READ_TIMEOUT_S, connect=_CONNECT_TIMEOUT_S)
    return httpx.Client(transport=transport, timeout=timeout, trust_env=False, follow_redirects=False)


class _PinnedBackend(httpcore.SyncBackend):
    """Connects to given addresses and port only, and lets nothing last beyond the deadline."""

    def __init__(self, addresses: list[str], port: int, deadline: float):
        super().__init__()
        self._addresses = addresses
        self._port = port
        self._deadline = deadline

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[typing.Any] | None = None,
    ) -> httpcore.NetworkStream:
        last: Exception | None = None
        for address in self._addresses:
            try:
                left_s = _left_s(timeout, self._deadline)
                stream = super().connect_tcp(address, self._port, left_s, local_address, socket_options)
                return _DeadlineStream(stream, self._deadline)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                last = error
        raise last or httpcore.ConnectError("no address to connect to")


class _DeadlineStream(httpcore.NetworkStream):
    """A stream whose single reads cannot, by trickling bytes, add up to more than the deadline allows."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: float):
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _left_s(timeout, self._deadline))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _left_s(timeout, self._deadline))

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        left_s = _left_s(timeout, self._deadline)
        return _DeadlineStream(self._stream.start_tls(ssl_context, server_hostname, left_s), self._deadline)

    def get_extra_info(self, info: str) -> typing.Any:
        return self._stream.get_extra_info(info)

    def close(self) -> None:
        self._stream.close()


def _left_s(timeout: float | None, deadline: float) -> float:
    left_s = deadline - time.monotonic()
    if left_s <= 0:
        raise httpcore.ReadTimeout("the time allowed for the whole object is over")
    return left_s if timeout is None else min(timeout, left_s)
