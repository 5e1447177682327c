"""An object as a file that is read here and there, for readers that want some parts of it only."""

import io
from collections.abc import Callable
from typing import Any

from actors.storage_errors import ObjectStat


class ObjectFile(io.RawIOBase):
    """Read-only and seekable. Every read is one ranged request, with the store's time limits and retries.

    Args:
        stat: the object; one that is no longer this version is an error.
        read_range: (stat, first byte, number of bytes) to the bytes.
    """

    def __init__(self, stat: ObjectStat, read_range: Callable[[ObjectStat, int, int], bytes]):
        super().__init__()
        self._stat = stat
        self._read_range = read_range
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._stat.size_bytes}[whence]
        self._position = max(0, start + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        size = min(len(buffer), self._stat.size_bytes - self._position)
        if size <= 0:
            return 0
        buffer[:size] = self._read_range(self._stat, self._position, size)
        self._position += size
        return size
