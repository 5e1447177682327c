"""A small least-recently-used cache, safe under threads."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from actors import metrics

T = TypeVar("T")


class LruCache(Generic[T]):
    """The most recently used results of an expensive function, bounded by their total size.

    Args:
        limit: what the sizes of the kept values may add up to.
        size_of: the size of a value; by default each counts one.
        name: the cache's name in the metrics.
    """

    def __init__(self, limit: int, size_of: Callable[[T], int] = lambda _: 1, *, name: str):
        self._name = name
        self._limit = limit
        self._size_of = size_of
        self._values: OrderedDict[Hashable, T] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The cached value, or `make()`; two threads that miss at once may both make it."""
        with self._lock:
            hit = key in self._values
            metrics.cache_request(self._name, hit=hit)
            if hit:
                self._values.move_to_end(key)
                return self._values[key]
        value = make()
        with self._lock:
            if key not in self._values:
                self._values[key] = value
                self._size += self._size_of(value)
            while self._size > self._limit and len(self._values) > 1:
                self._size -= self._size_of(self._values.popitem(last=False)[1])
        return value
