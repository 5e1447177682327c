"""Web servers that do not answer, remembered for a while: a thousand rows must not each wait for the same one."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from actors.storage_errors import StorageError, StorageUnavailable

_FAILURES = 8  # in a row
_REST_S = 120.0
_MAX_HOSTS = 10_000


class SilentHosts:
    """Counts the failures of each host since it last answered. Safe under threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: dict[str, tuple[int, float]] = {}  # host -> failures in a row, when the last one was

    @contextmanager
    def asking(self, uri: str) -> Iterator[None]:
        """Around whatever asks the URI's host.

        Raises:
            StorageUnavailable: it did not answer before, so that it is not asked now.
        """
        host = urlsplit(uri).netloc.rpartition("@")[2].lower()
        with self._lock:
            count, last = self._seen.get(host, (0, 0.0))
        if count >= _FAILURES and time.monotonic() - last < _REST_S:
            message = f"{uri}: {host} failed {count} times in a row and is not asked for {_REST_S:.0f} s"
            raise StorageUnavailable(message, uri)
        try:
            yield
        except StorageUnavailable:
            with self._lock:
                if len(self._seen) >= _MAX_HOSTS:
                    self._seen.clear()
                self._seen[host] = (self._seen.get(host, (0, 0.0))[0] + 1, time.monotonic())
            raise
        except StorageError:  # it answered, if not what was hoped for
            self._forget(host)
            raise
        self._forget(host)

    def _forget(self, host: str) -> None:
        with self._lock:
            self._seen.pop(host, None)
